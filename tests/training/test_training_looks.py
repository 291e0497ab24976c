"""Looks at a running training: previews, statistics and the calibration."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest
import torch
from looked_at import HELD, look_at

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.samples import Sample, tubules
from napari_unet3d.networks.unet import UNet3D
from napari_unet3d.prediction.engine import Engine, NotFiniteError
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.limits import LookLimits
from napari_unet3d.training.plan import TrainingPlan, plan_training
from napari_unet3d.training.trainer import run_plan


@pytest.fixture(scope="module")
def sample() -> Sample:
    return tubules((16, 48, 48))


def make_plan(sample: Sample, limits: LookLimits, **settings) -> TrainingPlan:
    annotation = SparseAnnotation(sample.annotate(sample.training_slices), sample.classes)
    config = TrainingConfig(iterations=1, device="cpu", **settings)
    return replace(plan_training(sample.image, annotation, config), limits=limits)


def test_calibration_predicts_no_more_than_it_may(sample, monkeypatch):
    def predicted(most: int) -> int:
        boxes = []
        predict = Engine.predict
        with monkeypatch.context() as patch:
            patch.setattr(Engine, "predict", lambda *a: boxes.append(a[-1]) or predict(*a))
            limits = LookLimits(calibration_predicted=(most, most))
            list(run_plan(make_plan(sample, limits), TrainingControl()))
        return len(boxes)

    assert predicted(10**9) == len(sample.training_slices) > 1
    assert predicted(1) == 1


def test_statistics_come_from_all_over_the_stack(sample, monkeypatch):
    seen = []
    read = Engine.read
    monkeypatch.setattr(Engine, "read", lambda *a: seen.append(a[-1].start) or read(*a))
    limits = LookLimits(cpu_tile=4096, statistics_voxels=8 * 4096)
    list(run_plan(make_plan(sample, limits, pixel_classifier=False), TrainingControl()))
    assert len(seen) == len(set(seen)) == 8
    assert all(len({start[axis] for start in seen}) > 1 for axis in (1, 2))


def test_the_cost_of_a_look_is_known_before(monkeypatch):
    """For its throttle: the statistics' tile, and the part that is always scored."""
    looks, _ = look_at(tubules((16, 64, 64)), look_seconds=0.0)
    computed = []
    read = Engine.read
    monkeypatch.setattr(Engine, "read", lambda *a: computed.append(prod(a[-1].shape)) or read(*a))
    expected = looks.measure_voxels
    looks.measure(1, 1.0, final=False)
    assert sum(computed) == expected
    computed.clear()
    expected = looks.preview_voxels(HELD[0])
    looks.preview(HELD[0])
    assert sum(computed[1:]) == expected


def test_a_network_that_gives_no_numbers_has_no_score_and_no_preview(sample):
    looks, _ = look_at(sample)
    looks.network.head.bias.fill_(torch.inf)
    scores = looks.measure(1, 1.0, final=False)
    assert [c.iou for c in scores.classes] == [None, None]
    assert scores.scored == 0
    assert looks.preview(HELD[0]) is None
    looks.prepare(final=True)
    with pytest.raises(NotFiniteError, match="gives no numbers"):
        looks.measure(2, 2.0, final=True)


def test_statistics_that_overflow_are_estimated_again_in_fp32(sample, monkeypatch):
    """As in fp16, which a CPU is too slow for."""
    looks, _ = look_at(sample, precision="bf16")
    forward = UNet3D.forward

    def short(self, x):
        return forward(self, x * torch.inf if torch.is_autocast_enabled("cpu") else x)

    monkeypatch.setattr(UNet3D, "forward", short)
    looks.prepare(final=False)
    assert all(t.isfinite().all() for t in looks.network.state_dict().values())


def test_a_look_takes_half_of_the_tile_where_memory_is_short(sample, monkeypatch):
    looks, _ = look_at(sample, cpu_tile=8192, statistics_voxels=8192)
    forward, sizes = UNet3D.forward, []

    def limited(self, x):
        sizes.append(x[0, 0].numel())
        if sizes[-1] > 4500:
            raise MemoryError
        return forward(self, x)

    monkeypatch.setattr(UNet3D, "forward", limited)
    looks.prepare(final=True)
    assert sizes[0] > 4500 >= sizes[-1]
    assert all(t.isfinite().all() for t in looks.network.state_dict().values())
