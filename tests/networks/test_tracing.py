"""Shapes found by tracing: the U-Net's arithmetic gives the same, and any network has them."""

from __future__ import annotations

import pytest
import torch
from test_geometry import CONFIGS
from torch import nn

from napari_unet3d.networks import tracing
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.geometry import (
    excess,
    feature_map_values,
    fits,
    is_padded,
    largest_map,
    next_fitting,
    output_shape,
    parameter_count,
    receptive_field,
    shrink,
    smallest_map,
    total_stride,
    walk,
)
from napari_unet3d.networks.unet import PAPER_NETWORK, UNetConfig
from toy_networks import Branches, Plain, influence

UNETS = {
    **CONFIGS,
    "paper": PAPER_NETWORK,
    "thin": UNetConfig.plan(
        "balanced", (5, 1, 1), (12, 300, 200), in_channels=2, n_classes=4, accelerator=False
    ),
    "channel norm": CONFIGS["cubic-valid-late"].model_copy(update={"normalization": "channel"}),
}
every_unet = pytest.mark.parametrize("config", UNETS.values(), ids=UNETS.keys())


# --- the U-Net's arithmetic -----------------------------------------------------------------


@every_unet
@pytest.mark.parametrize("least", [(1, 1, 1), (17, 23, 31), (64, 9, 120)])
def test_arithmetic_walks_like_the_traced_network(config, least):
    tile = next_fitting(config, least)
    assert config.walk(tile) == Architecture.walk(config, tile)


@every_unet
def test_arithmetic_agrees_with_what_is_measured(config):
    facts = tracing.measured(config)
    assert facts.stride == total_stride(config)
    assert facts.shrink == shrink(config)
    assert Architecture.receptive_field(config) == receptive_field(config)
    assert Architecture.parameter_count(config) == parameter_count(config)


@every_unet
def test_the_same_sizes_fit(config):
    least = next_fitting(config, (1, 1, 1))
    outcomes = set()
    for axis, n in enumerate(least):
        period = total_stride(config)[axis]
        for size in (1, 2, n - 1, n, n + 1, n + period - 1, n + period, 150, 151, 152, 1000):
            outcomes.add(config.fits(axis, size))
            assert Architecture.fits(config, axis, size) == config.fits(axis, size), (axis, size)
    assert outcomes == {True, False}


def test_a_tile_that_does_not_fit_is_refused_in_words():
    config = CONFIGS["cubic-valid-late"]
    with pytest.raises(ValueError, match=r"\(20, 48, 48\) voxels does not fit the network 'unet'"):
        Architecture.walk(config, (20, 48, 48))
    with pytest.raises(ValueError, match=r"\(16, 17, 16\) voxels does not fit the network 'unet'"):
        Architecture.walk(CONFIGS["cubic-same"], (16, 17, 16))
    # Torch convolves what does not divide; the output would not lie at the center.
    levels = {"widths": (4,), "strides": (), "kernels": ((3, 3, 3),)}
    stepping = UNetConfig(**levels, stem=(1, 2, 1), padding="same")
    with pytest.raises(ValueError, match="17 voxels along y give 16 instead of 17"):
        Architecture.walk(stepping, (16, 17, 16))


# --- networks it has never heard of ---------------------------------------------------------


def test_a_padded_row_of_convolutions():
    config = Plain()
    assert (total_stride(config), shrink(config)) == ((1, 1, 1), (0, 0, 0))
    assert is_padded(config)
    assert receptive_field(config) == (9, 9, 9)
    assert next_fitting(config, (1, 2, 300)) == (1, 2, 300)
    assert parameter_count(config) == (4 * 27 + 4) + (16 * 125 + 4) + (4 * 2 * 27 + 2)
    assert excess(config) is None


