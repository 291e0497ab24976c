"""Which tiles and blocks suit a network, its stack, its files and the memory."""

from __future__ import annotations

from functools import partial
from math import prod

from napari_unet3d.config import PredictionConfig, Triple
from napari_unet3d.data.boxes import Box
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.geometry import (
    is_padded,
    receptive_field,
    shrink,
    smallest_map,
    total_stride,
)
from napari_unet3d.prediction.layout import AxisRule, Layout, fitting_lengths, plan_layout
from napari_unet3d.prediction.tiling import Tiles, plan_tiles

_SHORTER = (1, 2, 4, 8)
"""A tile is as long as the network sees along each axis. Where memory does not suffice, it may be a
half of that, a quarter or an eighth."""

DENSE_OVERLAP: float = PredictionConfig().overlap
"""What a tile has in common with the next, unless something else is asked for. 0.16 of the 200
voxels that networks planned on a CPU see are 32, a multiple of their stride. The IoU is that of a
single tile to 0.001 on three stacks."""


class TileRules:
    """How a network's tiles are placed in one stack.

    Parameters
    ----------
    network
        Configuration of the network.
    shape
        (Z, Y, X) of the stack, voxels.
    share
        Voxels that the outputs of two tiles have in common, as a share of what the network sees:
        the border of a tile changes nothing that is farther away than half of it. At most half an
        output is used. Outputs of an unpadded network are exact: they need no overlap.
    adjoining
        Whether boxes adjoin each other: no border between them may be seen. Otherwise, along an
        axis on which a box leaves the share of a tile free, as a slice or a part of it does, one
        tile with the box in its middle suffices.
    """

    def __init__(
        self, network: Architecture, shape: Triple, share: float, adjoining: bool = True
    ) -> None:
        self._network, self._shape, self._share = network, shape, share
        self._adjoining = adjoining
        self._cut = shrink(network)
        self._seen = receptive_field(network)
        self._stride = total_stride(network)
        self._padded = is_padded(network)

    def of_stack(self, shape: Triple) -> TileRules:
        """The rules for adjoining boxes of another stack, (Z, Y, X) voxels."""
        return TileRules(self._network, shape, self._share)

    def output(self, tile: Triple) -> Triple:
        """Shape (z, y, x) of the output of a tile."""
        z, y, x = (n - cut for n, cut in zip(tile, self._cut, strict=True))
        return z, y, x

    def tiles(self, box: Box, tile: Triple) -> Tiles:
        """The tiles of a shape (z, y, x) that predict a box of the stack."""
        out = self.output(tile)
        # Where an unpadded tile yields less than the stride, it cannot be aligned to it.
        a, b, c = (s if s <= n else 1 for s, n in zip(self._stride, out, strict=True))
        z, y, x = (
            0 if self._suffices(low, high, n, step) else self._overlap(axis, n)
            for axis, (low, high, n, step) in enumerate(
                zip(box.start, box.stop, out, (a, b, c), strict=True)
            )
        )
        return plan_tiles(self._shape, box, out, (z, y, x), (a, b, c))

    def _suffices(self, low: int, high: int, size: int, step: int) -> bool:
        """Whether one output is enough for low…high; it starts at a multiple of `step`."""
        fits = high - size <= low // step * step
        return not self._adjoining and fits and high - low <= (1 - self._share) * size

    def plan(
        self, chunk: Triple, most_tile: int, most_block: int, tile: Triple | None = None
    ) -> Layout | None:
        """The tile and the blocks that predict the stack with the least work.

        Parameters
        ----------
        chunk
            Blocks begin at multiples of this, (z, y, x) voxels.
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
            rules = [self._rule(axis, chunk[axis], tile, shorter) for axis in range(3)]
            layout = plan_layout(rules, prod(tile) if tile else most_tile, most_block)
            if layout is not None and (tile or smallest_map(self._network, layout.tile) > 1):
                return layout
        return None

    def _rule(self, axis: int, chunk: int, tile: Triple | None, shorter: int) -> AxisRule:
        """What tiles and blocks may look like along an axis."""
        n, cut, stride = self._shape[axis], self._cut[axis], self._stride[axis]
        if tile is not None:
            lengths = [tile[axis]]
        else:
            least = cut + max(1, min(n, -(-self._seen[axis] // shorter)))
            lengths = list(fitting_lengths(partial(self._network.fits, axis), least, n + cut))
        tiles = [(length, length - cut) for length in lengths]
        align = stride if all(size >= stride for _, size in tiles) else 1
        return AxisRule(n, chunk, tiles, partial(self._overlap, axis), align)

    def _overlap(self, axis: int, size: int) -> int:
        """Voxels that outputs of a size have in common along an axis."""
        return int(min(self._share * self._seen[axis], size / 2)) if self._padded else 0
