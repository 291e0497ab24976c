"""Follow the trainings of a cross-validation and a learning curve, and print what they show."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from napari_unet3d.cli.terminal import errors, tell, visible
from napari_unet3d.config import ClassInfo
from napari_unet3d.errors import RunFailedError
from napari_unet3d.events import Notice, drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.evidence import Evidence
from napari_unet3d.session.quality import (
    class_qualities,
    describe_cross_validation,
    interval_note,
    learning_sentence,
    show_estimate,
)
from napari_unet3d.session.quality_runs import (
    QualityProgress,
    cross_validate,
    learning_curve,
    plan_cross_validation,
    plan_learning_curve,
)
from napari_unet3d.session.session import Session
from napari_unet3d.session.texts import show_duration

T = TypeVar("T")
_LINES = 10
"""Lines of progress that a measurement prints, so that a log stays short."""


def check_evidence(session: Session, folds: int | None, *, learning_curve: bool) -> None:
    """Raise BadInputError where the annotation allows no such measurement; as `add_evidence`.

    Called before the training, which the measurements follow: their refusal would come late.
    """
    if folds is not None:
        plan_cross_validation(session, folds)
    if learning_curve:
        plan_learning_curve(session)


def add_evidence(
    session: Session, bundle: ModelBundle, folds: int | None, *, learning_curve: bool
) -> ModelBundle:
    """Cross-validate and draw a learning curve, where wanted; return the model with the results.

    Parameters
    ----------
    session
        What the model was trained on. Evidence that it has already stays, unless it is measured
        anew.
    bundle
        The model, which stays as it is but for its record.
    folds
        Trainings of the cross-validation; None for none.
    learning_curve
        Whether a learning curve is wanted.
    """
    evidence = session.evidence
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
    for line in evidence_lines(bundle.record.evidence, bundle.classes, bundle.unit):
        tell(line)


def evidence_lines(evidence: Evidence, classes: Sequence[ClassInfo], unit: str) -> list[str]:
    """Say what a cross-validation and a learning curve have shown; no line where none was made.

    Parameters
    ----------
    evidence
        The results.
    classes, unit
        The class table, and the unit of distances.
    """
    lines = []
    if (result := evidence.cross_validation) is not None:
        lines.append(describe_cross_validation(result))
        for row in class_qualities(result.by_slice, classes):
            lines.append(
                f"  {visible(row.name)}: IoU {show_estimate(row.iou)}, Dice "
                f"{show_estimate(row.dice)}, distance {show_estimate(row.distance)} {unit}"
            )
        lines.append(f"  {interval_note(len(result.by_slice))}")
    if (curve := evidence.learning_curve) is not None:
        lines.append(f"Learning curve: {learning_sentence(curve)}")
    return lines


def _followed(work: Generator[Any, None, T | None]) -> T:
    """Run a generator to its end, and print a line for each tenth of the way."""
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
