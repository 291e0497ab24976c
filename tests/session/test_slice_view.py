"""The uncertainty of a part of a slice."""

from __future__ import annotations

import numpy as np
import pytest

from bundles import random_bundle
from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.session import slice_view
from napari_unet3d.session.slice_view import SliceView
from predictions import SAME, blobs, run

CPU = PredictionConfig(device="cpu", precision="fp32")


@pytest.mark.parametrize("ref", [SliceRef(0, 5), SliceRef(1, 20), SliceRef(2, 11)], ids=str)
def test_a_part_has_the_uncertainty_of_the_whole_stack(ref: SliceRef) -> None:
    image, _ = blobs()
    # Statistics of a batch norm are fixed; those of other norms would depend on the tile.
    network = SAME.model_copy(update={"normalization": "batch"})
    volume, bundle = Volume(image, "ZYX"), random_bundle(network)
    _, _, whole, _ = run(bundle, volume)
    start, part = SliceView(bundle, volume, CPU).of(ref, ((2, 3), (12, 30)))
    assert start == (2, 3) and part.shape == (10, 27)
    plane = np.take(whole, ref.index, ref.axis)[2:12, 3:30]
    assert np.corrcoef(part.ravel(), plane.ravel())[0, 1] > 0.9
    assert part.min() >= 0 and part.max() <= 1


def test_of_a_large_part_the_middle_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slice_view, "_MOST_SIDE", 16)
    image, _ = blobs()
    unsure = SliceView(random_bundle(SAME), Volume(image, "ZYX"), CPU)
    start, part = unsure.of(SliceRef(0, 5), ((0, 0), (38, 45)))
    assert start == (11, 14) and part.shape == (16, 16)


def test_a_model_for_other_channels_is_refused() -> None:
    image, _ = blobs()
    with pytest.raises(BadInputError, match="channel"):
        SliceView(random_bundle(SAME), Volume(image[None].repeat(2, 0), "CZYX"), CPU)
