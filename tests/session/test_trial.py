"""A model is tried on a small part of a slice."""

from __future__ import annotations

import numpy as np
import pytest

from bundles import random_bundle
from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.session import trial
from napari_unet3d.session.report import pictures
from napari_unet3d.session.trial import try_model
from predictions import SAME, blobs, run

CPU = PredictionConfig(device="cpu", precision="fp32")


def test_the_middle_of_a_part_stands_beside_what_the_model_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trial, "_SIDE", 16)
    image, _ = blobs()
    volume = Volume(image, "ZYX", voxel_size=(3.0, 1.0, 1.0))
    bundle = random_bundle(SAME.model_copy(update={"normalization": "batch"}))
    ref = SliceRef(1, 20)
    picture = try_model(bundle, volume, ref, ((0, 5), (12, 45)), CPU)
    assert picture.pixels.shape == (12, 32, 3)
    assert picture.ratio == 3.0
    assert str(ref) in picture.caption
    gray, colored = picture.pixels[:, :16], picture.pixels[:, 16:]
    assert np.array_equal(gray, pictures.gray(volume, ref)[0:12, 17:33])
    labels = run(bundle, volume)[0][0:12, 20, 17:33]
    expected = pictures.with_classes(gray, labels, bundle.classes)
    assert (colored == expected).mean() > 0.9  # the tiles are others


def test_an_image_of_other_channels_is_refused() -> None:
    image, _ = blobs()
    volume = Volume(image[None].repeat(2, 0), "CZYX")
    with pytest.raises(BadInputError, match="channel"):
        try_model(random_bundle(SAME), volume, SliceRef(0, 5), ((0, 0), (8, 8)), CPU)
