"""A trained model for all tests of predictions."""

from __future__ import annotations

import numpy as np
import pytest

from bundles import random_bundle
from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.training.trainer import Trainer
from predictions import SAME, blobs


@pytest.fixture(scope="session")
def trained() -> dict[str, ModelBundle]:
    """A briefly trained model for each normalization that promises the same in every tiling."""
    image, truth = blobs()
    labels = np.zeros_like(truth)
    for z in (2, 7):
        labels[z] = np.maximum(truth[z], 1)
    bundles = {}
    config = TrainingConfig(
        iterations=25,
        device="cpu",
        patch_shape=(8, 32, 32),
        precision="fp32",
        learning_rate=5e-3,
        pixel_classifier=False,
    )
    for normalization in ("batch", "channel"):
        # From a small network, to be quick.
        small = random_bundle(SAME.model_copy(update={"normalization": normalization}))
        annotation = SparseAnnotation.from_labels(labels)
        bundle = drain(Trainer(Volume(image), annotation, config, start_from=small).run())
        assert bundle is not None
        bundles[normalization] = bundle
    return bundles
