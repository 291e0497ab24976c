"""Slices that join a running training: what is learned, measured and said then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from toy_stack import (
    HELD_OUT,
    IMAGE,
    SHAPE,
    SMALL,
    TRAINED,
    TRUTH,
    annotate,
    looks_at_once,
    make_plan,
    make_trainer,
    run,
    same_tensors,
)

from bundles import random_bundle
from napari_unet3d.config import TrainingConfig, default_class
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.joined_labels import SlicePaint
from napari_unet3d.data.slices import SliceRef, read_slice
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import HeldOutScores, SlicesJoined, TrainingEvent, TrainingProgress, drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.joining import Joining
from napari_unet3d.training.trainer import Trainer

Z2, Z9 = TRAINED
Z4, Z6 = SliceRef(0, 4), HELD_OUT


def paint(ref: SliceRef, held_out: bool = False, truth: np.ndarray = TRUTH) -> SlicePaint:
    """A slice that is painted as it is, background included."""
    return SlicePaint(ref, np.maximum(read_slice(truth, ref), 1), held_out)


def joining_after(
    n: int, *paints: SlicePaint
) -> tuple[TrainingControl, Callable[[TrainingEvent], None]]:
    """Arguments of `run`: hand slices over after the n-th iteration."""
    control = TrainingControl()

    def each(event: TrainingEvent) -> None:
        if isinstance(event, TrainingProgress) and event.iteration == n:
            for one in paints:
                control.join(one)

    return control, each


def joins(events: list[TrainingEvent]) -> list[SlicesJoined]:
    return [e for e in events if isinstance(e, SlicesJoined)]


def train(trainer: Trainer, *paints: SlicePaint) -> tuple[list[TrainingEvent], ModelBundle]:
    events, bundle = run(trainer, *joining_after(2, *paints))
    assert bundle is not None
    return events, bundle


def three_kinds() -> tuple[np.ndarray, np.ndarray]:
    """The toy's image with a dark block beside the bar, and its truth: the block is class 3."""
    image, truth = IMAGE.copy(), TRUTH.copy()
    truth[:, 29:35, 2:38] = 3
    image[truth == 3] -= 60
    return image, truth


def test_a_class_that_is_painted_on_a_joined_slice_only_is_predicted() -> None:
    image, truth = three_kinds()
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, :28] = np.maximum(truth[2, :28], 1)
    classes = default_class(2), default_class(3)
    volume = Volume(image)

    def segment(*paints: SlicePaint) -> np.ndarray:
        config = TrainingConfig(device="cpu", iterations=12, patch_shape=(8, 24, 24))
        annotation = SparseAnnotation(labels, classes)
        trainer = Trainer(volume, annotation, config, start_from=random_bundle(SMALL))
        result = np.zeros(SHAPE, np.uint8)
        drain(predict(train(trainer, *paints)[1], volume, result))
        return result

    block = truth == 3
    assert not (segment()[block] == 3).any()
    assert (segment(paint(Z4, truth=truth))[block] == 3).mean() > 0.5
    assert not labels[4].any()  # the annotation that was given is not written


def test_a_joined_slice_is_in_batches_record_and_event() -> None:
    trainer = make_trainer(pixel_classifier=False)
    events, bundle = train(trainer, paint(Z4))
    assert joins(events) == [SlicesJoined(trained=(Z4,))]
    assert bundle.record.trained_slices == ("z=2", "z=4", "z=9")


def test_a_slice_that_is_held_out_leaves_the_training_and_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks_at_once(monkeypatch)
    events, bundle = train(make_trainer(), paint(Z9, held_out=True))
    (event,) = joins(events)
    assert event.held_out == (Z9,)
    ((ref, seconds),) = event.seen
    assert ref == Z9
    assert seconds > 0
    scores = [e for e in events if isinstance(e, HeldOutScores)]
    assert all(e.slices == ("z=9",) for e in scores)
    assert scores[-1].final
    assert bundle.record.trained_slices == ("z=2",)
    assert bundle.record.held_out_slices == bundle.record.held_out_seen == ("z=9",)
    again = make_trainer(start=bundle, held_out=(Z6, Z9), labels=annotate(Z2, Z6, Z9))
    assert any("has learned from z=9" in note for note in again.plan.notes)  # nor is it forgotten
    assert again.plan.held_out_seen == ("z=9",)


def test_a_new_held_out_slice_was_never_seen_and_never_trained_on() -> None:
    image = IMAGE.copy()
    inverse = np.where(TRUTH == 2, 1, 2).astype(np.uint8)
    wrong = SlicePaint(Z4, inverse[4], held_out=True)
    events, bundle = train(make_trainer(image=image, held_out=(Z6,)), wrong)
    plain = train(make_trainer(image=image, held_out=(Z6,)))[1]
    assert joins(events) == [SlicesJoined(held_out=(Z4,))]
    assert not bundle.record.held_out_seen
    assert same_tensors(bundle.weights, plain.weights)
    assert same_tensors(bundle.pixels, plain.pixels)


