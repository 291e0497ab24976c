"""What a training tells whoever iterates it, and what it can be told."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import Triple
from napari_unet3d.data.annotation import SliceRef
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.predictor import Notice
from napari_unet3d.prediction.scores import ClassScore, mean


@dataclass(frozen=True)
class Forecast:
    """How long the parts of a run will take, in seconds, from a short measurement.

    Attributes
    ----------
    training
        What is left of the training, the pixel classifier included.
    finishing
        Batch-norm statistics, calibration and final scores, which follow the training.
    segmenting
        Segmenting one time point of the whole stack with the model.
    """

    training: float
    finishing: float
    segmenting: float


@dataclass(frozen=True)
class TrainingStarted:
    """The plan of a run, before its first iteration.

    Attributes
    ----------
    forecast
        Seconds that the parts of the run are expected to take; None while that is unknown.
    """

    parameters: int
    device: str
    precision: str
    patch_shape: Triple
    labelled_voxels: int
    notes: tuple[str, ...] = ()
    forecast: Forecast | None = None


@dataclass(frozen=True)
class PixelsStarted:
    """The pixel classifier begins to learn, which takes seconds before the first iteration."""


@dataclass(frozen=True)
class FinishingStarted:
    """The last iteration is done: the model is calibrated and measured.

    `elapsed` are the seconds of the training, `expected` those that this will take, None while
    unknown.
    """

    elapsed: float
    expected: float | None


@dataclass(frozen=True)
class Checkpoint:
    """The model as it is now, to be saved in case the training is cut off.

    It can be resumed and applied; its decisions are not calibrated yet, and nothing is measured.
    """

    bundle: ModelBundle


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
    final
        Whether these are the scores of the finished model. Others are quick looks on the way:
        with thin tiles and before the calibration, so they may be lower or higher.
    """

    iteration: int
    elapsed: float
    classes: tuple[ClassScore, ...]
    slices: tuple[str, ...]
    distance: int | None
    scored: float = 1.0
    final: bool = False

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
    TrainingStarted
    | PixelsStarted
    | TrainingProgress
    | FinishingStarted
    | Checkpoint
    | HeldOutScores
    | SlicePreview
    | Notice
)


class TrainingControl:
    """Orders for a running training; may be given from any thread."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._cancel = threading.Event()
        self._watched: SliceRef | None = None
        self._stopped_at = 0.0
        self._checkpoint_seconds: float | None = None

    def stop(self) -> None:
        """End the training soon and keep its model."""
        if not self._stop.is_set():
            self._stopped_at = time.monotonic()
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

    @property
    def stopped_for(self) -> float:
        """Seconds since `stop`; 0 before it."""
        return time.monotonic() - self._stopped_at if self._stop.is_set() else 0.0

    def checkpoint_every(self, seconds: float | None) -> None:
        """Yield a `Checkpoint` whenever so many seconds have passed; never when None."""
        self._checkpoint_seconds = seconds

    @property
    def checkpoint_seconds(self) -> float | None:
        """Seconds from one checkpoint to the next; None for no checkpoints."""
        return self._checkpoint_seconds

    def watch(self, ref: SliceRef | None) -> None:
        """Name the slice to predict now and then while training; None for none."""
        self._watched = ref

    @property
    def watched(self) -> SliceRef | None:
        """The slice to predict now and then."""
        return self._watched
