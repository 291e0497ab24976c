"""A part of a slice: a mask and where it lies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.data.edits import SliceEdit
from napari_unet3d.data.slices import SliceRef


@dataclass(frozen=True, eq=False)
class Region:
    """Voxels of one slice.

    Parameters
    ----------
    start
        First row and column of the box that holds them.
    mask
        (h, w) bool: the voxels of the box that belong to the region.
    """

    start: tuple[int, int]
    mask: NDArray[np.bool_]

    @classmethod
    def of(cls, mask: NDArray[np.bool_], start: tuple[int, int] = (0, 0)) -> Region | None:
        """The region of a mask, in the smallest box that holds it; None for an empty mask."""
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if not len(rows):
            return None
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        return cls((start[0] + int(rows[0]), start[1] + int(columns[0])), mask[box])

    @property
    def voxels(self) -> int:
        """How many voxels belong to it."""
        return int(np.count_nonzero(self.mask))

    @property
    def box(self) -> tuple[slice, slice]:
        """Index of the box in the slice."""
        (row, column), (height, width) = self.start, self.mask.shape
        return slice(row, row + height), slice(column, column + width)

    def edit(self, ref: SliceRef, label: int) -> SliceEdit:
        """The edit that gives all its voxels one label."""
        return SliceEdit(ref, self.start, self.mask, label)

    def within(
        self, point: tuple[int, int], radius: float | None, spacing: tuple[float, float]
    ) -> Region:
        """The voxels that lie no further from a voxel of the region than a radius.

        Parameters
        ----------
        point
            Row and column of the voxel in the slice.
        radius
            In the unit of `spacing`; None for no bound.
        spacing
            Size of the voxels along the rows and columns.
        """
        if radius is None:
            return self
        rows, columns = np.ogrid[self.box]
        squared = ((rows - point[0]) * spacing[0]) ** 2 + ((columns - point[1]) * spacing[1]) ** 2
        bounded = Region.of(self.mask & (squared <= radius**2), self.start)
        assert bounded is not None  # it holds the point
        return bounded

    def outline(self) -> NDArray[np.float32]:
        """The edges of its voxels that border on other voxels.

        Returns
        -------
        np.ndarray
            (n, 2, 2): for each edge its two ends, as row and column of the slice; the center of a
            voxel has whole numbers.
        """
        padded = np.pad(self.mask, 1)
        across, along = np.array([0.5, 0]), np.array([0, 0.5])
        # Two neighbors in a row that differ have an upright edge between them.
        upright = np.argwhere(padded[:, 1:] != padded[:, :-1]) - (1, 0.5)
        level = np.argwhere(padded[1:] != padded[:-1]) - (0.5, 1)
        edges = np.concatenate(
            [
                np.stack([upright - across, upright + across], 1),
                np.stack([level - along, level + along], 1),
            ]
        )
        return np.asarray(edges + self.start, np.float32)
