"""IoU and Dice of a segmentation, class by class; what is absent has no score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class.

    Attributes
    ----------
    value
        Label value of the class.
    iou
        TP/(TP+FP+FN) (Çiçek et al. 2016, sec. 4); None when the class is in neither.
    dice
        2TP/(2TP+FP+FN); None when the class is in neither.
    voxels
        Voxels of the class in the truth.
    """

    value: int
    iou: float | None
    dice: float | None
    voxels: int


class Overlap:
    """Counts of true and false positives and negatives, added up part by part.

    Parameters
    ----------
    values
        Label values of the classes to score.
    """

    def __init__(self, values: Sequence[int]) -> None:
        self.values = tuple(values)
        self._both = np.zeros(len(values), np.int64)
        self._predicted = np.zeros(len(values), np.int64)
        self._true = np.zeros(len(values), np.int64)

    def add(
        self,
        predicted: NDArray[np.integer],
        truth: NDArray[np.integer],
        mask: NDArray[np.bool_] | None = None,
    ) -> None:
        """Count two arrays of the same shape; only where `mask` is True, when there is one."""
        if mask is not None:
            predicted, truth = predicted[mask], truth[mask]
        for i, value in enumerate(self.values):
            p, t = predicted == value, truth == value
            self._both[i] += np.count_nonzero(p & t)
            self._predicted[i] += np.count_nonzero(p)
            self._true[i] += np.count_nonzero(t)

    def scores(self) -> tuple[ClassScore, ...]:
        """One score for each class, in the order of `values`."""
        found = []
        for i, value in enumerate(self.values):
            both, total = int(self._both[i]), int(self._predicted[i] + self._true[i])
            iou = both / (total - both) if total else None
            dice = 2 * both / total if total else None
            found.append(ClassScore(value, iou, dice, int(self._true[i])))
        return tuple(found)


def mean(numbers: Sequence[float | None]) -> float | None:
    """Mean of the numbers that are there; None when none is."""
    there = [n for n in numbers if n is not None]
    return sum(there) / len(there) if there else None


def show(number: float | None) -> str:
    """A score with three digits; "—" when there is none."""
    return "—" if number is None else f"{number:.3f}"
