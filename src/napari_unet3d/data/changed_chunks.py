"""Finds the chunks of labels that differ from what was saved, without a copy of all labels."""

from __future__ import annotations

import time as clock
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np

Chunk = tuple[int, ...]
"""Position of a chunk in the grid of chunks."""
Box = tuple[tuple[int, int], ...]
"""First and last position + 1 along each axis."""

_MOST_POINTS = 2**17
"""Voxels. The chunks of more changed voxels are those of their bounding box, which is quicker."""


class ChangedChunks:
    """Knows which chunks of labels may differ from what was saved.

    It is told what changed with the same calls as a `SliceLedger`. A chunk is compared by its
    checksum, so that an undone stroke costs no writing, and changes that nobody told are found.

    Parameters
    ----------
    labels
        Integers, ZYX or TZYX; anything that is indexed as numpy is.
    chunks
        Sizes of a chunk along each axis of the labels.
    saved
        Checksums of the chunks that are saved and hold paint, as `checksum` returns them.

    Attributes
    ----------
    labels
        As given.
    was_surprised
        False. A change is always found by the checksum, so it need not be told exactly.
    """

    was_surprised = False

    def __init__(
        self, labels: Any, chunks: tuple[int, ...], saved: Mapping[Chunk, int] | None = None
    ) -> None:
        self.labels = labels
        self._shape = tuple(int(n) for n in labels.shape)
        self._chunks = tuple(int(n) for n in chunks)
        self._grid = tuple(-(-n // c) for n, c in zip(self._shape, self._chunks, strict=True))
        self._saved = {chunk: value for chunk, value in (saved or {}).items() if value}
        self._told: dict[Chunk, None] = {}  # a set that keeps its order
        self._doubted: Iterator[Chunk] = iter(())
        self._doubts = False

    # ---- what may have changed

    def change(
        self,
        box: tuple[slice, ...],
        old: Any = None,
        new: Any = None,
        mask: np.ndarray | None = None,
    ) -> None:
        """Take note of voxels of a box that have other values now; the values do not matter."""
        bounds = [s.indices(n)[:2] for s, n in zip(box, self._shape, strict=True)]
        self._told.update(dict.fromkeys(self._of_box(bounds)))

    def change_at(self, indices: tuple[np.ndarray, ...], old: Any = None, new: Any = None) -> None:
        """Take note of changed voxels that are given by index arrays, one for each axis."""
        arrays = [np.asarray(i).ravel() for i in np.broadcast_arrays(*indices)]
        if not len(arrays[0]):
            return
        arrays = [
            np.where(i < 0, i.astype(np.int64) + n, i) if i.min() < 0 else i
            for i, n in zip(arrays, self._shape, strict=True)
        ]
        if len(arrays[0]) > _MOST_POINTS:
            self._told.update(
                dict.fromkeys(self._of_box([(int(i.min()), int(i.max()) + 1) for i in arrays]))
            )
            return
        positions = tuple(
            i.astype(np.int64) // c for i, c in zip(arrays, self._chunks, strict=True)
        )
        flat = np.unique(np.ravel_multi_index(positions, self._grid))
        for position in zip(*np.unravel_index(flat, self._grid), strict=True):
            self._told[tuple(int(p) for p in position)] = None

    def doubt(self, box: tuple[slice, ...] | None = None) -> None:
        """Have a box compared with what was saved, or everything, since it may have changed."""
        if box is not None:
            self.change(box)
        elif not self._doubts:
            self._doubted, self._doubts = self._everything(), True

    def is_done(self) -> bool:
        """Whether nothing is left to be compared."""
        return not self._told and not self._doubts

    def is_told(self) -> bool:
        """Whether a change was told that was not taken yet."""
        return bool(self._told)

    # ---- what has changed

    def take(
        self, seconds: float | None = None, *, told_only: bool = False
    ) -> Iterator[tuple[Box, np.ndarray]]:
        """Find changed chunks; from then on they count as saved.

        Parameters
        ----------
        seconds
            Stop after about so long; None for no limit. One chunk is always looked at.
        told_only
            Leave what is only doubted for later.

        Yields
        ------
        box : tuple of (int, int)
            Where the chunk lies.
        labels : np.ndarray
            A copy.
        """
        stop = None if seconds is None else clock.perf_counter() + seconds
        while (self._told or not told_only) and (chunk := self._next()) is not None:
            box = self.box_of(chunk)
            part = np.array(self.labels[tuple(slice(a, b) for a, b in box)])
            value = checksum(part)
            if value != self._saved.get(chunk, 0):
                self._saved[chunk] = value
                yield box, part
            if stop is not None and clock.perf_counter() > stop:
                return

    def saved(self) -> dict[Chunk, int]:
        """Checksums of the chunks that count as saved and hold paint."""
        return {chunk: value for chunk, value in self._saved.items() if value}

    def box_of(self, chunk: Chunk) -> Box:
        """Where a chunk lies."""
        return tuple(
            (i * c, min((i + 1) * c, n))
            for i, c, n in zip(chunk, self._chunks, self._shape, strict=True)
        )

    def _next(self) -> Chunk | None:
        if self._told:
            chunk = next(iter(self._told))
            del self._told[chunk]
            return chunk
        doubted = next(self._doubted, None)
        self._doubts = doubted is not None
        return doubted

    def _of_box(self, bounds: Iterable[tuple[int, int]]) -> Iterator[Chunk]:
        pairs = list(zip(bounds, self._chunks, strict=True))
        if any(b <= a for (a, b), _ in pairs):
            return
        yield from product(*(range(a // c, (b - 1) // c + 1) for (a, b), c in pairs))

    def _everything(self) -> Iterator[Chunk]:
        """All chunks; of labels that know where paint is, those with paint, now or saved."""
        painted = getattr(self.labels, "painted", None)
        if painted is None:
            yield from product(*map(range, self._grid))
            return
        sizes = self.labels.chunks
        found = set(self._saved)
        for chunk in tuple(painted):
            found.update(
                self._of_box(
                    (i * size, min((i + 1) * size, n))
                    for i, size, n in zip(chunk, sizes, self._shape, strict=True)
                )
            )
        yield from sorted(found)


def checksum(labels: np.ndarray) -> int:
    """A number that differs for different labels (any integer dtype, C order); 0 without paint."""
    if not labels.any():
        return 0
    return zlib.crc32(np.ascontiguousarray(labels).tobytes()) or 1


def checksums(labels: Any, chunks: tuple[int, ...]) -> dict[Chunk, int]:
    """Read labels that are saved; return the checksums of the chunks that hold paint."""
    reader = ChangedChunks(labels, chunks)
    reader.doubt()
    for _ in reader.take():
        pass
    return reader.saved()
