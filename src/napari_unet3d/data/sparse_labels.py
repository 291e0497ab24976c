"""Labels of a stack that is larger than the memory: only the chunks that hold paint exist."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Self

import numpy as np
import zarr

_CHUNK = 512
"""Voxels along y and x. One stroke rewrites 256 kB; a complete slice of 20000² is 1600 files."""

_MOST_KEPT = 64
"""Chunks that are kept unpacked, 16 MB: those of the slice in view, up to 4096². Reading one from
zarr takes 1 ms, and an action on a slice reads it four times."""

_MARK = "napari-unet3d sparse labels"
"""Attribute of the zarr array."""

Chunk = tuple[int, ...]
Box = tuple[tuple[int, int], ...]


class SparseLabels:
    """Labels (uint8) in chunks of one z plane, kept in a zarr array; indexed as numpy is.

    Unlike a zarr array it knows which chunks hold paint, so that looking for paint does not read
    the whole stack.

    Parameters
    ----------
    array
        An empty zarr array, from `create`.
    path
        Folder of the zarr; None when it lies in the memory (compressed).

    Attributes
    ----------
    painted
        The chunks that were written to.
    """

    def __init__(self, array: Any, path: Path | None) -> None:
        self._array = array
        self.path = path
        self.shape: tuple[int, ...] = tuple(int(n) for n in array.shape)
        self.ndim = len(self.shape)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self.chunks: tuple[int, ...] = tuple(int(n) for n in array.chunks)
        self.painted: set[Chunk] = set()
        self._kept: OrderedDict[Chunk, np.ndarray] = OrderedDict()
        """Chunks unpacked, those used last at the end; their arrays are never written to."""
        self._n_writes = 0
        self._lock = threading.Lock()

    @classmethod
    def create(cls, shape: tuple[int, ...], path: Path | None = None) -> Self:
        """Make empty labels, ZYX or TZYX.

        Parameters
        ----------
        shape
            As numpy's.
        path
            Folder to be made, ending in .zarr, which `read_labels` opens; None for memory.
        """
        store: Any = zarr.storage.MemoryStore() if path is None else str(path)
        array = zarr.create_array(
            store,
            shape=shape,
            dtype="uint8",
            chunks=(1,) * (len(shape) - 2) + (min(_CHUNK, shape[-2]), min(_CHUNK, shape[-1])),
            zarr_format=2,
            fill_value=0,
            chunk_key_encoding={"name": "v2", "separator": "/"},
            attributes={"_ARRAY_DIMENSIONS": list("tzyx"[-len(shape) :]), _MARK: True},
        )
        return cls(array, path)

    @classmethod
    def open(cls, path: Path) -> Self | None:
        """Open the folder of labels that were made by `create`; None when it is something else."""
        array = zarr.open(store=str(path), mode="r")
        if not isinstance(array, zarr.Array) or not array.attrs.get(_MARK):
            return None
        labels = cls(array, path)
        for file in path.rglob("*"):
            chunk = file.relative_to(path).parts
            if len(chunk) == labels.ndim and all(part.isdigit() for part in chunk):
                labels.painted.add(tuple(map(int, chunk)))
        return labels

    def snapshot(self) -> SparseLabels:
        """Copy the painted chunks into the memory; later paint does not change the copy."""
        copy = SparseLabels.create(self.shape)
        for chunk in tuple(self.painted):
            box = _slices(self._box_of(chunk))
            copy._array[box] = self._array[box]
        copy.painted = set(self.painted)
        return copy

    def painted_planes(self, time: int = 0) -> list[int]:
        """Positions along z that may hold paint at a time point, sorted."""
        return sorted({c[-3] for c in self.painted if self.ndim == 3 or c[0] == time})

    def __getitem__(self, key: Any) -> np.ndarray:
        keys = self._full(key)
        if (points := _points(keys)) is not None:
            return self._read_points(points)
        box = self._bounds(keys)
        values = np.zeros([b - a for a, b in box], self.dtype)
        for chunk in self._meeting(box, self.painted):
            whole = self._box_of(chunk)
            inside, outside = _overlap(whole, box)
            values[_slices(outside)] = self._read(chunk)[_within(inside, whole)]
        taken: np.ndarray = values[self._left(keys)]
        return taken

    def __setitem__(self, key: Any, value: Any) -> None:
        keys = self._full(key)
        if (points := _points(keys)) is not None:
            self._write_points(points, np.asarray(value, self.dtype))
            return
        box = self._bounds(keys)
        if any(isinstance(k, slice) and k.step not in (None, 1) for k in keys):
            raise IndexError("labels are written without steps")
        shape = [b - a for a, b in box]
        left = [n for n, k in zip(shape, keys, strict=True) if isinstance(k, slice)]
        values = np.broadcast_to(np.asarray(value, self.dtype), left).reshape(shape)
        for chunk in self._meeting(box, None):
            whole = self._box_of(chunk)
            inside, outside = _overlap(whole, box)
            part = values[_slices(outside)]
            if chunk in self.painted or part.any():
                block = self._read(chunk).copy()
                block[_within(inside, whole)] = part
                self._write(chunk, block)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype=dtype)

    # ---- inside

    def _read(self, chunk: Chunk) -> np.ndarray:
        """The labels of a chunk, which are not to be written to."""
        with self._lock:
            if (kept := self._kept.get(chunk)) is not None:
                self._kept.move_to_end(chunk)
                return kept
            n_writes = self._n_writes
        block = np.asarray(self._array[_slices(self._box_of(chunk))])
        with self._lock:
            if n_writes == self._n_writes:  # otherwise it may be older than what was written
                self._keep(chunk, block)
        return block

    def _write(self, chunk: Chunk, block: np.ndarray) -> None:
        with self._lock:
            self._n_writes += 1
            self._kept.pop(chunk, None)
        self._array[_slices(self._box_of(chunk))] = block
        with self._lock:
            self._n_writes += 1
            self._keep(chunk, block)
        self.painted.add(chunk)

    def _keep(self, chunk: Chunk, block: np.ndarray) -> None:
        self._kept[chunk] = block
        if len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)

    def _full(self, key: Any) -> tuple[Any, ...]:
        keys = key if isinstance(key, tuple) else (key,)
        at = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
        rest = keys[at + 1 :]
        fill = (slice(None),) * (self.ndim - at - len(rest))
        keys = (*keys[:at], *fill, *rest)
        if len(keys) != self.ndim:
            raise IndexError(f"{len(keys)} indices for labels with {self.ndim} axes")
        return keys

    def _bounds(self, keys: tuple[Any, ...]) -> Box:
        bounds = []
        for k, n in zip(keys, self.shape, strict=True):
            if isinstance(k, slice):
                step = 1 if k.step is None else int(k.step)
                if step < 1:
                    raise IndexError("labels are read forwards")
                start, stop, _ = slice(k.start, k.stop).indices(n)
                bounds.append((start, max(start, stop)))
            else:
                i = int(k)
                if not -n <= i < n:
                    raise IndexError(f"index {i} is outside of {n}")
                bounds.append((i % n, i % n + 1))
        return tuple(bounds)

    @staticmethod
    def _left(keys: tuple[Any, ...]) -> tuple[Any, ...]:
        """The index that is left to apply to a box: its steps, and integers for axes that go."""
        return tuple(slice(None, None, k.step) if isinstance(k, slice) else 0 for k in keys)

    def _box_of(self, chunk: Chunk) -> Box:
        return tuple(
            (i * size, min((i + 1) * size, n))
            for i, size, n in zip(chunk, self.chunks, self.shape, strict=True)
        )

    def _meeting(self, box: Box, among: set[Chunk] | None) -> Iterator[Chunk]:
        """Chunks that overlap a box, all of them or those of a set."""
        if any(a == b for a, b in box):
            return
        ranges = [
            range(a // size, (b - 1) // size + 1)
            for (a, b), size in zip(box, self.chunks, strict=True)
        ]
        if among is None or prod(map(len, ranges)) <= len(among):
            yield from (c for c in product(*ranges) if among is None or c in among)
            return
        for chunk in tuple(among):
            if all(i in r for i, r in zip(chunk, ranges, strict=True)):
                yield chunk

    def _by_chunk(self, points: np.ndarray) -> Iterator[tuple[Chunk, np.ndarray]]:
        """Chunks, and which of the points (n, ndim) lie in each."""
        chunks, member = np.unique(points // self.chunks, axis=0, return_inverse=True)
        member = member.ravel()
        for i, chunk in enumerate(chunks):
            yield tuple(int(c) for c in chunk), np.flatnonzero(member == i)

    def _checked(self, points: tuple[np.ndarray, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
        arrays = np.broadcast_arrays(*points)
        indices = np.stack([a.ravel() for a in arrays], 1).astype(np.int64)
        indices = np.where(indices < 0, indices + self.shape, indices)
        if len(indices) and ((indices < 0) | (indices >= self.shape)).any():
            raise IndexError("a point is outside of the labels")
        return indices, arrays[0].shape

    def _read_points(self, points: tuple[np.ndarray, ...]) -> np.ndarray:
        indices, shape = self._checked(points)
        values = np.zeros(len(indices), self.dtype)
        for chunk, members in self._by_chunk(indices):
            if chunk in self.painted:
                box = self._box_of(chunk)
                block = self._read(chunk)
                values[members] = block[tuple((indices[members] - [a for a, _ in box]).T)]
        return values.reshape(shape)

    def _write_points(self, points: tuple[np.ndarray, ...], value: np.ndarray) -> None:
        indices, shape = self._checked(points)
        values = np.broadcast_to(value, shape).ravel()
        for chunk, members in self._by_chunk(indices):
            box = self._box_of(chunk)
            block = self._read(chunk).copy()
            block[tuple((indices[members] - [a for a, _ in box]).T)] = values[members]
            self._write(chunk, block)


def _points(keys: tuple[Any, ...]) -> tuple[np.ndarray, ...] | None:
    """Index arrays, if the keys are some; None for integers and slices."""
    if not any(np.ndim(k) for k in keys if not isinstance(k, slice)):
        return None
    if any(isinstance(k, slice) for k in keys):
        raise IndexError("index arrays beside slices are not supported")
    return tuple(np.asarray(k) for k in keys)


def _overlap(chunk: Box, box: Box) -> tuple[Box, Box]:
    """The common part of two boxes, in the array and relative to the second one."""
    common = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(chunk, box, strict=True))
    return common, tuple((a - c, b - c) for (a, b), (c, _) in zip(common, box, strict=True))


def _within(part: Box, whole: Box) -> tuple[slice, ...]:
    """Where a box lies in another one."""
    return tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(part, whole, strict=True))


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in box)
