"""Features of the squares of a slice, computed where they are needed, and kept."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from napari_unet3d.config import Triple
from napari_unet3d.data.boxes import Box
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.pixels.features import feature_count, filter_bank, halo
from napari_unet3d.sampling.source import Source

SIDE = 256
"""Voxels along the edges of the squares that a slice is cut into: their features take 0.1 s, and
their halo has less than twice as many voxels."""
_CACHE = 192 * 2**20
"""Bytes of the features that are kept, at 16 bits: 70 squares in an image of one channel."""

Square = tuple[int, int]
"""Row and column of a square among the squares of a slice."""


class SquareFeatures:
    """The features of the squares that were last in use.

    Parameters
    ----------
    volume
        The image, in memory or not; what is read of it lies around the squares.
    """

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._source: Source | None = None
        self._cache: OrderedDict[tuple[SliceRef, Square], Tensor] = OrderedDict()

    def holds(self, ref: SliceRef, square: Square) -> bool:
        """Whether the features of a square need not be computed."""
        return (ref, square) in self._cache

    def of(self, ref: SliceRef, square: Square) -> Tensor:
        """Features (F, h, w) of a square, float16; they are kept while there is room.

        Raises
        ------
        RunFailedError
            The image cannot be read.
        """
        key = ref, square
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        if self._source is None:
            intensity = IntensityNormalization.estimate(self._volume)
            self._source = Source(self._volume, intensity, torch.device("cpu"))
        box = _box(self._volume.shape, ref, square)
        around = halo(self._volume.voxel_size)
        low = _triple(a - h for a, h in zip(box.start, around, strict=True))
        high = _triple(b + h for b, h in zip(box.stop, around, strict=True))
        gray = self._source.read(ref.time, low, high, beyond="nearest")
        # The gray values are read once, not for each scale.
        read = partial(_crop, gray, low)
        features = filter_bank(read, box.start, box.stop, self._volume.voxel_size)
        kept = features.squeeze(1 + ref.axis).half()
        self._cache[key] = kept
        most = max(1, _CACHE // (2 * feature_count(self._volume.n_channels) * SIDE * SIDE))
        while len(self._cache) > most:
            self._cache.popitem(last=False)
        return kept


def _crop(gray: Tensor, low: Sequence[int], start: Sequence[int], stop: Sequence[int]) -> Tensor:
    z, y, x = (slice(a - n, b - n) for a, b, n in zip(start, stop, low, strict=True))
    return gray[:, z, y, x]


def squares_of(shape: Sequence[int]) -> list[Square]:
    """All squares of a slice of this shape (rows, columns)."""
    rows, columns = (range(-(-n // SIDE)) for n in shape)
    return [(row, column) for row in rows for column in columns]


def span(square: Square, axis: int) -> slice:
    """Rows (axis 0) or columns (axis 1) of a square; it may reach beyond the slice."""
    return slice(square[axis] * SIDE, (square[axis] + 1) * SIDE)


def distance(square: Square, place: tuple[int, int]) -> float:
    """Voxels from the middle of a square to a place in the slice."""
    return math.hypot(*((s + 0.5) * SIDE - p for s, p in zip(square, place, strict=True)))


def _box(shape: Triple, ref: SliceRef, square: Square) -> Box:
    """The box, one voxel thick, of a square."""
    start, stop = [0, 0, 0], [0, 0, 0]
    start[ref.axis], stop[ref.axis] = ref.index, ref.index + 1
    for number, axis in enumerate(a for a in range(3) if a != ref.axis):
        start[axis] = square[number] * SIDE
        stop[axis] = min(start[axis] + SIDE, shape[axis])
    return Box(_triple(start), _triple(stop))


def _triple(values: Sequence[int] | Iterator[int]) -> Triple:
    z, y, x = values
    return z, y, x
