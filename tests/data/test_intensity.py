"""Gray-value normalization."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr
from pydantic import ValidationError

from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume


def noise(*shape: int, dtype: str = "uint16") -> np.ndarray:
    return np.random.default_rng(0).normal(1000, 50, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint16", ">u2", "int32", "float16", "float32", "float64"])
def test_normalized_image_has_mean_0_and_std_1(dtype):
    data = noise(12, 64, 60, dtype=dtype)
    before = data.copy()
    normalized = IntensityNormalization.estimate(Volume(data)).apply(data[None])
    assert normalized.dtype == np.float32
    assert normalized.shape == (1, 12, 64, 60)
    assert abs(normalized.mean()) < 1e-3
    assert abs(normalized.std() - 1) < 1e-3
    np.testing.assert_array_equal(data, before)


def test_formula():
    intensity = IntensityNormalization(low=(0, 10), high=(4, 20), mean=(2, 15), std=(1, 5))
    crop = np.array([[-1, 0, 3, 9], [0, 10, 15, 99]], np.int16).reshape(2, 1, 1, 4)
    np.testing.assert_allclose(
        intensity.apply(crop).reshape(2, 4), [[-2, -2, 1, 2], [-1, -1, 0, 1]]
    )


def test_channels_are_normalized_apart():
    data = np.stack([noise(9, 40, 40), noise(9, 40, 40) // 10 + 7])
    intensity = IntensityNormalization.estimate(Volume(data, "CZYX"))
    normalized = intensity.apply(data)
    np.testing.assert_allclose(normalized.mean((1, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(normalized.std((1, 2, 3)), 1, atol=1e-3)
    with pytest.raises(ValueError, match="1 channels where 2"):
        intensity.apply(data[:1])


def test_hot_pixels_do_not_matter():
    data = noise(12, 64, 60)
    clean = IntensityNormalization.estimate(Volume(data))
    data.flat[::2000] = 65535
    hot = IntensityNormalization.estimate(Volume(data))
    assert hot.std[0] == pytest.approx(clean.std[0], rel=0.02)
    assert hot.apply(data[None]).max() < 5


def test_all_time_points_count():
    data = np.stack([noise(9, 40, 40), noise(9, 40, 40) + 500])
    intensity = IntensityNormalization.estimate(Volume(zarr.array(data), "TZYX"))
    assert intensity.mean[0] == pytest.approx(data.mean(), rel=0.01)


@pytest.mark.parametrize("value", [0, 7])
def test_constant_channel_becomes_zero(value):
    data = np.full((5, 8, 8), value, np.uint8)
    intensity = IntensityNormalization.estimate(Volume(data))
    assert (intensity.apply(data[None]) == 0).all()
    assert np.isfinite(intensity.apply(data[None] + 1)).all()


def test_rare_signal_is_kept():
    data = np.zeros((20, 64, 64), np.uint8)
    data[10, :5, :5] = 200
    normalized = IntensityNormalization.estimate(Volume(data)).apply(data[None])
    assert normalized.max() > 10
    assert -0.1 < normalized.min() < 0


def test_masks_are_0_and_1():
    data = noise(5, 20, 20) > 1000
    normalized = IntensityNormalization.estimate(Volume(data)).apply(data[None])
    np.testing.assert_allclose(np.unique(normalized), [-1, 1], atol=0.1)


@pytest.mark.parametrize("offset", [1e9, -1e9])
def test_big_offsets_keep_their_digits(offset):
    data = noise(5, 20, 20).astype(np.float64) + offset
    normalized = IntensityNormalization.estimate(Volume(data)).apply(data[None])
    assert abs(normalized.std() - 1) < 0.01
    assert len(np.unique(normalized)) > 100


def test_tiny_numbers():
    data = noise(5, 20, 20).astype(np.float32) * np.float32(1e-20)
    normalized = IntensityNormalization.estimate(Volume(data)).apply(data[None])
    assert abs(normalized.std() - 1) < 0.01


@pytest.mark.parametrize(
    ("dtype", "factor"),
    [
        ("float64", 1e200),
        ("float64", 1e305),
        ("float64", 1e-200),
        ("float64", 1e-305),
        ("float32", 1e34),
        ("float32", 1e-40),
        ("float16", 1e-6),
    ],
)
@pytest.mark.parametrize("centered", [False, True])
def test_numbers_of_any_size_are_normalized_alike(dtype, factor, centered):
    data = noise(5, 20, 20).astype(np.float64) - (1000 if centered else 0)
    usual = IntensityNormalization.estimate(Volume(data)).apply(data[None])
    scaled = (data * factor).astype(dtype)
    assert np.isfinite(scaled).all()
    assert len(np.unique(scaled)) > 100 or dtype == "float16"
    numbers = IntensityNormalization.estimate(Volume(scaled))
    assert all(np.isfinite(getattr(numbers, name)).all() for name in ("low", "high", "mean", "std"))
    # Numbers near the smallest that the format knows have few digits.
    np.testing.assert_allclose(numbers.apply(scaled[None]), usual, atol=0.1)


def test_the_widest_range_of_all():
    largest = np.finfo(np.float64).max
    data = np.full((4, 10, 10), -largest)
    data[1::2] = largest
    normalized = IntensityNormalization.estimate(Volume(data)).apply(data[None])
    np.testing.assert_allclose(np.unique(normalized), [-1, 1], atol=1e-6)
    Volume(data).check()


def test_values_that_are_not_finite_do_no_harm():
    data = noise(5, 40, 40, dtype="float32")
    clean = IntensityNormalization.estimate(Volume(data))
    data[2, 3, :3] = [np.nan, np.inf, -np.inf]
    intensity = IntensityNormalization.estimate(Volume(data))
    normalized = intensity.apply(data[None])
    assert intensity.mean[0] == pytest.approx(clean.mean[0], rel=1e-3)
    assert np.isfinite(normalized).all()
    assert normalized[0, 2, 3, 0] == 0


def test_models_without_percentiles_have_the_usual_ones():
    old = IntensityNormalization.model_validate(
        {"low": [0.0], "high": [2.0], "mean": [1.0], "std": [1.0]}
    )
    assert old.clip == ((0.1, 99.9),)


def test_survives_json():
    intensity = IntensityNormalization.estimate(Volume(noise(5, 20, 20)))
    text = json.dumps(intensity.model_dump())
    assert IntensityNormalization.model_validate(json.loads(text)) == intensity


@pytest.mark.parametrize(
    "change",
    [
        {"std": [0.0]},
        {"std": [-1.0]},
        {"mean": [float("nan")]},
        {"high": [float("inf")]},
        {"low": [5.0]},
        {"low": []},
        {"mean": [0.0, 1.0]},
        {"gain": 1.0},
        {"percentiles": [[1.0, 99.0], [1.0, 99.0]]},
        {"percentiles": [[99.0, 1.0]]},
        {"percentiles": [[-1.0, 99.0]]},
        {"percentiles": [[1.0, 100.5]]},
        {"percentiles": [[1.0, float("nan")]]},
        {key: [1.0] * 65 for key in ("low", "high", "mean", "std")},
    ],
)
def test_hostile_numbers_are_refused(change):
    good = {"low": [0.0], "high": [2.0], "mean": [1.0], "std": [1.0]}
    IntensityNormalization.model_validate(good)
    with pytest.raises(ValidationError):
        IntensityNormalization.model_validate(good | change)
