"""Gray values that are normalized after they were moved to a device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume
from napari_unet3d.sampling.normalizing import normalize_there, normalizes_there

CUDA = torch.device("cuda", 0)


def stack(kind: str) -> tuple[np.ndarray, IntensityNormalization]:
    values = 3000 * np.random.default_rng(0).normal(0, 1, (2, 5, 20, 30))
    crop = values.astype(np.int64).astype(kind)
    return crop, IntensityNormalization.estimate(Volume(crop, "CZYX"))


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16"])
def test_integers_become_what_numpy_makes_of_them(kind, device):
    crop, intensity = stack(kind)
    assert crop.min() < 0 or kind.startswith("u")
    expected = intensity.apply(crop)
    before = crop.copy()
    for part in (crop, crop[:, ::2, ::-1]):  # the second has gaps, and is reversed
        found = normalize_there(intensity, part, device).cpu().numpy()
        if device.type != "mps":
            np.testing.assert_array_equal(found, intensity.apply(part))
    crop.setflags(write=False)  # as an image that is mapped from a file
    np.testing.assert_allclose(
        normalize_there(intensity, crop, device).cpu().numpy(), expected, rtol=1e-6, atol=1e-6
    )
    np.testing.assert_array_equal(crop, before)


def test_only_integers_that_fp32_holds_are_moved_first():
    crop, intensity = stack("uint8")
    for kind in ("uint8", "int16", "uint16"):
        assert normalizes_there(intensity, np.dtype(kind), CUDA)
    for kind in ("float32", "float64", "int32", "uint32", ">u2", "bool"):
        assert not normalizes_there(intensity, np.dtype(kind), CUDA)
    assert not normalizes_there(intensity, crop.dtype, torch.device("cpu"))


def test_another_number_of_channels_is_an_error(device):
    crop, intensity = stack("uint8")
    with pytest.raises(ValueError, match="1 channels where 2 are expected"):
        normalize_there(intensity, crop[:1], device)
