"""What a training tells whoever iterates it, and what it can be told."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import Triple
from napari_unet3d.data.annotation import SliceRef
from napari_unet3d.prediction.predictor import Notice
from napari_unet3d.prediction.scores import ClassScore, mean


@dataclass(frozen=True)
class TrainingStarted:
    """The plan of a run, before its first iteration."""

    parameters: int
    device: str
    precision: str
    patch_shape: Triple
    labelled_voxels: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PixelsStarted:
    """The pixel classifier begins to learn, which takes seconds before the first iteration."""


@dataclass(frozen=True)
class TrainingProgress:
    """One iteration done: times in seconds, `fraction` of the budget, `memory` in bytes."""

    iteration: int
    elapsed: float
    remaining: float | None
    fraction: float
    loss: float
    memory: int


@dataclass(frozen=True)
class HeldOutScores:
    """Scores on the held-out slices, after so many iterations.

    Attributes
    ----------
    classes
        One score a class, foreground only; None for a class that is absent.
    slices
        The held-out slices, as text.
    distance
        Slices from a held-out slice to the nearest trained one of the same orientation;
        None when there is none. Neighbors look alike: a small distance flatters.
    scored
        Share of the labelled held-out voxels that were scored; below 1 when time was short.
    """

    iteration: int
    elapsed: float
    classes: tuple[ClassScore, ...]
    slices: tuple[str, ...]
    distance: int | None
    scored: float = 1.0

    @property
    def mean_iou(self) -> float | None:
        """Mean over the classes that are there."""
        return mean([c.iou for c in self.classes])

    @property
    def mean_dice(self) -> float | None:
        """Mean over the classes that are there."""
        return mean([c.dice for c in self.classes])


@dataclass(frozen=True)
class SlicePreview:
    """The watched slice as the network sees it now: 2D, with the numbers of a segmentation."""

    ref: SliceRef
    labels: NDArray[np.uint8]


TrainingEvent = (
    TrainingStarted | PixelsStarted | TrainingProgress | HeldOutScores | SlicePreview | Notice
)


class TrainingControl:
    """Orders for a running training; may be given from any thread."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._cancel = threading.Event()
        self._watched: SliceRef | None = None

    def stop(self) -> None:
        """End the training soon and keep its model."""
        self._stop.set()

    def cancel(self) -> None:
        """End as soon as possible and drop everything."""
        self._cancel.set()

    @property
    def stopped(self) -> bool:
        """Whether the training is to end."""
        return self._stop.is_set() or self._cancel.is_set()

    @property
    def cancelled(self) -> bool:
        """Whether everything is to be dropped."""
        return self._cancel.is_set()

    def watch(self, ref: SliceRef | None) -> None:
        """Name the slice to predict now and then while training; None for none."""
        self._watched = ref

    @property
    def watched(self) -> SliceRef | None:
        """The slice to predict now and then."""
        return self._watched
