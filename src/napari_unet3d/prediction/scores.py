"""IoU and Dice of a segmentation, class by class; a class that is absent has no score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.slices import count_labels
from napari_unet3d.events import ClassScore


def label_table(classes: Sequence[ClassInfo]) -> NDArray[np.uint8]:
    """The number in the annotation of background (0) and each class, by index of probability."""
    return np.array([0, *(c.value for c in classes)], np.uint8)


class Counts(NamedTuple):
    """True positives, false positives and false negatives of a class, voxels."""

    hits: int
    false: int
    missed: int


class Overlap:
    """Counts of true and false positives and negatives, added up part by part.

    Parameters
    ----------
    values
        Label values of the classes to score; all that occur when None. 0 is not a class.
    """

    def __init__(self, values: Sequence[int] | None = None) -> None:
        self.values = None if values is None else tuple(values)
        self._both: Counter[int] = Counter()
        self._predicted: Counter[int] = Counter()
        self._true: Counter[int] = Counter()

    def add(
        self,
        predicted: NDArray[np.integer],
        truth: NDArray[np.integer],
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """Count two arrays of the same shape, only where `mask` is True if one is given."""
        if mask is not None:
            predicted, truth = predicted[mask], truth[mask]
        self._predicted.update(count_labels(predicted))
        self._true.update(count_labels(truth))
        self._both.update(count_labels(truth[predicted == truth]))

    def add_all(self, others: Iterable[Overlap]) -> None:
        """Add what others have counted."""
        for other in others:
            self._both.update(other._both)
            self._predicted.update(other._predicted)
            self._true.update(other._true)

    def counts(self, value: int) -> Counts:
        """The counts of one class."""
        both = self._both[value]
        return Counts(both, self._predicted[value] - both, self._true[value] - both)

    def scores(self, values: Sequence[int] | None = None) -> tuple[ClassScore, ...]:
        """One score for each class of `values`, or else of the values given to the class."""
        if values is None:
            values = self.values
        if values is None:
            values = sorted({*self._predicted, *self._true})
        scores = []
        for value in values:
            both, true = self._both[value], self._true[value]
            total = self._predicted[value] + true
            iou = both / (total - both) if total else None
            dice = 2 * both / total if total else None
            scores.append(ClassScore(value, iou, dice, true))
        return tuple(scores)


def show(number: float | None) -> str:
    """A score with three digits, or "—" for None."""
    return "—" if number is None else f"{number:.3f}"
