"""Executors: whatever the order of the blocks, and wherever they run, the result is the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from bundles import random_bundle
from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import PredictionProgress
from napari_unet3d.networks.unet import UNet3D
from napari_unet3d.prediction.executors import EXECUTORS, SerialExecutor
from napari_unet3d.prediction.predictor import predict
from predictions import SAME, blobs, run, with_pixels
from toy_predictions import LastFirst, TwoMachines

SETTINGS = {"tile_shape": (8, 16, 16), "memory": 160_000}
"""Several blocks a time point."""


class Noting(SerialExecutor):
    """Notes the blocks that it was given."""

    def __init__(self) -> None:
        self.blocks = []

    def run(self, blocks, carry_out):
        self.blocks += blocks
        return super().run(blocks, carry_out)


@pytest.fixture
def series() -> Volume:
    return Volume(np.stack([blobs((16, 32, 24), seed=s)[0] for s in range(2)]), "TZYX")


@pytest.mark.parametrize("executor", [LastFirst, TwoMachines])
def test_another_executor_gives_the_same_to_the_bit(monkeypatch, series, executor):
    bundle = with_pixels(random_bundle(SAME))
    monkeypatch.setitem(EXECUTORS, "toy", executor)
    expected, p, u, events = run(bundle, series, **SETTINGS)
    labels, q, v, others = run(bundle, series, executor="toy", **SETTINGS)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(q, p)
    np.testing.assert_array_equal(v, u)
    for progress in (events, others):
        assert [e.done for e in progress] == list(range(1, len(progress) + 1))
        assert {e.total for e in progress} == {len(progress)}


def test_the_blocks_partition_all_time_points_that_are_wanted(monkeypatch, series):
    noting = Noting()
    monkeypatch.setitem(EXECUTORS, "toy", lambda: noting)
    run(random_bundle(SAME), series, executor="toy", times=[1], **SETTINGS)
    assert len(noting.blocks) >= 4
    assert {block.time for block in noting.blocks} == {1}
    count = np.zeros(series.shape, int)
    for block in noting.blocks:
        count[block.box.slices] += 1
    assert (count == 1).all()


@pytest.mark.parametrize("executor", [SerialExecutor, LastFirst, TwoMachines])
def test_a_block_that_fails_ends_the_prediction(monkeypatch, series, executor):
    monkeypatch.setitem(EXECUTORS, "toy", executor)

    def broken(self, x):
        raise RuntimeError("could not load a kernel")

    monkeypatch.setattr(UNet3D, "forward", broken)
    with pytest.raises(RunFailedError, match="could not load a kernel"):
        run(random_bundle(SAME), series, executor="toy", **SETTINGS)


def test_closing_the_prediction_ends_the_block_that_is_being_carried_out(series):
    out = np.zeros(series.data.shape, np.uint8)
    config = PredictionConfig(device="cpu", precision="fp32", **SETTINGS)
    steps = predict(random_bundle(SAME), series, out, config=config)
    first = next(steps)
    assert isinstance(first, PredictionProgress)
    steps.close()
    assert list(steps) == []
    assert not out.any()


def test_after_a_lack_of_memory_the_steps_of_all_orders_add_up(monkeypatch, series):
    """The tile of a block in the middle is halved: it has more steps than planned."""
    forward = UNet3D.forward
    calls = Counter()

    def limited(self, x):
        calls["all"] += 1
        if calls["all"] == 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x)

    monkeypatch.setattr(UNet3D, "forward", limited)
    monkeypatch.setitem(EXECUTORS, "toy", LastFirst)
    _, p, _, events = run(random_bundle(SAME), series, executor="toy", **SETTINGS)
    progress = [e for e in events if isinstance(e, PredictionProgress)]
    assert len(progress) == len(events) - 1
    assert progress[-1].done == progress[-1].total > progress[0].total
    assert all(e.done <= e.total for e in progress)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)


def test_an_executor_that_does_not_exist_is_named_with_those_that_do(series):
    out = np.zeros(series.data.shape, np.uint8)
    with pytest.raises(BadInputError, match=r"executor 'cluster'.*serial"):
        predict(random_bundle(SAME), series, out, config=PredictionConfig(executor="cluster"))
