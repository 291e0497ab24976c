"""Finds the slices of a layer that a running training does not know yet, and copies them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from napari.layers import Labels

from napari_unet3d.data.joined_labels import SlicePaint
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef, read_slice
from napari_unet3d.widgets.viewer.undo import UndoWatch

_FINISHED_SECONDS, _PARTIAL_SECONDS = 1.0, 3.0
"""Seconds without a change after which a slice is handed over, a complete and a partial one: while
strokes follow each other, the slice is not what the user means."""

_Box = tuple[tuple[int, int], ...]
"""First position, and one past the last, along z, y, x."""


class Handover:
    """Knows what a training was given of a layer, and what has changed since.

    The layer is read slice by slice, in the main thread, and never while the mouse is down.

    Parameters
    ----------
    layer
        The annotation that is trained on.
    slices, held_out
        Its painted and its held-out slices as the training knows them.
    """

    def __init__(
        self,
        layer: Labels,
        slices: Sequence[PaintedSlice] = (),
        held_out: Collection[SliceRef] = (),
    ) -> None:
        self.layer = layer
        self._undo_watch = UndoWatch(layer)
        self._rows = {s.ref: s for s in slices}
        self._held_out = frozenset(held_out)
        self._known, self._known_held_out = dict(self._rows), self._held_out
        self._touched: set[SliceRef] = set()
        self._changed_at: dict[SliceRef, float] = {}
        self._edited: dict[tuple[int, SliceRef | None], tuple[_Box, float]] = {}
        """By time point and plane, None for several: the box that was edited since the last
        `update`, and when."""

    def update(
        self, slices: Sequence[PaintedSlice], held_out: Collection[SliceRef], now: float
    ) -> None:
        """Take note of the slices as they are at a time `now`, in seconds."""
        rows = {s.ref: s for s in slices}
        for ref in rows.keys() | self._rows.keys():
            if rows.get(ref) != self._rows.get(ref):
                self._changed_at[ref] = now
        self._rows, self._held_out = rows, frozenset(held_out)
        self._touch_edited()

    def painted(self, atoms: Any, now: float) -> None:
        """Take note of a paint event of the layer (its `value`): counts may not show a change."""
        for atom in atoms:
            shape = self.layer.data.shape
            bounds = [_bounds(where, n) for where, n in zip(atom[0], shape, strict=True)]
            if all(start < stop for start, stop in bounds):
                time, box = (bounds[0][0] if len(bounds) == 4 else 0), tuple(bounds[-3:])
                plane = next((ref for ref in _planes(box, time)), None)
                known = self._edited.get((time, plane), (box, now))[0]
                self._edited[time, plane] = _union(known, box), now

    def redrawn(self, ref: SliceRef | None, now: float) -> None:
        """Take note that a slice may have changed, as well as those of an undo or redo."""
        self.painted(self._undo_watch.replayed_atoms(), now)
        if ref is not None:
            self._touch(ref, now)

    def _touch_edited(self) -> None:
        """Touch slices that hold what was edited: its plane or, without one, all that cross it."""
        for (time, _), (box, at) in self._edited.items():
            holding = [ref for ref in _planes(box, time) if ref in self._rows] or [
                ref
                for ref in self._rows
                if ref.time == time and box[ref.axis][0] <= ref.index < box[ref.axis][1]
            ]
            for ref in holding:
                self._touch(ref, at)
        self._edited.clear()

    def _touch(self, ref: SliceRef, now: float) -> None:
        if ref in self._rows:
            self._touched.add(ref)
            self._changed_at[ref] = max(now, self._changed_at.get(ref, now))

    def is_behind(self) -> bool:
        """Whether the training does not know the layer as it is."""
        return bool(self._unknown())

    def due(self, now: float) -> list[SliceRef]:
        """The slices to hand over at a time `now`; none while the mouse is down."""
        if self._undo_watch.stroke_is_open():
            return []
        return [
            ref
            for ref in self._unknown()
            if now - self._changed_at.get(ref, 0.0) >= self._wait(ref)
        ]

    def take(self, ref: SliceRef) -> SlicePaint:
        """Copy a slice as it is; from now on the training knows it."""
        self._touched.discard(ref)
        held_out = ref in self._held_out
        self._known.pop(ref, None)
        if ref in self._rows:
            self._known[ref] = self._rows[ref]
        self._known_held_out = self._known_held_out - {ref} | ({ref} if held_out else set())
        return SlicePaint(ref, np.array(read_slice(self.layer.data, ref)), held_out)

    def _unknown(self) -> list[SliceRef]:
        refs = self._rows.keys() | self._known.keys()
        repainted = {ref for ref in refs if self._rows.get(ref) != self._known.get(ref)}
        moved = {r for r in self._held_out ^ self._known_held_out if r in refs}
        return sorted(repainted | moved | self._touched)

    def _wait(self, ref: SliceRef) -> float:
        row = self._rows.get(ref)
        partial = row is not None and row.state == "partial" and ref not in self._held_out
        return _PARTIAL_SECONDS if partial else _FINISHED_SECONDS


def _planes(box: _Box, time: int) -> list[SliceRef]:
    """The slices that a box of ZYX bounds lies in."""
    ends = enumerate(box)
    return [SliceRef(axis, start, time) for axis, (start, stop) in ends if stop - start == 1]


def _union(one: _Box, other: _Box) -> _Box:
    return tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))


def _bounds(where: slice | np.ndarray, n: int) -> tuple[int, int]:
    """First position, and one past the last, of what an edit of napari changed along an axis."""
    if isinstance(where, slice):
        start, stop, _ = where.indices(n)
        return start, stop
    return (int(np.min(where)), int(np.max(where)) + 1) if np.size(where) else (0, 0)
