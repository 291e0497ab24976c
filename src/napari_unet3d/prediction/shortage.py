"""What the prediction of a box does where memory is short."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from napari_unet3d.config import Triple
from napari_unet3d.data.boxes import Box
from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.errors import RunFailedError
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.planning import halve

_RETRIES = 3
"""Boxes in a row for which the first plan is tried again after a lack of memory. Each try costs
the tiles that were computed until it fails, so a lack that lasts is accepted after these."""

Place = Literal["tile", "sum", "pixels"]
"""What lacked memory: the network, the result that its tiles are put into, or the classifier."""


class ShortageError(Exception):
    """Memory does not suffice; the text is the library's."""

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(reason)
        self.place: Place = place


class BoxTooLargeError(Exception):
    """Memory does not suffice for the result of a box; its halves may fit."""


@contextmanager
def needing_memory(place: Place) -> Iterator[None]:
    """Turn a lack of memory in the block into a `ShortageError` that says where it was."""
    try:
        yield
    except Exception as error:
        if not devices.is_out_of_memory(error):
            raise
        raise ShortageError(place, str(error)) from error


class MemoryPlan:
    """The tile, the place of the results and the largest box, as far as memory allows.

    Each lack of memory makes the plan more modest. `recover`, called before the next box, returns
    to the first plan, since another program may have taken the memory for a moment only.

    Parameters
    ----------
    network
        Configuration of the network.
    tile
        Tile (z, y, x) of the first plan, voxels.
    sum_device
        Where the first plan puts the tiles of a box together.
    """

    def __init__(self, network: Architecture, tile: Triple, sum_device: torch.device) -> None:
        self.tile = tile
        self.sum_device = sum_device
        self.box_voxels = math.inf
        """Largest box whose result fits, after one did not fit; voxels."""
        self._network = network
        self._first = tile, sum_device
        self._short = False
        self._tile_before: Triple | None = None
        """The tile that sufficed before the first plan was tried again."""
        self._retries = _RETRIES

    def halve_tile(self) -> bool:
        """Plan half of the tile for good; False where it cannot be smaller."""
        smaller = halve(self._network, self.tile)
        if smaller is None:
            return False
        self.tile = smaller
        self._first = smaller, self._first[1]
        return True

    def answer(self, shortage: ShortageError, box: Box) -> str:
        """Plan less where memory was short, for the same box; returns what the user reads.

        Raises
        ------
        BoxTooLargeError
            Only a smaller box can help.
        RunFailedError
            Nothing can help.
        """
        self._short = True
        if shortage.place == "tile" and (text := self._shrink_tile()) is not None:
            return text
        if self.sum_device.type != "cpu":
            self.sum_device = torch.device("cpu")
            self.tile = self._first[0]  # the network may have lacked what the sum took
            return (
                f"Out of memory on the GPU for the result of {describe_shape(box.shape)} voxels: "
                "it is kept in the main memory, which is slower."
            )
        if shortage.place == "sum" and max(box.shape) > 1:
            self.box_voxels = max(math.prod(h.shape) for h in box.halves(box.longest_axis))
            raise BoxTooLargeError(str(shortage))
        lacking = {
            "tile": f"even a tile of {describe_shape(self.tile)} voxels does not fit",
            "sum": "not even the result of one voxel fits",
            "pixels": "the features of the pixel classifier do not fit",
        }
        raise RunFailedError(
            f"out of memory: {lacking[shortage.place]}; close other programs, or use a smaller "
            f"network (preset 'fast'; {shortage})"
        )

    def _shrink_tile(self) -> str | None:
        """Plan a smaller tile; what the user reads, or None where no tile is smaller."""
        before, self._tile_before = self._tile_before, None
        if before is not None and before != self.tile:
            self.tile = before
            return (
                f"Out of memory in the network again: the tile is {describe_shape(before)} "
                "voxels as before."
            )
        smaller = halve(self._network, self.tile)
        if smaller is None:
            return None
        larger, self.tile = self.tile, smaller
        return (
            f"Out of memory in the network: tile halved from {describe_shape(larger)} to "
            f"{describe_shape(smaller)} voxels."
        )

    def recover(self) -> None:
        """Return to the first plan for the next box, unless memory was short several times."""
        if not self._short:
            self._retries = _RETRIES
        elif self._retries:
            self._retries -= 1
            self._short = False
            self._tile_before = self.tile
            self.tile, self.sum_device = self._first
        else:
            return
        self.box_voxels = math.inf
