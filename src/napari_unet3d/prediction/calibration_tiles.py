"""Tiles of a stack that show a network's range of values, before it is quantized."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
from torch import Tensor

from napari_unet3d.errors import BadInputError
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.geometry import next_fitting, output_shape, shrink
from napari_unet3d.networks.planning import halve, prediction_bytes
from napari_unet3d.sampling.source import Source

_SIDE = 48
"""Voxels: shortest side of a tile, unless the stack is smaller."""
_VOXELS, _FEWEST, _MOST = 12 * _SIDE**3, 4, 12
"""Voxels of all tiles, which take a second or two; and how many tiles there are. Those of a network
without padding are larger: the paper's takes 5 s for one."""
_MEMORY = 3.0
"""Bytes that finding the ranges takes, over those of a prediction in fp32: whole maps are counted
into histograms. The paper's network took 2.6 GiB where its prediction takes 0.96."""
_LEAST_OUTPUT = 10_000
"""Voxels of the output of a tile: on fewer, the comparison with fp32 would tell nothing. A tile of
the paper's network has 54,000, and half of it 5,000."""


def calibration_tiles(
    source: Source, network: Architecture, times: Sequence[int], memory: int
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
    memory
        Bytes that may be used; the tiles are smaller where they are few.

    Raises
    ------
    BadInputError
        The memory does not suffice for tiles that would tell anything.
    """
    shape, cut = source.volume.shape, shrink(network)
    z, y, x = (min(n, _SIDE) + m for n, m in zip(shape, cut, strict=True))
    tile = next_fitting(network, (z, y, x))
    while (needed := _MEMORY * prediction_bytes(network, tile, "fp32")) > memory:
        smaller = halve(network, tile)
        if smaller is None or prod(output_shape(network, smaller)) < _LEAST_OUTPUT:
            raise BadInputError(
                f"int8 does not apply: finding its ranges takes {needed / 2**30:.1f} GiB, and "
                f"{memory / 2**30:.1f} GiB may be used"
            )
        tile = smaller
    rng = np.random.default_rng(0)
    for _ in range(min(_MOST, max(_FEWEST, _VOXELS // prod(tile)))):
        time = int(rng.choice(list(times)))
        start = [
            int(rng.integers(0, max(1, n - side + m + 1))) - m // 2
            for n, side, m in zip(shape, tile, cut, strict=True)
        ]
        stop = [a + side for a, side in zip(start, tile, strict=True)]
        yield source.read(time, start, stop)[None]
