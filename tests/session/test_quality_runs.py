"""Cross-validation and learning curves of the toy stack of the training tests."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from napari_unet3d.config import TrainingConfig, default_class
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.slices import SliceRef, parse_slices
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import Notice, drain
from napari_unet3d.session.quality_runs import (
    QualityProgress,
    cross_validate,
    learning_curve,
    plan_cross_validation,
    plan_learning_curve,
)
from napari_unet3d.session.session import RunSettings, Session
from napari_unet3d.training.control import TrainingControl

SHAPE = (12, 24, 24)
TRUTH = np.ones(SHAPE, np.uint8)
TRUTH[:, 6:16, 6:18] = 2
IMAGE = (20.0 * TRUTH + np.random.default_rng(0).normal(100, 4, SHAPE)).astype(np.float32)


def session(painted: str, held_out: str = "", **settings: object) -> Session:
    """The toy stack with these slices complete."""
    labels = np.zeros(SHAPE, np.uint8)
    for ref in parse_slices(f"{painted} {held_out}"):
        where = (slice(None),) * ref.axis + (ref.index,)
        labels[where] = TRUTH[where]
    config: dict[str, object] = {"pixel_classifier": False}  # it is learned for seconds
    config |= {
        "device": "cpu",
        "iterations": 3,
        "patch_shape": (8, 16, 16),
        "preset": "fast",
    } | settings
    return Session(
        volume=Volume(IMAGE, voxel_size=(2.0, 1.0, 1.0), unit="µm"),
        annotation=SparseAnnotation(
            labels, (default_class(2, "bar"),), frozenset(parse_slices(held_out))
        ),
        settings=RunSettings(training=TrainingConfig(**config)),
    )


def texts(refs: tuple[SliceRef, ...]) -> list[str]:
    return [str(ref) for ref in refs]


# --- plans ----------------------------------------------------------------------------------


def test_up_to_five_slices_are_left_out_one_by_one():
    plan = plan_cross_validation(session("z=2,4,9"))
    assert [texts(s.measured) for s in plan.splits] == [["z=2"], ["z=4"], ["z=9"]]
    assert [texts(s.trained) for s in plan.splits] == [
        ["z=4", "z=9"],
        ["z=2", "z=9"],
        ["z=2", "z=4"],
    ]


def test_neighbors_of_many_slices_are_in_different_folds():
    plan = plan_cross_validation(session("z=0,1,2,3,4,5,6"))
    assert [texts(s.measured) for s in plan.splits] == [
        ["z=0", "z=5"], ["z=1", "z=6"], ["z=2"], ["z=3"], ["z=4"],
    ]  # fmt: skip
    assert len(plan_cross_validation(session("z=0,1,2,3"), 2).splits) == 2


def test_held_out_slices_take_no_part():
    plan = plan_cross_validation(session("z=2,9", held_out="z=6"))
    assert {str(ref) for s in plan.splits for ref in (*s.trained, *s.measured)} == {"z=2", "z=9"}


def test_the_budget_is_shared_but_never_tiny():
    long = plan_cross_validation(session("z=2,9", iterations=None, seconds=60.0))
    assert long.config.seconds == 30
    assert long.budget == "30 s"
    assert long.seconds == 2 * (30 + 5)
    short = plan_cross_validation(session("z=2,9", iterations=None, seconds=5.0))
    assert short.config.seconds == 10
    assert plan_cross_validation(session("z=2,9", iterations=100)).config.iterations == 50
    assert plan_cross_validation(session("z=2,9", iterations=30)).config.iterations == 20


def test_one_slice_cannot_be_cross_validated():
    with pytest.raises(BadInputError, match=r"two slices or more.*there is 1"):
        plan_cross_validation(session("z=2"))


def test_one_fold_is_refused():
    with pytest.raises(BadInputError, match="2 or more"):
        plan_cross_validation(session("z=2,9"), 1)


def test_a_slice_that_alone_holds_the_class_cannot_be_left_out():
    work = session("z=2,9")
    work.annotation.labels[9] = 1
    with pytest.raises(BadInputError, match="leave out z=2: the other slices hold background"):
        plan_cross_validation(work)


def test_without_an_image_or_an_annotation_there_is_nothing_to_measure():
    with pytest.raises(BadInputError, match="No image"):
        plan_cross_validation(Session())
    with pytest.raises(BadInputError, match="no annotation"):
        plan_learning_curve(replace(session("z=2,9"), annotation=None))


def test_a_learning_curve_grows_within_each_repeat():
    plan = plan_learning_curve(session("z=1,3,5,7,9,10", held_out="z=6"))
    assert len({s.seed for s in plan.splits}) == 3
    for repeat in range(3):
        runs = [s for s in plan.splits if s.repeat == repeat]
        assert [len(s.trained) for s in runs] == [1, 2, 3, 6]
        assert all(set(a.trained) < set(b.trained) for a, b in pairwise(runs))
        assert all(texts(s.measured) == ["z=6"] for s in runs)


def test_without_held_out_slices_they_are_left_out_in_turn():
    plan = plan_learning_curve(session("z=1,5,9"))
    assert [(len(s.trained), texts(s.measured)) for s in plan.splits] == [
        (n, [ref]) for ref in ("z=1", "z=5", "z=9") for n in (1, 2)
    ]
    assert all(not set(s.trained) & set(s.measured) for s in plan.splits)


def test_slices_of_one_kind_are_not_trained_on_alone():
    work = session("z=1,5,9", held_out="z=6")
    work.annotation.labels[5] = 1
    plan = plan_learning_curve(work)
    assert SliceRef(0, 5) not in {s.trained[0] for s in plan.splits if len(s.trained) == 1}


@pytest.mark.parametrize(("painted", "held_out"), [("z=1,5", ""), ("z=1", "z=6")])
def test_too_few_slices_for_a_curve(painted, held_out):
    with pytest.raises(BadInputError, match="Not enough slices to say"):
        plan_learning_curve(session(painted, held_out))


# --- runs -----------------------------------------------------------------------------------


def test_a_cross_validation_measures_each_slice_once():
    work, events = session("z=2,9 y=12"), []
    before = work.annotation.labels.copy()
    result = drain(cross_validate(work), events.append)
    assert result is not None
    assert [s.ref for s in result.by_slice] == ["z=2", "z=9", "y=12"]
    assert [(f.held_out, f.trained, f.iterations) for f in result.folds] == [
        (("z=2",), 2, 3), (("z=9",), 2, 3), (("y=12",), 2, 3),
    ]  # fmt: skip
    assert all(s.measured == s.labelled == 24 * 24 for s in result.by_slice[:2])
    assert result.slices == 3
    assert (work.annotation.labels == before).all()
    progress = [e for e in events if isinstance(e, QualityProgress)]
    fractions = [e.fraction for e in progress]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert "model 3 of 3" in progress[-1].text
    notice = next(e for e in events if isinstance(e, Notice))
    assert "3 new models" in notice.text and "3 iterations" in notice.text


def test_a_learning_curve_measures_the_same_slice_with_each_number():
    result = drain(learning_curve(session("z=2,9", held_out="z=6")))
    assert result is not None
    assert result.on_held_out
    assert [len(run.trained) for run in result.runs] == [1, 2] * 3
    assert {run.measured_on for run in result.runs} == {("z=6",)}
    assert all(0 <= run.iou <= 1 for run in result.runs)


@pytest.mark.parametrize("work", [cross_validate, learning_curve])
def test_it_can_be_cancelled(work):
    control, events = TrainingControl(), []

    def each(event: object) -> None:
        events.append(event)
        if isinstance(event, QualityProgress):
            control.cancel()

    assert drain(work(session("z=2,6,9"), control), each) is None
    assert sum(isinstance(e, QualityProgress) for e in events) == 1


def test_paint_of_held_out_slices_never_reaches_a_training(monkeypatch):
    """The xz slice y=12 crosses the held-out slice z=6, whose voxels there are left out, too."""
    seen = []
    check = SparseAnnotation.check
    monkeypatch.setattr(SparseAnnotation, "check", lambda a, v: seen.append(a) or check(a, v))
    drain(cross_validate(session("z=2,9 y=12", held_out="z=6")))
    for annotation in seen[1:]:
        assert not annotation.labels[6].any()
        assert annotation.labels[9].any()
