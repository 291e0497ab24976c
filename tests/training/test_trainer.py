"""Training: it learns, stops, resumes, survives, and repeats itself bit for bit."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import zarr
from scipy.ndimage import gaussian_filter

from bundles import random_bundle
from napari_unet3d.config import NetworkConfig, TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import (
    Checkpoint,
    FinishingStarted,
    HeldOutScores,
    Notice,
    PixelsStarted,
    SlicePreview,
    TrainingProgress,
    TrainingStarted,
)
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.mixture import Calibration
from napari_unet3d.networks.planning import plan_tile
from napari_unet3d.networks.unet import UNet3D
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.training import looks as evaluator_module
from napari_unet3d.training import throttle as throttle_module
from napari_unet3d.training import trainer as trainer_module
from napari_unet3d.training.checkpoint import training_state
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.throttle import Throttle
from napari_unet3d.training.trainer import Trainer, TrainingFailedError

SHAPE = (12, 36, 40)
SMALL = NetworkConfig(
    widths=(4, 8, 8),
    strides=((1, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 3,
    padding="same",
    normalization="batch",
    n_classes=2,
)
TRAINED = (SliceRef(0, 2), SliceRef(0, 9))
HELD_OUT = SliceRef(0, 6)


def blobs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy image, and its truth: bright blobs, class 2."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.standard_normal(SHAPE), 2.5)
    truth = np.where(smooth > np.quantile(smooth, 0.7), 2, 0).astype(np.uint8)
    return (20 * truth + rng.normal(100, 12, SHAPE)).astype(np.float32), truth


IMAGE, TRUTH = blobs()


def annotate(*refs: SliceRef, truth=TRUTH) -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    for ref in refs:
        where = (slice(None),) * ref.axis + (ref.index,)
        labels[where] = np.maximum(truth[where], 1)
    return labels


SETTINGS = {"device": "cpu", "patch_shape": (8, 24, 24), "iterations": 6, "learning_rate": 5e-3}


pytestmark = pytest.mark.usefixtures("quick_garbage_collection")


def make_trainer(
    labels=None, image=None, *, start=SMALL, axes="ZYX", held_out=(), resume=False, **settings
) -> Trainer:
    volume = Volume(IMAGE if image is None else image, axes)
    labels = annotate(*TRAINED, *held_out) if labels is None else labels
    if isinstance(start, NetworkConfig):
        start = random_bundle(start.model_copy(update={"in_channels": volume.n_channels}))
    return Trainer(
        volume,
        SparseAnnotation.from_labels(labels, held_out=held_out),
        TrainingConfig(**(SETTINGS | settings)),
        start_from=start,
        resume=resume,
    )


def run(trainer: Trainer, control=None, each=None):
    """Events and model of a whole training."""
    events, steps = [], trainer.run(control)
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            return events, end.value
        events.append(event)
        if each is not None:
            each(event)


def progress(events) -> list[TrainingProgress]:
    return [e for e in events if isinstance(e, TrainingProgress)]


def same_tensors(a, b) -> bool:
    return set(a) == set(b) and all(torch.equal(t, b[n]) for n, t in a.items())


def looks_at_once(monkeypatch) -> None:
    """Held-out scores and previews after every iteration, however short the training."""
    monkeypatch.setattr(Throttle, "due", lambda self, elapsed: True)
    monkeypatch.setattr(Throttle, "affordable", lambda self, elapsed, cost: True)


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


def test_events_come_in_order():
    events, bundle = run(make_trainer(held_out=[HELD_OUT]))
    started, pixels, *rest, finishing, last = events
    assert isinstance(started, TrainingStarted)
    assert isinstance(pixels, PixelsStarted)
    assert isinstance(finishing, FinishingStarted)
    assert started.labelled_voxels == 2 * SHAPE[1] * SHAPE[2]
    assert started.patch_shape == (8, 24, 24)
    assert started.parameters == sum(p.numel() for p in bundle.build().parameters())
    assert all(isinstance(e, TrainingProgress | HeldOutScores) for e in rest)
    steps = progress(rest)
    assert [e.iteration for e in steps] == [1, 2, 3, 4, 5, 6]
    assert [e.fraction for e in steps] == pytest.approx([i / 6 for i in range(1, 7)])
    assert steps[-1].remaining == pytest.approx(0)
    assert all(e.memory > 0 for e in steps)
    assert isinstance(last, HeldOutScores)
    assert last.final


def test_record_says_how_the_model_came_to_be():
    _, bundle = run(make_trainer(held_out=[HELD_OUT], seed=5))
    record = bundle.record
    assert record.config.seed == 5
    assert record.trained_slices == ("z=2", "z=9")
    assert record.held_out_slices == ("z=6",)
    assert record.held_out_distance == 3
    assert 0 < record.voxels_seen <= 6 * 24 * 24 * 2
    assert record.seconds > 0


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


def test_normalization_setting_reaches_the_network():
    trainer = make_trainer(start=None, preset="fast", normalization="channel")
    assert trainer.network_config.normalization == "channel"


def test_paper_preset_with_its_smallest_patch():
    """19 million parameters, unpadded: one iteration on 92³ voxels, 4³ of them learned from."""
    trainer = make_trainer(start=None, preset="paper", patch_shape=(92, 92, 92), iterations=1)
    assert sum(p.numel() for p in UNet3D(trainer.network_config).parameters()) > 19_000_000
    image, target = trainer.sampler.batch(0, 1, torch.device("cpu"), trainer.config.augmentation)
    assert image.shape == (1, 1, 92, 92, 92)
    assert target.shape == (1, 4, 4, 4)


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


def test_other_recipes():
    events, _ = run(
        make_trainer(
            schedule="polynomial", class_weights="balanced", weight_averaging=0, dice_share=0,
            batch_size=2, augmentation={"spatial_share": 0},
        )
    )  # fmt: skip
    assert all(np.isfinite(e.loss) for e in progress(events))


def test_without_averaging_the_model_is_the_last_iteration_s():
    _, bundle = run(make_trainer(weight_averaging=0))
    raw = {n.removeprefix("weights/"): t for n, t in bundle.state.items()}
    names = [n for n in bundle.weights if "running" not in n and "num_batches" not in n]
    assert all(torch.allclose(bundle.weights[n], raw[n], atol=1e-6) for n in names)
    _, averaged = run(make_trainer())
    assert not torch.allclose(averaged.weights["head.weight"], bundle.weights["head.weight"])


# --- kinds of annotation and stack ----------------------------------------------------------


@pytest.mark.parametrize("axis", [1, 2])
def test_slices_of_other_orientations(axis):
    refs = SliceRef(axis, 10), SliceRef(axis, 20)
    events, bundle = run(make_trainer(annotate(*refs), held_out=()))
    assert bundle.record.trained_slices == tuple(map(str, refs))
    assert all(np.isfinite(e.loss) for e in progress(events))


def test_planned_patch_is_thin_across_the_painted_slices():
    image = np.random.default_rng(0).normal(size=(60, 64, 70)).astype(np.float32)
    labels = np.zeros(image.shape, np.uint8)
    labels[..., 10] = np.arange(64) % 2 + 1
    trainer = make_trainer(labels, image, start=None, patch_shape=None)
    assert 2 * trainer.patch_shape[2] < min(trainer.patch_shape[:2])
    assert trainer.patch_shape == trainer.sampler.shapes[2]


def test_scribbles():
    labels = np.zeros(SHAPE, np.uint8)
    for at in ((2, 5), (6, 20), (9, 30)):
        labels[at[0], at[1], 3:30] = np.maximum(TRUTH[at[0], at[1], 3:30], 1)
    assert {1, 2} <= set(np.unique(labels))
    events, _ = run(make_trainer(labels))
    assert all(np.isfinite(e.loss) for e in progress(events))


def test_channels():
    image = np.stack([IMAGE, blobs(1)[0]])
    _, bundle = run(make_trainer(image=image, axes="CZYX", iterations=3))
    assert bundle.network.in_channels == 2
    assert bundle.intensity.n_channels == 2


def test_time_series():
    image = np.stack([IMAGE, blobs(1)[0]])
    labels = np.stack([annotate(*TRAINED), annotate(SliceRef(0, 5), truth=blobs(1)[1])])
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


# --- stop, cancel, end ----------------------------------------------------------------------


def stop_after(n: int, how: str) -> tuple[TrainingControl, object]:
    control = TrainingControl()

    def each(event) -> None:
        if isinstance(event, TrainingProgress) and event.iteration == n:
            getattr(control, how)()

    return control, each


def test_stop_keeps_a_model():
    events, bundle = run(make_trainer(iterations=1000), *stop_after(3, "stop"))
    assert len(progress(events)) == 3
    assert bundle.record.iterations == 3
    assert not bundle.record.completed
    assert all(t.isfinite().all() for t in bundle.weights.values())


def test_stop_before_the_first_iteration():
    control = TrainingControl()
    control.stop()
    events, bundle = run(make_trainer(), control)
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


def with_checkpoints(seconds: float | None = 0.0) -> TrainingControl:
    control = TrainingControl()
    control.checkpoint_every(seconds)
    return control


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


@pytest.mark.parametrize("seconds", [None, 3600.0])
def test_checkpoints_come_when_they_are_asked_for(seconds):
    events, _ = run(make_trainer(), with_checkpoints(seconds))
    assert not any(isinstance(e, Checkpoint) for e in events)


# --- how long it will take ------------------------------------------------------------------


def test_the_forecast_is_of_this_run():
    """More iterations, and a larger stack, are expected to take longer."""
    short = run(make_trainer(iterations=1, held_out=[HELD_OUT]))[0]
    (finishing,) = [e for e in short if isinstance(e, FinishingStarted)]
    assert 0 < finishing.expected < 60
    short = short[0].forecast
    assert min(short.training, short.finishing, short.segmenting) > 0
    control = TrainingControl()
    control.stop()
    long = run(make_trainer(iterations=10**6), control)[0][0].forecast
    assert long.training > 100 * short.training
    large = np.tile(IMAGE, (1, 8, 8))
    labels = np.tile(annotate(*TRAINED), (1, 8, 8))
    large = run(make_trainer(labels, large, iterations=1), control)[0][0].forecast
    assert large.segmenting > 4 * short.segmenting


def test_a_budget_of_seconds_is_what_the_training_takes():
    control = TrainingControl()
    control.stop()
    started = run(make_trainer(iterations=None, seconds=1000), control)[0][0]
    assert 900 < started.forecast.training < 1000


def test_a_network_too_large_for_the_measurement_has_no_forecast():
    start = NetworkConfig(
        widths=(4, 4, 4, 4),
        kernels=((3, 3, 3),) * 4,
        padding="valid",
        normalization="tile",
        n_classes=2,
    )
    trainer = make_trainer(start=start, patch_shape=(92, 92, 92), iterations=1)
    control = TrainingControl()
    control.stop()
    events, _ = run(trainer, control)
    assert np.prod(plan_tile(start, SHAPE, 1)) > 300_000
    assert events[0].forecast is None


@pytest.mark.parametrize("resume", [True, False])
def test_a_training_that_is_stopped_at_once_does_not_lose_the_pixel_classifier(resume):
    _, bundle = run(make_trainer(iterations=2))
    assert bundle.pixels
    control = TrainingControl()
    control.stop()
    _, stopped = run(make_trainer(iterations=3, start=bundle, resume=resume), control)
    assert same_tensors(stopped.pixels, bundle.pixels)
    assert stopped.calibration == bundle.calibration
    # Another one is fitted where there is time for it.
    _, further = run(make_trainer(iterations=1, start=bundle, seed=1))
    assert further.pixels
    assert not same_tensors(further.pixels, bundle.pixels)


def test_too_little_memory_for_pixels_keeps_those_of_the_model(monkeypatch):
    _, bundle = run(make_trainer(iterations=2))
    failing(monkeypatch, evaluator_module, "fit_pixels", MemoryError(), math.inf)
    events, further = run(make_trainer(iterations=1, start=bundle))
    assert any("it stays" in e.text for e in events if isinstance(e, Notice))
    assert same_tensors(further.pixels, bundle.pixels)
    events, alone = run(make_trainer(iterations=1))
    assert any("stands alone" in e.text for e in events if isinstance(e, Notice))
    assert not alone.pixels


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
    control = TrainingControl()
    control.stop()
    _, found = run(make_trainer(labels, start=start, seed=1), control)
    assert tuple(c.value for c in found.classes) == values
    assert found.record.iterations_before == 0  # a new head has not learned
    assert found.weights["head.weight"].shape[0] == len(values) + 1
    if len(values) == 1:
        assert not torch.equal(found.weights["head.weight"], start.weights["head.weight"])
    for name, tensor in start.weights.items():
        if not name.startswith("head.") and "running" not in name and "num_batches" not in name:
            assert torch.equal(tensor, found.weights[name]), name


def test_fine_tuning_for_the_same_classes_keeps_the_head():
    control = TrainingControl()
    control.stop()
    start = random_bundle(SMALL)
    _, found = run(make_trainer(start=start), control)
    assert torch.equal(found.weights["head.weight"], start.weights["head.weight"])


# --- looking --------------------------------------------------------------------------------


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
    trainer = make_trainer(iterations=3)
    (info,) = trainer.annotation.classes
    trainer = Trainer(
        trainer.volume,
        replace(trainer.annotation, classes=(info.model_copy(update={"output": 1}),)),
        trainer.config,
        start_from=random_bundle(SMALL),
    )
    previews = [e for e in run(trainer, control)[0] if isinstance(e, SlicePreview)]
    assert set(np.unique([p.labels for p in previews])) == {0, 1}


def test_what_is_watched_may_change_and_end(monkeypatch):
    looks_at_once(monkeypatch)
    control = TrainingControl()
    wishes = {1: SliceRef(0, 1), 2: SliceRef(1, 5), 3: None}

    def each(event) -> None:
        if isinstance(event, TrainingProgress):
            control.watch(wishes.get(event.iteration))

    events, _ = run(make_trainer(iterations=5), control, each)
    found = [e.ref for e in events if isinstance(e, SlicePreview)]
    assert found == [SliceRef(0, 1), SliceRef(1, 5)]


# --- trouble --------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory_halves_the_patch_and_goes_on(monkeypatch, error):
    forward = UNet3D.forward

    def limited(self, x):
        if self.training and x[0, 0].numel() > 2500:
            raise error
        return forward(self, x)

    monkeypatch.setattr(UNet3D, "forward", limited)
    events, bundle = run(make_trainer(iterations=4))
    notices = [e for e in events if isinstance(e, Notice)]
    assert notices
    assert "8 × 24 × 24" in notices[0].text
    assert "halved" in notices[0].text
    assert [e.iteration for e in progress(events)] == [1, 2, 3, 4]
    assert np.prod(bundle.record.patch_shape) <= 2500


def test_memory_that_never_suffices_is_a_clear_failure(monkeypatch):
    def never(self, x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(UNet3D, "forward", never)
    with pytest.raises(RunFailedError, match=r"out of memory.*close"):
        run(make_trainer())


def test_a_shortage_after_unscaling_does_not_end_an_fp16_training(monkeypatch):
    """The scaler of fp16 gradients takes each step once: a step that breaks off confuses it."""
    trainer = make_trainer(iterations=3, pixel_classifier=False)
    clip, calls = torch.nn.utils.clip_grad_norm_, []

    def short_of_memory(*args):
        calls.append(trainer._scaler)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return clip(*args)

    monkeypatch.setattr(trainer_module.nn.utils, "clip_grad_norm_", short_of_memory)
    # fp16 is refused on a CPU, where it is slow; its scaler works there.
    monkeypatch.setattr(
        trainer, "_new_scaler", lambda scale=2.0**10: torch.amp.GradScaler("cpu", scale)
    )
    trainer._scaler = trainer._new_scaler()
    events, _ = run(trainer)
    assert [e.iteration for e in progress(events)] == [1, 2, 3]
    assert calls[0] is not calls[1]
    assert calls[1].get_scale() == 2.0**10, "the scale that was found stays"


def test_whatever_ends_a_training_its_weights_are_kept(monkeypatch):
    steps = []
    loss = trainer_module.masked_loss

    def broken(*args, **options):
        steps.append(1)
        if len(steps) > 3:
            raise KeyError("no such thing")
        return loss(*args, **options)

    monkeypatch.setattr(trainer_module, "masked_loss", broken)
    with pytest.raises(TrainingFailedError, match=r"training failed.*no such thing") as failure:
        run(make_trainer(iterations=9))
    bundle = failure.value.bundle
    assert bundle.record.iterations == 3
    assert not bundle.record.completed
    monkeypatch.setattr(trainer_module, "masked_loss", loss)
    _, resumed = run(make_trainer(start=bundle, resume=True, iterations=4))
    assert resumed.record.iterations == 4


def test_what_failed_before_the_first_step_leaves_no_model(monkeypatch):
    monkeypatch.setattr(trainer_module, "masked_loss", lambda *a, **k: 1 / 0)
    with pytest.raises(TrainingFailedError, match="division") as failure:
        run(make_trainer())
    assert failure.value.bundle is None


def test_weights_are_kept_even_when_the_memory_does_not_suffice_to_finish(monkeypatch):
    def never(self, final):
        raise MemoryError

    monkeypatch.setattr(evaluator_module.Evaluator, "estimate_statistics", never)
    with pytest.raises(TrainingFailedError) as failure:
        run(make_trainer(iterations=2))
    bundle = failure.value.bundle
    assert bundle.record.iterations == 2
    assert bundle.calibration == Calibration(network=0.0, pixels=1.0)


def failing(monkeypatch, owner, name: str, error: Exception, times: float = 1) -> list:
    """Let a method fail, `times` times from its first call on; returns a list of the failures."""
    method, failures = getattr(owner, name), []

    def fail(*args, **kwargs):
        if len(failures) < times:
            failures.append(error)
            raise error
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, fail)
    return failures


@pytest.mark.parametrize(
    "error",
    [MemoryError("3 GiB"), RuntimeError("could not create a primitive"), RunFailedError("gone.")],
    ids=["memory", "oneDNN", "file"],
)
@pytest.mark.parametrize(
    ("owner", "name", "text"),
    [
        (evaluator_module.Evaluator, "measure", "held-out slices"),
        (evaluator_module.Evaluator, "preview", "slice on the screen"),
        (trainer_module, "training_state", "No checkpoint"),
        (evaluator_module.Evaluator, "calibrate", "not be calibrated"),
    ],
)
def test_a_look_that_fails_does_not_end_the_training(monkeypatch, owner, name, text, error):
    looks_at_once(monkeypatch)
    control = with_checkpoints()
    control.watch(SliceRef(0, 1))
    failures = failing(monkeypatch, owner, name, error, times=2 if name != "calibrate" else 1)
    events, bundle = run(make_trainer(held_out=[HELD_OUT], iterations=4), control)
    assert failures
    notices = [e.text for e in events if isinstance(e, Notice)]
    assert len(notices) == 1  # two alike would be no news
    assert text in notices[0]
    assert not notices[0].endswith("..")
    assert bundle.record.iterations == 4
    assert bundle.record.completed
    assert bundle.state


def test_final_scores_that_fail_do_not_cost_the_model(monkeypatch):
    failures = failing(
        monkeypatch, evaluator_module.Evaluator, "measure", MemoryError("3 GiB"), math.inf
    )
    events, bundle = run(make_trainer(held_out=[HELD_OUT], iterations=3))
    assert failures
    assert [e.text for e in events if isinstance(e, Notice)]
    assert bundle.record.completed
    assert bundle.record.held_out == ()


def test_a_failed_training_is_kept_without_its_optimizer_where_memory_is_short(monkeypatch):
    failing(monkeypatch, trainer_module, "training_state", MemoryError(), math.inf)
    with pytest.raises(TrainingFailedError) as failure:
        run(make_trainer(iterations=3))
    assert failure.value.bundle.record.iterations == 3
    assert not failure.value.bundle.state


def test_a_failed_training_keeps_both_classifiers_where_it_cannot_be_calibrated(monkeypatch):
    failing(monkeypatch, evaluator_module.Evaluator, "calibrate", MemoryError(), math.inf)
    failing(monkeypatch, trainer_module, "training_state", MemoryError())
    with pytest.raises(TrainingFailedError) as failure:
        run(make_trainer(iterations=3))
    assert failure.value.bundle.calibration == Calibration(network=0.5, pixels=0.5)


def test_a_lost_device_does_not_hide_why_the_training_failed(monkeypatch):
    """After some errors of CUDA, all that is asked of the device fails, too."""
    trainer = make_trainer(iterations=3)

    def lost(*args, **kwargs):
        raise RuntimeError("CUDA error: unspecified launch failure")

    def step(learning_rate):
        for owner, name in (
            (evaluator_module.Evaluator, "estimate_statistics"),
            (trainer_module.devices, "make_room"),
            (trainer_module, "on_cpu"),
        ):
            monkeypatch.setattr(owner, name, lost)
        trainer._finite_steps = 1
        lost()

    monkeypatch.setattr(trainer, "_step", step)
    with pytest.raises(TrainingFailedError, match="unspecified launch") as failure:
        run(trainer)
    assert failure.value.bundle is None


def test_an_input_that_turns_bad_does_not_cost_the_model(monkeypatch):
    trainer = make_trainer(iterations=5)
    step = trainer._step

    def until_the_third(learning_rate):
        if trainer.iteration == 2:
            raise BadInputError("the labels have changed")
        return step(learning_rate)

    monkeypatch.setattr(trainer, "_step", until_the_third)
    with pytest.raises(TrainingFailedError, match=r"^the labels have changed$") as failure:
        run(trainer)
    assert failure.value.bundle.record.iterations == 2


def test_runtime_errors_do_not_leave_as_such(monkeypatch):
    """superqt's workers swallow RuntimeErrors: the user would wait for ever."""

    def broken(self, x):
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(UNet3D, "forward", broken)
    with pytest.raises(RunFailedError, match="could not create a primitive"):
        run(make_trainer())


