"""Is it good enough? The scores as a table and in sentences, for the window and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.slice_summary import ExpectedIoU
from napari_unet3d.data.wording import counted
from napari_unet3d.events import ClassScore, HeldOutScores, mean
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.evidence import ClassOnSlice, CrossValidation, LearningCurve, SliceScore
from napari_unet3d.prediction.intervals import (
    Estimate,
    mean_estimate,
    mean_ratio_estimate,
    ratio_estimate,
)
from napari_unet3d.session.texts import show_duration

NOT_ENOUGH = "Not enough slices to say."
EXPECTED_NOTE = (
    "This follows from the probabilities of the result, corrected by how honest those of the pixel "
    "classifier are on annotated slices that it was not fitted to. The interval is meant to hold "
    "the true IoU in 9 of 10 cases. On stacks that it was not tuned to, it did in 15 of 20: rare "
    "classes are often worse than expected."
)
"""How an expected IoU comes about."""
_STEEP = 0.03
"""IoU a slice. A rise of as much is worth a slice, which takes minutes to paint."""
_FLAT = 0.02
"""IoU a slice. A rise of no more is within what another seed changes."""
_SURE = 0.05
"""IoU. Where the last step is known less exactly than this, a flat curve says nothing."""
_STEP_CONFIDENCE = 0.8
"""Confidence of the interval of the last step, 0 to 1. Right four times out of five is enough to
decide whether to paint on; 95 % would need a dozen trainings with each number of slices."""


@dataclass(frozen=True)
class ClassQuality:
    """How well a class was segmented on slices that were not trained on.

    Attributes
    ----------
    value
        Label value of the class; None for the mean of the classes.
    name, color
        Of the class; the mean has no color.
    iou, dice
        Of all measured voxels together, with their intervals over the slices.
    distance, distance95
        Mean over the slices of the mean symmetric surface distance and of the 95 % Hausdorff
        distance, in the unit of the stack.
    voxels
        Voxels of the class in the truth; None for the mean.
    """

    value: int | None
    name: str
    color: str | None
    iou: Estimate
    dice: Estimate
    distance: Estimate
    distance95: Estimate
    voxels: int | None


def class_qualities(
    slices: Sequence[SliceScore], classes: Sequence[ClassInfo]
) -> tuple[ClassQuality, ...]:
    """Make one row a class, and with several classes one for their mean.

    Parameters
    ----------
    slices
        Scores slice by slice.
    classes
        The class table. Classes that are not in it are left out.
    """
    by_class = {info.value: _entries(slices, info.value) for info in classes}
    rows = [
        ClassQuality(
            info.value,
            info.name,
            info.color,
            ratio_estimate(_iou_parts(entries)[0], _iou_parts(entries)[1]),
            ratio_estimate(_dice_parts(entries)[0], _dice_parts(entries)[1]),
            _distances([e.distance for e in entries]),
            _distances([e.distance95 for e in entries]),
            sum(e.hits + e.missed for e in entries),
        )
        for info in classes
        if (entries := by_class[info.value])
    ]
    if len(rows) < 2:
        return tuple(rows)
    entries_of = [entries for entries in by_class.values() if entries]
    iou, dice = (
        mean_ratio_estimate(
            np.array([parts(entries)[0] for entries in entries_of], float).T,
            np.array([parts(entries)[1] for entries in entries_of], float).T,
        )
        for parts in (_iou_parts, _dice_parts)
    )
    nothing = Estimate(None)
    return (*rows, ClassQuality(None, "mean", None, iou, dice, nothing, nothing, None))


def qualities_of(scores: HeldOutScores, classes: Sequence[ClassInfo]) -> tuple[ClassQuality, ...]:
    """The rows of scores on held-out slices; without intervals where no slice is told apart."""
    if scores.by_slice:
        return class_qualities(scores.by_slice, classes)
    infos, nothing = {info.value: info for info in classes}, Estimate(None)
    rows = [
        ClassQuality(
            s.value,
            infos[s.value].name,
            infos[s.value].color,
            Estimate(s.iou),
            Estimate(s.dice),
            nothing,
            nothing,
            s.voxels,
        )
        for s in scores.classes
        if s.value in infos
    ]
    if len(rows) > 1:
        iou, dice = mean([r.iou.value for r in rows]), mean([r.dice.value for r in rows])
        average = Estimate(iou), Estimate(dice), nothing, nothing
        rows.append(ClassQuality(None, "mean", None, *average, None))
    return tuple(rows)


def _entries(slices: Sequence[SliceScore], value: int) -> list[ClassOnSlice]:
    return [entry for score in slices for entry in score.classes if entry.value == value]


def _iou_parts(entries: Sequence[ClassOnSlice]) -> tuple[list[int], list[int]]:
    return [e.hits for e in entries], [e.hits + e.false + e.missed for e in entries]


def _dice_parts(entries: Sequence[ClassOnSlice]) -> tuple[list[int], list[int]]:
    return [2 * e.hits for e in entries], [2 * e.hits + e.false + e.missed for e in entries]


def _distances(values: Sequence[float | None]) -> Estimate:
    return mean_estimate([v for v in values if v is not None], lowest=0.0)


def share_measured(slices: Sequence[SliceScore]) -> float:
    """Share of the labelled voxels of these slices that was measured; 0 without any."""
    labelled = sum(score.labelled for score in slices)
    return sum(score.measured for score in slices) / labelled if labelled else 0.0


def scores_of(bundle: ModelBundle) -> HeldOutScores | None:
    """The scores that a model's record keeps; None where nothing was measured.

    Models that older programs made keep no scores slice by slice.
    """
    record = bundle.record
    if not record.held_out:
        return None
    return HeldOutScores(
        record.iterations,
        record.seconds,
        tuple(ClassScore(s.value, s.iou, s.dice, s.voxels) for s in record.held_out),
        record.held_out_slices,
        record.held_out_distance,
        record.held_out_scored,
        final=True,
        by_slice=record.held_out_by_slice,
        unit=bundle.unit,
    )


# --- texts ----------------------------------------------------------------------------------


def show_estimate(estimate: Estimate, digits: int = 2) -> str:
    """Write a score with its interval: "0.82 [0.71–0.93]"; "—" where there is none."""
    if estimate.value is None:
        return "—"
    text = f"{estimate.value:.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} [{estimate.low:.{digits}f}–{estimate.high:.{digits}f}]"


def show_expected(names: Sequence[str], expected: Sequence[ExpectedIoU | None]) -> str:
    """Say "Expected IoU: 0.81 (0.74 to 0.88), from 3 annotated slices.".

    Parameters
    ----------
    names
        Of the classes; with several of them, each estimate has the name of its class.
    expected
        Of each class; "" is returned where nothing is known of any.
    """
    known = [(name, e) for name, e in zip(names, expected, strict=False) if e is not None]
    if not known:
        return ""
    texts = [
        (f"{name} " if len(names) > 1 else "") + f"{e.value:.2f} ({e.low:.2f} to {e.high:.2f})"
        for name, e in known
    ]
    fewest = min(e.slices for _, e in known)
    most = max(e.slices for _, e in known)
    number = counted(most, "annotated slice")
    if fewest < most:
        number = f"{fewest} to {number}"
    return f"Expected IoU: {', '.join(texts)}, from {number}."


def interval_note(number: int) -> str:
    """Say what the brackets are, for scores from so many slices."""
    if number < 2:
        return "One slice: no interval." if number else "Intervals were not measured."
    return (
        f"[ ]: 95 % interval from {number} slices (jackknife and Student's t), valid for slices "
        "of this stack that are as alike as these."
    )


def short_interval_note(number: int) -> str:
    """The same in a few words, for a narrow window."""
    return interval_note(number) if number < 2 else f"[ ]: 95 % interval from {number} slices."


def percent(share: float) -> str:
    """Write a share in percent, but one below 1 neither as 0 % nor as 100 %."""
    if share >= 1:
        return "100 %"
    return "less than 1 %" if share < 0.01 else f"{min(share, 0.99):.0%}".replace("%", " %")


def describe_cross_validation(result: CrossValidation) -> str:
    """Say what a cross-validation measured, and how far to trust it."""
    return (
        f"{_trainings(result)}, and measured on the others. These are not scores of the final "
        "model, which learns longer and from more slices: they are pessimistic, most of all where "
        "few slices are left to train on. "
        f"Measured on {percent(share_measured(result.by_slice))} of the painted voxels."
    )


def summarize_cross_validation(result: CrossValidation) -> str:
    """The same in a few words, for a narrow window."""
    return (
        f"{_trainings(result)}: less than the final model, so these scores are pessimistic. "
        f"Measured on {percent(share_measured(result.by_slice))} of the painted voxels. "
        f"{short_interval_note(len(result.by_slice))}"
    )


def _trainings(result: CrossValidation) -> str:
    trained = sorted({fold.trained for fold in result.folds})
    fewer = f"{trained[0]}" if len(trained) == 1 else f"{trained[0]} to {trained[-1]}"
    took = show_duration(max(fold.seconds for fold in result.folds))
    return (
        f"Cross-validation: {len(result.folds)} models, each trained for {took} or less on {fewer} "
        f"of the {result.slices} slices"
    )


@dataclass(frozen=True)
class CurvePoint:
    """The mean IoU of the trainings with a number of slices."""

    slices: int
    iou: Estimate


def curve_points(curve: LearningCurve) -> tuple[CurvePoint, ...]:
    """The points of a learning curve, fewest slices first."""
    return tuple(
        CurvePoint(number, mean_estimate(list(ious.values()), lowest=0.0))
        for number, ious in sorted(_by_number(curve).items())
    )


def _by_number(curve: LearningCurve) -> dict[int, dict[int, float]]:
    """IoU by number of slices and repeat."""
    ious: dict[int, dict[int, float]] = {}
    for run in curve.runs:
        if run.iou is not None:
            ious.setdefault(len(run.trained), {})[run.repeat] = run.iou
    return ious


def learning_sentence(curve: LearningCurve) -> str:
    """Say what follows from a learning curve for the next slice.

    The last step counts: the differences of IoU between the two largest numbers of slices, within
    each repeat, a slice. ± is half of its 80 % t-interval over the repeats.

    Returns
    -------
    str
        That the IoU still rises, that more slices will hardly help, that the trainings differ too
        much, or that there are not enough slices to say.
    """
    ious = _by_number(curve)
    numbers = sorted(ious)[-2:]
    if len(numbers) < 2:
        return NOT_ENOUGH
    few, many = numbers
    steps = [ious[many][r] - ious[few][r] for r in ious[many] if r in ious[few]]
    step = mean_estimate(steps, _STEP_CONFIDENCE)
    if step.value is None or step.high is None:
        return NOT_ENOUGH
    half, added = step.high - step.value, many - few
    rise, sure = step.value / added, half / added
    moved = "fell" if step.value < 0 else "rose"
    last = f"From {few} to {many} slices IoU {moved} by {abs(step.value):.2f} ± {half:.2f}"
    if rise >= _STEEP and rise > sure:
        return f"Still rising by {rise:.2f} a slice: paint two more. {last}."
    if rise <= _FLAT and sure <= _SURE:
        return f"{last}: more slices will hardly help."
    return f"{last}: the trainings differ too much to say whether more slices help."
