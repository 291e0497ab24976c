"""Losses are counted as they come; on an NVIDIA GPU they are read one step late."""

from __future__ import annotations

import math

import pytest
import torch

from napari_unet3d.training.loss_meter import LossMeter

CPU = torch.device("cpu")


def test_losses_are_counted_as_they_come():
    meter = LossMeter(CPU)
    for loss in (1.0, math.nan, math.inf, 0.5, math.nan):
        meter.add(torch.tensor(loss))
    assert meter.finite == 2
    assert meter.bad_in_a_row == 1
    assert math.isnan(meter.latest)
    meter.settle()  # nothing waits to be read on a CPU
    assert meter.finite == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_a_gpu_is_read_one_step_late_and_all_are_counted():
    meter = LossMeter(torch.device("cuda"))
    shown = []
    for loss in (1.0, 2.0, 3.0):
        meter.add(torch.tensor(loss, device="cuda"))
        shown.append(meter.latest)
    assert shown == [1.0, 1.0, 2.0]
    meter.settle()
    assert meter.latest == 3.0
    assert meter.finite == 3
