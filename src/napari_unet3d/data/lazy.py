"""Arrays that read from files piece by piece, with errors in words when that fails."""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.errors import BadInputError, RunFailedError

_LARGEST_DETOUR = 2**14
"""Bytes of a row that are read although nobody asked for them; beyond, each row is read by itself,
since a call to the system takes as long as copying about so much."""
_MOST_OPEN_FILES = 16
"""Files that stay open; a folder of thousands would reach the limit of the system (often 1024)."""


@contextmanager
def as_bad_input() -> Iterator[None]:
    """Turn a failure to read into `BadInputError`: nothing has been started yet."""
    try:
        yield
    except RunFailedError as error:
        raise BadInputError(str(error)) from error


class LazyArray:
    """Shape, type and indexing, which all arrays in this module share.

    Parameters
    ----------
    shape, dtype
        As in numpy.
    """

    def __init__(self, shape: Sequence[int], dtype: Any) -> None:
        self.shape: tuple[int, ...] = tuple(int(n) for n in shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.ndim = len(self.shape)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of all voxels."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype=dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        raise NotImplementedError

    def _complete(self, key: Any) -> tuple[Any, ...]:
        """The index with one entry for each axis; IndexError as numpy raises it."""
        keys = key if isinstance(key, tuple) else (key,)
        dots = [i for i, k in enumerate(keys) if k is Ellipsis]
        if dots:
            full = (slice(None),) * (self.ndim - len(keys) + 1)
            keys = (*keys[: dots[0]], *full, *keys[dots[0] + 1 :])
        if len(keys) > self.ndim or len(dots) > 1:
            raise IndexError(f"too many indices for an array with {self.ndim} axes")
        keys = (*keys, *(slice(None),) * (self.ndim - len(keys)))
        return tuple(
            k if isinstance(k, slice) else _position(k, n)
            for k, n in zip(keys, self.shape, strict=True)
        )


def _position(key: Any, size: int) -> int:
    position = int(key.__index__())
    if not -size <= position < size:
        raise IndexError(f"index {position} is out of bounds for an axis of length {size}")
    return position % size


class Unread(LazyArray):
    """Shape and type of voxels that nobody reads."""


class Rearranged(LazyArray):
    """An array with some of its axes in another order, and those of length 1 dropped.

    Parameters
    ----------
    array
        The array that is read.
    order
        Its axes that are kept, in the new order; the others have length 1.
    """

    def __init__(self, array: Any, order: Sequence[int]) -> None:
        super().__init__([array.shape[i] for i in order], array.dtype)
        self._array = array
        self._order = tuple(order)
        chunks = getattr(array, "chunks", None)
        if chunks is not None and all(isinstance(n, int) for n in chunks):
            self.chunks = tuple(int(chunks[i]) for i in order)
        self.quick = bool(getattr(array, "quick", False))

    def __getitem__(self, key: Any) -> np.ndarray:
        keys = self._complete(key)
        source: list[Any] = [0] * len(self._array.shape)
        for axis, k in zip(self._order, keys, strict=True):
            source[axis] = k
        block = np.asarray(self._array[tuple(source)])
        # Integers have removed their axes; the other axes go into the new order.
        left = [axis for axis, k in zip(self._order, keys, strict=True) if isinstance(k, slice)]
        return block.transpose([sorted(left).index(axis) for axis in left])


class AtIndex(LazyArray):
    """An array at one index of one of its axes, such as one of several channels.

    Parameters
    ----------
    array
        The array that is read.
    axis, index
        The axis that is dropped, and where on it.
    """

    def __init__(self, array: Any, axis: int, index: int) -> None:
        shape = [int(n) for n in array.shape]
        super().__init__([*shape[:axis], *shape[axis + 1 :]], array.dtype)
        self._array, self._axis, self._index = array, axis, index
        self.quick = bool(getattr(array, "quick", False))

    def __getitem__(self, key: Any) -> np.ndarray:
        keys = self._complete(key)
        return np.asarray(self._array[(*keys[: self._axis], self._index, *keys[self._axis :])])


class Stacked(LazyArray):
    """Arrays of one shape along a new axis, such as channels that lie in files of their own.

    Parameters
    ----------
    arrays
        At least one; the type is one that holds the values of all of them.
    axis
        Where the new axis stands.
    """

    def __init__(self, arrays: Sequence[Any], axis: int = 0) -> None:
        shape = [int(n) for n in arrays[0].shape]
        dtype = np.result_type(*(np.dtype(array.dtype) for array in arrays))
        super().__init__([*shape[:axis], len(arrays), *shape[axis:]], dtype)
        self._arrays, self._axis = tuple(arrays), axis
        self.quick = all(getattr(array, "quick", False) for array in arrays)

    def __getitem__(self, key: Any) -> np.ndarray:
        keys = self._complete(key)
        number = keys[self._axis]
        inside = (*keys[: self._axis], *keys[self._axis + 1 :])
        if isinstance(number, int):
            return np.asarray(self._arrays[number][inside], self.dtype)
        parts = [np.asarray(array[inside]) for array in self._arrays[number]]
        # Integers before the new axis have removed theirs.
        axis = sum(isinstance(k, slice) for k in keys[: self._axis])
        if not parts:
            empty = np.asarray(self._arrays[0][inside])
            return np.stack([empty], axis).astype(self.dtype).take([], axis)
        return np.stack(parts, axis).astype(self.dtype, copy=False)


def rearranged(array: Any, order: Sequence[int]) -> Any:
    """`array` with its axes in this order and without those of length 1 that are left out."""
    if tuple(order) == tuple(range(len(array.shape))):
        return array
    if isinstance(array, np.ndarray):
        dropped = [i for i in range(array.ndim) if i not in order]
        return array.transpose(*dropped, *order).reshape([array.shape[i] for i in order])
    return Rearranged(array, order)


class RawPlanes(LazyArray):
    """Planes that lie uncompressed in files, read by ordinary reads when they are asked for.

    A memory map would be simpler, but the system kills a process whose mapped file gets
    shorter, or whose server goes away. Here that is a `RunFailedError`.

    Parameters
    ----------
    shape, dtype
        Of the whole array, as stored; the last two axes are those of a plane. Values are returned
        in the byte order of this computer.
    places
        File and first byte of each plane, in the order of the leading axes.

    Attributes
    ----------
    quick
        Reading costs no more than copying: all voxels may be looked at.
    """

    quick = True

    def __init__(
        self, shape: Sequence[int], dtype: Any, places: Sequence[tuple[Path, int]]
    ) -> None:
        super().__init__(shape, np.dtype(dtype).newbyteorder("="))
        self._stored = np.dtype(dtype)
        if len(places) != int(np.prod(self.shape[:-2], dtype=np.int64)):
            raise ValueError(f"{len(places)} planes do not make up an array of shape {self.shape}")
        paths = list(dict.fromkeys(path for path, _ in places))
        numbers = {path: i for i, path in enumerate(paths)}
        self._paths = paths
        self._file = np.array([numbers[path] for path, _ in places], np.int64)
        self._offset = np.array([offset for _, offset in places], np.int64)
        self._open: dict[int, _OpenFile] = {}
        if len(paths) <= _MOST_OPEN_FILES:
            # An open file keeps its content when another file takes its name.
            self._open = {i: _OpenFile(path) for i, path in enumerate(paths)}

    def __getitem__(self, key: Any) -> np.ndarray:
        *front, rows, columns = self._complete(key)
        chosen = [
            range(k, k + 1) if isinstance(k, int) else range(*k.indices(n))
            for k, n in zip((*front, rows, columns), self.shape, strict=True)
        ]
        out = np.empty([len(c) for c in chosen], self._stored)
        planes = itertools.product(*chosen[:-2])
        for where, index in zip(np.ndindex(*out.shape[:-2]), planes, strict=True):
            number = int(np.ravel_multi_index(index, self.shape[:-2])) if index else 0
            self._read_plane(number, chosen[-2], chosen[-1], out[where])
        squeezed = tuple(0 if isinstance(k, int) else slice(None) for k in (*front, rows, columns))
        if not self._stored.isnative:
            out = out.byteswap(inplace=True).view(self.dtype)
        return out[squeezed]

    def _read_plane(self, number: int, rows: range, columns: range, out: np.ndarray) -> None:
        """Read some rows and columns of one plane into `out`."""
        if not out.size:
            return
        width, size = self.shape[-1], self.dtype.itemsize
        first = int(self._offset[number])
        left, right = min(columns), max(columns) + 1
        file = self._file_of(number)
        if rows.step == 1 and (width - (right - left)) * size <= _LARGEST_DETOUR:
            start = first + rows[0] * width * size
            if len(columns) == width and columns.step == 1 and out.flags.c_contiguous:
                file.read_into(start, out)
                return
            band = np.empty((len(rows), width), self._stored)
            file.read_into(start, band)
            out[...] = band[:, left:right] if columns.step == 1 else band[:, np.asarray(columns)]
            return
        part = np.empty(right - left, self._stored)
        inside = np.asarray(columns) - left
        for i, row in enumerate(rows):
            file.read_into(first + (row * width + left) * size, part)
            out[i] = part[inside]

    def _file_of(self, number: int) -> _OpenFile:
        i = int(self._file[number])
        return self._open.get(i) or _OpenFile(self._paths[i])


class _OpenFile:
    """A file that is read at any place, from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._number = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise self._failed(error.strerror or str(error)) from error
        self._lock = threading.Lock()
        weakref.finalize(self, os.close, self._number)

    def read_into(self, start: int, out: np.ndarray) -> None:
        """Fill `out`, which is contiguous, from the bytes of the file that begin at `start`."""
        buffer = memoryview(out.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        done = 0
        while done < len(buffer):
            try:
                n = self._read(start + done, buffer[done:])
            except OSError as error:
                raise self._failed(error.strerror or str(error)) from error
            if not n:
                raise self._failed(f"it ends before byte {start + len(buffer)}")
            done += n

    def _read(self, start: int, buffer: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._number, [buffer], start)
        with self._lock:
            os.lseek(self._number, start, os.SEEK_SET)
            data = os.read(self._number, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _failed(self, reason: str) -> RunFailedError:
        return RunFailedError(
            f"'{self._path}' can no longer be read ({reason}). It was changed or removed, or its "
            "disk went away: check the file, then start again."
        )
