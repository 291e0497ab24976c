"""Chunks of a zarr array: reading them with errors in words, and counting those that are stored."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.data.lazy import LazyArray
from napari_unet3d.errors import RunFailedError

_MOST_COUNTED = 200_000
"""Chunks of an array whose files are counted: listing so many takes about a second."""
_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


class GuardedZarr(LazyArray):
    """A zarr array whose failures are a `RunFailedError` with the path of the chunk.

    Parameters
    ----------
    array
        What is read from.
    path
        What messages call it; the folder of the array or its image.
    """

    def __init__(self, array: Any, path: Path) -> None:
        super().__init__(array.shape, array.dtype)
        self.chunks = tuple(int(n) for n in array.chunks)
        self._array = array
        self._path = path

    def __getitem__(self, key: Any) -> np.ndarray:
        keys = self._complete(key)
        try:
            return np.asarray(self._array[keys])
        except (MemoryError, IndexError):
            raise
        except Exception as error:  # each codec and store has errors of its own
            damaged = self._damaged_chunk(keys)
            where = f"its chunk {damaged}" if damaged else "a part of it"
            raise RunFailedError(
                f"'{self._path}' cannot be read: {where} is damaged or cannot be reached "
                f"({error}). Copy or export it again."
            ) from error

    def _damaged_chunk(self, keys: tuple[Any, ...]) -> str | None:
        """Path of the first chunk among those of `keys` that cannot be read by itself."""
        grid = stored_grid(self._array)
        touched = []
        for k, n, size in zip(keys, self.shape, grid, strict=True):
            positions = range(k, k + 1) if isinstance(k, int) else range(*k.indices(n))
            touched.append(sorted({position // size for position in positions}))
        for index in itertools.product(*touched):
            box = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, grid, strict=True))
            try:
                self._array[box]
            except Exception:
                name: str = self._array.metadata.encode_chunk_key(index)
                return f"{self._array.path}/{name}".lstrip("/")
        return None


def stored_grid(array: Any) -> tuple[int, ...]:
    """Shape of what one file holds: a chunk, or a shard of many chunks."""
    return tuple(int(n) for n in getattr(array, "shards", None) or array.chunks)


def missing_chunks(array: Any) -> tuple[int, int]:
    """Chunks (shards, where there are any) of a local array that no file holds, and all.

    (0, 0) where they are not counted, being too many. Chunks within a shard are not counted.
    """
    grid = stored_grid(array)
    total = math.prod(math.ceil(n / size) for n, size in zip(array.shape, grid, strict=True))
    root = getattr(array.store, "root", None)
    if root is None or not 0 < total <= _MOST_COUNTED:
        return 0, 0
    # An empty shard is read as if it were not there; an empty chunk is an error when it is read.
    files = _files_in(os.path.join(root, array.path))
    if getattr(array, "shards", None):
        stored = sum(os.path.exists(file) and os.path.getsize(file) > 0 for file in files)
    else:
        stored = sum(1 for _ in files)
    return max(0, total - stored), total


def _files_in(folder: str) -> Iterator[str]:
    """Chunk files in a folder and those below."""
    for place, _, names in os.walk(folder):
        for name in names:
            if name not in _METADATA and not name.startswith("."):
                yield os.path.join(place, name)
