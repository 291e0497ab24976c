"""Continuous training: rounds of one training, until more time does not help; then the stack."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from typing import Any

import numpy as np

from napari_unet3d.errors import BadInputError
from napari_unet3d.events import (
    InputChecked,
    PredictionStarted,
    RoundFinished,
    SlicePreview,
)
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.geometry import parameter_count
from napari_unet3d.session.job import Outputs, make_trainer, segment, show_preview
from napari_unet3d.session.more_time import with_more_time
from napari_unet3d.session.session import Session
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.rounds import FIRST_ROUND


def run_continuously(
    session: Session,
    control: TrainingControl | None = None,
    outputs: Outputs | None = None,
    *,
    first_round: float = FIRST_ROUND,
) -> Generator[Any, None, ModelBundle | None]:
    """Train in rounds until more time does not help, then segment the stack.

    One network, one optimizer and one pixel classifier live through all rounds; slices join with
    `TrainingControl.join`. Where slices wait to join while the stack is segmented, the
    segmentation is left and the training goes on: it is made again when the training rests.

    Parameters
    ----------
    session
        Image, annotation and settings; the budget of the settings is not used. A segmentation of
        the session fills the labels until they are segmented anew.
    control
        Stops or cancels the training, names the slice that is predicted while it goes on, and
        hands slices over.
    outputs
        Arrays that take the segmentation; None when nothing is to be segmented.
    first_round
        Seconds of the first round; each further one takes twice as long.

    Yields
    ------
    object
        `InputChecked` and the events of `Trainer.run_rounds`; each time the training rests,
        `PredictionStarted` and the events of `predict`.

    Returns
    -------
    ModelBundle or None
        The model of the last round; None when the training was cancelled.

    Raises
    ------
    BadInputError
        The input cannot be used. It comes before the first event.
    RunFailedError
        Something failed on the way. A `TrainingFailedError` holds what was trained until then.
    """
    volume, control = session.volume, control or TrainingControl()
    if volume is None:
        raise BadInputError("No image is open. Open one, then start again.")
    session = with_more_time(session, first_round)
    trainer = make_trainer(session, volume)
    if control.cancelled:  # while the input was checked
        return None
    before = session.segmentation
    if outputs is not None and before is not None and before.shape == outputs["labels"].shape:
        np.copyto(outputs["labels"], before, casting="unsafe")
    yield InputChecked(parameter_count(trainer.plan.network))
    with closing(trainer.run_rounds(control, first_round)) as training:
        for event in training:
            if outputs is not None and isinstance(event, SlicePreview):
                show_preview(outputs["labels"], event)
            yield event
            if not isinstance(event, RoundFinished) or not event.end:
                continue
            if outputs is not None:
                yield PredictionStarted(event.bundle)
                tiles = segment(event.bundle, volume, outputs, session.settings, trained_here=True)
                with closing(tiles):
                    for tile in tiles:
                        yield tile
                        if _goes_on(control, event):
                            break
            if not _goes_on(control, event):
                return event.bundle
    return None


def _goes_on(control: TrainingControl, rested: RoundFinished) -> bool:
    """Whether the training goes on, since slices wait to join; not when the user said stop."""
    return rested.end != "stopped" and control.has_paint
