"""Where tiles lie and how they are blended: pure arithmetic, no torch.

A *tile* is the part of the image that the network sees at once. The output of an unpadded
network is smaller than the tile; the voxels around the output are its halo. A *box* is a part of
the volume whose prediction is wanted. Tiles start at multiples of the network's total stride, so
that a voxel is pooled with the same neighbors in every tile.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import Triple
from napari_unet3d.data.boxes import Box, BoxGrid

SMALLEST_WEIGHT = 1e-6
"""Weight of the corners of an output, which may be all that covers a voxel."""


def plan_tiles(
    volume_shape: Triple, box: Box, output_shape: Triple, overlap: float, align: Triple
) -> BoxGrid:
    """The outputs of the tiles that together cover a box.

    Along an axis on which the box is thinner than an output, one tile with the box in its middle
    is taken if it covers the box, so that a single slice costs one row of tiles. Tiles may reach
    out of the volume, where the image is mirrored.

    Parameters
    ----------
    volume_shape
        Shape (z, y, x) of the whole volume, voxels.
    box
        The part of it that is wanted.
    output_shape
        Shape (z, y, x) of the output of one tile, voxels.
    overlap
        Smallest share of an output that it has in common with the next, 0…0.75.
    align
        Outputs start at multiples of this, along z, y and x.

    Returns
    -------
    BoxGrid
        The outputs, in the order of the volume's rows.
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
                axes.append([(start, start + size)])
                continue
        stride = max(step, int(size * (1 - overlap)) // step * step)
        count = -(-last // stride) + 1
        starts = [round(i * last / max(count - 1, 1) / step) * step for i in range(count)]
        axes.append([(s, s + size) for s in starts if s < high and s + size > low])
    return BoxGrid(axes)


def blending_weights(shape: Triple) -> NDArray[np.float32]:
    """Gaussian weights (z, y, x) of the voxels of an output, never 0.

    The standard deviation is an eighth of the shape, as in nnU-Net (Isensee et al. 2021).
    """
    weights = np.ones((1, 1, 1))
    for profile in blending_profiles(shape):
        weights = weights * profile
    return np.maximum(weights, SMALLEST_WEIGHT).astype(np.float32)


def blending_profiles(shape: Triple) -> list[NDArray[np.float64]]:
    """Three arrays whose product, where it is not too small, are the `blending_weights`.

    Their shapes are (z, 1, 1), (1, y, 1) and (1, 1, x).
    """
    profiles = []
    for axis, n in enumerate(shape):
        distance = (np.arange(n) - (n - 1) / 2) / (n / 8)
        view = [1, 1, 1]
        view[axis] = n
        profiles.append(np.exp(-0.5 * distance**2).reshape(view))
    return profiles


def overlap_slices(tile: Box, box: Box) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Index of the common part of a tile and a box, in an array of the tile and of the box."""
    here, there = [], []
    for axis in range(3):
        low = max(tile.start[axis], box.start[axis])
        high = min(tile.stop[axis], box.stop[axis])
        here.append(slice(low - tile.start[axis], high - tile.start[axis]))
        there.append(slice(low - box.start[axis], high - box.start[axis]))
    return tuple(here), tuple(there)
