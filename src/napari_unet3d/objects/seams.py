"""Keeps the border voxels of finished blocks, in which the next blocks find their neighbors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import Triple
from napari_unet3d.data.boxes import Box

Numbers = NDArray[np.int64]


class Seams:
    """Keeps the border voxels of blocks that are visited in raster order, x fastest.

    Memory is that of two planes of the stack.

    Parameters
    ----------
    shape
        Of the stack (z, y, x), voxels.
    """

    def __init__(self, shape: Triple) -> None:
        self.shape = shape
        _, height, width = shape
        # A margin of one voxel on each side, always 0, stands for what is outside of the stack.
        self._above, self._last_plane = (np.zeros((height + 2, width + 2), np.int64) for _ in "ab")
        self._behind = self._last_row = self._left = np.zeros((0, 0), np.int64)
        self._layer = self._row = -1
        self._width = width

    def framed(self, box: Box) -> Numbers:
        """An array one voxel larger than a box on each side, with the neighbors that are known.

        Neighbors in blocks that are not done yet are 0, as is the box itself.
        """
        (z, y, x), (_, bottom, right) = box.start, box.stop
        depth = box.shape[0]
        if z != self._layer:
            self._above, self._last_plane = self._last_plane, np.zeros_like(self._above)
            self._behind, self._last_row = (
                np.zeros((depth, self._width + 2), np.int64) for _ in "ab"
            )
            self._layer, self._row = z, y
            self._left = np.zeros((depth, box.shape[1]), np.int64)
        elif y != self._row:
            self._behind, self._last_row = self._last_row, np.zeros_like(self._behind)
            self._row = y
            self._left = np.zeros((depth, box.shape[1]), np.int64)
        frame = np.zeros([n + 2 for n in box.shape], np.int64)
        frame[0] = self._above[y : bottom + 2, x : right + 2]
        frame[1:-1, 0] = self._behind[:, x : right + 2]
        frame[1:-1, 1:-1, 0] = self._left
        return frame

    def put(self, box: Box, numbers: Numbers) -> None:
        """Keep the border voxels of a block that is done."""
        (_, y, x), (_, bottom, right) = box.start, box.stop
        self._last_plane[y + 1 : bottom + 1, x + 1 : right + 1] = numbers[-1]
        self._last_row[:, x + 1 : right + 1] = numbers[:, -1]
        self._left = numbers[:, :, -1].copy()
