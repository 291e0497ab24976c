"""Where tiles lie and how they are blended: pure arithmetic, no torch.

A *tile* is what the network sees at once; it yields `margin` voxels less on each side when
the network is unpadded. A *box* is a part of the volume whose prediction is wanted. Tiles
start at multiples of the network's total stride, so that a voxel is pooled with the same
neighbors whichever tile it is in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import Triple
from napari_unet3d.data.slices import SliceRef


@dataclass(frozen=True)
class Box:
    """A part of a volume: voxels ``start <= i < stop``, along z, y and x."""

    start: Triple
    stop: Triple

    @property
    def shape(self) -> Triple:
        """Extent along z, y and x."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def moved(self, by: Triple) -> Box:
        """The same box `by` voxels further."""
        (a, b, c), (d, e, f) = self.start, self.stop
        return Box((a + by[0], b + by[1], c + by[2]), (d + by[0], e + by[1], f + by[2]))

    def halves(self, axis: int) -> tuple[Box, Box]:
        """The box cut in two along an axis."""
        start, stop = list(self.start), list(self.stop)
        start[axis] = stop[axis] = (self.start[axis] + self.stop[axis]) // 2
        return Box(self.start, (stop[0], stop[1], stop[2])), Box(
            (start[0], start[1], start[2]), self.stop
        )


def slice_box(shape: Triple, ref: SliceRef) -> Box:
    """A slice as a box that is one voxel thick."""
    start, stop = [0, 0, 0], list(shape)
    start[ref.axis], stop[ref.axis] = ref.index, ref.index + 1
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def plan_tiles(
    volume_shape: Triple, box: Box, output_shape: Triple, overlap: float, align: Triple
) -> list[Box]:
    """The tiles' outputs that together cover a box.

    Along an axis on which the box is thinner than a tile there is one tile, with the box in
    its middle, where that covers it: a single slice costs one row of tiles. Tiles may reach
    beyond the volume, where the image is mirrored.

    Parameters
    ----------
    volume_shape, box
        The whole volume, and the part that is wanted.
    output_shape
        What one tile yields, voxels.
    overlap
        Smallest share of a tile that it has in common with the next, 0…0.75.
    align
        Tiles start at multiples of this.
    """
    axes = []
    for axis in range(3):
        n, size, step = volume_shape[axis], output_shape[axis], align[axis]
        low, high = box.start[axis], box.stop[axis]
        last = max(0, -(-(n - size) // step) * step)
        if high - low < min(size, n):
            middle = (low + high - size) // 2
            start = min(max(0, (middle + step // 2) // step * step), last)
            if start <= low and high <= start + size:
                axes.append([start])
                continue
        stride = max(step, int(size * (1 - overlap)) // step * step)
        count = -(-last // stride) + 1
        starts = [round(i * last / max(count - 1, 1) / step) * step for i in range(count)]
        axes.append([s for s in starts if s < high and s + size > low])
    return [
        Box((z, y, x), (z + output_shape[0], y + output_shape[1], x + output_shape[2]))
        for z, y, x in product(*axes)
    ]


def plan_blocks(volume_shape: Triple, least: Triple, most_voxels: int) -> Iterator[Box]:
    """Split a volume into boxes of at most `most_voxels` voxels, but not below `least`.

    A box is predicted at once, which bounds the memory; tiles on a border between boxes are
    computed for both.
    """
    parts = [1, 1, 1]

    def size(axis: int) -> int:
        return -(-volume_shape[axis] // parts[axis])

    while prod(size(a) for a in range(3)) > most_voxels:
        can = [
            a for a, n in enumerate(volume_shape)
            if parts[a] < n and -(-n // (parts[a] + 1)) >= least[a]
        ]  # fmt: skip
        if not can:
            break
        # z first: rows of a stack lie together on the disk.
        axis = next((a for a in can if size(a) >= 2 * least[a]), can[0])
        parts[axis] += 1
    cuts = [
        [round(i * n / p) for i in range(p + 1)] for n, p in zip(volume_shape, parts, strict=True)
    ]
    for z, y, x in product(*(range(p) for p in parts)):
        yield Box(
            (cuts[0][z], cuts[1][y], cuts[2][x]), (cuts[0][z + 1], cuts[1][y + 1], cuts[2][x + 1])
        )


def blending_weights(shape: Triple) -> NDArray[np.float32]:
    """Gaussian weights of a tile, σ = an eighth of it (as nnU-Net does), never 0."""
    weights = np.ones((1, 1, 1))
    for axis, n in enumerate(shape):
        at = (np.arange(n) - (n - 1) / 2) / (n / 8)
        view = [1, 1, 1]
        view[axis] = n
        weights = weights * np.exp(-0.5 * at**2).reshape(view)
    return np.maximum(weights, 1e-6).astype(np.float32)


def mirror_index(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Voxel indices start…stop, with those outside 0…size−1 mirrored at the border voxels."""
    at = np.arange(start, stop)
    if size == 1:
        return np.zeros(len(at), np.intp)
    period = 2 * (size - 1)
    at = np.abs(at) % period
    return np.where(at >= size, period - at, at).astype(np.intp)


def nearest_index(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Voxel indices start…stop, with the nearest border voxel in place of those outside."""
    return np.clip(np.arange(start, stop), 0, size - 1).astype(np.intp)
