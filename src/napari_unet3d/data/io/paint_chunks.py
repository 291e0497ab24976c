"""The painted chunks of an annotation, compressed in memory as they lie in files.

Annotations are sparse and compress well: a painted slice of 2048² takes some 50 kB. So all of
them are kept, and neither an edit nor a commit has to read the disk, which may be gone.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numcodecs  # type: ignore[import-untyped]
import numpy as np

from napari_unet3d.data.lazy import LazyArray
from napari_unet3d.data.slices import painted_planes
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.errors import BadInputError

_SIDE = 512
"""Voxels along y and x. A stroke rewrites 1 to 4 chunks of some kB."""
_LEVEL = 1
"""Level of zstd. Labels shrink to a hundredth at any level; this one takes 0.2 ms a chunk."""

Chunk = tuple[int, ...]
Box = tuple[tuple[int, int], ...]
"""First index, and one past the last, along each axis of the labels."""


class PaintChunks(LazyArray):
    """Labels (uint8, ZYX or TZYX) in compressed chunks of one z plane.

    Reading gives copies. Writing is `fold`, which returns the chunks that changed. Not safe for
    threads.

    Parameters
    ----------
    shape
        Of the labels.
    stored
        Compressed chunks.
    where
        What messages call the chunk files; the folder of the array.
    """

    def __init__(
        self, shape: Sequence[int], stored: dict[Chunk, bytes] | None = None, where: str = ""
    ) -> None:
        super().__init__(shape, np.uint8)
        front = (1,) * (self.ndim - 2)
        self.chunks: tuple[int, ...] = (
            *front,
            *(max(1, min(_SIDE, n)) for n in self.shape[-2:]),
        )
        self._codec = numcodecs.Zstd(level=_LEVEL, checksum=True)
        self._stored = dict(stored or {})
        self._where = where

    @classmethod
    def open(cls, folder: Path, shape: Sequence[int]) -> PaintChunks:
        """Read the chunk files of a zarr array that `metadata` describes, without unpacking them.

        Raises
        ------
        BadInputError
            A file cannot be read.
        """
        stored: dict[Chunk, bytes] = {}
        chunks = cls(shape, where=str(folder))
        for chunk, path in _chunk_files(folder, len(chunks.shape)):
            try:
                with open(path, "rb") as file:
                    stored[chunk] = file.read()
            except OSError as error:
                raise BadInputError(
                    f"'{path}' cannot be read ({error.strerror or error}). It holds paint: check "
                    "the disk, or restore it from a backup."
                ) from error
        chunks._stored = stored
        return chunks

    def metadata(self) -> bytes:
        """The description of the array (.zarray) that makes the chunk files a zarr 2 array."""
        return json.dumps(
            {
                "zarr_format": 2,
                "shape": self.shape,
                "chunks": self.chunks,
                "dtype": "|u1",
                "fill_value": 0,
                "order": "C",
                "filters": None,
                "dimension_separator": "/",
                "compressor": self._codec.get_config(),
            },
            indent=1,
        ).encode()

    @property
    def painted(self) -> frozenset[Chunk]:
        """The chunks that hold paint."""
        return frozenset(self._stored)

    def painted_planes(self, time: int = 0) -> list[int]:
        """Positions along z that hold paint at a time point, sorted."""
        return sorted({c[-3] for c in self._stored if self.ndim == 3 or c[0] == time})

    def content(self, chunk: Chunk) -> bytes | None:
        """The content of a chunk's file; None for a chunk without paint, which has no file."""
        return self._stored.get(chunk)

    def set_content(self, chunk: Chunk, content: bytes | None) -> None:
        """Replace a chunk by what its file holds."""
        if content is None:
            self._stored.pop(chunk, None)
        else:
            self._stored[chunk] = content

    def name(self, chunk: Chunk) -> str:
        """Path of a chunk's file within the array, as in "12/0/3"."""
        return "/".join(map(str, chunk))

    def fold(self, box: Box, labels: np.ndarray) -> set[Chunk]:
        """Write labels into a box; return the chunks that changed.

        Parameters
        ----------
        box
            One range for each axis of the labels.
        labels
            Shape of the box.
        """
        labels = np.asarray(labels).reshape([b - a for a, b in box])
        changed = set()
        for chunk in self._meeting(box):
            place = self._box_of(chunk)
            inner = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(place, box, strict=True))
            source = tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(inner, box, strict=True))
            target = tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(inner, place, strict=True))
            new = labels[source]
            if chunk not in self._stored and not new.any():
                continue
            block = self._decoded(chunk)
            if np.array_equal(block[target], new):
                continue
            block[target] = new
            self.set_content(chunk, self._codec.encode(block) if block.any() else None)
            changed.add(chunk)
        return changed

    def replace_by(self, labels: Any) -> set[Chunk]:
        """Take over all of other labels (any array of this shape); return what changed."""
        before, changed = self.painted, set()
        seen: set[Chunk] = set()
        for time in range(self.shape[0] if self.ndim == 4 else 1):
            for z, plane in painted_planes(labels, time):
                front = (time, z)[-(self.ndim - 2) :]
                whole = tuple((i, i + 1) for i in front) + tuple((0, n) for n in plane.shape)
                changed |= self.fold(whole, np.asarray(plane, np.uint8))
                seen.update(self._meeting(whole))
        for chunk in before - seen:
            self.set_content(chunk, None)
            changed.add(chunk)
        return changed

    def to_array(self) -> np.ndarray:
        """All labels in one array.

        Raises
        ------
        BadInputError
            A chunk is damaged.
        """
        labels = np.zeros(self.shape, np.uint8)
        for chunk in self._stored:
            box = self._box_of(chunk)
            place = tuple(slice(a, b) for a, b in box)
            inside = tuple(slice(0, b - a) for a, b in box)
            labels[place] = self._decoded(chunk)[inside]
        return labels

    def to_sparse_labels(self) -> SparseLabels:
        """All labels in memory, compressed, and indexed as numpy is.

        Raises
        ------
        BadInputError
            A chunk is damaged.
        """
        labels = SparseLabels.create(self.shape)
        for chunk in self._stored:
            box = self._box_of(chunk)
            inside = tuple(slice(0, b - a) for a, b in box)
            labels[tuple(slice(a, b) for a, b in box)] = self._decoded(chunk)[inside]
        return labels

    def __getitem__(self, key: Any) -> np.ndarray:
        keys = self._complete(key)
        box = tuple(
            (k, k + 1) if isinstance(k, int) else _bounds(range(*k.indices(n)))
            for k, n in zip(keys, self.shape, strict=True)
        )
        values = np.zeros([b - a for a, b in box], np.uint8)
        for chunk in self._meeting(box):
            if chunk not in self._stored:
                continue
            place = self._box_of(chunk)
            inner = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(place, box, strict=True))
            target = tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(inner, box, strict=True))
            source = tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(inner, place, strict=True))
            values[target] = self._decoded(chunk)[source]
        left = tuple(
            0 if isinstance(k, int) else slice(None, None, range(*k.indices(n)).step)
            for k, n in zip(keys, self.shape, strict=True)
        )
        taken: np.ndarray = values[left]
        return taken

    # ---- inside

    def _decoded(self, chunk: Chunk) -> np.ndarray:
        """The voxels of a chunk, in a new array of the full size of chunks."""
        content = self._stored.get(chunk)
        if content is None:
            return np.zeros(self.chunks, np.uint8)
        block = np.empty(self.chunks, np.uint8)
        try:
            voxels = np.frombuffer(self._codec.decode(content), np.uint8)
            block[...] = voxels.reshape(self.chunks)
        except Exception as error:  # whatever the codec says of damaged bytes
            raise BadInputError(
                f"'{os.path.join(self._where, self.name(chunk))}' is damaged ({error}). It holds "
                f"paint on {self._describe(chunk)}. Restore it from a backup, or move this file "
                "elsewhere to open the session without this paint."
            ) from error
        return block

    def _describe(self, chunk: Chunk) -> str:
        time = f"t={chunk[0]} " if self.ndim == 4 and chunk[0] else ""
        (_, _), (y, y_end), (x, x_end) = self._box_of(chunk)[-3:]
        return f"slice {time}z={chunk[-3]} (y={y}…{y_end - 1}, x={x}…{x_end - 1})"

    def _box_of(self, chunk: Chunk) -> Box:
        return tuple(
            (i * size, min((i + 1) * size, n))
            for i, size, n in zip(chunk, self.chunks, self.shape, strict=True)
        )

    def _meeting(self, box: Box) -> Iterator[Chunk]:
        """The chunks that a box overlaps."""
        if any(a >= b for a, b in box):
            return
        yield from itertools.product(
            *(
                range(a // size, (b - 1) // size + 1)
                for (a, b), size in zip(box, self.chunks, strict=True)
            )
        )


def _bounds(positions: range) -> tuple[int, int]:
    if positions.step < 1:
        raise IndexError("labels are read forwards")
    return positions.start, max(positions.start, positions.stop)


def _chunk_files(folder: Path, ndim: int) -> Iterator[tuple[Chunk, str]]:
    """Chunks that have a file, and its path."""

    def walk(path: str, index: Chunk) -> Iterator[tuple[Chunk, str]]:
        with os.scandir(path) as entries:
            for entry in entries:
                if not entry.name.isdecimal():
                    continue
                chunk = (*index, int(entry.name))
                if len(chunk) == ndim:
                    yield chunk, entry.path
                else:
                    yield from walk(entry.path, chunk)

    if folder.is_dir():
        yield from walk(str(folder), ())
