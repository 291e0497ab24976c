"""A whole training: it learns, stops, resumes, and repeats itself bit for bit."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from toy_stack import (
    HELD_OUT,
    IMAGE,
    SHAPE,
    SMALL,
    TRAINED,
    TRUTH,
    annotate,
    bar,
    looks_at_once,
    make_trainer,
    progress,
    run,
    same_tensors,
    stop_after,
    stopped,
    with_checkpoints,
)

from bundles import random_bundle
from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import Checkpoint, HeldOutScores, SlicePreview, TrainingProgress, drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.training.control import TrainingControl

# --- it learns ------------------------------------------------------------------------------


def test_it_learns_from_two_slices():
    events, bundle = run(make_trainer(held_out=[HELD_OUT], iterations=40, pixel_classifier=False))
    losses = [e.loss for e in progress(events)]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3])
    scores = events[-1]
    assert isinstance(scores, HeldOutScores)
    assert scores.mean_iou > 0.5
    untrained = run(make_trainer(held_out=[HELD_OUT], iterations=1, pixel_classifier=False))[0][-1]
    assert scores.mean_iou > untrained.mean_iou + 0.1
    assert bundle.record.iterations == 40
    assert bundle.record.completed


def test_the_pixel_classifier_carries_an_untrained_network():
    settings = {"held_out": [HELD_OUT], "iterations": 1}
    alone = run(make_trainer(**settings, pixel_classifier=False))
    together = run(make_trainer(**settings))
    assert not alone[1].pixels and alone[1].calibration.pixels == 0
    assert together[1].pixels and together[1].calibration.pixels > 0
    assert together[0][-1].mean_iou > max(alone[0][-1].mean_iou, 0.8)


def test_seconds_are_a_budget_too():
    events, bundle = run(make_trainer(iterations=None, seconds=0.4))
    assert bundle.record.completed
    assert progress(events)[-1].fraction <= 1
    assert all(a.elapsed <= b.elapsed for a, b in pairwise(events[2:]))


@pytest.mark.parametrize("normalization", ["batch", "tile", "instance", "channel", "none"])
def test_every_normalization(normalization):
    start = SMALL.model_copy(update={"normalization": normalization})
    events, bundle = run(make_trainer(start=start))
    assert all(np.isfinite(e.loss) for e in progress(events))
    assert bundle.network.normalization == normalization
    assert all(t.isfinite().all() for t in bundle.weights.values())


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_presets_plan_a_network(preset):
    events, bundle = run(
        make_trainer(start=None, preset=preset, iterations=2, patch_shape=None, learning_rate=None)
    )
    assert len(progress(events)) == 2
    assert bundle.network.padding == "same"


@pytest.mark.timeout(300)  # half a minute on an idle core
def test_the_paper_s_network_trains_on_its_smallest_patch():
    """19 million parameters, unpadded: two iterations on 92³ voxels, 4³ of them learned from."""
    settings = {"preset": "paper", "patch_shape": (92, 92, 92), "iterations": 2, "batch_size": 1}
    events, bundle = run(make_trainer(start=None, **settings))
    assert sum(t.numel() for t in bundle.weights.values()) > 19_000_000
    assert [np.isfinite(e.loss) for e in progress(events)] == [True, True]
    # Outside the volume nothing is labelled; inside, whole slices are.
    assert 0 < bundle.record.voxels_seen <= 2 * 4**3
    assert not bundle.pixels
    moved = [n for n, t in bundle.state.items() if n.endswith("/exp_avg") and t.any()]
    assert len(moved) == len([n for n in bundle.weights if n.endswith(("weight", "bias"))])


def test_an_unpadded_network_trains():
    start = SMALL.model_copy(update={"padding": "valid", "normalization": "tile"})
    events, bundle = run(make_trainer(start=start, patch_shape=(32, 44, 44), iterations=3))
    assert all(np.isfinite(e.loss) for e in progress(events))
    assert bundle.network.padding == "valid"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_precisions(precision):
    events, _ = run(make_trainer(precision=precision))
    assert events[0].precision == precision
    assert all(np.isfinite(e.loss) for e in progress(events))


# --- kinds of annotation and stack ----------------------------------------------------------


@pytest.mark.parametrize("axis", [1, 2])
def test_slices_of_other_orientations(axis):
    refs = SliceRef(axis, 10), SliceRef(axis, 20)
    events, bundle = run(make_trainer(annotate(*refs), held_out=()))
    assert bundle.record.trained_slices == tuple(map(str, refs))
    assert all(np.isfinite(e.loss) for e in progress(events))


def test_scribbles():
    labels = np.zeros(SHAPE, np.uint8)
    for at in ((2, 5), (6, 20), (9, 30)):
        labels[at[0], at[1], 3:30] = np.maximum(TRUTH[at[0], at[1], 3:30], 1)
    assert {1, 2} <= set(np.unique(labels))
    events, _ = run(make_trainer(labels))
    assert all(np.isfinite(e.loss) for e in progress(events))


def test_channels():
    image = np.stack([IMAGE, bar(1)[0]])
    _, bundle = run(make_trainer(image=image, axes="CZYX", iterations=3))
    assert bundle.network.in_channels == 2
    assert bundle.intensity.n_channels == 2


def test_time_series():
    image = np.stack([IMAGE, bar(1)[0]])
    labels = np.stack([annotate(*TRAINED), annotate(SliceRef(0, 5), truth=bar(1)[1])])
    held_out = SliceRef(0, 5, time=1)
    trainer = make_trainer(labels, image, axes="TZYX", held_out=[held_out], iterations=3)
    events, bundle = run(trainer)
    assert bundle.record.trained_slices == ("z=2", "z=9")
    assert events[-1].slices == ("t=1 z=5",)
    assert events[-1].distance is None


def test_paint_that_comes_while_training_is_learned_from():
    labels = annotate(*TRAINED)
    trainer = make_trainer(labels, iterations=4)
    painted = np.zeros(1, bool)

    def each(event) -> None:
        if isinstance(event, TrainingProgress) and event.iteration == 1:
            labels[1:11] = np.maximum(TRUTH[1:11], 1)
            painted[:] = True

    _, bundle = run(trainer, each=each)
    assert painted
    assert bundle.record.voxels_seen > 2 * 4 * 24 * 24


def test_a_network_for_large_stacks_goes_on_with_a_small_one():
    """Its deepest map would have a single voxel, of which there are no statistics."""
    deep = SMALL.model_copy(
        update={
            "widths": (4, 4, 4, 4),
            "strides": ((2, 2, 2),) * 3,
            "kernels": ((3, 3, 3),) * 4,
        }
    )
    cut = (slice(0, 8),) * 3
    labels = annotate(*TRAINED)[cut]
    labels[2, 0] = 2
    assert set(np.unique(labels)) == {0, 1, 2}
    trainer = make_trainer(
        labels, IMAGE[cut], start=deep, patch_shape=None, iterations=2, pixel_classifier=False
    )
    assert run(trainer)[1].record.iterations == 2


# --- stop, cancel, end ----------------------------------------------------------------------


def test_stop_keeps_a_model():
    events, bundle = run(make_trainer(iterations=1000), *stop_after(3, "stop"))
    assert len(progress(events)) == 3
    assert bundle.record.iterations == 3
    assert not bundle.record.completed
    assert all(t.isfinite().all() for t in bundle.weights.values())


def test_stop_before_the_first_iteration():
    events, bundle = run(make_trainer(), stopped())
    assert not progress(events)
    assert bundle.record.iterations == 0
    bundle.build()


def test_cancel_returns_nothing():
    events, bundle = run(make_trainer(iterations=1000), *stop_after(3, "cancel"))
    assert bundle is None
    assert len(progress(events)) == 3


@pytest.mark.parametrize("end", ["whole", "cancel", "close"])
def test_nothing_runs_on(end):
    threads = set(threading.enumerate())
    trainer = make_trainer()
    if end == "close":
        steps = trainer.run()
        next(steps)
        next(steps)
        steps.close()
    else:
        run(trainer, *(stop_after(2, "cancel") if end == "cancel" else ()))
    assert set(threading.enumerate()) <= threads
    assert not any(isinstance(v, torch.nn.Module) for v in vars(trainer).values())


def test_a_trainer_runs_once():
    trainer = make_trainer(iterations=2)
    assert run(trainer)[1].record.iterations == 2
    with pytest.raises(BadInputError, match="has run already"):
        trainer.run()


# --- repeatable -----------------------------------------------------------------------------


def test_same_seed_same_weights(monkeypatch):
    """Bit by bit; also when one of the two is looked at while it trains."""
    _, one = run(make_trainer(seed=3))
    _, same = run(make_trainer(seed=3))
    _, other = run(make_trainer(seed=4))
    assert same_tensors(one.weights, same.weights)
    assert same_tensors(one.state, same.state)
    assert same_tensors(one.pixels, same.pixels)
    assert one.calibration == same.calibration
    assert not same_tensors(one.weights, other.weights)

    looks_at_once(monkeypatch)
    control = TrainingControl()
    control.watch(SliceRef(0, 4))
    events, watched = run(make_trainer(seed=3), control)
    assert any(isinstance(e, SlicePreview) for e in events)
    assert same_tensors(one.weights, watched.weights)


def test_same_seed_same_weights_of_a_fresh_network():
    bundles = [
        run(make_trainer(start=None, preset="fast", iterations=2, seed=3))[1] for _ in range(2)
    ]
    assert same_tensors(bundles[0].weights, bundles[1].weights)


@pytest.mark.parametrize("normalization", ["batch", "channel"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_stopped_and_resumed_is_as_if_never_stopped(tmp_path, normalization, precision):
    start = SMALL.model_copy(update={"normalization": normalization})
    settings = {"iterations": 12, "precision": precision}
    _, straight = run(make_trainer(start=start, **settings))
    _, half = run(make_trainer(start=start, **settings), *stop_after(6, "stop"))
    assert half.record.iterations == 6
    half = ModelBundle.load(half.save(tmp_path / "half.unet3d"))

    events, resumed = run(make_trainer(start=half, resume=True, **settings))

    assert [e.iteration for e in progress(events)] == list(range(7, 13))
    assert resumed.record.iterations == 12
    assert same_tensors(resumed.state, straight.state)
    assert same_tensors(resumed.weights, straight.weights)
    assert same_tensors(resumed.pixels, straight.pixels)
    assert resumed.calibration == straight.calibration
    assert resumed.record.voxels_seen == straight.record.voxels_seen
    assert resumed.record.seconds > half.record.seconds


def test_a_checkpoint_is_resumed_as_if_nothing_had_happened(tmp_path):
    """And writing it changes nothing in the training that goes on."""
    settings = {"iterations": 12, "held_out": [HELD_OUT]}
    _, straight = run(make_trainer(**settings))
    events, watched = run(make_trainer(**settings), with_checkpoints())
    checkpoints = [e.bundle for e in events if isinstance(e, Checkpoint)]
    assert [c.record.iterations for c in checkpoints] == list(range(1, 13))
    assert same_tensors(watched.weights, straight.weights)
    assert same_tensors(watched.state, straight.state)
    assert watched.calibration == straight.calibration
    fifth = ModelBundle.load(checkpoints[4].save(tmp_path / "fifth.unet3d"))
    assert not fifth.record.completed
    events, resumed = run(make_trainer(start=fifth, resume=True, **settings))
    assert [e.iteration for e in progress(events)] == list(range(6, 13))
    assert same_tensors(resumed.weights, straight.weights)
    assert same_tensors(resumed.state, straight.state)
    assert resumed.calibration == straight.calibration


def test_a_checkpoint_can_be_applied():
    events, bundle = run(make_trainer(iterations=20), with_checkpoints())
    last = [e.bundle for e in events if isinstance(e, Checkpoint)][-1]
    assert last.pixels
    assert last.calibration != bundle.calibration  # that one is measured
    out = np.zeros(SHAPE, np.uint8)
    for _ in predict(last, Volume(IMAGE), out):
        pass
    assert (out == TRUTH).mean() > 0.85


# --- from a model ---------------------------------------------------------------------------


@pytest.mark.parametrize("resume", [True, False])
def test_a_training_that_is_stopped_at_once_does_not_lose_the_pixel_classifier(resume):
    _, bundle = run(make_trainer(iterations=2))
    assert bundle.pixels
    _, kept = run(make_trainer(iterations=3, start=bundle, resume=resume), stopped())
    assert same_tensors(kept.pixels, bundle.pixels)
    assert kept.calibration == bundle.calibration
    # Another one is fitted where there is time for it.
    _, further = run(make_trainer(iterations=1, start=bundle, seed=1))
    assert further.pixels
    assert not same_tensors(further.pixels, bundle.pixels)


def test_fine_tuning_is_not_resuming():
    _, first = run(make_trainer(iterations=4))
    events, second = run(make_trainer(start=first, iterations=4))
    assert second.record.iterations_before == 4
    assert [e.iteration for e in progress(events)] == [1, 2, 3, 4]
    assert not same_tensors(first.weights, second.weights)


@pytest.mark.parametrize("values", [(2, 3), (5,)], ids=["more classes", "another class"])
def test_fine_tuning_for_other_classes_remakes_the_head_and_keeps_the_rest(values):
    start = random_bundle(SMALL)
    labels = annotate(*TRAINED)
    labels[labels == 2] = values[0]
    if len(values) > 1:
        labels[2, :5, :5] = values[1]
    _, bundle = run(make_trainer(labels, start=start, seed=1), stopped())
    assert tuple(c.value for c in bundle.classes) == values
    assert bundle.record.iterations_before == 0  # a new head has not learned
    assert bundle.weights["head.weight"].shape[0] == len(values) + 1
    if len(values) == 1:
        assert not torch.equal(bundle.weights["head.weight"], start.weights["head.weight"])
    for name, tensor in start.weights.items():
        if not name.startswith("head.") and "running" not in name and "num_batches" not in name:
            assert torch.equal(tensor, bundle.weights[name]), name


def test_fine_tuning_for_the_same_classes_keeps_the_head():
    start = random_bundle(SMALL)
    _, bundle = run(make_trainer(start=start), stopped())
    assert torch.equal(bundle.weights["head.weight"], start.weights["head.weight"])


def test_a_network_keeps_its_preset_when_it_is_trained_on():
    """So that the next training goes on at the right learning rate, too."""
    first = run(make_trainer(start=None, preset="fast", iterations=1))[1]
    second = run(make_trainer(start=first, iterations=1))[1]
    assert first.record.training_config.preset == second.record.training_config.preset == "fast"


def test_a_trained_network_segments_alike_in_integers():
    _, bundle = run(make_trainer(iterations=60, pixel_classifier=False))
    volume, results, notes = Volume(IMAGE), {}, []
    for precision in ("fp32", "int8"):
        results[precision] = np.zeros(volume.shape, np.uint8)
        config = PredictionConfig(device="cpu", precision=precision)
        steps = predict(bundle, volume, results[precision], config=config)
        drain(steps, lambda e: notes.append(getattr(e, "text", "")))
    assert (results["int8"] == results["fp32"]).mean() > 0.97
    assert results["int8"].any()
    assert any("have a mean IoU of 0.9" in note for note in notes)
