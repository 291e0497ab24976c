"""Planes of 2048² voxels: trained on, looked at, measured, segmented, compared and painted.

The image is bright where the truth is class 2, in blocks of 128² voxels drawn for each plane:

    image   dim 90…110, bright 170…190     a threshold at 140 is right everywhere
    truth   ██░░░░██░░██░░░░ …             16 × 16 blocks a plane, 4 planes

Blocks tell what a smaller stack cannot: whether each tile of a large plane lands in its place.
"""

from __future__ import annotations

import itertools
import math
import tracemalloc
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from bundles import random_bundle
from napari_unet3d.config import PredictionConfig, TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.ledger import SliceLedger
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import HeldOutScores, SlicePreview, TrainingProgress
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.prediction.comparison import compare
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.limits import LookLimits
from napari_unet3d.training.plan import plan_training
from napari_unet3d.training.throttle import Throttle
from napari_unet3d.training.trainer import run_plan

# Each test computes for seconds; on a machine that does other work, these become minutes.
pytestmark = pytest.mark.timeout(600)

SIDE, BLOCK = 2048, 128
SHAPE = (4, SIDE, SIDE)
TRAINED, LOOKED_AT, HELD_OUT = SliceRef(0, 1), SliceRef(0, 2), SliceRef(0, 3)
ITERATIONS = 100
MEMORY = 60_000_000
"""Bytes that a prediction may use: less than the stack takes in float32."""
CORNERS = tuple(itertools.product((slice(0, 40), slice(SIDE - 40, SIDE)), repeat=2))
"""The corners of a plane, where a mistake in the number or place of the tiles would show."""
SMALL = UNetConfig(
    widths=(2, 4),
    strides=((1, 2, 2),),
    kernels=((1, 3, 3), (1, 3, 3)),
    padding="same",
    normalization="batch",
)


