"""Arithmetic of the network: what it says is what torch does."""

from __future__ import annotations

import re
from math import prod

import pytest
import torch
from torch import nn

from napari_unet3d.networks.geometry import (
    MOST_STRIDE,
    excess,
    feature_map_values,
    fits,
    largest_map,
    next_fitting,
    output_shape,
    receptive_field,
    shrink,
    total_stride,
    walk,
)
from napari_unet3d.networks.unet import PAPER_NETWORK, UNet3D, UNetConfig

ANISOTROPIC = {
    "widths": (4, 6, 10),
    "strides": ((1, 2, 2), (2, 2, 3)),
    "kernels": ((1, 3, 3), (3, 3, 3), (3, 5, 3)),
    "normalization": "none",
}
CUBIC = {
    "widths": (4, 8, 16),
    "strides": ((2, 2, 2),) * 2,
    "kernels": ((3, 3, 3),) * 3,
    "normalization": "none",
}
STEPPED = CUBIC | {"stem": (2, 2, 2), "widths": (4, 8), "strides": ((1, 2, 2),)}
STEPPED |= {"kernels": ((3, 3, 3), (3, 3, 1))}
LAYOUTS = {
    "cubic": CUBIC,
    "anisotropic": ANISOTROPIC,
    "stepped": STEPPED,
    "stepped-plane": ANISOTROPIC | {"stem": (1, 2, 3)},
}
CONFIGS = {
    f"{name}-{padding}{'' if widen else '-late'}{'' if keep else '-halved'}": UNetConfig(
        **layout,
        in_channels=2,
        n_classes=3,
        padding=padding,
        widen_before_pool=widen,
        keep_up_channels=keep,
    )
    for name, layout in LAYOUTS.items()
    for padding, widen, keep in [
        ("same", True, True),
        ("same", False, False),
        ("valid", True, False),
        ("valid", False, True),
    ]
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def test_paper_tile():
    # The paper says 132×132×116 → 44×44×28 in the order x, y, z.
    assert output_shape(PAPER_NETWORK, (116, 132, 132)) == (28, 44, 44)
    assert shrink(PAPER_NETWORK) == (88, 88, 88)
    assert total_stride(PAPER_NETWORK) == (8, 8, 8)


def test_paper_admissible_sizes():
    for n in range(1, 200):
        assert fits(PAPER_NETWORK, 0, n) == (n >= 92 and (n + 4) % 8 == 0), n


def test_paper_receptive_field_is_not_the_shrink():
    """The shrink, 88, is often taken for it; one output voxel sees up to 100."""
    assert receptive_field(PAPER_NETWORK) == (100, 100, 100)


@every_config
def test_walk_agrees_with_torch(config):
    tile = next_fitting(config, (17, 23, 31))
    network = UNet3D(config).eval()
    seen = []
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            module.register_forward_hook(
                lambda m, given, out: seen.append(
                    (
                        m.in_channels,
                        m.out_channels,
                        m.kernel_size,
                        tuple(out.shape),
                        tuple(given[0].shape),
                    )
                )
            )

    with torch.inference_mode():
        out = network(torch.zeros(1, 2, *tile))
    layers, shape = walk(config, tile)
    convolutions = [layer for layer in layers if layer.is_convolution]

    assert tuple(out.shape) == (1, config.n_classes, *shape)
    assert [(c.in_channels, c.out_channels, c.kernel) for c in convolutions] == [
        s[:3] for s in seen
    ]
    assert [c.voxels for c in convolutions] == [prod(s[3][2:]) for s in seen]
    assert [c.in_voxels for c in convolutions] == [prod(s[4][2:]) for s in seen]
    assert feature_map_values(config, tile) == sum(prod(s[3]) for s in seen)
    assert largest_map(config, tile) == max(max(prod(s[3]), prod(s[4])) for s in seen)


@every_config
def test_multiply_adds_agree_with_torch(config):
    from torch.utils.flop_counter import FlopCounterMode

    tile = next_fitting(config, (9, 18, 20))
    network = UNet3D(config).eval()
    # Of a batch of one, `Convolution` may compute small maps twice.
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(2, 2, *tile))
    one = 2 * sum(c.multiply_adds for c in walk(config, tile)[0])
    assert counter.get_total_flops() == 2 * one


