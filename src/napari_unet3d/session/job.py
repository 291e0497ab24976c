"""One job: check the input, train a model, segment the stack with it."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.slice_summary import ExpectedIoU
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import InputChecked, PredictionStarted, SlicePreview, SlicesSummarized
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.geometry import parameter_count
from napari_unet3d.prediction.expected import expected_iou
from napari_unet3d.prediction.outputs import chosen_outputs
from napari_unet3d.prediction.predictor import check_settings, predict
from napari_unet3d.prediction.tally import SliceTally
from napari_unet3d.session.session import RunSettings, Session
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.trainer import Trainer

Outputs = Mapping[str, Any]
"""Arrays or files that take the result, by the names of `prediction.outputs`; "labels" is always
among them."""


def make_outputs(
    volume: Volume, classes: Sequence[ClassInfo], wanted: Collection[str] = ()
) -> Outputs:
    """Empty arrays for the labels and the wanted outputs; memory is taken as they are written."""
    return {
        output.name: np.zeros(output.shape(volume, classes), output.dtype)
        for output in chosen_outputs(wanted)
    }


def run_job(
    session: Session,
    control: TrainingControl | None = None,
    outputs: Outputs | None = None,
    *,
    train: bool = True,
) -> Generator[Any, None, ModelBundle | None]:
    """Check the input, train, then segment: the whole work as one generator of events.

    The window iterates it in a thread, the command line in a loop. Layers, progress bars and the
    saving of the model belong to those who iterate it. Checking a large stack may take seconds,
    so it is part of the job: the first `next` does it.

    Parameters
    ----------
    session
        Image, annotation and settings; without `train` also the current model.
    control
        Stops or cancels the training, and names the slice that is predicted while it goes on.
    outputs
        Arrays that take the segmentation; None when nothing is to be segmented. A preview of the
        watched slice is written into `outputs["labels"]` by the same thread as the segmentation, so
        a late preview can never overwrite it.
    train
        Whether a model is trained; if not, the current model of the session is applied.

    Yields
    ------
    object
        `InputChecked` and the events of `Trainer.run`; between training and segmentation
        `PredictionStarted`; then the events of `predict`, and `SlicesSummarized`.

    Returns
    -------
    ModelBundle or None
        The model that was trained or applied; None when the training was cancelled.

    Raises
    ------
    BadInputError
        The input cannot be used. It comes before the first event.
    RunFailedError
        Something failed on the way. A `TrainingFailedError` holds what was trained until then.
    """
    volume = session.volume
    if volume is None:
        raise BadInputError("No image is open. Open one, then start again.")
    if train:
        labels = None if outputs is None else outputs["labels"]
        bundle = yield from _train(session, volume, control or TrainingControl(), labels)
        if bundle is None:
            return None
        if outputs is not None:
            yield PredictionStarted(bundle)
    elif session.model is not None:
        bundle = session.model.bundle
    else:
        raise BadInputError("There is no model to apply. Train one, or load one.")
    if outputs is not None:
        yield from segment(bundle, volume, outputs, session.settings, trained_here=train)
    return bundle


def segment(
    bundle: ModelBundle,
    volume: Volume,
    outputs: Outputs,
    settings: RunSettings,
    *,
    trained_here: bool,
) -> Generator[Any, None, None]:
    """Segment a stack into `outputs`; yields the events of `predict`, then `SlicesSummarized`.

    What is expected of the result is only known for the stack that the model was trained on:
    `trained_here` says that it is this one; otherwise its gray values tell.
    """
    more = {name: array for name, array in outputs.items() if name != "labels"}
    tally = SliceTally(volume.shape, bundle.network.n_classes)
    yield from predict(
        bundle,
        volume,
        outputs["labels"],
        times=settings.times,
        config=settings.prediction,
        tally=tally,
        **more,
    )
    expected: tuple[ExpectedIoU | None, ...] = ()
    if bundle.record.cross_fitted and (trained_here or _is_trained_on(bundle, volume)):
        expected = expected_iou(tally.overlaps(), bundle.record.cross_fitted)
    yield SlicesSummarized(bundle, tally.summaries(), expected)


def _is_trained_on(bundle: ModelBundle, volume: Volume) -> bool:
    """Whether a volume has the gray values of the stack that a model was trained on."""
    known = bundle.intensity
    if volume.n_channels != known.n_channels:
        return False
    return IntensityNormalization.estimate(volume, known.clip) == known


def _train(
    session: Session, volume: Volume, control: TrainingControl, labels: Any
) -> Generator[Any, None, ModelBundle | None]:
    """Check and train; previews are written into `labels` unless that is None."""
    trainer = make_trainer(session, volume)
    if control.cancelled:  # while the input was checked
        return None
    yield InputChecked(parameter_count(trainer.plan.network))
    with closing(trainer.run(control)) as training:
        while True:
            try:
                event = next(training)
            except StopIteration as end:
                bundle: ModelBundle | None = end.value
                return bundle
            if labels is not None and isinstance(event, SlicePreview):
                show_preview(labels, event)
            yield event


def make_trainer(session: Session, volume: Volume) -> Trainer:
    """A trainer for the annotation and the settings of a session.

    Raises
    ------
    BadInputError
        The input cannot be used.
    """
    if session.annotation is None:
        raise BadInputError("There is no annotation to train on. Paint one, or open one.")
    start = session.start_from
    trainer = Trainer(
        volume,
        session.annotation,
        session.settings.training,
        start_from=None if start is None else start.bundle,
        resume=session.resume,
    )
    # What cannot be used after the training is refused before it.
    check_settings(session.settings.prediction, trainer.plan.network)
    return trainer


def show_preview(labels: np.ndarray, preview: SlicePreview) -> None:
    """Write a predicted slice into ZYX or TZYX labels."""
    ref = preview.ref
    stack = labels[ref.time] if labels.ndim == 4 else labels
    where = (slice(None),) * ref.axis + (ref.index,)
    stack[where] = preview.labels
