"""The tile and the blocks of a stack, as its network, its files and the memory allow."""

from __future__ import annotations

from functools import partial
from math import prod

from napari_unet3d.config import Triple
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.geometry import (
    is_padded,
    output_shape,
    receptive_field,
    shrink,
    smallest_map,
    total_stride,
)
from napari_unet3d.prediction.layout import AxisRule, Layout, fitting_lengths, plan_layout

_SHORTER = (1, 2, 4, 8)
"""A tile is as long as the network sees along each axis. Where memory does not suffice, it may be a
half of that, a quarter or an eighth."""


def alignment(network: Architecture, output: Triple) -> Triple:
    """Voxels (z, y, x) at whose multiples the outputs of tiles start."""
    # Where an unpadded tile yields less than the stride, it cannot be aligned to it.
    z, y, x = (s if s <= n else 1 for s, n in zip(total_stride(network), output, strict=True))
    return z, y, x


def overlap_voxels(network: Architecture, output: Triple, share: float) -> Triple:
    """Voxels (z, y, x) that the outputs of two tiles have in common, at least.

    Parameters
    ----------
    network
        Outputs of an unpadded network are exact: they need no overlap.
    output
        Shape (z, y, x) of the output of a tile, voxels.
    share
        Of what the network sees along an axis: the border of a tile changes nothing farther away
        than half of it. At most half an output is used.
    """
    z, y, x = (
        _overlap(share, n, seen) for n, seen in zip(output, _reach(network), strict=True)
    )
    return z, y, x


def plan_stack(
    network: Architecture,
    shape: Triple,
    chunk: Triple,
    share: float,
    most_tile: int,
    most_block: int,
    tile: Triple | None = None,
) -> Layout | None:
    """The tile and the blocks that predict a stack with the least work.

    Parameters
    ----------
    network
        Configuration of the network.
    shape
        (Z, Y, X) of the stack, voxels.
    chunk
        Blocks begin at multiples of this, (z, y, x) voxels.
    share
        Overlap of two tiles; see `overlap_voxels`.
    most_tile, most_block
        Voxels of the largest tile and of the largest block.
    tile
        The tile (z, y, x), where it is given.

    Returns
    -------
    Layout or None
        None where no block of whole chunks is small enough, or no tile.
    """
    for shorter in (1,) if tile else _SHORTER:
        rules = [_rule(network, axis, shape, chunk, share, tile, shorter) for axis in range(3)]
        layout = plan_layout(rules, prod(tile) if tile else most_tile, most_block)
        if layout is not None and (tile or smallest_map(network, layout.tile) > 1):
            return layout
    return None


def _rule(
    network: Architecture,
    axis: int,
    shape: Triple,
    chunk: Triple,
    share: float,
    tile: Triple | None,
    shorter: int,
) -> AxisRule:
    """What tiles and blocks may look like along an axis."""
    n, cut, seen = shape[axis], shrink(network)[axis], receptive_field(network)[axis]
    reach = _reach(network)[axis]
    if tile is not None:
        lengths = [tile[axis]]
    else:
        least = cut + max(1, min(n, -(-seen // shorter)))
        lengths = list(fitting_lengths(partial(network.fits, axis), least, n + cut))
    tiles = [(length, length - cut) for length in lengths]
    stride = total_stride(network)[axis]
    return AxisRule(
        n,
        chunk[axis],
        tiles,
        lambda size: _overlap(share, size, reach),
        stride if all(size >= stride for _, size in tiles) else 1,
    )


def _reach(network: Architecture) -> Triple:
    """Voxels that an output voxel depends on and that a border of a tile may hide from it."""
    return receptive_field(network) if is_padded(network) else (0, 0, 0)


def _overlap(share: float, size: int, reach: int) -> int:
    return int(min(share * reach, size / 2))
