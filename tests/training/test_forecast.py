"""How long a training is expected to take."""

from __future__ import annotations

import numpy as np
from toy_stack import HELD_OUT, IMAGE, SHAPE, TRAINED, annotate, make_trainer, run, stopped

from napari_unet3d.events import FinishingStarted
from napari_unet3d.networks.planning import plan_tile
from napari_unet3d.networks.unet import UNetConfig


def test_the_forecast_is_of_this_run():
    """More iterations, and a larger stack, are expected to take longer."""
    short = run(make_trainer(iterations=1, held_out=[HELD_OUT]))[0]
    (finishing,) = [e for e in short if isinstance(e, FinishingStarted)]
    assert 0 < finishing.expected < 60
    short = short[0].forecast
    assert min(short.training, short.finishing, short.segmenting) > 0
    long = run(make_trainer(iterations=10**6), stopped())[0][0].forecast
    assert long.training > 100 * short.training
    large = np.tile(IMAGE, (1, 8, 8))
    labels = np.tile(annotate(*TRAINED), (1, 8, 8))
    large = run(make_trainer(labels, large, iterations=1), stopped())[0][0].forecast
    assert large.segmenting > 4 * short.segmenting


def test_a_budget_of_seconds_is_what_the_training_takes():
    started = run(make_trainer(iterations=None, seconds=1000), stopped())[0][0]
    assert 900 < started.forecast.training < 1000


def test_a_network_too_large_for_the_measurement_has_no_forecast():
    start = UNetConfig(
        widths=(4, 4, 4, 4),
        kernels=((3, 3, 3),) * 4,
        padding="valid",
        normalization="tile",
        n_classes=2,
    )
    trainer = make_trainer(start=start, patch_shape=(92, 92, 92), iterations=1)
    events, _ = run(trainer, stopped())
    assert np.prod(plan_tile(start, SHAPE, 1)) > 300_000
    assert events[0].forecast is None
