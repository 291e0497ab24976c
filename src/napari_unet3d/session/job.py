"""What a run does in its thread: train, show slices as it learns, segment the whole stack.

It knows arrays only. The layers that show these arrays belong to the main thread.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_unet3d.config import ClassInfo, PredictionConfig
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import PredictionStarted, SlicePreview
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.trainer import Trainer


@dataclass(frozen=True)
class Outputs:
    """Arrays that take the result; the optional ones are None when not wanted."""

    labels: np.ndarray
    probabilities: np.ndarray | None = None
    uncertainty: np.ndarray | None = None


def make_outputs(
    volume: Volume, classes: tuple[ClassInfo, ...], *, probabilities: bool, uncertainty: bool
) -> Outputs:
    """Empty arrays for a prediction; memory is taken as they are written."""
    times = (volume.n_times,) if "T" in volume.axes else ()
    shape = (*times, *volume.shape)
    return Outputs(
        labels=np.zeros(shape, np.uint8),
        probabilities=np.zeros((*times, len(classes) + 1, *volume.shape), np.float32)
        if probabilities
        else None,
        uncertainty=np.zeros(shape, np.float32) if uncertainty else None,
    )


def train_and_segment(
    make_trainer: Callable[[], Trainer],
    control: TrainingControl,
    volume: Volume,
    outputs: Outputs,
    config: PredictionConfig,
    times: Sequence[int] | None = None,
) -> Generator[Any, None, ModelBundle | None]:
    """Train, then segment; the training's events, then `PredictionStarted`, then predict's.

    `make_trainer` checks the input, which may take a while on a big stack: it is called in the
    thread too, and its `BadInputError` comes before the first event.
    Previews of slices are written into `outputs.labels` here, in the same thread as the final
    prediction, so that a late preview can never overwrite it.

    Returns
    -------
    ModelBundle or None
        None when the training was cancelled.
    """
    trainer = make_trainer()
    if control.cancelled:  # while the input was checked
        return None
    training = trainer.run(control)
    try:
        while True:
            event = next(training)
            if isinstance(event, SlicePreview):
                show_preview(outputs.labels, event)
            yield event
    except StopIteration as end:
        bundle: ModelBundle | None = end.value
    finally:
        training.close()
    if bundle is None:
        return None
    yield PredictionStarted(bundle)
    yield from segment(bundle, volume, outputs, config, times)
    return bundle


def segment(
    bundle: ModelBundle,
    volume: Volume,
    outputs: Outputs,
    config: PredictionConfig,
    times: Sequence[int] | None = None,
) -> Generator[Any, None, ModelBundle]:
    """Apply a model to a stack, or to some time points of it; predict's events."""
    yield from predict(
        bundle,
        volume,
        outputs.labels,
        probabilities=outputs.probabilities,
        uncertainty=outputs.uncertainty,
        times=times,
        config=config,
    )
    return bundle


def show_preview(labels: np.ndarray, preview: SlicePreview) -> None:
    """Write a predicted slice into ZYX or TZYX labels."""
    ref = preview.ref
    stack = labels[ref.time] if labels.ndim == 4 else labels
    where = (slice(None),) * ref.axis + (ref.index,)
    stack[where] = preview.labels
