"""The features that the pixel classifier sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude
from torch import Tensor
from torch.nn import functional

from napari_unet3d.pixels.features import (
    MORE_SCALES,
    PER_SCALE,
    SCALES,
    Read,
    _interpolate,
    feature_count,
    filter_bank,
)
from napari_unet3d.sampling.source import nearest_index


def _reader(image: np.ndarray, device: torch.device) -> Read:
    """Reads (1, z, y, x); outside the image, its edge voxels are repeated."""

    def read(start: tuple[int, ...], stop: tuple[int, ...]) -> Tensor:
        index = [nearest_index(a, b, n) for a, b, n in zip(start, stop, image.shape, strict=True)]
        return torch.from_numpy(image[np.ix_(*index)])[None].to(device)

    return read


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    noise = gaussian_filter(rng.standard_normal((24, 40, 36)), 1.5)
    return (noise / noise.std()).astype(np.float32)


def _unlogged(feature: Tensor) -> np.ndarray:
    return (feature.sign() * feature.abs().expm1()).cpu().numpy()


@pytest.mark.parametrize("number", range(len(MORE_SCALES)))
def test_smoothing_and_slope_are_those_of_scipy(
    image: np.ndarray, number: int, device: torch.device
) -> None:
    scales = MORE_SCALES if number == len(SCALES) else SCALES
    found = filter_bank(_reader(image, device), (0, 0, 0), image.shape, (1, 1, 1), scales)
    sigma = scales[number]
    smooth, slope = (_unlogged(found[1 + number * PER_SCALE + i]) for i in (0, 1))
    expected = gaussian_filter(image, sigma, mode="nearest", truncate=3)
    # The coarsest Gaussian is wider than the image, and hardly varies in it.
    tolerance = 0.2 if number == len(SCALES) else 0.15
    assert np.abs(smooth - expected).max() < tolerance * expected.std()
    expected = sigma * gaussian_gradient_magnitude(image, sigma, mode="nearest", truncate=3)
    assert np.corrcoef(slope.ravel(), expected.ravel())[0, 1] > 0.97


@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_maps_are_interpolated_as_torch_does(step: int, axis: int, device: torch.device) -> None:
    maps = torch.randn(2, 7, 6, 5, device=device)
    rows = maps.movedim(axis, -1).flatten(1, 2)
    whole = functional.interpolate(rows, scale_factor=step, mode="linear", align_corners=False)
    for first, n in ((step, 2 * step), (step + 1, 2 * step - 1), (2 * step - 1, step + 2)):
        found = _interpolate(maps, axis, step, first, n).movedim(axis, -1).flatten(1, 2)
        assert torch.allclose(found, whole[..., first : first + n], atol=1e-6)


def test_eigenvalues_of_a_bright_tube(image: np.ndarray, device: torch.device) -> None:
    y, x = np.mgrid[-16:17, -16:17]
    tube = np.exp(-(x**2 + y**2) / 18).astype(np.float32)[None].repeat(20, 0)
    found = filter_bank(_reader(tube, device), (10, 16, 16), (11, 17, 17), (1, 1, 1))
    values = found[1 + PER_SCALE + 2 : 1 + PER_SCALE + 5].flatten()  # at the second scale
    assert abs(float(values[0])) < 0.01  # nothing changes along the tube
    assert float(values[1]) == pytest.approx(float(values[2]), rel=0.05)
    assert float(values[1]) < -0.1


def test_features_of_more_scales_begin_with_those_of_fewer(
    image: np.ndarray, device: torch.device
) -> None:
    images = np.stack([image, -image])

    def read(start: tuple[int, ...], stop: tuple[int, ...]) -> Tensor:
        return torch.cat([_reader(channel, device)(start, stop) for channel in images])

    few = filter_bank(read, (0, 0, 0), image.shape, (2, 1, 1))
    more = filter_bank(read, (0, 0, 0), image.shape, (2, 1, 1), MORE_SCALES)
    assert (len(few), len(more)) == (feature_count(2), feature_count(2, MORE_SCALES)) == (42, 52)
    assert torch.equal(more[:42], few)


@pytest.mark.parametrize("start", [(8, 12, 4), (7, 5, 6), (1, 1, 1)])
def test_a_part_is_the_same_as_cut_from_the_whole(
    image: np.ndarray, start: tuple[int, int, int], device: torch.device
) -> None:
    read = _reader(image, device)
    whole = filter_bank(read, (0, 0, 0), image.shape, (1, 1, 1), MORE_SCALES)
    part = filter_bank(read, start, (16, 24, 24), (1, 1, 1), MORE_SCALES)
    cut = whole[:, start[0] : 16, start[1] : 24, start[2] : 24]
    assert torch.allclose(part, cut, atol=1e-4)


@pytest.mark.parametrize(("size", "along_z"), [(4, 1), (3, 4 / 3), (2, 2), (1.5, 2)])
def test_an_axis_of_more_than_twice_as_large_voxels_is_smoothed_less(
    image: np.ndarray, size: float, along_z: float, device: torch.device
) -> None:
    found = filter_bank(_reader(image, device), (0, 0, 0), image.shape, (size, 1, 1))
    expected = gaussian_filter(image, (along_z, 2, 2), mode="nearest", truncate=3)
    assert np.abs(_unlogged(found[1 + PER_SCALE]) - expected).max() < 0.1 * expected.std()


@pytest.mark.parametrize("shape", [(1, 20, 20), (3, 2, 5), (1, 1, 1)])
def test_tiny_stacks_have_features(shape: tuple[int, int, int], device: torch.device) -> None:
    stack = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = filter_bank(_reader(stack, device), (0, 0, 0), shape, (1, 1, 1))
    assert found.shape == (feature_count(1), *shape)
    assert found.isfinite().all()
