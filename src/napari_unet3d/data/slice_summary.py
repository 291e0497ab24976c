"""What a prediction says about each slice of a stack: how much of each class, and how unsure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import Triple

Floats = NDArray[np.float64]
PerAxis = tuple[Floats, Floats, Floats]
"""One array for the slices perpendicular to z, one for those to y, one for those to x."""


@dataclass(frozen=True, eq=False)
class SliceSummary:
    """The classes and the uncertainty of every slice of one time point, in three orientations.

    It takes a few kB, however large the stack is.

    Attributes
    ----------
    shape
        Of the stack (z, y, x), voxels.
    amounts
        For each axis (n, K): the expected voxels of background and of each class on each of the
        n slices, which is the sum of their probabilities.
    unsure
        For each axis (n, K): the entropy of the voxels (0 sure … 1 undecided), weighted with the
        probability of each class, and summed.
    cells
        Mean entropy in the cells of a coarse grid (a, b, c), 0 … 1.
    cell
        Edges of a cell (z, y, x), voxels.
    """

    shape: Triple
    amounts: PerAxis
    unsure: PerAxis
    cells: Floats
    cell: Triple

    @property
    def n_classes(self) -> int:
        """Classes, background included."""
        return int(self.amounts[0].shape[1])

    def entropy(self, axis: int) -> Floats:
        """Mean entropy (n, K) of the voxels of each class on each slice; 0 where it is absent."""
        amount = self.amounts[axis]
        quotient: Floats = self.unsure[axis] / np.where(amount > 0, amount, 1)
        return quotient

    def unsure_places(self, count: int = 8) -> tuple[Triple, ...]:
        """Voxels (z, y, x) in the middle of the cells with the largest mean entropy.

        The largest comes first. Of neighboring cells only one is taken.
        """
        cells = self.cells.copy()
        places: list[Triple] = []
        while len(places) < count and cells.max() > 0:
            where = [int(i) for i in np.unravel_index(int(cells.argmax()), cells.shape)]
            middle = [i * edge + edge // 2 for i, edge in zip(where, self.cell, strict=True)]
            z, y, x = (min(i, n - 1) for i, n in zip(middle, self.shape, strict=True))
            places.append((z, y, x))
            cells[tuple(slice(max(i - 1, 0), i + 2) for i in where)] = 0
        return tuple(places)


@dataclass(frozen=True)
class ExpectedIoU:
    """The IoU of a class that is expected on the whole stack, without a held-out slice.

    Attributes
    ----------
    value
        The expected IoU.
    low, high
        The interval in which it lies, see `prediction.expected`.
    slices
        Annotated slices that it rests on.
    """

    value: float
    low: float
    high: float
    slices: int


@dataclass(frozen=True, eq=False)
class StackSummary:
    """The summaries of a stack that a model has segmented.

    Attributes
    ----------
    class_names
        Classes of the model, without background.
    by_time
        A summary for each time point that was segmented.
    expected
        Of each class; None for one that the model takes for absent. Empty where it is not known,
        as for a stack that the model was not trained on.
    """

    class_names: tuple[str, ...]
    by_time: Mapping[int, SliceSummary]
    expected: tuple[ExpectedIoU | None, ...] = ()
