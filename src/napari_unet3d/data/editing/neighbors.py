"""Annotated slices beside a slice."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef


def neighbors(
    painted: Iterable[PaintedSlice], ref: SliceRef, held_out: Collection[SliceRef]
) -> list[SliceRef]:
    """Find the other annotated slices of the same orientation and time point, nearest first.

    Held-out slices are left out. Copies of them would be trained on, and the scores that are
    measured on them would be too good.

    Parameters
    ----------
    painted
        The slice ledger.
    ref
        The slice.
    held_out
        The held-out slices.
    """
    found = [
        s.ref
        for s in painted
        if (s.ref.axis, s.ref.time) == (ref.axis, ref.time)
        and s.ref != ref
        and s.ref not in held_out
    ]
    return sorted(found, key=lambda r: (abs(r.index - ref.index), r.index))


def around(near: Iterable[SliceRef], ref: SliceRef) -> tuple[SliceRef | None, SliceRef | None]:
    """The nearest slices before and after a slice, among its neighbors; None where none is."""
    near = list(near)
    before = [r for r in near if r.index < ref.index]
    after = [r for r in near if r.index > ref.index]
    return max(before, default=None), min(after, default=None)
