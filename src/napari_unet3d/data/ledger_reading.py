"""Reads planes of an annotation and counts their paint, perhaps in another thread."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_unet3d.data.paint_counts import OTHER_CODE, to_codes
from napari_unet3d.data.slices import at_time, count_labels, space

CrossKey = tuple[int, int]
"""Axis and index of an xz or yz slice."""


@dataclass(frozen=True, eq=False)
class CountedPlanes:
    """The paint of some xy planes.

    Parameters
    ----------
    time, first
        Time point and position of the first plane.
    by_zy, by_zx, by_value
        See `PaintCounts`, for these planes.
    lines
        By first row, and by key: the codes of these planes on xz and yz slices that are kept.
    """

    time: int
    first: int
    by_zy: np.ndarray
    by_zx: np.ndarray
    by_value: np.ndarray
    lines: tuple[tuple[int, dict[CrossKey, np.ndarray]], ...]


@dataclass(frozen=True, eq=False)
class PlaneBlock:
    """Some xy planes that are to be read, and how.

    Parameters
    ----------
    labels
        Integers, ZYX or TZYX; in memory, zarr or dask.
    time, first, last
        The planes from z = `first` to before `last` of a time point.
    rows
        Rows that are read at once.
    encode
        See `SliceLedger`.
    cross
        The xz and yz slices whose voxels are wanted.
    """

    labels: Any
    time: int
    first: int
    last: int
    rows: int
    encode: Callable[[np.ndarray], np.ndarray] | None
    cross: tuple[CrossKey, ...]

    def count(self) -> Generator[None, None, CountedPlanes]:
        """Read and count; yields after each part, and returns `CountedPlanes`."""
        first, last = self.first, self.last
        _, height, width = space(self.labels)
        dtype = np.uint16 if max(height, width) < 2**16 else np.uint32
        by_zy = np.zeros((last - first, height), dtype)
        by_zx = np.zeros((last - first, width), dtype)
        by_value = np.zeros((last - first, OTHER_CODE + 1), np.int64)
        lines = []
        for y in range(0, height, self.rows):
            rows = slice(y, min(y + self.rows, height))
            box = at_time(self.labels, self.time, (slice(first, last), rows, slice(None)))
            block = np.asarray(self.labels[box])
            if self.encode is not None:
                block = self.encode(block)
            # As unsigned numbers, negative values count as paint too.
            unsigned = np.ascontiguousarray(block).view(f"u{block.dtype.itemsize}")
            painted = np.flatnonzero(unsigned.reshape(len(block), -1).max(1))
            for i in painted:
                codes = to_codes(block[i])
                paint = codes != 0
                by_zy[i, rows] = paint.sum(1, dtype=dtype)
                by_zx[i] += paint.sum(0, dtype=dtype)
                for value, voxels in count_labels(codes).items():
                    by_value[i, value] += voxels
            if self.cross:
                lines.append((y, _lines(to_codes(block), y, self.cross)))
            yield
        by_value = by_value[:, : int(np.flatnonzero(by_value.any(0)).max(initial=0)) + 1]
        return CountedPlanes(self.time, first, by_zy, by_zx, by_value, tuple(lines))


@dataclass(eq=False)
class Reading:
    """Blocks of planes that another thread reads for a ledger.

    The ledger calls `disturb` when voxels of these planes change meanwhile; what was read is then
    worthless, since nobody knows whether it holds the change.

    Parameters
    ----------
    blocks
        The planes, in order; of one time point.
    """

    blocks: tuple[PlaneBlock, ...]
    counted: tuple[CountedPlanes, ...] = ()
    is_disturbed: bool = field(default=False, init=False)

    def read(self) -> bool:
        """Read and count; call it in the other thread. Returns whether that went well."""
        try:
            self.counted = tuple(_result(block.count()) for block in self.blocks)
        except Exception:  # whoever reads it again in the main thread shows the error
            return False
        return True

    def disturb_all(self) -> None:
        """Take note that any plane may have changed."""
        self.is_disturbed = True

    def disturb(self, time: int, first: int, last: int) -> None:
        """Take note that planes from z = `first` to before `last` are changed."""
        start, stop = self.blocks[0].first, self.blocks[-1].last
        if self.blocks[0].time == time and first < stop and start < last:
            self.is_disturbed = True


def _lines(codes: np.ndarray, y: int, cross: tuple[CrossKey, ...]) -> dict[CrossKey, np.ndarray]:
    """The codes (planes, rows, width) on xz and yz slices."""
    rows = range(y, y + codes.shape[1])
    return {
        (axis, index): codes[:, index - y].copy() if axis == 1 else codes[:, :, index].copy()
        for axis, index in cross
        if axis == 2 or index in rows
    }


def _result(steps: Generator[None, None, CountedPlanes]) -> CountedPlanes:
    """Run a generator to its end, and return what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            counted: CountedPlanes = end.value
            return counted


def block_shape(labels: Any, block_bytes: int) -> tuple[int, int]:
    """Return how many xy planes, and how many rows of them, are read at once."""
    depth, height, width = space(labels)
    itemsize = np.dtype(labels.dtype).itemsize
    chunks = getattr(labels, "chunks", None)
    # Blocks that cut through chunks would decode them several times.
    planes, rows = (_first(chunks[-3]), _first(chunks[-2])) if chunks else (1, 1)
    row_bytes = max(1, planes * rows * width * itemsize)
    rows = min(max(1, height), rows * max(1, block_bytes // row_bytes))
    if rows >= height:
        planes *= max(1, block_bytes // max(1, planes * height * width * itemsize))
    return max(1, min(planes, depth)), max(1, rows)


def _first(chunk: int | tuple[int, ...]) -> int:
    """Size of chunks along an axis, of which dask gives all and zarr the first."""
    return max(1, chunk if isinstance(chunk, int) else max(chunk, default=1))
