"""Counts of the paint of one time point, by line, plane and value; kept up to date by changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from napari_unet3d.config import Triple
from napari_unet3d.data.slices import plane_index

OTHER_CODE = 255
"""Stands for label values that are no annotation: negative ones and those above 254."""
_NEVER = np.iinfo(np.int64).max
"""Rank of a slice that claims nothing: later than every other."""
_FEW_VALUES = 16
"""Label values. Up to so many are counted one by one, which is faster than a histogram."""
_HISTOGRAM_VOXELS = 2**16
"""Voxels: a histogram converts them to 8 bytes each, which then fit the processor's cache."""


def to_codes(values: np.ndarray) -> np.ndarray:
    """Return label values as uint8; what does not fit is `OTHER_CODE`.

    The values of uint8 labels stay, 255 too.
    """
    if values.dtype == np.uint8:
        return values
    return np.where((values < 0) | (values >= OTHER_CODE), OTHER_CODE, values).astype(np.uint8)


def count_codes(lines: np.ndarray) -> np.ndarray:
    """Count the codes on each of some lines.

    Parameters
    ----------
    lines
        (n, length) uint8.

    Returns
    -------
    np.ndarray
        (n, largest code + 1) int64. Code 0, no paint, is not counted.
    """
    n_values = int(lines.max(initial=0)) + 1
    counts = np.zeros((len(lines), n_values), np.int64)
    if n_values <= _FEW_VALUES:
        for value in range(1, n_values):
            counts[:, value] = (lines == value).sum(1, dtype=np.uint32)
        return counts
    for line, row in zip(lines, counts, strict=True):
        for start in range(0, len(line), _HISTOGRAM_VOXELS):
            row += np.bincount(line[start : start + _HISTOGRAM_VOXELS], minlength=n_values)
    counts[:, 0] = 0
    return counts


class CrossSlice:
    """The voxels of an xz or yz slice, and how many of each code lie on its lines.

    Parameters
    ----------
    codes
        (depth, width or height) uint8.
    """

    def __init__(self, codes: np.ndarray) -> None:
        self.codes = codes
        self._counts = np.zeros((len(codes), 1), np.int64)
        self._uncounted = 0, len(codes)

    def counts(self) -> np.ndarray:
        """Count the codes on each line; (depth, values)."""
        first, last = self._uncounted
        if first < last:
            painted = first + np.flatnonzero(self.codes[first:last].max(1, initial=0))
            counts = count_codes(self.codes[painted])
            self._counts = widened(self._counts, counts.shape[1])
            self._counts[first:last] = 0
            self._counts[painted, : counts.shape[1]] = counts
            self._uncounted = 0, 0
        return self._counts

    def changed(self, first: int, last: int) -> None:
        """Take note that lines from z = `first` to before `last` have other codes now."""
        start, stop = self._uncounted
        self._uncounted = (min(first, start), max(last, stop)) if start < stop else (first, last)

    def replace(self, first: int, lines: np.ndarray) -> bool:
        """Put other lines (n, length) in from z = `first` on; return whether they differ."""
        last = first + len(lines)
        if np.array_equal(self.codes[first:last], lines):
            return False
        self.codes[first:last] = lines
        self.changed(first, last)
        return True