def test_an_unpadded_row_of_convolutions():
    config = Plain(padded=False)
    assert shrink(config) == (8, 8, 8)
    assert not is_padded(config)
    assert receptive_field(config) == (9, 9, 9)
    assert [n for n in range(1, 12) if fits(config, 0, n)] == [9, 10, 11]
    assert next_fitting(config, (1, 10, 300)) == (9, 10, 300)
    assert output_shape(config, (9, 10, 300)) == (1, 2, 292)
    with pytest.raises(ValueError, match="does not fit the network 'plain'"):
        output_shape(config, (8, 10, 300))


def test_layers_are_those_of_the_network():
    layers, shape = walk(Plain(padded=False), (12, 12, 12))
    assert shape == (4, 4, 4)
    assert [(layer.name, layer.operation, layer.shape) for layer in layers] == [
        ("body.0", "convolution", (10, 10, 10)),
        ("body.1", "normalization", (10, 10, 10)),
        ("body.3", "convolution", (6, 6, 6)),
        ("head", "convolution", (4, 4, 4)),
    ]
    first = layers[0]
    assert (first.in_channels, first.out_channels, first.kernel) == (1, 4, (3, 3, 3))
    assert first.multiply_adds == 4 * 27 * 1000
    config = Plain(padded=False)
    assert feature_map_values(config, (12, 12, 12)) == 4 * 1000 + 4 * 216 + 2 * 64
    assert largest_map(config, (12, 12, 12)) == 4 * 1000
    assert smallest_map(config, (12, 12, 12)) == 1000, "only one map is normalized"


def test_branches_and_functions():
    config = Branches()
    assert total_stride(config) == (1, 2, 2)
    assert shrink(config) == (0, 0, 0)
    assert next_fitting(config, (5, 5, 5)) == (5, 6, 6)
    assert not fits(config, 1, 7)
    # The map of one voxel that channel attention makes is not normalized.
    assert smallest_map(config, (4, 4, 4)) == 4 * 2 * 2


@pytest.mark.parametrize(
    ("config", "exact"),
    [
        (Plain(), True),
        (Plain(padded=False, kernels=(1, 7, 3)), True),
        (CONFIGS["anisotropic-same"].model_copy(update={"normalization": "batch"}), True),
        (Branches(attention=False), False),
    ],
    ids=["plain", "unpadded", "unet", "branches"],
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_receptive_field_covers_what_reaches_a_voxel(config, exact, axis):
    bound = Architecture.receptive_field(config)[axis]
    least = [2, 2, 2]
    least[axis] = 2 * bound
    seen = influence(config, next_fitting(config, tuple(least)), axis)
    assert seen == bound if exact else seen <= bound <= 2 * seen + 4


@pytest.mark.parametrize("config", [Plain(), Branches(), PAPER_NETWORK])
def test_tracing_draws_no_random_numbers(config):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    tracing._trace.cache_clear()
    Architecture.walk(config, next_fitting(config, (20, 20, 20)))
    assert torch.equal(torch.rand(3), expected)


def test_a_network_is_traced_once_for_each_tile():
    Architecture.walk(Plain(width=7), (20, 20, 20))
    misses = tracing._trace.cache_info().misses
    Architecture.walk(Plain(width=7), (20, 20, 20))
    assert tracing._trace.cache_info().misses == misses
    assert tracing._trace.cache_info().maxsize is not None


def test_sum_of_layers_is_the_work_of_the_network():
    from torch.utils.flop_counter import FlopCounterMode

    for config, tile in ((Plain(padded=False), (12, 14, 16)), (Branches(), (6, 8, 10))):
        with FlopCounterMode(display=False) as counter:
            config.build().eval()(torch.zeros(2, 1, *tile))
        work = sum(layer.multiply_adds for layer in walk(config, tile)[0])
        assert counter.get_total_flops() == 2 * 2 * work


class _Broken(Plain):
    """Its head takes more channels than its body gives."""

    def build(self) -> nn.Module:
        network = super().build()
        network.head = nn.Conv3d(9, self.n_classes, 1)
        return network


def test_a_network_that_takes_no_cube_is_refused_with_the_layer_where_it_fails():
    with pytest.raises(ValueError, match=r"takes no cube.*layer 'head'.*forward pass"):
        tracing.measured(_Broken())
