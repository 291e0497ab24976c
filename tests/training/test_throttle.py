"""Looks at a running training stay cheap."""

from __future__ import annotations

import pytest

from napari_unet3d.training import throttle as throttle_module
from napari_unet3d.training.throttle import Throttle


def test_the_first_look_is_due_after_three_seconds():
    throttle = Throttle()
    assert not throttle.due(2.9)
    assert throttle.due(3.0)


def test_a_look_is_affordable_once_it_is_a_quarter_of_the_time():
    throttle = Throttle()
    assert throttle.affordable(3.0, 0.75)
    assert not throttle.affordable(3.0, 0.8)
    assert throttle.affordable(3.2, 0.8)


@pytest.mark.parametrize("cost", [0.1, 2.0])
def test_looks_take_a_twelfth_of_the_time(monkeypatch, cost):
    clock = iter([10.0, 10.0 + cost])
    monkeypatch.setattr(throttle_module.time, "monotonic", lambda: next(clock))
    throttle = Throttle()
    with throttle.timed(5.0):
        pass
    assert not throttle.due(5.0 + 13.4 * cost)
    assert throttle.due(5.0 + 13.6 * cost)