class PaintCounts:
    """How much is painted on each line and plane of one time point.

    Parameters
    ----------
    shape
        Voxels along z, y, x.

    Attributes
    ----------
    by_zy, by_zx
        (depth, height) and (depth, width): painted voxels on each line along x and along y.
    by_value
        (depth, values): voxels of each code on each xy plane; column 0 is 0.
    totals
        Painted voxels on each plane perpendicular to z, y and x.
    cross
        The xz and yz slices whose voxels are kept, by axis and index.
    """

    def __init__(self, shape: Triple) -> None:
        self.shape = shape
        depth, height, width = shape
        dtype = np.uint16 if max(shape) < 2**16 else np.uint32
        self.by_zy = np.zeros((depth, height), dtype)
        self.by_zx = np.zeros((depth, width), dtype)
        self.by_value = np.zeros((depth, 1), np.int64)
        self.totals = tuple(np.zeros(n, np.int64) for n in shape)
        self.cross: dict[tuple[int, int], CrossSlice] = {}

    # ---- planes that were read

    def set_planes(
        self, first: int, by_zy: np.ndarray, by_zx: np.ndarray, by_value: np.ndarray
    ) -> bool:
        """Take over the counts of planes from z = `first` on; return whether they differ."""
        rows = slice(first, first + len(by_zy))
        self.by_value = widened(self.by_value, by_value.shape[1])
        by_value = widened(by_value, self.by_value.shape[1])
        pairs = ((self.by_zy, by_zy), (self.by_zx, by_zx), (self.by_value, by_value))
        if all(np.array_equal(known[rows], new) for known, new in pairs):
            return False
        for total, known, new in zip(self.totals[1:], *zip(*pairs[:2], strict=True), strict=True):
            total += new.sum(0, dtype=np.int64) - known[rows].sum(0, dtype=np.int64)
        for known, new in pairs:
            known[rows] = new
        self.totals[0][rows] = self.by_value[rows].sum(1)
        return True

    def check_cross(self, z: int, y: int, lines: Mapping[tuple[int, int], np.ndarray]) -> bool:
        """Compare the kept slices with voxels just read; keep these and return whether they differ.

        Parameters
        ----------
        z, y
            Where the voxels begin.
        lines
            By axis and index of the slice: (planes, width) or (planes, rows) uint8.
        """
        differs = False
        for (axis, index), read in lines.items():
            kept = self.cross.get((axis, index))
            if kept is None:
                continue
            if axis == 2:
                rows = slice(y, y + read.shape[1])
                read, part = kept.codes[z : z + len(read)].copy(), read
                read[:, rows] = part
            differs |= kept.replace(z, read)
        return differs

    # ---- changes

    def change(
        self, start: Triple, mask: np.ndarray, old: np.ndarray | int, new: np.ndarray | int
    ) -> None:
        """Count voxels anew that had one code and now have another.

        Parameters
        ----------
        start
            First voxel (z, y, x) of the box they lie in.
        mask
            (z, y, x) bool: which voxels of the box have changed.
        old, new
            The codes: one for all voxels, or uint8 in the shape of the box.
        """
        z, y, x = start
        depth, height, width = mask.shape
        planes = slice(z, z + depth)
        if isinstance(old, int) and isinstance(new, int):
            signs = [((new != 0) - (old != 0), mask)]
        else:
            signs = [(1, mask & (old == 0) & (new != 0)), (-1, mask & (old != 0) & (new == 0))]
        for sign, voxels in signs:
            if sign:
                rows, columns = slice(y, y + height), slice(x, x + width)
                along_x, along_y = _line_sums(voxels, self.by_zy.dtype)
                add = np.add if sign > 0 else np.subtract
                for known, sums in (
                    (self.by_zy[planes, rows], along_x),
                    (self.by_zx[planes, columns], along_y),
                    (self.totals[0][planes], min(along_x, along_y, key=np.size).sum(1, np.uint32)),
                    (self.totals[1][rows], along_x.sum(0, np.uint32)),
                    (self.totals[2][columns], along_y.sum(0, np.uint32)),
                ):
                    add(known, sums, out=known)
        for sign, codes in ((-1, old), (1, new)):
            counts = _count_masked(codes, mask)
            self.by_value = widened(self.by_value, counts.shape[1])
            self.by_value[planes, : counts.shape[1]] += sign * counts
        for (axis, index), kept in self.cross.items():
            place = index - (y if axis == 1 else x)
            if 0 <= place < mask.shape[axis]:
                box = plane_index(axis, place)
                first = x if axis == 1 else y
                here = mask[box]
                lines = kept.codes[planes, first : first + here.shape[1]]
                np.copyto(lines, new if isinstance(new, int) else new[box], where=here)
                kept.changed(z, z + depth)

    # ---- rows

    def count_slices(self, order: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Count the voxels that belong to each slice.

        Parameters
        ----------
        order
            Axis and index of the slices in the order of their claims; those of axis 1 and 2 are
            in `cross`.

        Returns
        -------
        list of np.ndarray
            For each slice in this order: voxels of each code.
        """
        rank = self.rank(order)
        across = {axis: [i for a, i in order if a == axis] for axis in (1, 2)}
        lines = {key: kept.counts() for key, kept in self.cross.items()}
        xy = widened(self.by_value.copy(), max((n.shape[1] for n in lines.values()), default=0))
        claimed = rank[0] < _NEVER
        for axis in (1, 2):
            for index in across[axis]:
                counts = lines[axis, index]
                z = np.flatnonzero(claimed & (rank[0] > rank[axis][index]))
                xy[z, : counts.shape[1]] -= counts[z]
        x = np.array(across[2], np.intp)
        for index in across[1]:
            # Voxels on an xz and a yz slice were subtracted twice.
            codes = self.cross[1, index].codes[:, x]
            earlier = np.maximum(rank[1][index], rank[2][x]) < rank[0][:, None]
            z, nth = np.nonzero((codes != 0) & earlier & claimed[:, None])
            np.add.at(xy, (z, codes[z, nth]), 1)
        counts_of_slices = []
        for axis, index in order:
            if axis == 0:
                counts_of_slices.append(xy[index])
                continue
            kept = self.cross[axis, index]
            other = np.array(across[3 - axis], np.intp)
            other = other[rank[3 - axis][other] < rank[axis][index]]
            own = rank[0] > rank[axis][index]
            lost = count_codes(kept.codes[own][:, other].reshape(1, -1))[0]
            row = lines[axis, index][own].sum(0)
            row[: len(lost)] -= lost
            counts_of_slices.append(row)
        return counts_of_slices

    def rank(self, order: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the place in the order of claims of every plane, by axis."""
        z, y, x = (np.full(n, _NEVER) for n in self.shape)
        rank = z, y, x
        for place, (axis, index) in enumerate(order):
            rank[axis][index] = place
        return rank


def _line_sums(mask: np.ndarray, dtype: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Count the true voxels on each line along x (z, y), and along y (z, x)."""
    bits = np.ascontiguousarray(mask).view(np.uint8)
    if mask.shape[1] == 1:
        return bits[:, 0].sum(1, dtype, keepdims=True), bits[:, 0]
    if mask.shape[2] == 1:
        return bits[:, :, 0], bits[:, :, 0].sum(1, dtype, keepdims=True)
    return bits.sum(2, dtype), bits.sum(1, dtype)


def _count_masked(codes: np.ndarray | int, mask: np.ndarray) -> np.ndarray:
    """Count the codes of the masked voxels of each plane; (planes, values)."""
    if isinstance(codes, int):
        counts = np.zeros((len(mask), codes + 1), np.int64)
        if codes:
            counts[:, codes] = mask.reshape(len(mask), -1).sum(1, dtype=np.uint32)
        return counts
    return count_codes(np.where(mask, codes, np.uint8(0)).reshape(len(mask), -1))


def widened(counts: np.ndarray, n_values: int) -> np.ndarray:
    """Return counts (n, values) with at least `n_values` columns."""
    missing = n_values - counts.shape[1]
    return np.pad(counts, ((0, 0), (0, missing))) if missing > 0 else counts
