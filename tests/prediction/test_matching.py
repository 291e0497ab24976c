"""Whether a model goes with a stack."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bundles import random_bundle
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.prediction.matching import check_volume, voxel_size_note
from predictions import SAME, blobs


@pytest.mark.parametrize(
    ("voxel_size", "unit", "warned"),
    [
        ((2.0, 0.5, 0.5), "µm", False),
        ((2000.0, 500.0, 500.0), "nm", False),
        ((2.9, 0.5, 0.5), "µm", False),
        ((3.1, 0.5, 0.5), "µm", True),
        ((2.0, 0.5, 0.3), "µm", True),
        ((2.0, 0.5, 0.5), "nm", True),
        ((9.0, 9.0, 9.0), "pixel", False),
    ],
)
def test_other_voxels_than_those_trained_on_are_told(voxel_size, unit, warned):
    bundle = random_bundle(SAME, voxel_size=(2.0, 0.5, 0.5), unit="µm")
    volume = Volume(blobs((4, 16, 16))[0], voxel_size=voxel_size, unit=unit)
    note = voxel_size_note(bundle, volume)
    assert (note is not None) == warned
    if warned:
        assert "2 × 0.5 × 0.5 µm" in note
        assert f"{voxel_size[0]:g} × 0.5" in note
        assert "resample" in note
    assert voxel_size_note(bundle.model_copy(update={"unit": "pixel"}), volume) is None


def test_channels_and_time_points_must_be_there():
    bundle = random_bundle(SAME)
    series = Volume(np.stack([blobs((4, 16, 16), seed=s)[0] for s in range(3)]), "TZYX")
    check_volume(bundle, series, [0, 2])
    with pytest.raises(BadInputError, match=r"time point 3 .*0…2"):
        check_volume(bundle, series, [0, 3])
    with pytest.raises(BadInputError, match=r"3 channels.*trained on 1"):
        check_volume(bundle, replace(series, axes="CZYX"), [0])
