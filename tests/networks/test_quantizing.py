"""Networks in 8-bit integers: close to what they are in fp32, or refused."""

from __future__ import annotations

import pytest
import torch

from napari_unet3d.errors import BadInputError
from napari_unet3d.networks import kind_of, quantizing
from napari_unet3d.networks.cascade import CascadeConfig
from napari_unet3d.networks.quantizing import quantize
from napari_unet3d.networks.unet import UNetConfig
from own_networks import OWN, folded_with_tiles


@pytest.mark.parametrize("network", [n for n in OWN if n is not CascadeConfig], ids=kind_of)
def test_integers_compute_and_their_agreement_is_measured(network, monkeypatch):
    monkeypatch.setattr(quantizing, "_LEAST_AGREEMENT", 0.0)
    module, tiles = folded_with_tiles(network)
    quantized, agreement = quantize(module, tiles)
    with torch.no_grad():
        expected = torch.cat([module(t) for t in tiles]).argmax(1)
        found = torch.cat([quantized(t) for t in tiles])
    assert quantized.config is module.config
    assert found.isfinite().all()
    assert float((found.argmax(1) == expected).float().mean()) == pytest.approx(agreement, abs=0.01)
    kinds = {type(m).__module__ for m in quantized.modules()}
    assert any("quantized" in kind for kind in kinds)


def test_a_network_that_is_another_one_in_integers_is_refused(monkeypatch):
    monkeypatch.setattr(quantizing, "_LEAST_AGREEMENT", 1.01)
    with pytest.raises(BadInputError, match=r"only .* % of the voxels the same class"):
        quantize(*folded_with_tiles(UNetConfig))


def test_a_network_that_decides_from_what_it_sees_is_refused():
    module, tiles = folded_with_tiles(CascadeConfig)
    with pytest.raises(BadInputError, match="int8 does not apply to the network 'cascade'"):
        quantize(module, tiles)
