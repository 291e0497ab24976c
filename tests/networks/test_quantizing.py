"""Networks in 8-bit integers: close to what they are in fp32, or refused."""

from __future__ import annotations

import pytest
import torch

from napari_unet3d.errors import BadInputError
from napari_unet3d.networks import kind_of, quantizing
from napari_unet3d.networks.cascade import CascadeConfig
from napari_unet3d.networks.geometry import next_fitting
from napari_unet3d.networks.layers import fold_batch_norm
from napari_unet3d.networks.planning import normalizable
from napari_unet3d.networks.quantizing import quantize
from napari_unet3d.networks.unet import UNetConfig
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


@pytest.mark.parametrize("network", [n for n in OWN if n is not CascadeConfig], ids=kind_of)
def test_integers_compute_and_their_agreement_is_measured(network, monkeypatch):
    monkeypatch.setattr(quantizing, "_LEAST_AGREEMENT", 0.0)
    module, tiles = made(network)
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
        quantize(*made(UNetConfig))


def test_a_network_that_decides_from_what_it_sees_is_refused():
    module, tiles = made(CascadeConfig)
    with pytest.raises(BadInputError, match="int8 does not apply to the network 'cascade'"):
        quantize(module, tiles)
