"""Scores as a table, and the sentences that follow from them."""

from __future__ import annotations

import pytest

from napari_unet3d.config import default_class
from napari_unet3d.data.slice_summary import ExpectedIoU
from napari_unet3d.model.evidence import (
    ClassOnSlice,
    CrossValidation,
    Fold,
    LearningCurve,
    LearningRun,
    SliceScore,
)
from napari_unet3d.prediction.intervals import Estimate
from napari_unet3d.session.quality import (
    NOT_ENOUGH,
    class_qualities,
    curve_points,
    describe_cross_validation,
    interval_note,
    learning_sentence,
    percent,
    share_measured,
    show_estimate,
    show_expected,
)

CLASSES = (default_class(2, "nucleus"), default_class(3, "membrane"))


def on_slice(ref: str, *classes: ClassOnSlice, measured: int = 100) -> SliceScore:
    return SliceScore(ref, classes, measured, 100)


def curve(*ious: list[float | None]) -> LearningCurve:
    """A learning curve: for 1, 2, … slices the IoU of each repeat."""
    return LearningCurve(
        tuple(
            LearningRun(tuple(f"z={i}" for i in range(n + 1)), repeat, iou, ("z=9",), 50, 10.0)
            for n, row in enumerate(ious)
            for repeat, iou in enumerate(row)
        ),
        on_held_out=True,
    )


# --- the table ------------------------------------------------------------------------------


def test_a_row_has_the_scores_of_all_slices_together():
    slices = [
        on_slice("z=1", ClassOnSlice(2, 60, 20, 20, 1.0, 3.0)),
        on_slice("z=5", ClassOnSlice(2, 80, 10, 10, 2.0, 5.0)),
    ]
    (row,) = class_qualities(slices, CLASSES[:1])
    assert (row.name, row.color, row.voxels) == ("nucleus", CLASSES[0].color, 170)
    assert row.iou.value == pytest.approx(140 / 200)
    assert row.dice.value == pytest.approx(280 / 340)
    assert row.iou.low < 0.7 < row.iou.high
    assert row.distance.value == 1.5
    assert row.distance95.value == 4.0


def test_several_classes_have_a_mean():
    slices = [
        on_slice("z=1", ClassOnSlice(2, 60, 20, 20), ClassOnSlice(3, 10, 10, 0)),
        on_slice("z=5", ClassOnSlice(2, 80, 10, 10), ClassOnSlice(3, 10, 0, 10)),
    ]
    rows = class_qualities(slices, CLASSES)
    assert [row.name for row in rows] == ["nucleus", "membrane", "mean"]
    assert rows[-1].iou.value == pytest.approx((140 / 200 + 20 / 40) / 2)
    assert rows[-1].iou.low is not None
    assert rows[-1].color is None and rows[-1].voxels is None


def test_a_class_that_is_absent_from_the_slices_has_no_score_and_does_not_lower_the_mean():
    slices = [on_slice("z=1", ClassOnSlice(2, 60, 20, 20), ClassOnSlice(3, 0, 0, 0))]
    nucleus, membrane, average = class_qualities(slices, CLASSES)
    assert membrane.iou == membrane.dice == membrane.distance == Estimate(None)
    assert average.iou.value == nucleus.iou.value
    assert show_estimate(membrane.iou) == "—"


def test_one_slice_gives_no_interval():
    (row,) = class_qualities([on_slice("z=1", ClassOnSlice(2, 3, 1, 0))], CLASSES[:1])
    assert show_estimate(row.iou) == "0.75"
    assert interval_note(1) == "One slice: no interval."
    assert "4 slices" in interval_note(4)


def test_the_share_counts_voxels():
    slices = [on_slice("z=1", measured=100), on_slice("z=5", measured=50)]
    assert share_measured(slices) == 0.75
    assert share_measured([]) == 0


@pytest.mark.parametrize(
    ("share", "text"),
    [(1.0, "100 %"), (0.9999, "99 %"), (0.374, "37 %"), (0.001, "less than 1 %")],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share, text):
    assert percent(share) == text


