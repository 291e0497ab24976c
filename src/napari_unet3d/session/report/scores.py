"""The sections of a report on the scores and their limits."""

from __future__ import annotations

from collections.abc import Sequence

from napari_unet3d.config import ClassInfo
from napari_unet3d.events import HeldOutScores
from napari_unet3d.model.evidence import Evidence, SliceScore
from napari_unet3d.session.quality import (
    EXPECTED_NOTE,
    ClassQuality,
    class_qualities,
    curve_points,
    describe_cross_validation,
    interval_note,
    learning_sentence,
    percent,
    qualities_of,
    scores_of,
    show_estimate,
    show_expected,
)
from napari_unet3d.session.report.content import Block, Chart, Paragraph, Section, Series, Table
from napari_unet3d.session.report.sections import NOT_MEASURED
from napari_unet3d.session.session import Session

DISTANCES = (
    "Distance: mean symmetric surface distance (Heimann et al. 2009); 95 % HD: 95 % Hausdorff "
    "distance. Both are means over the slices, within the slice, between borders in labelled "
    "voxels."
)


def measured(session: Session) -> HeldOutScores | None:
    """The final scores on held-out slices, of the session or of its model."""
    if session.scores is not None and session.scores.final:
        return session.scores
    return None if session.model is None else scores_of(session.model.bundle)


def evidence(session: Session) -> Evidence:
    """Cross-validation and learning curve, of the session or else of its model."""
    ours = session.evidence
    kept = Evidence() if session.model is None else session.model.bundle.record.evidence
    return Evidence(
        ours.cross_validation or kept.cross_validation, ours.learning_curve or kept.learning_curve
    )


def expected(session: Session) -> str:
    """The IoU that is expected of the segmentation; "" where that is not known."""
    names = [info.name for info in classes_of(session)]
    if len(names) != len(session.expected):
        return ""  # it is of a segmentation with other classes
    return show_expected(names, session.expected)


def classes_of(session: Session) -> tuple[ClassInfo, ...]:
    """The class table of the model, or else of the annotation."""
    if session.model is not None:
        return session.model.bundle.classes
    return () if session.annotation is None else session.annotation.classes


def unit_of(session: Session) -> str:
    """The unit of distances."""
    if session.volume is not None:
        return session.volume.unit
    return "" if session.model is None else session.model.bundle.unit


def held_out_section(session: Session) -> Section:
    """The scores on the held-out slices."""
    title, scores = "Scores on held-out slices", measured(session)
    if scores is None:
        text = f"{NOT_MEASURED.capitalize()}: no slice was held out."
        told = expected(session)
        more = (Paragraph(f"{told} {EXPECTED_NOTE}"),) if told else ()
        return Section(title, (Paragraph(text), *more))
    slices, classes, unit = scores.by_slice, classes_of(session), unit_of(session)
    where = ", ".join(scores.slices)
    text = (
        f"Measured with the final model on {where}, on which it was not trained. "
        f"{percent(scores.scored)} of the labelled voxels there were measured."
    )
    if scores.distance is not None:
        text += f" The nearest trained slice of the same orientation is {scores.distance} away."
    blocks: list[Block] = [Paragraph(text)]
    blocks.append(_table(qualities_of(scores, classes), unit, len(slices)))
    if slices:
        blocks.append(_by_slice(slices, classes, unit))
    else:
        text = "Intervals and distances: not measured, the model is of an older version."
        blocks.append(Paragraph(text))
    return Section(title, tuple(blocks))


def cross_validation_section(session: Session) -> Section:
    """The cross-validation over the annotated slices."""
    title, result = "Cross-validation", evidence(session).cross_validation
    if result is None:
        return Section(title, (Paragraph(f"{NOT_MEASURED.capitalize()}."),))
    classes, unit = classes_of(session), unit_of(session)
    return Section(
        title,
        (
            Paragraph(describe_cross_validation(result)),
            _table(class_qualities(result.by_slice, classes), unit, len(result.by_slice)),
            _by_slice(result.by_slice, classes, unit),
        ),
    )


