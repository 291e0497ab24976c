"""Intervals by values from the literature and by arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet3d.prediction.intervals import Estimate, mean_estimate, ratio_estimate


def test_the_interval_of_a_mean_is_students():
    """t with 4 degrees of freedom is 2.776; the numbers have mean 3 and std 1.5811."""
    estimate = mean_estimate([1, 2, 3, 4, 5])
    assert estimate.value == 3
    assert estimate.slices == 5
    assert estimate.high == pytest.approx(3 + 2.7764 * 1.5811 / 5**0.5, abs=1e-3)
    assert estimate.low == pytest.approx(3 - 2.7764 * 1.5811 / 5**0.5, abs=1e-3)


def test_two_numbers_have_the_widest_quantile():
    estimate = mean_estimate([0, 2])
    assert estimate.high == pytest.approx(1 + 12.706, abs=1e-3)
    assert mean_estimate([0, 2], lowest=0).low == 0
    assert mean_estimate([0, 2], 0.8).high == pytest.approx(1 + 3.078, abs=1e-3)


def test_slices_of_equal_size_have_the_interval_of_their_mean():
    hits = np.array([60, 80, 70, 90])
    ratio, mean = ratio_estimate(hits, [100] * 4), mean_estimate(hits / 100)
    assert (ratio.value, mean.value) == pytest.approx((0.75, 0.75))
    assert (ratio.low, ratio.high) == pytest.approx((mean.low, mean.high))


def test_the_value_is_that_of_all_voxels_together():
    estimate = ratio_estimate([10, 900], [100, 1000])
    assert estimate.value == pytest.approx(910 / 1100)
    assert (estimate.low, estimate.high) == (0.0, 1.0)  # two slices tell hardly anything


def test_a_slice_without_the_class_does_not_count():
    assert ratio_estimate([5, 0, 8], [10, 0, 10]) == ratio_estimate([5, 8], [10, 10])


def test_one_slice_has_a_value_and_no_interval():
    assert ratio_estimate([5], [10]) == mean_estimate([0.5]) == Estimate(0.5, slices=1)
    assert ratio_estimate([5], [10]).low is None


def test_nothing_measured_has_no_value():
    assert ratio_estimate([0, 0], [0, 0]) == mean_estimate([]) == Estimate(None)


def test_slices_that_agree_have_a_narrow_interval():
    estimate = ratio_estimate([8, 80], [10, 100])
    assert (estimate.low, estimate.high) == pytest.approx((0.8, 0.8))
