"""Edits of single slices of an annotation, which tools make and a window applies and undoes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.data.slices import SliceRef


@dataclass(frozen=True, eq=False)
class SliceEdit:
    """New labels for some voxels of one slice.

    Parameters
    ----------
    ref
        The slice.
    start
        First row and column, in the slice, of the box that is edited.
    mask
        (h, w) bool: the voxels of the box that get new labels.
    labels
        The new labels: one for all, or (h, w) of which those under the mask are used.
    """

    ref: SliceRef
    start: tuple[int, int]
    mask: NDArray[np.bool_]
    labels: NDArray[np.integer] | int

    @classmethod
    def between(cls, ref: SliceRef, before: np.ndarray, after: np.ndarray) -> SliceEdit | None:
        """The edit that turns the whole slice `before` into `after` (both 2D); None if equal."""
        mask = before != after
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if not len(rows):
            return None
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        return cls(ref, (int(rows[0]), int(columns[0])), mask[box], after[box])

    @property
    def voxels(self) -> int:
        """How many voxels get new labels."""
        return int(np.count_nonzero(self.mask))

    def indices(self, ndim: int = 3) -> tuple[np.ndarray, ...]:
        """Index arrays of the voxels, one for each axis of ZYX (or, with `ndim` 4, TZYX) labels."""
        first, second = np.nonzero(self.mask)
        position = [first + self.start[0], second + self.start[1]]
        position.insert(self.ref.axis, np.full_like(first, self.ref.index))
        if ndim == 4:
            position.insert(0, np.full_like(first, self.ref.time))
        return tuple(position)

    def on(self, labels: np.ndarray) -> np.ndarray:
        """Return the labels (2D) of the slice after the edit."""
        labels = labels.copy()
        box = tuple(slice(a, a + n) for a, n in zip(self.start, self.mask.shape, strict=True))
        labels[box][self.mask] = self.values()
        return labels

    def values(self) -> np.ndarray | int:
        """The new labels, in the order of `indices`."""
        return self.labels if isinstance(self.labels, int) else self.labels[self.mask]

    def in_box(
        self, ndim: int = 3
    ) -> tuple[tuple[slice, ...], NDArray[np.bool_], np.ndarray | int]:
        """The edit as a box of ZYX (or, with `ndim` 4, TZYX) labels.

        Returns
        -------
        box : tuple of slice
            One for each axis.
        mask : np.ndarray
            Bool, in the shape of the box: the voxels that get new labels.
        values : np.ndarray or int
            The new labels: one for all, or one for each voxel of the mask, in its order.
        """
        box = [slice(a, a + n) for a, n in zip(self.start, self.mask.shape, strict=True)]
        box.insert(self.ref.axis, slice(self.ref.index, self.ref.index + 1))
        mask = np.expand_dims(self.mask, self.ref.axis)
        if ndim == 4:
            box.insert(0, slice(self.ref.time, self.ref.time + 1))
            mask = mask[None]
        return tuple(box), mask, self.values()
