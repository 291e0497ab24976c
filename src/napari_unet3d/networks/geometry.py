"""Shapes, reach and size of a network's maps, whichever network it is."""

from __future__ import annotations

from collections.abc import Iterable

from napari_unet3d.config import AXIS_NAMES, Triple
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.tracing import Walk

MOST_STRIDE = 64
"""Voxels that become one along an axis: six poolings by 2, as many as a U-Net of seven levels has.
Networks planned here pool by 16 at most, the paper's by 8."""
MOST_VALUES = 1 << 27
"""Values of all feature maps of the smallest tile: 0.5 GiB in fp32. The paper's network, whose
smallest tile has 92 voxels along each axis, takes 82 million; networks planned here take less than
a million."""


def walk(config: Architecture, tile: Triple) -> Walk:
    """Follow a tile through a network.

    Parameters
    ----------
    config
        The network.
    tile
        Shape (z, y, x) of the tile that goes in, voxels.

    Returns
    -------
    layers, output shape
        Layers in the order of the forward pass; shape (z, y, x) of the output, voxels.

    Raises
    ------
    ValueError
        The tile does not fit: an axis is too short or does not divide.
    """
    return config.walk(tile)


def output_shape(config: Architecture, tile: Triple) -> Triple:
    """Shape of the output for a tile; ``ValueError`` when the tile does not fit."""
    return config.walk(tile)[1]


def total_stride(config: Architecture) -> Triple:
    """Voxels of the input per voxel of the coarsest map, along z, y and x."""
    return config.stride()


def receptive_field(config: Architecture) -> Triple:
    """Input voxels that one output voxel depends on at most, along z, y and x."""
    return config.receptive_field()


def fits(config: Architecture, axis: int, size: int) -> bool:
    """Whether the network takes tiles of `size` voxels along `axis`."""
    return config.fits(axis, size)


def next_fitting(config: Architecture, shape: Triple) -> Triple:
    """Smallest tile that fits and is not smaller than `shape` along any axis."""
    return _triple(_next_fitting(config, axis, n) for axis, n in enumerate(shape))


def shrink(config: Architecture) -> Triple:
    """Voxels by which the output is smaller than the tile, along z, y and x."""
    tile = next_fitting(config, (1, 1, 1))
    return _triple(n - m for n, m in zip(tile, output_shape(config, tile), strict=True))


def is_padded(config: Architecture) -> bool:
    """Whether the output is as large as the tile.

    At the border of a tile, a padded network sees zeros instead of the image around it.
    """
    return shrink(config) == (0, 0, 0)


def parameter_count(config: Architecture) -> int:
    """Parameters of the network, those of normalizations left out, as the paper counts them."""
    return config.parameter_count()


def smallest_map(config: Architecture, tile: Triple) -> int:
    """Voxels of the smallest map that is normalized; of any map where none is normalized.

    Statistics over space need at least two voxels.
    """
    layers = config.walk(tile)[0]
    normalized = [layer.voxels for layer in layers if layer.operation == "normalization"]
    return min(normalized or [layer.voxels for layer in layers])


def feature_map_values(config: Architecture, tile: Triple) -> int:
    """Sum of channels × voxels over the outputs of all convolutions of one tile."""
    layers = config.walk(tile)[0]
    return sum(layer.out_channels * layer.voxels for layer in layers if layer.is_convolution)


def largest_map(config: Architecture, tile: Triple) -> int:
    """Values of the largest map, channels × voxels, that goes into or out of a layer."""
    return max(
        max(layer.in_channels * layer.in_voxels, layer.out_channels * layer.voxels)
        for layer in config.walk(tile)[0]
    )


def excess(config: Architecture) -> str | None:
    """Why no small stack can be segmented with a network; None when one can.

    A tile cannot be smaller than the total stride, nor than what an unpadded network cuts off, so
    a network of few weights can need any amount of memory.
    """
    for axis, stride in zip(AXIS_NAMES, total_stride(config), strict=True):
        if stride > MOST_STRIDE:
            return f"it pools by {stride} along {axis}, and {MOST_STRIDE} is the most"
    tile = next_fitting(config, (1, 1, 1))
    values = feature_map_values(config, tile)
    if values > MOST_VALUES:
        shape = " × ".join(str(n) for n in tile)
        return (
            f"its smallest tile, {shape} voxels, takes {values:.1e} values of feature maps, and "
            f"{MOST_VALUES:.1e} are the most"
        )
    return None


def _next_fitting(config: Architecture, axis: int, size: int) -> int:
    # Sizes that fit repeat with the total stride, beyond those that are too small.
    limit = size + total_stride(config)[axis] + 4 * receptive_field(config)[axis]
    for candidate in range(max(size, 1), limit + 1):
        if config.fits(axis, candidate):
            return candidate
    raise AssertionError(f"no admissible size in {size}…{limit}")  # pragma: no cover


def _triple(values: Iterable[int]) -> Triple:
    z, y, x = values
    return z, y, x
