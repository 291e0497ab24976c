"""Two stacks of one shape, read piece by piece, so that they may exceed the memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import Any

from napari_unet3d.data.slices import SliceRef, n_times, space

PIECE_VOXELS = 2**22
"""Voxels that are compared at once: 4 MB of labels, 40 MB with the temporary arrays."""
Range = tuple[int, int]


def shared_pieces(
    first: Any, second: Any, most_voxels: int = PIECE_VOXELS
) -> Iterator[tuple[int, tuple[Range, ...]]]:
    """Time points and boxes (z, y, x) that cover a stack; no chunk of a zarr lies in two boxes."""
    shape = space(first)
    step = [1, 1, shape[2]]
    chunks = [c for c in (_chunk(first), _chunk(second)) if c is not None]
    if chunks:
        step = [min(max(sizes), n) for *sizes, n in zip(*chunks, shape, strict=True)]
    for axis in (2, 1, 0):
        more = max(1, most_voxels // prod(step))
        step[axis] = min(step[axis] * more, shape[axis])
    ranges = [
        [(a, min(a + s, n)) for a in range(0, n, max(1, s))]
        for s, n in zip(step, shape, strict=True)
    ]
    for time in range(n_times(first)):
        for box in product(*ranges):
            yield time, box


def planes_in(
    slices: Sequence[SliceRef], time: int, box: Sequence[Range]
) -> Iterator[tuple[Any, ...]]:
    """Index in the array of a piece, for every slice that crosses the piece."""
    for ref in slices:
        start, stop = box[ref.axis]
        if ref.time == time and start <= ref.index < stop:
            yield (*(slice(None),) * ref.axis, ref.index - start)


def _chunk(array: Any) -> tuple[int, ...] | None:
    """Chunk along z, y, x of a zarr; None for other arrays."""
    chunks = getattr(array, "chunks", None)
    if not chunks:
        return None
    return tuple(int(c if isinstance(c, int) else max(c)) for c in chunks[-3:])
