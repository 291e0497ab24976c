"""What the generators of the product yield: one frozen event for each thing that happens.

`predict` yields `PredictionProgress` and `Notice`, `Trainer.run` yields every `TrainingEvent`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import Triple
from napari_unet3d.data.slice_summary import ExpectedIoU, SliceSummary, StackSummary
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.evidence import SliceScore

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
class SlicesSummarized:
    """The stack is segmented with `bundle`; `summaries` tells each slice, by time point.

    `expected` is the IoU that is expected of each class, see `StackSummary`.
    """

    bundle: ModelBundle
    summaries: Mapping[int, SliceSummary]
    expected: tuple[ExpectedIoU | None, ...] = ()

    @property
    def summary(self) -> StackSummary:
        """The summaries as the session and the window keep them."""
        names = tuple(info.name for info in self.bundle.classes)
        return StackSummary(names, self.summaries, self.expected)


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
    by_slice
        The same scores slice by slice, from which their uncertainty follows; without the slices
        on which nothing was measured. Distances are those of the finished model only.
    unit
        Unit of the distances, such as "µm"; empty where that is not known.
    """

    iteration: int
    elapsed: float
    classes: tuple[ClassScore, ...]
    slices: tuple[str, ...]
    distance: int | None
    scored: float = 1.0
    final: bool = False
    by_slice: tuple[SliceScore, ...] = ()
    unit: str = ""

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


@dataclass(frozen=True)
class SlicesJoined:
    """Slices that were painted or held out while the training runs have joined it.

    Attributes
    ----------
    trained
        Slices whose new labels are trained on from now on.
    held_out
        Slices that have left the training and are measured from now on.
    seen
        Held-out slices, old and new, that the network was trained on before, with the seconds
        that it took: their scores flatter.
    erased
        Slices that have left the training since nothing is painted on them any more.
    left_out
        Slices with labels that are in no class of this training, and these labels. Such voxels
        count as unlabelled, since another class needs another last layer of the network.
    refused
        Slices that stay as they were, since nothing would be left to train on.
    """

    trained: tuple[SliceRef, ...] = ()
    held_out: tuple[SliceRef, ...] = ()
    seen: tuple[tuple[SliceRef, float], ...] = ()
    erased: tuple[SliceRef, ...] = ()
    left_out: tuple[tuple[SliceRef, tuple[int, ...]], ...] = ()
    refused: tuple[SliceRef, ...] = ()


@dataclass(frozen=True)
class RoundStarted:
    """A round of a continuous training begins: its number, from 1, and its length in seconds."""

    number: int
    seconds: float


RoundEnd = Literal["", "stopped", "scores", "result", "time"]
"""Why a continuous training rests: "" it goes on; "stopped" by the user; "scores" of the held-out
slices have not risen; the "result" has hardly changed; the "time" is over that it may take."""


@dataclass(frozen=True)
class RoundFinished:
    """A round of a continuous training has given a model, which is calibrated and measured.

    Attributes
    ----------
    bundle
        The model.
    number
        Number of the round, from 1.
    seconds
        Seconds of the training so far.
    end
        Why the training rests now.
    gain
        Mean IoU of the held-out slices minus the best one before; None where it is not known.
    agreement
        Mean IoU of the result with that of the round before, on a sample of the stack; None after
        the first round.
    """

    bundle: ModelBundle
    number: int
    seconds: float
    end: RoundEnd = ""
    gain: float | None = None
    agreement: float | None = None


TrainingEvent = (
    TrainingStarted
    | Forecast
    | SlicesJoined
    | RoundStarted
    | RoundFinished
    | PixelsStarted
    | TrainingProgress
    | FinishingStarted
    | Checkpoint
    | HeldOutScores
    | SlicePreview
    | Notice
)
