"""Networks with PyTorch's own layers compute what they did."""

from __future__ import annotations

import pytest
import torch

from napari_unet3d.networks import kind_of
from napari_unet3d.networks.stock import with_plain_layers
from own_networks import OWN, folded_with_tiles


@pytest.mark.parametrize("network", OWN, ids=kind_of)
def test_plain_layers_compute_the_same(network):
    module, tiles = folded_with_tiles(network)
    with torch.no_grad():
        assert torch.allclose(with_plain_layers(module)(tiles[0]), module(tiles[0]), atol=1e-4)
