"""Networks of MONAI: any of them trains and predicts by its name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks import with_settings
from napari_unet3d.networks.geometry import next_fitting
from napari_unet3d.networks.monai import _USUAL, MonaiConfig
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.training.trainer import Trainer

TRUTH = np.zeros((16, 32, 32), np.uint8)
TRUTH[4:12, 8:22, 8:22] = 2
IMAGE = np.random.default_rng(0).normal(100, 5, TRUTH.shape).astype(np.float32) + 30 * TRUTH


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("BasicUNet", '{"features": [4, 4, 8, 8, 8, 4]}'),
        ("AttentionUnet", '{"channels": [4, 8, 8], "strides": [2, 2]}'),
        ("SegResNet", '{"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}'),
    ],
)
def test_a_network_of_monai_trains_is_saved_and_segments(name, arguments, tmp_path):
    pytest.importorskip("monai", reason="MONAI is not installed")
    labels = np.zeros_like(TRUTH)
    labels[8] = np.maximum(TRUTH[8], 1)
    config = TrainingConfig(
        network="monai",
        network_settings={"name": name, "arguments": arguments},
        iterations=2,
        device="cpu",
        pixel_classifier=False,
    )
    volume = Volume(IMAGE)
    bundle = drain(Trainer(volume, SparseAnnotation.from_labels(labels), config).run())
    bundle = ModelBundle.load(bundle.save(tmp_path / "m.unet3d"))
    assert bundle.network.name == name
    found = np.zeros(volume.shape, np.uint8)
    drain(predict(bundle, volume, found))
    heads = bundle.network.head_prefixes
    assert 0 < len(heads) < len(bundle.weights)


@pytest.mark.parametrize("name", sorted(_USUAL))
def test_a_name_alone_is_enough(name):
    config = with_settings(MonaiConfig(), {"name": name})
    pytest.importorskip("monai", reason="MONAI is not installed")
    z, y, x = next_fitting(config, (16, 32, 32))
    network = config.build().eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 1, z, y, x)).shape == (1, 2, z, y, x)


def test_what_monai_cannot_make_is_named():
    pytest.importorskip("monai", reason="MONAI is not installed")
    with pytest.raises(BadInputError, match="BasicUNet cannot be made with"):
        MonaiConfig(arguments='{"features": "many"}').build()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"name": "FlexibleUNet"}, "use one of 'AttentionUnet'"),
        ({"arguments": "[1]"}, "JSON object"),
        ({"arguments": {"pretrained": True}}, "no argument 'pretrained'"),
        ({"name": "UNet", "arguments": {"num_res_units": 10**9}}, "must be 0 to 2048"),
        ({"arguments": {"features": [8] * 40}}, "40 values, 12 are the most"),
    ],
)
def test_a_stranger_cannot_ask_for_more_than_a_network(settings, reason):
    """A model file names the network: it must not download, or make layers without end."""
    with pytest.raises(BadInputError, match=reason):
        with_settings(MonaiConfig(), settings)