@dataclass(frozen=True)
class Stack:
    """A compressed stack on the disk, and its truth."""

    image: zarr.Array
    truth: np.ndarray

    @property
    def volume(self) -> Volume:
        return Volume(self.image)

    def painted(self, ref: SliceRef, *places: tuple[slice, slice]) -> np.ndarray:
        """The truth of some places on a plane as paint: 1 background, 2 class 2."""
        labels = np.zeros_like(self.truth)
        for place in places:
            labels[ref.index][place] = np.maximum(self.truth[ref.index][place], 1)
        return labels


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    rng = np.random.default_rng(0)
    blocks = np.where(rng.random((SHAPE[0], SIDE // BLOCK, SIDE // BLOCK)) < 0.4, 2, 0)
    truth = blocks.astype(np.uint8).repeat(BLOCK, 1).repeat(BLOCK, 2)
    path = tmp_path_factory.mktemp("large") / "image.zarr"
    image = zarr.create_array(path, shape=SHAPE, chunks=(1, 512, 512), dtype="uint8")
    for z, plane in enumerate(truth):
        image[z] = 40 * plane + rng.integers(90, 111, plane.shape, np.uint8)
    return Stack(image, truth)


def iou(labels: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union of class 2."""
    return float(((labels == 2) & (truth == 2)).sum() / ((labels == 2) | (truth == 2)).sum())


# --- training -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """What a training yields, and its model."""

    events: list[Any]
    bundle: ModelBundle
    painted: int
    """Voxels painted on the held-out slice."""

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture(scope="module")
def training(stack: Stack) -> Training:
    """Train on one complete plane, look at another one on the way, measure four corners."""
    labels = stack.painted(TRAINED, (slice(None), slice(None)))
    held_out = stack.painted(HELD_OUT, *CORNERS)
    annotation = SparseAnnotation.from_labels(labels | held_out, held_out=[HELD_OUT])
    config = TrainingConfig(
        device="cpu",
        precision="fp32",
        patch_shape=(1, 96, 96),
        iterations=ITERATIONS,
        learning_rate=1e-2,
        pixel_classifier=False,  # it takes most of a minute for a look at such a plane
    )
    plan = plan_training(stack.volume, annotation, config, start_from=random_bundle(SMALL))
    # On a busy machine, too, all corners are measured.
    plan = replace(plan, limits=LookLimits(final_seconds=math.inf))
    control = TrainingControl()
    events: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        # A look is taken once, towards the end, instead of when its time has come.
        patch.setattr(Throttle, "due", lambda *_: control.watched is not None)
        patch.setattr(Throttle, "affordable", lambda *_: True)
        steps = run_plan(plan, control)
        while True:
            try:
                event = next(steps)
            except StopIteration as end:
                assert end.value is not None
                return Training(events, end.value, int(np.count_nonzero(held_out)))
            events.append(event)
            if isinstance(event, TrainingProgress) and event.iteration == ITERATIONS - 5:
                control.watch(LOOKED_AT)
            elif isinstance(event, SlicePreview):
                control.watch(None)


def test_it_trains(training: Training) -> None:
    losses = [event.loss for event in training.of(TrainingProgress)]
    assert training.bundle.record.iterations == len(losses) == ITERATIONS
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_a_look_shows_the_whole_plane(training: Training, stack: Stack) -> None:
    (preview,) = training.of(SlicePreview)
    assert preview.ref == LOOKED_AT
    assert preview.labels.shape == (SIDE, SIDE)
    assert iou(preview.labels, stack.truth[LOOKED_AT.index]) > 0.9
    for corner in CORNERS:
        assert np.mean(preview.labels[corner] == stack.truth[LOOKED_AT.index][corner]) > 0.9


def test_every_painted_corner_of_a_held_out_plane_is_measured(training: Training) -> None:
    scores = training.of(HeldOutScores)[-1]
    assert scores.final
    assert scores.scored == 1
    assert training.painted == len(CORNERS) * 40 * 40
    assert 0 < scores.classes[0].voxels < training.painted
    assert scores.mean_iou > 0.9


def test_the_trained_model_segments_a_plane_it_has_not_seen(
    training: Training, stack: Stack
) -> None:
    crop = Volume(stack.image[:, SIDE - 512 :, SIDE - 512 :])
    labels = np.zeros(crop.shape, np.uint8)
    for _ in predict(training.bundle, crop, labels, config=PredictionConfig(device="cpu")):
        pass
    truth = stack.truth[:, SIDE - 512 :, SIDE - 512 :]
    assert iou(labels[0], truth[0]) > 0.9


# --- prediction -----------------------------------------------------------------------------


def threshold_bundle(volume: Volume, gray: float) -> ModelBundle:
    """A network of one voxel's view that finds class 2 where the image is above `gray`."""
    network = UNetConfig(
        widths=(2,), strides=(), kernels=((1, 1, 1),), padding="same", normalization="none"
    )
    bundle = random_bundle(network)
    intensity = IntensityNormalization.estimate(volume)
    threshold = (gray - intensity.mean[0]) / intensity.std[0]
    values = (
        [[1.0]],  # first convolution: image above the threshold, else 0 (ReLU)
        [-threshold],
        [[1.0], [0.0]],  # second convolution: the same, and a channel that is not used
        [0.0, 0.0],
        [[0.0, 0.0], [80.0, 0.0]],  # head: class 2 where this is more than a little
        [0.0, -8.0],
    )
    weights = {
        name: torch.tensor(value).reshape(bundle.weights[name].shape)
        for name, value in zip(bundle.weights, values, strict=True)
    }
    return bundle.model_copy(update={"weights": weights})


def test_every_voxel_of_large_planes_is_segmented_in_its_place(
    stack: Stack, tmp_path: Path
) -> None:
    labels = zarr.create_array(
        tmp_path / "labels.zarr", shape=SHAPE, chunks=(1, 512, 512), dtype="uint8"
    )
    uncertainty = np.memmap(tmp_path / "uncertainty", np.float32, "w+", shape=SHAPE)
    bundle = threshold_bundle(stack.volume, 140)
    config = PredictionConfig(
        device="cpu", precision="fp32", tile_shape=(4, 512, 512), overlap=0.1, memory=MEMORY
    )
    tracemalloc.start()
    try:
        events = list(predict(bundle, stack.volume, labels, uncertainty=uncertainty, config=config))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(events) >= (SIDE // 512) ** 2  # many tiles
    for z in range(SHAPE[0]):
        np.testing.assert_array_equal(labels[z], stack.truth[z])
    assert uncertainty.max() < 0.1
    assert peak < MEMORY, f"{peak / 2**20:.0f} MiB"


# --- comparison and painting ----------------------------------------------------------------


def test_large_planes_are_compared_without_reading_them_whole(stack: Stack, tmp_path: Path) -> None:
    wrong = stack.truth.copy()
    wrong[3, -40:, -40:] = 2  # the last corner that is read
    segmentation = zarr.create_array(
        tmp_path / "labels.zarr", shape=SHAPE, chunks=(1, 512, 512), dtype="uint8"
    )
    segmentation[:] = wrong
    tracemalloc.start()
    try:
        (score,) = compare(segmentation, stack.truth, skip=[TRAINED]).scores
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    counted = [z for z in range(SHAPE[0]) if z != TRAINED.index]
    assert score.iou == pytest.approx(iou(wrong[counted], stack.truth[counted]), abs=1e-12)
    assert score.voxels == (stack.truth[counted] == 2).sum()
    assert peak < 4 * np.prod(SHAPE), f"{peak / 2**20:.0f} MiB"


def test_the_ledger_follows_strokes_on_large_planes() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    ledger = SliceLedger(labels)
    ledger.work()
    assert ledger.slices() == []
    labels[3, SIDE - 40 :, SIDE - 30 :] = 2
    labels[3, 0, 0] = 1
    ledger.doubt()
    ledger.work()
    (row,) = ledger.slices()
    assert (row.ref, row.state, row.n_voxels) == (SliceRef(0, 3), "partial", SIDE * SIDE)
    assert dict(row.counts) == {1: 1, 2: 40 * 30}
    labels[3] = 1
    labels[3, -1, -1] = 2
    ledger.doubt()
    ledger.work()
    (row,) = ledger.slices()
    assert row.state == "complete"
    assert dict(row.counts) == {1: SIDE * SIDE - 1, 2: 1}
