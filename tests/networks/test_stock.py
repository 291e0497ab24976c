"""Networks with PyTorch's own layers compute what they did."""

from __future__ import annotations

import pytest
import torch

from napari_unet3d.networks import kind_of
from napari_unet3d.networks.geometry import next_fitting
from napari_unet3d.networks.layers import fold_batch_norm
from napari_unet3d.networks.planning import normalizable
from napari_unet3d.networks.stock import with_plain_layers
from own_networks import OWN


def made(network):
    config = network.plan(
        "balanced", (1, 1, 1), (24, 32, 32), in_channels=1, n_classes=3, accelerator=False
    )
    torch.manual_seed(0)
    module = config.build()
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm3d):
            part.running_mean.normal_(std=0.1)
            part.running_var.uniform_(0.5, 1.5)
    z, y, x = normalizable(config, next_fitting(config, (16, 32, 32)))
    return fold_batch_norm(module.eval()), [torch.randn(1, 1, z, y, x) for _ in range(3)]


@pytest.mark.parametrize("network", OWN, ids=kind_of)
def test_plain_layers_compute_the_same(network):
    module, tiles = made(network)
    with torch.no_grad():
        assert torch.allclose(with_plain_layers(module)(tiles[0]), module(tiles[0]), atol=1e-4)