def learning_curve_section(session: Session) -> Section:
    """How the IoU grows with the number of slices."""
    title, curve = "Learning curve", evidence(session).learning_curve
    if curve is None:
        return Section(title, (Paragraph(f"{NOT_MEASURED.capitalize()}."),))
    points = curve_points(curve)
    rows = tuple((str(p.slices), show_estimate(p.iou), str(p.iou.slices)) for p in points)
    where = "the held-out slices" if curve.on_held_out else "slices that were left out in turn"
    seconds = max(run.seconds for run in curve.runs)
    note = (
        f"Measured on {where}. {len(curve.runs)} short trainings from scratch, each for "
        f"{seconds:.0f} s or less, so the numbers are below those of the model. [ ]: 95 % "
        "interval over the trainings (Student's t)."
    )
    blocks: list[Block] = [Paragraph(learning_sentence(curve))]
    if points:
        series = Series("", tuple((float(p.slices), p.iou.value or 0.0) for p in points),
            tuple((_or(p.iou.low, p.iou.value), _or(p.iou.high, p.iou.value)) for p in points),
            marked=True)  # fmt: skip
        blocks.append(Chart("Learning curve", "annotated slices", "mean IoU", (series,), (0, 1)))
    blocks.append(Table(("Slices", "Mean IoU", "Trainings"), rows, note))
    return Section(title, tuple(blocks))


def limits_section(session: Session) -> Section:
    """How far the scores can be trusted."""
    scores, texts = measured(session), []
    if scores is None:
        texts.append(
            "No score of this model on slices that it was not trained on exists. Its accuracy is "
            "not known."
            if not expected(session)
            else "No score of this model on slices that it was not trained on exists. What is "
            "expected of it rests on the slices that it was trained on, and holds where the rest "
            "of the stack is like them."
        )
    else:
        if len(scores.slices) < 2:
            texts.append("One held-out slice gives no interval: its score may be far off.")
        if scores.scored < 1:
            texts.append(
                f"Only {percent(scores.scored)} of the labelled held-out voxels were measured, "
                "since the time for it was over."
            )
    texts += [
        "Slices of one stack resemble each other, and neighbors most. The scores hold for slices "
        "of this stack; expect lower ones on another stack.",
        "The intervals treat the slices as independent draws. They do not contain the uncertainty "
        "of the annotation itself: what was painted counts as true.",
        "Distances are measured within slices, not in 3D.",
        "Unlabelled voxels count nowhere.",
    ]
    return Section("Limits", tuple(Paragraph(text) for text in texts))


def _table(rows: Sequence[ClassQuality], unit: str, slices: int) -> Table:
    return Table(
        ("Class", "IoU", "Dice", f"Distance, {unit}", f"95 % HD, {unit}", "True voxels"),
        tuple(
            (
                row.name,
                show_estimate(row.iou),
                show_estimate(row.dice),
                show_estimate(row.distance),
                show_estimate(row.distance95),
                "" if row.voxels is None else f"{row.voxels:,}",
            )
            for row in rows
        ),
        f"IoU and Dice of all measured voxels together. {interval_note(slices)} {DISTANCES} —: the "
        "class is neither painted nor predicted, or has no border there.",
    )


def _by_slice(slices: Sequence[SliceScore], classes: Sequence[ClassInfo], unit: str) -> Table:
    rows = []
    for score in slices:
        for row in class_qualities([score], classes):
            if row.color is not None:
                rows.append(
                    (
                        score.ref,
                        row.name,
                        _number(row.iou.value),
                        _number(row.dice.value),
                        _number(row.distance.value),
                        _number(row.distance95.value),
                        percent(score.measured / score.labelled) if score.labelled else "—",
                    )
                )
    columns = ("Slice", "Class", "IoU", "Dice", f"Distance, {unit}", f"95 % HD, {unit}", "Measured")
    return Table(columns, tuple(rows), "Measured: share of the labelled voxels of the slice.")


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"


def _or(value: float | None, other: float | None) -> float:
    return value if value is not None else other if other is not None else 0.0