def test_a_held_out_slice_that_is_trained_on_again_joins() -> None:
    events, bundle = train(make_trainer(held_out=[HELD_OUT]), paint(HELD_OUT))
    assert joins(events) == [SlicesJoined(trained=(HELD_OUT,))]
    assert bundle.record.trained_slices == ("z=2", "z=6", "z=9")
    assert not bundle.record.held_out_slices


def test_labels_without_a_class_are_left_out_and_named() -> None:
    labels = paint(Z4).labels.copy()
    labels[:4] = 7
    events, bundle = train(make_trainer(pixel_classifier=False), SlicePaint(Z4, labels))
    assert joins(events) == [SlicesJoined(trained=(Z4,), left_out=((Z4, (7,)),))]
    assert bundle.network.n_classes == 2


def test_a_class_whose_paint_is_removed_while_training_is_no_longer_learned() -> None:
    image, truth = three_kinds()
    labels = annotate(Z2, Z9, truth=truth)
    without = [paint(ref, truth=np.where(truth == 3, 0, truth)) for ref in TRAINED]
    for one in without:
        one.labels[read_slice(truth, one.ref) == 3] = 0  # unlabelled, as removing a class leaves it
    config = TrainingConfig(device="cpu", iterations=8, patch_shape=(8, 24, 24))
    annotation = SparseAnnotation(labels, (default_class(2), default_class(3)))
    trainer = Trainer(Volume(image), annotation, config, start_from=random_bundle(SMALL))
    events, bundle = train(trainer, *without)
    assert joins(events) == [SlicesJoined(trained=TRAINED)]
    assert bundle.record.iterations == 8
    assert bundle.record.trained_slices == ("z=2", "z=9")
    assert [c.value for c in bundle.classes] == [2, 3]  # another last layer needs a new training


def test_what_would_leave_nothing_to_train_on_is_refused() -> None:
    trainer = make_trainer(annotate(Z2), pixel_classifier=False)
    nothing = SlicePaint(Z2, np.zeros(SHAPE[1:], np.uint8))
    for one in (paint(Z2, held_out=True), nothing):
        events, bundle = train(make_trainer(annotate(Z2), pixel_classifier=False), one)
        assert joins(events) == [SlicesJoined(refused=(Z2,))]
        assert bundle.record.trained_slices == ("z=2",)
    events, bundle = train(trainer, nothing, paint(Z4))  # another slice takes its place
    assert joins(events) == [SlicesJoined(trained=(Z4,), erased=(Z2,))]
    assert bundle.record.trained_slices == ("z=4",)


@pytest.mark.parametrize(
    "labels",
    [np.ones((5, 5), np.uint8), np.ones(SHAPE[1:], np.float32)],
    ids=["another size", "no integers"],
)
def test_slices_of_another_stack_do_nothing(labels: np.ndarray) -> None:
    plain = train(make_trainer())[1]
    strange = SlicePaint(Z4, labels), SlicePaint(SliceRef(0, 99), np.ones(SHAPE[1:], np.uint8))
    events, bundle = train(make_trainer(), *strange, paint(Z2))  # z=2 is as it was
    assert not joins(events)
    assert same_tensors(bundle.weights, plain.weights)
    assert same_tensors(bundle.pixels, plain.pixels)


@pytest.mark.parametrize("held_out", [(), (SliceRef(0, 9),), (SliceRef(1, 12),)], ids=str)
def test_joining_one_by_one_gives_the_plan_of_a_fresh_start(held_out: tuple[Any, ...]) -> None:
    """In any order, three orientations, held-out slices across them, and paint that is erased."""
    plan = make_plan(annotate(Z2))
    joining = Joining(plan)
    x20, y12 = SliceRef(2, 20), SliceRef(1, 12)
    order = [paint(Z9), paint(x20), SlicePaint(Z4, np.full(SHAPE[1:], 2)), paint(y12)]
    order += [SlicePaint(Z4, np.zeros(SHAPE[1:], np.uint8)), paint(y12, y12 in held_out)]
    order += [paint(Z9, Z9 in held_out)]
    for number, one in enumerate(order):
        joined = joining.join(plan, [one], float(number))
        plan = plan if joined is None else joined.plan
    fresh = make_plan(np.asarray(plan.annotation.labels), held_out=held_out)
    assert [s.ref for s in plan.slices] == [s.ref for s in fresh.slices]
    for ours, theirs in zip(plan.slices, fresh.slices, strict=True):
        assert ours.counts == theirs.counts
        assert np.array_equal(ours.coordinates, theirs.coordinates)
        assert np.array_equal(ours.codes, theirs.codes)
    assert plan.annotation.held_out == frozenset(held_out)
