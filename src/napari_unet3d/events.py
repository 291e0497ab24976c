"""What the generators of the product yield: one frozen event for each thing that happens.

`predict` yields `PredictionProgress` and `Notice`, `Trainer.run` yields every `TrainingEvent`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import Triple
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.model.bundle import ModelBundle

Result = TypeVar("Result")


def drain(
    generator: Generator[Any, None, Result], each: Callable[[Any], object] | None = None
) -> Result:
    """Run a generator of events to its end.

    Parameters
    ----------
    generator
        Yields events, such as `Trainer.run` or `predict`.
    each
        Called with every event; events are dropped when None.

    Returns
    -------
    object
        What the generator returns.
    """
    while True:
        try:
            event = next(generator)
        except StopIteration as end:
            result: Result = end.value
            return result
        if each is not None:
            each(event)


@dataclass(frozen=True)
class Notice:
    """Something the user should read, such as a tile that had to be halved."""

    text: str


@dataclass(frozen=True)
class PredictionProgress:
    """Tiles done so far; `remaining` in seconds, None while unknown."""

    done: int
    total: int
    elapsed: float
    remaining: float | None


@dataclass(frozen=True)
class ObjectsProgress:
    """Blocks of one step of finding objects that are done; `step` is a word for it."""

    step: str
    done: int
    total: int


@dataclass(frozen=True)
class InputChecked:
    """Image, annotation and settings go together; the training of a network begins.

    `parameters` counts the weights of the network's convolutions, which make up its file.
    """

    parameters: int


@dataclass(frozen=True)
class PredictionStarted:
    """The training is over and gave `bundle`; the segmentation with it begins."""

    bundle: ModelBundle


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


def mean(numbers: Sequence[float | None]) -> float | None:
    """Mean of the numbers that are there; None when none is."""
    there = [n for n in numbers if n is not None]
    return sum(there) / len(there) if there else None


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
    """One iteration is done.

    Attributes
    ----------
    iteration
        Iterations so far.
    elapsed, remaining
        Seconds of the training; `remaining` is None while unknown.
    fraction
        Share of the budget that is used, 0…1.
    loss
        Loss of the iteration; on an NVIDIA GPU that of the one before, so that it need not wait.
    memory
        Bytes that the program holds on the device.
    """

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