@every_config
def test_sizes_that_fit_are_those_that_torch_takes(config):
    network = UNet3D(config).eval()
    base = next_fitting(config, (1, 1, 1))
    outcomes = set()
    for axis in range(3):
        for n in range(1, base[axis] + 2 * total_stride(config)[axis] + 1):
            tile = tuple(n if a == axis else m for a, m in enumerate(base))
            fit = fits(config, axis, n)
            outcomes.add(fit)
            if fit:
                with torch.inference_mode():
                    out = network(torch.zeros(1, 2, *tile))
                assert tuple(out.shape[2:]) == output_shape(config, tile)
            else:
                with pytest.raises(ValueError, match=r"too small|does not divide"):
                    walk(config, tile)
    assert outcomes == {True, False}


@every_config
def test_next_fitting_is_the_smallest(config):
    for n in range(1, 40):
        found = next_fitting(config, (n, n, n))
        for axis, size in enumerate(found):
            assert size >= n
            assert fits(config, axis, size)
            assert not any(fits(config, axis, m) for m in range(n, size))


@every_config
def test_shrink_is_the_same_for_every_tile(config):
    expected = shrink(config)
    assert (expected == (0, 0, 0)) == (config.padding == "same")
    for n in (10, 33, 64):
        tile = next_fitting(config, (n, n + 5, n + 10))
        out = output_shape(config, tile)
        assert tuple(a - b for a, b in zip(tile, out, strict=True)) == expected


@every_config
def test_receptive_field_agrees_with_gradients(config):
    """What an output voxel can depend on, found by the reach of its gradient.

    Max-pooling lets the gradient pass at one voxel only, so it is replaced by the mean.
    """
    torch.manual_seed(0)
    config = config.model_copy(
        update={"in_channels": 1, "padding": "valid", "widths": tuple(2 for _ in config.widths)}
    )
    network = UNet3D(config).eval()
    for i, pool in enumerate(network.pools):
        network.pools[i] = nn.AvgPool3d(pool.kernel_size)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.forward = lambda x: x
    step = total_stride(config)
    reach = [0, 0, 0]
    # How far a voxel sees depends on where it lies in its pooling cell: the largest counts.
    for axis in range(3):
        least = [shrink(config)[a] + (step[a] if a == axis else 1) for a in range(3)]
        x = torch.zeros(1, 1, *next_fitting(config, tuple(least)), requires_grad=True)
        out = network(x)
        for offset in range(step[axis]):
            at = [n // 2 for n in out.shape[2:]]
            at[axis] = offset
            (grad,) = torch.autograd.grad(out[(0, 0, *at)], x, retain_graph=True)
            seen = grad[0, 0].abs().amax([a for a in range(3) if a != axis]).nonzero()
            reach[axis] = max(reach[axis], int(seen.max() - seen.min()) + 1)
    assert tuple(reach) == receptive_field(config)


# --- networks that ask for too much -----------------------------------------------------------

SMALL_WEIGHTS = {"widths": (2,) * 7, "kernels": ((1, 1, 1),) * 7, "padding": "same"}


@every_config
def test_ordinary_networks_are_not_too_large(config):
    assert excess(config) is None


def test_the_paper_s_network_is_not_too_large_whatever_goes_in_and_out():
    largest = PAPER_NETWORK.model_copy(update={"in_channels": 64, "n_classes": 255})
    assert excess(largest) is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"strides": ((7, 7, 7),) * 6}, r"117649 along z.*64"),
        ({"strides": ((1, 4, 1),) * 5 + ((1, 1, 1),)}, r"1024 along y.*64"),
        (
            {"strides": ((2, 2, 2),) * 6, "kernels": ((7, 7, 7),) * 7, "padding": "valid"},
            r"smallest tile.*feature maps",
        ),
        (
            {"strides": ((2, 2, 2),) * 6, "widths": (512,) + (2,) * 6},
            r"smallest tile, 64 × 64 × 64",
        ),
    ],
    ids=["stride", "one axis", "unpadded", "wide and fine"],
)
def test_few_weights_cannot_ask_for_any_amount_of_memory(changes, text):
    config = UNetConfig(**SMALL_WEIGHTS | changes)
    assert re.search(text, excess(config))


def test_the_deepest_network_with_usual_pooling_is_not_too_large():
    config = UNetConfig(**SMALL_WEIGHTS | {"strides": ((2, 2, 2),) * 6})
    assert total_stride(config) == (MOST_STRIDE,) * 3
    assert excess(config) is None