def test_loss_that_is_no_number_ends_the_training():
    """Weights so large that the activations overflow."""
    small = random_bundle(SMALL.model_copy(update={"normalization": "none"}))
    huge = {n: t * 1e30 if t.dim() == 5 else t for n, t in small.weights.items()}
    start = small.model_copy(update={"weights": huge})
    with pytest.raises(RunFailedError, match=r"not finite.*lower the learning rate"):
        run(make_trainer(start=start, iterations=1000))
    # Before that many: the training would end well, though nothing was learned.
    with pytest.raises(TrainingFailedError, match=r"never a finite number.*fp32") as failure:
        run(make_trainer(start=start, iterations=3))
    assert failure.value.bundle is None


def test_patch_too_small_to_normalize_is_a_clear_failure():
    """The deepest map has one voxel, of which torch can take no statistics."""
    with pytest.raises((BadInputError, RunFailedError)):
        run(make_trainer(patch_shape=(2, 4, 4)))


# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"device": "cuda:7"}, r"cuda:7.*cpu"),
        ({"precision": "fp16"}, r"fp16.*bf16"),
        ({"patch_shape": (8, 24, 23)}, r"23.*leave the patch shape empty"),
        ({"patch_shape": (0, 24, 24)}, r"too small.*leave the patch shape empty"),
        ({"patch_shape": (8, -24, 24)}, r"too small.*leave the patch shape empty"),
        ({"image": IMAGE[0]}, r"2D"),
        ({"image": np.ones(SHAPE)}, r"same value"),
        ({"labels": np.zeros(SHAPE, np.uint8)}, r"[Nn]othing is painted"),
        ({"labels": np.where(annotate(*TRAINED) == 2, 2, 0)}, r"Only class 2"),
        ({"labels": annotate(*TRAINED)[1:]}, r"11 × 36 × 40.*12 × 36 × 40"),
        ({"labels": annotate(*TRAINED).astype(float)}, r"float64"),
        ({"labels": annotate(*TRAINED), "held_out": TRAINED}, r"z=2, z=9.*nothing is left"),
        ({"labels": annotate(*TRAINED), "held_out": [SliceRef(0, 99)]}, r"z=99"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(given, text):
    with pytest.raises(BadInputError, match=text):
        make_trainer(**given)


def test_model_for_other_channels():
    with pytest.raises(BadInputError, match=r"2 channel.*1"):
        make_trainer(start=random_bundle(SMALL.model_copy(update={"in_channels": 2})))


def test_a_trainer_runs_once():
    trainer = make_trainer(iterations=2)
    assert run(trainer)[1].record.iterations == 2
    with pytest.raises(BadInputError, match="has run already"):
        trainer.run()


def test_resuming_needs_a_model():
    with pytest.raises(BadInputError, match="no model to resume"):
        make_trainer(start=None, resume=True)


@pytest.mark.parametrize("damage", ["missing", "shape", "weights", "negative", "step"])
def test_resuming_needs_the_whole_optimizer(damage):
    _, bundle = run(make_trainer(iterations=1))
    state = dict(bundle.state)
    if damage == "weights":
        del state["weights/head.weight"]
    elif damage == "missing":
        del state["optimizer/head.weight/exp_avg"]
    elif damage == "negative":
        state["optimizer/head.weight/exp_avg_sq"] = -state["optimizer/head.weight/exp_avg_sq"]
    elif damage == "step":
        state["optimizer/head.weight/step"] = torch.tensor(-5.0)
    else:
        state["optimizer/head.weight/exp_avg"] = torch.zeros(3)
    broken = bundle.model_copy(update={"state": state})
    with pytest.raises(BadInputError, match=r"head.weight.*Fine-tune"):
        make_trainer(start=broken, resume=True)
    make_trainer(start=bundle, resume=True)


def test_resuming_needs_the_statistics_of_the_state():
    _, bundle = run(make_trainer(iterations=1))
    name = next(n for n in bundle.state if n.endswith("running_mean"))
    state = {n: t for n, t in bundle.state.items() if n != name}
    with pytest.raises(BadInputError, match=r"running_mean.*Fine-tune"):
        make_trainer(start=bundle.model_copy(update={"state": state}), resume=True)


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


def test_fp32_on_a_cpu_takes_two_patches_a_step():
    assert make_trainer(precision="fp32").batch_size == 2
    assert make_trainer(precision="bf16").batch_size == 1
    assert make_trainer(precision="fp32", batch_size=1).batch_size == 1


def test_resuming_needs_the_optimizer_and_the_same_classes():
    _, bundle = run(make_trainer(iterations=1))
    with pytest.raises(BadInputError, match="fine-tune"):
        make_trainer(start=bundle.without_state(), resume=True)
    labels = annotate(*TRAINED)
    labels[labels == 2] = 9
    with pytest.raises(BadInputError, match=r"\[2\].*\[9\]"):
        make_trainer(labels, start=bundle, resume=True)


def test_a_network_keeps_its_preset_when_it_is_trained_on():
    """So that the next training goes on at the right learning rate, too."""
    first = run(make_trainer(start=None, preset="fast", iterations=1))[1]
    second = run(make_trainer(start=first, iterations=1))[1]
    assert first.record.config.preset == second.record.config.preset == "fast"


def test_resuming_with_a_budget_that_is_used_up_is_refused():
    model = run(make_trainer(iterations=2))[1]
    with pytest.raises(BadInputError, match=r"2 iterations.*larger"):
        make_trainer(iterations=2, start=model, resume=True)
    assert make_trainer(iterations=3, start=model, resume=True).iteration == 2


def test_stop_before_the_network_has_learned_leaves_it_to_the_pixels(monkeypatch):
    control = TrainingControl()
    fit = evaluator_module.fit_pixels

    def fit_and_stop(*given):
        fitted = fit(*given)
        control.stop()
        return fitted

    monkeypatch.setattr(evaluator_module, "fit_pixels", fit_and_stop)
    trainer = Trainer(Volume(IMAGE), SparseAnnotation.from_labels(annotate(*TRAINED)))
    _, bundle = run(trainer, control)
    assert bundle.record.iterations == 0
    assert bundle.calibration == Calibration(network=0, pixels=1)


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


@pytest.mark.parametrize("schedule", ["cosine", "polynomial"])
def test_the_learning_rate_ends_at_zero(schedule):
    trainer = make_trainer(schedule=schedule)
    trainer.iteration = 100
    assert trainer._learning_rate(0.0) == pytest.approx(5e-3)
    assert trainer._learning_rate(1.0) == pytest.approx(0)
    assert 0 <= trainer._learning_rate(1.2) < 1e-3  # a slow step may begin late


def test_a_step_that_was_not_finite_does_not_spoil_the_saved_state():
    network = UNet3D(SMALL)
    network(torch.full((1, 1, 8, 16, 16), torch.nan))
    assert any(not t.isfinite().all() for t in network.state_dict().values())
    state = training_state(network, torch.optim.AdamW(network.parameters()))
    assert all(t.isfinite().all() for t in state.values())


def beads() -> tuple[np.ndarray, np.ndarray]:
    """Single voxels of 300…4000 on noise of 100 ± 5, class 2, in 0.1 % of the voxels."""
    rng = np.random.default_rng(0)
    truth = np.zeros(SHAPE, np.uint8)
    for z in (2, 9):
        truth[z].flat[rng.choice(truth[z].size, 8, replace=False)] = 2
    image = rng.normal(100, 5, SHAPE)
    image[truth == 2] = rng.uniform(300, 4000, 16)
    return image.astype(np.uint16), truth


def test_painted_beads_are_not_clipped_in_training_nor_prediction():
    image, truth = beads()
    labels = annotate(*TRAINED, truth=truth)
    _, bundle = run(make_trainer(labels, image, pixel_classifier=False))
    assert bundle.intensity.clip[0][0] == 0.1
    assert bundle.intensity.clip[0][1] > 99.9
    normalized = bundle.intensity.apply(image[None])[0]
    assert len(np.unique(normalized[truth == 2])) >= 14
    # What `predict` does with the same stack.
    again = IntensityNormalization.estimate(Volume(image), bundle.intensity.clip)
    assert again == bundle.intensity
    # A model that is trained further, on a stack where less is painted, keeps its percentiles.
    further = make_trainer(annotate(SliceRef(0, 2)), IMAGE, start=bundle)
    assert further.intensity.clip == bundle.intensity.clip


def test_percentiles_are_a_setting():
    trainer = make_trainer(clip_percentiles=(5, 99.95))
    assert trainer.intensity.clip == ((5, 99.95),)
    # No setting cuts what is painted: here 60 % of the class.
    assert make_trainer(clip_percentiles=(5, 80)).intensity.clip[0][1] > 99
    assert make_trainer().intensity.clip == ((0.1, 99.9),)


def test_voxels_that_cannot_be_read_are_bad_input_before_the_start(tmp_path):
    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), data=IMAGE, chunks=(6, 36, 40), zarr_format=2)
    (path / "1.0.0").write_bytes(b"abc")
    volume = read_volume(path)
    with pytest.raises(BadInputError, match=r"its chunk 1\.0\.0 is damaged"):
        Trainer(volume, SparseAnnotation.from_labels(annotate(*TRAINED)))
