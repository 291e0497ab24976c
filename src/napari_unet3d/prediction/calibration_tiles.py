"""Tiles of a stack that show a network's range of values, before it is quantized."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.geometry import next_fitting, shrink
from napari_unet3d.sampling.source import Source

_SIDE = 48
"""Voxels: shortest side of a tile, unless the stack is smaller."""
_TILES = 12
"""Tiles: 1.3 million voxels, which take a second or two."""


def calibration_tiles(
    source: Source, network: Architecture, times: Sequence[int]
) -> Iterator[Tensor]:
    """Inputs (1, C, z, y, x) from places all over a stack, the same each time.

    Parameters
    ----------
    source
        The stack.
    network
        Takes the tiles.
    times
        Time points that they are taken from.
    """
    shape, cut = source.volume.shape, shrink(network)
    z, y, x = (min(n, _SIDE) + m for n, m in zip(shape, cut, strict=True))
    tile = next_fitting(network, (z, y, x))
    rng = np.random.default_rng(0)
    for _ in range(_TILES):
        time = int(rng.choice(list(times)))
        start = [
            int(rng.integers(0, max(1, n - side + m + 1))) - m // 2
            for n, side, m in zip(shape, tile, cut, strict=True)
        ]
        stop = [a + side for a, side in zip(start, tile, strict=True)]
        yield source.read(time, start, stop)[None]
