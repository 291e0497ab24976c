"""Training, resuming and segmenting on the device of `UNET3D_TEST_DEVICE`, the CPU by default."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet3d.config import PredictionConfig, TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import TrainingProgress, drain
from napari_unet3d.networks import device as devices
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.learner import Learner
from napari_unet3d.training.listening import Listener
from napari_unet3d.training.trainer import Trainer

SHAPE = (12, 32, 32)


def stack() -> tuple[Volume, SparseAnnotation]:
    """A bright column in noise, painted on two slices."""
    z, y, x = np.indices(SHAPE)
    inside = (y - 14) ** 2 + (x - 12 - 0.3 * z) ** 2 < 50
    image = inside + np.random.default_rng(0).normal(0, 0.2, SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    labels[[3, 8]] = np.where(inside, 2, 1)[[3, 8]]
    return Volume(image.astype(np.float32)), SparseAnnotation.from_labels(labels)


def settings(device: torch.device, **changes) -> TrainingConfig:
    given = {"iterations": 4, "patch_shape": (8, 16, 16), "preset": "fast"} | changes
    return TrainingConfig(device=str(device), **given)


def trainer(device: torch.device, **changes) -> Trainer:
    return Trainer(*stack(), settings(device, **changes))


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_a_training_repeats_to_the_bit_and_segments(device, precision):
    losses: list[float] = []

    def keep(event: object) -> None:
        if isinstance(event, TrainingProgress):
            losses.append(event.loss)

    one = drain(trainer(device, precision=precision).run(), keep)
    other = drain(trainer(device, precision=precision).run())
    assert len(losses) == 4
    assert equal(one.weights, other.weights)
    assert equal(one.pixels, other.pixels)
    volume, _ = stack()
    labels = np.zeros(SHAPE, np.uint8)
    probabilities = np.full((2, *SHAPE), np.nan, np.float32)
    config = PredictionConfig(device=str(device), precision=precision, tile_shape=(8, 16, 16))
    drain(predict(one, volume, labels, probabilities=probabilities, config=config))
    assert set(np.unique(labels)) <= {0, 2}
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    assert (labels > 0).mean() == pytest.approx((probabilities.argmax(0) > 0).mean())


def test_resumed_equals_never_stopped(device):
    whole = drain(trainer(device, pixel_classifier=False).run())
    control = TrainingControl()

    def stop(event: object) -> None:
        if isinstance(event, TrainingProgress) and event.iteration == 2:
            control.stop()

    stopped = drain(trainer(device, pixel_classifier=False).run(control), stop)
    assert stopped.record.iterations == 2
    config = settings(device, pixel_classifier=False)
    resumed = drain(Trainer(*stack(), config, start_from=stopped, resume=True).run())
    assert equal(resumed.weights, whole.weights)


def test_without_a_classifier_a_prediction_equals_that_of_the_cpu(device):
    """In fp32, up to the order in which a device adds."""
    bundle = drain(trainer(torch.device("cpu"), pixel_classifier=False).run())
    volume, _ = stack()
    results = []
    for place in ("cpu", str(device)):
        probabilities = np.zeros((2, *SHAPE), np.float32)
        config = PredictionConfig(device=place, precision="fp32", tile_shape=(8, 16, 16))
        labels = np.zeros(SHAPE, np.uint8)
        drain(predict(bundle, volume, labels, probabilities=probabilities, config=config))
        results.append(probabilities)
    np.testing.assert_allclose(results[1], results[0], atol=1e-3)


def test_steps_that_are_replayed_learn_the_same(device):
    """On an NVIDIA GPU they are CUDA graphs; elsewhere nothing is replayed."""
    plan = trainer(device, iterations=100, pixel_classifier=False).plan
    learners = [Learner(plan, Listener(TrainingControl()), replays=on) for on in (False, True)]
    with devices.computing(device, plan.precision, repeatable=True):
        losses = [[learner.advance(0.5) for _ in range(8)] for learner in learners]
    assert learners[1].recorded_shapes == (device.type == "cuda")
    assert losses[0] == losses[1]
    pairs = zip(*(learner.average.parameters() for learner in learners), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
