"""Networks in 8-bit integers: close to what they are in fp32, or refused."""

from __future__ import annotations

import pytest
import torch

from napari_unet3d.errors import BadInputError
from napari_unet3d.networks import kind_of, quantizing
from napari_unet3d.networks.cascade import CascadeConfig
from napari_unet3d.networks.quantizing import quantize
from napari_unet3d.networks.slices import SliceUNetConfig
from napari_unet3d.networks.unet import UNetConfig
from own_networks import OWN, folded_with_tiles


def mean_iou(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Mean IoU of the classes 1, 2… that have a hundred voxels in either."""
    ious = []
    for c in range(1, int(max(found.max(), expected.max())) + 1):
        a, b = found == c, expected == c
        if (a | b).sum() >= 100:
            ious.append(float((a & b).sum()) / float((a | b).sum()))
    return sum(ious) / len(ious)


TILE = {"normalization": "tile"}


@pytest.mark.parametrize(
    ("network", "changes"),
    [
        *((n, {}) for n in OWN if n is not CascadeConfig),
        (UNetConfig, TILE),
        (SliceUNetConfig, TILE),
    ],
    ids=lambda value: kind_of(value) if isinstance(value, type) else "".join(value.values()),
)
def test_integers_compute_and_their_agreement_is_measured(network, changes, monkeypatch):
    monkeypatch.setattr(quantizing, "_LEAST_AGREEMENT", 0.0)
    module, tiles = folded_with_tiles(network, **changes)
    quantized, agreement = quantize(module, tiles)
    with torch.no_grad():
        expected = torch.cat([module(t) for t in tiles[1::2]]).argmax(1)
        found = torch.cat([quantized(t) for t in tiles[1::2]])
    assert quantized.config is module.config
    assert found.isfinite().all()
    assert mean_iou(found.argmax(1), expected) == pytest.approx(agreement, abs=1e-6)
    kinds = {type(m).__module__ for m in quantized.modules()}
    assert any("quantized" in kind for kind in kinds)


def test_a_small_class_that_is_lost_is_noticed():
    """Its voxels are so few that almost all voxels keep their class."""
    expected = torch.zeros(1, 10, 40, 40, dtype=torch.long)
    expected[0, :9] = 1
    expected[0, 9, :10, :12] = 2
    found = expected.clone()
    found[expected == 2] = 0
    assert (found == expected).float().mean() > 0.99
    assert quantizing._agreement([(expected, found)]) == pytest.approx(0.5)
    assert quantizing._agreement([(expected, expected)]) == 1
    nothing = torch.zeros_like(expected)
    stray = nothing.clone()
    stray[0, 0, 0, 0] = 1
    assert quantizing._agreement([(nothing, stray)]) == 1


def test_a_network_that_is_another_one_in_integers_is_refused(monkeypatch):
    monkeypatch.setattr(quantizing, "_LEAST_AGREEMENT", 1.01)
    with pytest.raises(BadInputError, match="a mean IoU of only"):
        quantize(*folded_with_tiles(UNetConfig))


def test_a_network_that_decides_from_what_it_sees_is_refused():
    module, tiles = folded_with_tiles(CascadeConfig)
    with pytest.raises(BadInputError, match="int8 does not apply to the network 'cascade'"):
        quantize(module, tiles)
