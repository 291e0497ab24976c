"""How a budget is shared between the parts of a training."""

from __future__ import annotations

import math

import pytest

from napari_unet3d.training.budget import Budget


def test_iterations_take_the_place_of_seconds():
    assert Budget(100.0, 50).fraction(25, 1000.0) == 0.5
    assert Budget(100.0, None).fraction(25, 20.0) == 0.2


@pytest.mark.parametrize(
    ("seconds", "before", "expected"),
    [(1000.0, 0.0, 300.0), (20.0, 0.0, 10.0), (10.0, 0.0, 6.0), (1000.0, 900.0, 30.0)],
    ids=["a share", "at least ten seconds", "a short budget", "what is left of a budget"],
)
def test_time_for_the_pixel_classifier(seconds, before, expected):
    assert Budget(seconds, None, before).pixel_seconds == pytest.approx(expected)


@pytest.mark.parametrize(("seconds", "expected"), [(30.0, 10.0), (600.0, 60.0)])
def test_time_for_the_end(seconds, expected):
    assert Budget(seconds, None).finishing_seconds == pytest.approx(expected)


def test_a_number_of_iterations_repeats_exactly_so_no_clock_ends_a_part():
    budget = Budget(60.0, 10)
    assert budget.repeats_exactly
    assert budget.pixel_seconds == budget.finishing_seconds == math.inf
    assert not Budget(60.0, None).repeats_exactly
