"""Where tiles lie and how they are blended: pure arithmetic, no torch.

A *tile* is what the network sees at once; it yields `margin` voxels less on each side when
the network is unpadded. A *box* is a part of the volume whose prediction is wanted. Tiles
start at multiples of the network's total stride, so that a voxel is pooled with the same
neighbors whichever tile it is in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import Triple
from napari_unet3d.data.boxes import Box, BoxGrid


def plan_tiles(
    volume_shape: Triple, box: Box, output_shape: Triple, overlap: float, align: Triple
) -> BoxGrid:
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
                axes.append([(start, start + size)])
                continue
        stride = max(step, int(size * (1 - overlap)) // step * step)
        count = -(-last // stride) + 1
        starts = [round(i * last / max(count - 1, 1) / step) * step for i in range(count)]
        axes.append([(s, s + size) for s in starts if s < high and s + size > low])
    return BoxGrid(axes)


def blending_weights(shape: Triple) -> NDArray[np.float32]:
    """Gaussian weights of a tile, σ = an eighth of it (as nnU-Net does), never 0."""
    weights = np.ones((1, 1, 1))
    for axis, n in enumerate(shape):
        distance = (np.arange(n) - (n - 1) / 2) / (n / 8)
        view = [1, 1, 1]
        view[axis] = n
        weights = weights * np.exp(-0.5 * distance**2).reshape(view)
    return np.maximum(weights, 1e-6).astype(np.float32)
