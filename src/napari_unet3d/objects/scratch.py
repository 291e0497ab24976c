"""Arrays of whole stacks that are needed for a while: in memory, or in a temporary folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numcodecs  # type: ignore[import-untyped]
import numpy as np
import zarr

from napari_unet3d.config import Triple

_IN_MEMORY = 2**28
"""Bytes of an array that is kept in memory: 64 M voxels of 4 bytes, a stack of 400³."""
GRID: Triple = (64, 256, 256)
"""Voxels (z, y, x) of the chunks, which are those of the OME-Zarr files that are written: a block
of whole chunks is read and written once."""


class Scratch:
    """Makes arrays of 0, and removes their folder when nothing refers to it any more.

    Parameters
    ----------
    folder
        Where the temporary folder is made; the system's place for such when None.
    in_memory
        Bytes of an array up to which it is kept in memory.
    """

    def __init__(self, folder: Path | None = None, in_memory: int = _IN_MEMORY) -> None:
        self._folder, self._in_memory = folder, in_memory
        self._made: list[TemporaryDirectory[str]] = []

    def zeros(self, shape: Sequence[int], dtype: Any) -> Any:
        """Make an array (…, z, y, x), which is compressed where it is in a folder."""
        if math.prod(shape) * np.dtype(dtype).itemsize <= self._in_memory:
            return np.zeros(shape, dtype)
        place = TemporaryDirectory(
            prefix="napari-unet3d-objects-", dir=self._folder, ignore_cleanup_errors=True
        )
        self._made.append(place)
        chunks = [1] * (len(shape) - 3)
        chunks += [min(a, b) for a, b in zip(GRID, shape[-3:], strict=True)]
        return zarr.create_array(
            store=place.name,
            shape=tuple(shape),
            dtype=dtype,
            chunks=tuple(chunks),
            compressors=numcodecs.Blosc(cname="lz4", clevel=5),
            fill_value=0,
            zarr_format=2,
        )

    def close(self) -> None:
        """Remove the folders; their arrays can no longer be read."""
        made, self._made = self._made, []
        for place in made:
            place.cleanup()
