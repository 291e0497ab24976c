"""Where tiles lie and which voxels each of them decides: pure arithmetic, no torch.

A *tile* is the part of the image that the network sees at once. The output of an unpadded
network is smaller than the tile; the voxels around the output are its halo. A *box* is a part of
the volume whose prediction is wanted. Tiles start at multiples of the network's total stride, so
that a voxel is pooled with the same neighbors in every tile.

A padded network sees zeros beyond the border of a tile, so outputs overlap, and the voxels near a
border are left to the next output. Also at the border of a box the tiles reach half an overlap
beyond it. So boxes can be predicted in any order, or alone, and no border of a box differs from
any other border of two tiles:

    box          |-------------------------|
    outputs   [-----------]
                      [-----------]
                               [-----------]
    cores        |------|--------|---------|
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import Triple
from napari_unet3d.data.boxes import Box, BoxGrid

Positions = int | NDArray[np.int64]


class Tiles(NamedTuple):
    """The tiles that together predict a box.

    Attributes
    ----------
    outputs
        The output of each tile, in the order of the volume's rows. Outputs may reach out of the
        box, and out of the volume.
    cores
        The voxels that each tile decides: they partition the box.
    """

    outputs: BoxGrid
    cores: BoxGrid


def plan_tiles(
    volume_shape: Triple, box: Box, output_shape: Triple, overlap: Triple, align: Triple
) -> Tiles:
    """The tiles that together predict a box.

    Along an axis on which one output covers the box and half an overlap on both sides, the box
    lies in the middle of it. So a slice of a stack costs one row of tiles.

    Parameters
    ----------
    volume_shape
        Shape (z, y, x) of the whole volume, voxels. Outputs may reach out of it, where the image
        is mirrored.
    box
        The part of it that is wanted.
    output_shape
        Shape (z, y, x) of the output of one tile, voxels.
    overlap
        Voxels (z, y, x) that an output has in common with the next, at least. Where it is almost
        the whole output, outputs advance by `align`.
    align
        Outputs start at multiples of this, along z, y and x.
    """
    outputs, cores = [], []
    for axis in range(3):
        n, size, unit = volume_shape[axis], output_shape[axis], align[axis]
        low, high = box.start[axis], box.stop[axis]
        first, last, stride = map(int, tile_range(n, low, high, size, overlap[axis], unit))
        if last <= first:
            middle = ((low + high - size) // 2 + unit // 2) // unit * unit
            starts = [min(max(middle, last), first)]
        else:
            count = -(-(last - first) // stride)
            units = (last - first) // unit
            starts = [first + i * units // count * unit for i in range(count + 1)]
        borders = [min(max((a + size + b) // 2, low), high) for a, b in pairwise(starts)]
        outputs.append([(s, s + size) for s in starts])
        cores.append(list(pairwise([low, *borders, high])))
    return Tiles(BoxGrid(outputs), BoxGrid(cores))


def count_tiles(
    n: int, low: Positions, high: Positions, size: Positions, overlap: Positions, align: int
) -> NDArray[np.int64]:
    """Outputs that `plan_tiles` needs along one axis of n voxels.

    Parameters
    ----------
    low, high
        (boxes,) where the boxes start and stop.
    size, overlap
        (sizes, 1) length of an output, and its overlap with the next.
    align
        Outputs start at multiples of this.

    Returns
    -------
    ndarray
        (sizes,) for all boxes together.
    """
    first, last, stride = tile_range(n, low, high, size, overlap, align)
    counts: NDArray[np.int64] = (1 - np.minimum(first - last, 0) // stride).sum(-1)
    return counts


def tile_range(
    n: int, low: Positions, high: Positions, size: Positions, overlap: Positions, align: int
) -> tuple[Any, Any, Any]:
    """Where the first and the last output of a box start, along one axis of n voxels.

    Returns
    -------
    first, last
        Latest start of the first output and earliest start of the last one. One output suffices
        where the last does not start behind the first.
    stride
        Most voxels from the start of one output to that of the next.
    """
    most = -(-np.maximum(n - size, 0) // align) * align
    halo = overlap // 2
    first = np.minimum(np.maximum(low - halo, 0) // align * align, most)
    last = np.clip(-(-(np.minimum(high + halo, n) - size) // align) * align, 0, most)
    stride = np.maximum((size - overlap) // align * align, align)
    return first, last, stride


def overlap_slices(tile: Box, box: Box) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Index of the common part of a tile and a box, in an array of the tile and of the box."""
    here, there = [], []
    for axis in range(3):
        low = max(tile.start[axis], box.start[axis])
        high = max(low, min(tile.stop[axis], box.stop[axis]))
        here.append(slice(low - tile.start[axis], high - tile.start[axis]))
        there.append(slice(low - box.start[axis], high - box.start[axis]))
    return tuple(here), tuple(there)
