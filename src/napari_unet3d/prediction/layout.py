"""Which tile and which blocks predict a stack with the least work: pure arithmetic, no torch.

A voxel goes through the network more than once where tiles overlap. How often depends on the tile,
on the blocks and on how well these fit together, so all are chosen at once. The three axes are
independent but for two limits: the voxels of the tile and those of the largest block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import Triple
from napari_unet3d.data.boxes import BoxGrid
from napari_unet3d.prediction.tiling import count_tiles

_LONGEST_TILE = 1024
"""Voxels. With an overlap of 50 voxels, a longer tile saves less than 5 % along an axis."""
_CANDIDATES = 32
"""Tiles and blocks of up to so many different lengths are all compared along an axis; beyond, each
differs from the next by 3 % or more."""
_WORTH_FEWER_BLOCKS = 1.03
"""Ratio of passes. With the tile of the cheapest layout, larger blocks are taken where they cost up
to 3 % more: each block is written at once, and its surroundings are read for the pixel
classifier."""


@dataclass(frozen=True)
class AxisRule:
    """What tiles may look like along one axis.

    Attributes
    ----------
    length
        Of the volume, voxels.
    chunk
        Blocks begin at multiples of this, voxels.
    tiles
        Lengths of the tiles that the network takes, ascending, each with the length of its
        output, voxels.
    overlap
        Voxels that two outputs of a length have in common, given that length.
    align
        Outputs start at multiples of this, voxels.
    """

    length: int
    chunk: int
    tiles: Sequence[tuple[int, int]]
    overlap: Callable[[int], int]
    align: int


@dataclass(frozen=True)
class Layout:
    """A tile and the blocks of a stack.

    Attributes
    ----------
    tile
        Shape (z, y, x) of the tile, voxels of the network's input.
    blocks
        They partition the volume.
    passes
        How often a voxel of the volume goes through the network, on average.
    """

    tile: Triple
    blocks: BoxGrid
    passes: float


@dataclass(frozen=True)
class _Choice:
    """A tile and blocks along one axis."""

    tile: int
    """Voxels of the network's input."""
    block: int
    """Voxels of the longest block."""
    cuts: tuple[int, ...]
    """Where the blocks begin and end, voxels."""
    passes: float


def plan_layout(rules: Sequence[AxisRule], most_tile: int, most_block: int) -> Layout | None:
    """The layout with the fewest passes of a voxel through the network.

    Parameters
    ----------
    rules
        Of z, y and x.
    most_tile
        Voxels of the largest tile.
    most_block
        Voxels of the largest block.

    Returns
    -------
    Layout or None
        None where the smallest tile, or the smallest block of whole chunks, is too large.
    """
    choices = [_choices(rule) for rule in rules]
    cheapest = _cheapest([_worthwhile(options) for options in choices], most_tile, most_block)
    if cheapest is None:
        return None
    passes = prod(choice.passes for choice in cheapest)
    # With the same tile, larger blocks may cost hardly more.
    same = [
        [c for c in options if c.tile == choice.tile]
        for options, choice in zip(choices, cheapest, strict=True)
    ]
    fits = _products(same, lambda c: c.block) <= most_block
    fits &= _products(same, lambda c: c.passes) <= _WORTH_FEWER_BLOCKS * passes
    number = np.where(fits, _products(same, lambda c: len(c.cuts)), np.inf)
    z, y, x = _at(same, number)
    return Layout(
        (z.tile, y.tile, x.tile),
        BoxGrid([list(pairwise(choice.cuts)) for choice in (z, y, x)]),
        z.passes * y.passes * x.passes,
    )


def fitting_lengths(fits: Callable[[int], bool], least: int, longest: int) -> Iterator[int]:
    """Lengths of a tile that a network takes: all short ones, and some of the long ones.

    Parameters
    ----------
    fits
        Whether the network takes a length, voxels.
    least
        The first length, if it fits.
    longest
        The first length that fits and is at least as long ends the list.
    """
    n = least
    while True:
        while not fits(n):
            n += 1
        yield n
        if n >= min(longest, _LONGEST_TILE):
            return
        n += max(1, n // _CANDIDATES)


def _cheapest(
    choices: Sequence[Sequence[_Choice]], most_tile: int, most_block: int
) -> tuple[_Choice, _Choice, _Choice] | None:
    """Choices along z, y and x with the fewest passes; None where nothing fits."""
    fits = _products(choices, lambda c: c.tile) <= most_tile
    fits &= _products(choices, lambda c: c.block) <= most_block
    if not fits.any():
        return None
    return _at(choices, np.where(fits, _products(choices, lambda c: c.passes), np.inf))


def _choices(rule: AxisRule) -> list[_Choice]:
    """Every combination of a tile and blocks along an axis."""
    tiles = np.array([tile for tile, _ in rule.tiles])
    sizes = np.array([size for _, size in rule.tiles])
    overlaps = np.array([rule.overlap(size) for size in sizes.tolist()])
    choices = []
    for cuts in _partitions(rule):
        low, high = np.array(cuts[:-1]), np.array(cuts[1:])
        counts = count_tiles(rule.length, low, high, sizes[:, None], overlaps[:, None], rule.align)
        passes = counts * tiles / rule.length
        block = int((high - low).max())
        choices += [
            _Choice(tile, block, cuts, cost)
            for tile, cost in zip(tiles.tolist(), passes.tolist(), strict=True)
        ]
    return choices


def _partitions(rule: AxisRule) -> Iterator[tuple[int, ...]]:
    """Positions at which an axis may be cut into blocks, with both ends, fewest blocks first."""
    unit = math.lcm(rule.chunk, rule.align)
    if 2 * unit > rule.length:
        unit = rule.chunk
    units = -(-rule.length // unit)
    parts, before = 1, 0
    while parts <= units:
        longest = -(-units // parts)
        if before and longest * unit < rule.tiles[0][1] // 2:
            return  # such blocks are less than the overlap around them
        if longest != before:
            yield tuple(min(round(i * units / parts) * unit, rule.length) for i in range(parts + 1))
        parts, before = parts + max(1, parts // _CANDIDATES), longest


def _worthwhile(choices: Sequence[_Choice]) -> list[_Choice]:
    """The choices along an axis without those that another one beats in every respect."""
    kept: list[_Choice] = []
    for choice in sorted(choices, key=lambda c: (c.passes, c.tile, c.block)):
        if not any(k.tile <= choice.tile and k.block <= choice.block for k in kept):
            kept.append(choice)
    return kept


def _products(
    choices: Sequence[Sequence[_Choice]], value: Callable[[_Choice], float]
) -> NDArray[np.float64]:
    """Products of a value of the choices along z, y and x, for all combinations."""
    z, y, x = (np.array([value(c) for c in options], float) for options in choices)
    products: NDArray[np.float64] = z[:, None, None] * y[:, None] * x
    return products


def _at(
    choices: Sequence[Sequence[_Choice]], cost: NDArray[np.float64]
) -> tuple[_Choice, _Choice, _Choice]:
    """The combination of choices that costs least."""
    z, y, x = np.unravel_index(int(cost.argmin()), cost.shape)
    return choices[0][int(z)], choices[1][int(y)], choices[2][int(x)]
