"""Which slices of one time point hold paint, and which voxels belong to each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from napari_unet3d.data.claims import claim_slices
from napari_unet3d.data.paint_counts import OTHER_CODE, CrossSlice, PaintCounts
from napari_unet3d.data.slices import SliceRef, count_labels, plane_index, read_slice, space

_DENSE_SHARE = 0.5
"""Share of the voxels: labels that fill more of a volume are taken for xy slices, since nobody
paints so much by hand."""
_MOST_ACROSS = 128
"""Slices: nobody paints more xz and yz slices by hand; more of them come from a brush in 3D."""


@dataclass(frozen=True)
class PaintedSlice:
    """A row of the slice ledger.

    Parameters
    ----------
    ref
        The slice.
    counts
        Label value → voxels, of the paint that belongs to this slice: a voxel where slices
        cross belongs to one of them.
    state
        "complete" when every voxel of the slice is labelled.
    n_voxels
        Area of the slice.
    """

    ref: SliceRef
    counts: Mapping[int, int]
    state: Literal["partial", "complete"]
    n_voxels: int


class PaintedSlices:
    """Finds the painted slices of one time point from the counts of its paint.

    Parameters
    ----------
    labels
        Integers, ZYX or TZYX.
    time
        The time point.
    counts
        Painted voxels by line, plane and value, which are kept up to date from outside.
    read
        Reads a box (z, y, x) of this time point as codes, 0 where nothing is painted.
    exact
        Whether a code stands for one label value; else rare values share one code.

    Attributes
    ----------
    rows
        The painted slices by axis and index, as `find` left them.
    """

    def __init__(
        self,
        labels: Any,
        time: int,
        counts: PaintCounts,
        read: Callable[[tuple[slice, ...]], np.ndarray],
        exact: bool,
    ) -> None:
        self.rows: list[PaintedSlice] = []
        self._labels, self._time, self._counts = labels, time, counts
        self._shape, self._read, self._exact = space(labels), read, exact
        self._rank: tuple[np.ndarray, ...] | None = None
        # Rows by everything they say: an unchanged row is not made again.
        self._known: dict[tuple[int, int, bytes, bool], PaintedSlice] = {}

    def find(self) -> Iterator[None]:
        """Find the slices; yields between steps of a few milliseconds."""
        counts = self._counts
        dense = bool(counts.totals[0].sum() > _DENSE_SHARE * np.prod(self._shape))
        claims: list[tuple[int, int]] = []
        across: set[tuple[int, int]] = set()
        if not dense:
            for claim in claim_slices(counts.by_zy, counts.by_zx, counts.totals, self._read_across):
                claims.append(claim)
                if claim[0] != 0:
                    self._read_across(*claim)
                    across.add(claim)
                    if len(across) > _MOST_ACROSS:
                        dense = True
                        break
                yield
        order = None if dense else claims
        for key in counts.cross.keys() - (set() if dense else across):
            del counts.cross[key]
        self._rank = None if order is None else counts.rank(order)
        self.rows = self._make_rows(order)

    def claimed(self, ref: SliceRef, values: np.ndarray) -> np.ndarray:
        """Return the values (2D) of a slice, 0 where they belong to a slice that crosses it."""
        if self._rank is None:
            return values
        values = values.copy()
        for axis in {0, 1, 2} - {ref.axis}:
            earlier = np.flatnonzero(self._rank[axis] < self._rank[ref.axis][ref.index])
            values[plane_index(axis - (axis > ref.axis), earlier)] = 0
        return values

    def _read_across(self, axis: int, index: int) -> np.ndarray:
        """Return the codes of an xz or yz slice, and keep them."""
        counts = self._counts
        kept = counts.cross.get((axis, index))
        if kept is None:
            lines = (counts.by_zy if axis == 1 else counts.by_zx)[:, index]
            painted = np.flatnonzero(lines)
            planes = slice(int(painted[0]), int(painted[-1]) + 1) if len(painted) else slice(0)
            box = [planes, slice(None), slice(None)]
            box[axis] = slice(index, index + 1)
            codes = np.zeros((self._shape[0], self._shape[3 - axis]), np.uint8)
            codes[planes] = np.squeeze(self._read(tuple(box)), axis)
            kept = counts.cross[axis, index] = CrossSlice(codes)
        return kept.codes

    def _make_rows(self, order: list[tuple[int, int]] | None) -> list[PaintedSlice]:
        counts = self._counts
        if order is None:
            planes = [(0, int(z)) for z in np.flatnonzero(counts.totals[0])]
            voxels = [counts.by_value[z] for _, z in planes]
        else:
            planes, voxels = order, counts.count_slices(order)
        areas = [int(np.prod(self._shape)) // n for n in self._shape]
        complete = [t == area for t, area in zip(counts.totals, areas, strict=True)]
        rows, known = [], self._known
        self._known = {}
        for (axis, index), row in sorted(zip(planes, voxels, strict=True), key=lambda r: r[0]):
            key = axis, index, row.tobytes(), bool(complete[axis][index])
            same = known.get(key)
            if same is not None:
                rows.append(same)
                self._known[key] = same
                continue
            ref = SliceRef(axis, index, self._time)
            values = {value: n for value, n in enumerate(row.tolist()) if n}
            if OTHER_CODE in values and not self._exact:
                values = count_labels(self.claimed(ref, read_slice(self._labels, ref)))
            state: Literal["partial", "complete"] = (
                "complete" if complete[axis][index] else "partial"
            )
            painted = PaintedSlice(ref, values, state, areas[axis])
            rows.append(painted)
            if self._exact or OTHER_CODE not in values:
                self._known[key] = painted
        return rows