def test_an_interval_is_written_in_brackets():
    assert show_estimate(Estimate(0.8, 0.712, 0.93, 4)) == "0.80 [0.71–0.93]"
    assert show_estimate(Estimate(None)) == "—"


# --- cross-validation and the learning curve ------------------------------------------------


def test_a_cross_validation_says_that_its_models_saw_less():
    folds = (Fold(("z=1",), 2, 90, 15.2), Fold(("z=5",), 2, 80, 15.4), Fold(("z=9",), 2, 80, 15.1))
    text = describe_cross_validation(CrossValidation(folds, (on_slice("z=1"),), 3))
    assert "3 models" in text
    assert "15 s" in text
    assert "on 2 of the 3 slices" in text
    assert "pessimistic" in text
    assert "100 %" in text


def test_the_points_are_means_over_the_repeats():
    points = curve_points(curve([0.5, 0.7], [0.7, None]))
    assert [(p.slices, p.iou.value) for p in points] == [(1, 0.6), (2, 0.7)]
    assert points[0].iou.low is not None
    assert points[1].iou.low is None


def test_a_curve_that_rises_asks_for_more_slices():
    text = learning_sentence(curve([0.3, 0.32, 0.31], [0.5, 0.5, 0.5], [0.6, 0.61, 0.59]))
    assert (
        text == "Still rising by 0.10 a slice: paint two more. From 2 to 3 slices IoU rose by "
        "0.10 ± 0.01."
    )


def test_a_flat_curve_says_that_more_slices_hardly_help():
    text = learning_sentence(curve([0.6, 0.6, 0.6], [0.8, 0.8, 0.8], [0.82, 0.80, 0.81]))
    assert text == "From 2 to 3 slices IoU rose by 0.01 ± 0.01: more slices will hardly help."


def test_a_curve_that_falls_is_flat():
    text = learning_sentence(curve([0.82, 0.8, 0.81], [0.8, 0.79, 0.78]))
    assert text.startswith("From 1 to 2 slices IoU fell by 0.02")
    assert text.endswith("hardly help.")


def test_trainings_that_differ_say_nothing():
    text = learning_sentence(curve([0.5, 0.5, 0.5], [0.4, 0.6, 0.5]))
    assert text.endswith("differ too much to say whether more slices help.")
    text = learning_sentence(curve([0.5, 0.5, 0.5], [0.52, 0.65, 0.5]))
    assert text.endswith("differ too much to say whether more slices help.")


@pytest.mark.parametrize(
    "ious",
    [
        ([],),
        ([0.5, 0.5, 0.5],),
        ([0.5], [0.6]),
        ([None, None], [0.5, 0.6]),
        ([0.5, None], [None, 0.6]),
    ],
    ids=["nothing", "one number", "one repeat", "not measured", "no common repeat"],
)
def test_too_little_is_not_enough_to_say(ious):
    assert learning_sentence(curve(*ious)) == NOT_ENOUGH


def test_a_step_of_several_slices_is_counted_by_slice():
    runs = [
        LearningRun(tuple(f"z={i}" for i in range(n)), repeat, iou, ("z=9",), 50, 10.0)
        for n, iou in ((2, 0.5), (4, 0.6))
        for repeat in range(3)
    ]
    text = learning_sentence(LearningCurve(tuple(runs), on_held_out=True))
    assert text.startswith("Still rising by 0.05 a slice")
    assert "From 2 to 4 slices IoU rose by 0.10" in text


def test_an_expected_iou_has_an_interval_and_its_slices():
    one, other = ExpectedIoU(0.814, 0.74, 0.88, 3), ExpectedIoU(0.5, 0.2, 0.8, 3)
    assert (
        show_expected(["nucleus"], [one])
        == "Expected IoU: 0.81 (0.74 to 0.88), from 3 annotated slices."
    )
    text = show_expected(["nucleus", "gap", "wall"], [one, None, other])
    assert "nucleus 0.81 (0.74 to 0.88), wall 0.50 (0.20 to 0.80), from" in text
    assert show_expected(["nucleus"], []) == show_expected(["nucleus"], [None]) == ""
