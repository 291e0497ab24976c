"""More time for a model that was trained: how much to offer, and how the training goes on."""

from __future__ import annotations

from dataclasses import replace

from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.session import Session

_MORE, _MUCH_MORE = 60.0, 300.0
"""Seconds that are offered after a training, and after one whose network has hardly learned."""


def more_seconds(bundle: ModelBundle) -> float:
    """Seconds of training to offer for a model: the more, the less its network has learned."""
    return _MUCH_MORE if bundle.record.starved else max(_MORE, _rounded(bundle.record.seconds))


def with_more_time(session: Session, seconds: float) -> Session:
    """The session with a budget that trains its starting model for so many seconds more.

    Parameters
    ----------
    session
        Its `resume` is the wish to resume the training of `start_from` with its optimizer. Where
        that is not possible, since the classes are others or the model was saved without its
        state, the model is fine-tuned.
    seconds
        Time that the training gets.
    """
    start, resume = session.start_from, _resumes(session)
    before = start.bundle.record.seconds if start is not None and resume else 0.0
    update = {"seconds": before + seconds, "iterations": None}
    training = session.settings.training.model_copy(update=update)
    settings = session.settings.model_copy(update={"training": training})
    return replace(session, settings=settings, resume=resume)


def _resumes(session: Session) -> bool:
    """Whether the starting model is to be resumed, and has the state and the classes for it."""
    start = session.start_from
    if not session.resume or start is None or session.annotation is None:
        return False
    trained, painted = start.bundle.classes, session.annotation.classes
    return bool(start.bundle.state) and [c.value for c in trained] == [c.value for c in painted]


def _rounded(seconds: float) -> float:
    """A number of minutes that is about as long."""
    return 60.0 * round(seconds / 60)
