"""Follow the trainings of a cross-validation and a learning curve, and print what they show."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any, TypeVar

from napari_unet3d.cli.terminal import errors, tell, visible
from napari_unet3d.errors import RunFailedError
from napari_unet3d.events import Notice, drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.quality import (
    class_qualities,
    describe_cross_validation,
    interval_note,
    learning_sentence,
    show_estimate,
)
from napari_unet3d.session.quality_runs import QualityProgress, cross_validate, learning_curve
from napari_unet3d.session.session import Session
from napari_unet3d.session.texts import show_duration

T = TypeVar("T")
_LINES = 10
"""Lines of progress, at most about."""


def add_evidence(
    session: Session, bundle: ModelBundle, folds: int | None, *, learning_curve: bool
) -> ModelBundle:
    """Cross-validate and draw a learning curve, where wanted; return the model with the results.

    Parameters
    ----------
    session
        What the model was trained on.
    bundle
        The model, which stays as it is but for its record.
    folds
        Trainings of the cross-validation; None for none.
    learning_curve
        Whether a learning curve is wanted.
    """
    evidence = bundle.record.evidence
    if folds is not None:
        evidence = replace(
            evidence, cross_validation=_followed(cross_validate(session, folds=folds))
        )
    if learning_curve:
        evidence = replace(evidence, learning_curve=_followed(_curve(session)))
    record = bundle.record.model_copy(update={"evidence": evidence})
    return bundle.model_copy(update={"record": record})


_curve = learning_curve


def print_evidence(bundle: ModelBundle) -> None:
    """Print the results of a cross-validation and a learning curve, where there are some."""
    evidence, unit = bundle.record.evidence, bundle.unit
    if (result := evidence.cross_validation) is not None:
        tell(describe_cross_validation(result))
        for row in class_qualities(result.by_slice, bundle.classes):
            tell(
                f"  {visible(row.name)}: IoU {show_estimate(row.iou)}, Dice "
                f"{show_estimate(row.dice)}, distance {show_estimate(row.distance)} {unit}"
            )
        tell(f"  {interval_note(len(result.by_slice))}")
    if (curve := evidence.learning_curve) is not None:
        tell(f"Learning curve: {learning_sentence(curve)}")


def _followed(work: Generator[Any, None, T | None]) -> T:
    """Run to the end with a line now and then."""
    told = -1.0

    def each(event: Any) -> None:
        nonlocal told
        if isinstance(event, Notice):
            errors.note(event.text)
        elif isinstance(event, QualityProgress) and event.fraction >= told + 1 / _LINES:
            told = event.fraction
            left = "" if event.remaining is None else f", {show_duration(event.remaining)} left"
            errors.print(f"{event.fraction:4.0%}, {event.task}: {event.step}{left}")

    result = drain(work, each)
    if result is None:  # nothing cancels here
        raise RunFailedError("The trainings were cancelled.")
    return result
