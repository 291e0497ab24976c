"""The loop: which events come, and when."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_stack import (
    HELD_OUT,
    SHAPE,
    SMALL,
    TRAINED,
    TRUTH,
    annotate,
    looks_at_once,
    make_plan,
    make_trainer,
    progress,
    run,
    with_checkpoints,
)

from bundles import random_bundle
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.events import (
    Checkpoint,
    FinishingStarted,
    Forecast,
    HeldOutScores,
    PixelsStarted,
    SlicePreview,
    TrainingProgress,
    TrainingStarted,
)
from napari_unet3d.training import throttle as throttle_module
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.throttle import Throttle
from napari_unet3d.training.trainer import run_plan


def test_events_come_in_order():
    events, bundle = run(make_trainer(held_out=[HELD_OUT]))
    started, pixels, *rest, finishing, last = events
    assert isinstance(started, TrainingStarted)
    assert isinstance(pixels, PixelsStarted)
    assert isinstance(finishing, FinishingStarted)
    assert started.labelled_voxels == 2 * SHAPE[1] * SHAPE[2]
    assert started.patch_shape == (8, 24, 24)
    assert started.parameters == sum(p.numel() for p in bundle.build().parameters())
    # Forecasts come on slow computers only: the first one after seconds.
    assert all(isinstance(e, TrainingProgress | HeldOutScores | Forecast) for e in rest)
    steps = progress(rest)
    assert [e.iteration for e in steps] == [1, 2, 3, 4, 5, 6]
    assert [e.fraction for e in steps] == pytest.approx([i / 6 for i in range(1, 7)])
    assert steps[-1].remaining == pytest.approx(0)
    assert all(e.memory > 0 for e in steps)
    assert isinstance(last, HeldOutScores)
    assert last.final


def test_record_says_how_the_model_came_to_be():
    _, bundle = run(make_trainer(held_out=[HELD_OUT], seed=5, batch_size=1))
    record = bundle.record
    assert record.training_config.seed == 5
    assert record.trained_slices == ("z=2", "z=9")
    assert record.held_out_slices == ("z=6",)
    assert record.held_out_distance == 3
    assert 0 < record.voxels_seen <= 6 * 24 * 24 * 2
    assert record.seconds > 0


@pytest.mark.parametrize("seconds", [None, 3600.0])
def test_checkpoints_come_when_they_are_asked_for(seconds):
    events, _ = run(make_trainer(), with_checkpoints(seconds))
    assert not any(isinstance(e, Checkpoint) for e in events)


# --- looks ----------------------------------------------------------------------------------


def test_held_out_scores_of_an_absent_class_are_none(monkeypatch):
    """Class 3 is on trained slices only, and is so rare that it is never predicted there."""
    looks_at_once(monkeypatch)
    labels = annotate(*TRAINED, HELD_OUT)
    labels[2, 0, 0] = 3
    start = random_bundle(SMALL, values=(2, 3))
    weights = dict(start.weights)
    weights["head.bias"] = torch.tensor([0.0, 0.0, -50.0])
    start = start.model_copy(update={"weights": weights})
    events, bundle = run(make_trainer(labels, start=start, held_out=[HELD_OUT], rare_share=0))
    scores = [e for e in events if isinstance(e, HeldOutScores)]
    assert len(scores) == 7  # one an iteration, one at the end
    for score in scores:
        there, absent = score.classes
        assert there.voxels == (TRUTH[6] == 2).sum()
        assert 0 <= there.iou <= there.dice <= 1
        assert (absent.iou, absent.dice, absent.voxels) == (None, None, 0)
        assert score.mean_iou == there.iou
        assert score.slices == ("z=6",)
        assert score.distance == 3
    assert bundle.record.held_out[1].iou is None
    assert "NaN" not in bundle.record.model_dump_json()


@pytest.mark.parametrize("ref", [SliceRef(0, 6), SliceRef(1, 35), SliceRef(2, 0)], ids=str)
def test_preview_is_the_slice_in_label_values(monkeypatch, ref):
    looks_at_once(monkeypatch)
    labels = annotate(*TRAINED)
    labels[labels == 2] = 7
    control = TrainingControl()
    control.watch(ref)
    events, _ = run(
        make_trainer(labels, iterations=3, start=random_bundle(SMALL, values=(7,))), control
    )
    previews = [e for e in events if isinstance(e, SlicePreview)]
    assert len(previews) == 3
    for preview in previews:
        assert preview.ref == ref
        assert preview.labels.shape == tuple(n for a, n in enumerate(SHAPE) if a != ref.axis)
        assert set(np.unique(preview.labels)) <= {0, 7}


def test_preview_shows_the_numbers_of_the_segmentation(monkeypatch):
    looks_at_once(monkeypatch)
    control = TrainingControl()
    control.watch(SliceRef(0, 6))
    plan = make_plan(iterations=3)
    (info,) = plan.annotation.classes
    renumbered = replace(plan.annotation, classes=(info.model_copy(update={"output": 1}),))
    events, _ = run(run_plan(replace(plan, annotation=renumbered), control))
    previews = [e for e in events if isinstance(e, SlicePreview)]
    assert set(np.unique([p.labels for p in previews])) == {0, 1}


def test_what_is_watched_may_change_and_end(monkeypatch):
    looks_at_once(monkeypatch)
    control = TrainingControl()
    wishes = {1: SliceRef(0, 1), 2: SliceRef(1, 5), 3: None}

    def each(event) -> None:
        if isinstance(event, TrainingProgress):
            control.watch(wishes.get(event.iteration))

    events, _ = run(make_trainer(iterations=5), control, each)
    shown = [e.ref for e in events if isinstance(e, SlicePreview)]
    assert shown == [SliceRef(0, 1), SliceRef(1, 5)]


def test_a_slice_of_another_image_is_not_watched(monkeypatch):
    looks_at_once(monkeypatch)
    control = TrainingControl()
    control.watch(SliceRef(0, SHAPE[0]))
    events, bundle = run(make_trainer(iterations=3), control)
    assert not any(isinstance(e, SlicePreview) for e in events)
    assert bundle.record.iterations == 3


@pytest.mark.parametrize("seconds", [0.0, np.inf])
def test_looks_that_take_too_long_are_not_taken(monkeypatch, seconds):
    """Neither the live slice nor the held-out ones; at the end these are measured all the same."""
    monkeypatch.setattr(Throttle, "due", lambda self, elapsed: True)
    monkeypatch.setattr(throttle_module, "_LARGEST_LOOK", seconds)
    control = TrainingControl()
    control.watch(HELD_OUT)
    events, _ = run(make_trainer(held_out=[HELD_OUT], pixel_classifier=False), control)
    n_iterations = len(progress(events))
    looks = 0 if seconds == 0 else n_iterations
    assert sum(isinstance(e, SlicePreview) for e in events) == looks
    assert sum(isinstance(e, HeldOutScores) for e in events) == looks + 1
