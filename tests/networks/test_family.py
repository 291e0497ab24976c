"""The relatives of the 3D U-Net: each is what its source says, and counted anew."""

from __future__ import annotations

from math import prod

import pytest
import torch
from torch import nn
from torch.nn import functional

from napari_unet3d.networks import kind_of
from napari_unet3d.networks.attention import AttentionGate, AttentionUNetConfig
from napari_unet3d.networks.cascade import Cascade, CascadeConfig
from napari_unet3d.networks.facts import NetworkFacts
from napari_unet3d.networks.geometry import next_fitting, parameter_count, receptive_field
from napari_unet3d.networks.layers import SliceNorm
from napari_unet3d.networks.levels import LevelsConfig
from napari_unet3d.networks.mirroring import Mirrored
from napari_unet3d.networks.multiskip import InvertedResidual, MultiSkipConfig
from napari_unet3d.networks.nested import NestedUNetConfig
from napari_unet3d.networks.planning import normalizable
from napari_unet3d.networks.residual import ResidualUNetConfig
from napari_unet3d.networks.slices import SliceUNetConfig
from napari_unet3d.networks.unet import UNetConfig
from own_networks import OWN

LEVELS = {
    "widths": (4, 8, 16),
    "strides": ((1, 2, 2), (2, 2, 2)),
    "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    "normalization": "batch",
}
TILE = (8, 16, 16)


def built(config: LevelsConfig, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return config.build().eval()


def image(channels: int = 1, shape: tuple[int, ...] = TILE, seed: int = 1) -> torch.Tensor:
    return torch.randn(1, channels, *shape, generator=torch.Generator().manual_seed(seed))


def conv(n_in: int, n_out: int, kernel: tuple[int, ...], bias: bool = True) -> int:
    """Parameters of a convolution."""
    return n_in * n_out * prod(kernel) + (n_out if bias else 0)


ONE = (1, 1, 1)


# --- all of them ----------------------------------------------------------------------------


@pytest.mark.parametrize("network", OWN, ids=kind_of)
@pytest.mark.parametrize(
    ("voxel_size", "shape"), [((1, 1, 1), (32, 48, 40)), ((5, 1, 1), (12, 64, 64)),
                              ((1, 1, 1), (1, 40, 40))],
    ids=["isotropic", "coarse z", "one slice"],
)  # fmt: skip
def test_every_network_gives_every_gradient(network, voxel_size, shape):
    """In training, no parameter is left out, and what is supervised has the size of the output."""
    config = network.plan(
        "balanced", voxel_size, shape, in_channels=2, n_classes=3, accelerator=False
    )
    torch.manual_seed(0)
    module = config.build().train()
    tile = normalizable(config, next_fitting(config, (1, 1, 1)))
    x = torch.randn(2, 2, *tile)
    with torch.no_grad():
        size = module.eval()(x).shape
    outputs = module.train().supervised(x)
    assert sum(share for share, _ in outputs) == pytest.approx(1)
    assert {tuple(logits.shape) for _, logits in outputs} == {tuple(size)}
    sum(share * logits.square().sum() for share, logits in outputs).backward()
    without = [name for name, p in module.named_parameters() if p.grad is None]
    assert not without
    assert sum(share * logits.sum() for share, logits in outputs).isfinite()


@pytest.mark.parametrize("network", OWN, ids=kind_of)
def test_every_network_tells_what_it_costs(network):
    config = network.plan(
        "balanced", (1, 1, 1), (64, 64, 64), in_channels=1, n_classes=2, accelerator=False
    )
    facts = NetworkFacts.of(config, (64, 64, 64), accelerator=False)
    with torch.device("meta"):
        modules = [m for m in config.build().modules() if "Norm" not in type(m).__name__]
    assert facts.parameters == sum(p.numel() for m in modules for p in m.parameters(recurse=False))
    assert facts.training_bytes > facts.prediction_bytes > prod(facts.patch)
    assert facts.multiply_adds > 100
    assert facts.description.endswith(".")


# --- residual -------------------------------------------------------------------------------


def test_parameters_of_the_residual_network():
    def block(a: int, b: int, c: int, kernel: tuple[int, ...]) -> int:
        return conv(a, b, kernel) + conv(b, c, kernel) + conv(a, c, ONE)

    flat, cube = (1, 3, 3), (3, 3, 3)
    expected = (
        block(1, 4, 4, flat) + block(4, 8, 8, cube) + block(8, 16, 16, cube)
        + conv(16, 8, (2, 2, 2), bias=False) + block(16, 8, 8, cube)
        + conv(8, 4, (1, 2, 2), bias=False) + block(8, 4, 4, flat)
        + conv(4, 2, ONE)
    )  # fmt: skip
    assert parameter_count(ResidualUNetConfig(**LEVELS)) == expected


def test_a_residual_block_adds_its_input_before_the_last_activation():
    network = built(ResidualUNetConfig(**(LEVELS | {"normalization": "none"})))
    block, x = network.encoder[0], image()
    first, second, shortcut = block.first[0], block.second[0], block.shortcut
    inner = functional.conv3d(x, first.weight, first.bias, padding=(0, 1, 1)).relu()
    inner = functional.conv3d(inner, second.weight, second.bias, padding=(0, 1, 1))
    expected = (inner + functional.conv3d(x, shortcut.weight, shortcut.bias)).relu()
    with torch.no_grad():
        assert torch.allclose(block(x), expected, atol=1e-5)
        second.weight.zero_()  # then the block passes on its input, projected
        second.bias.zero_()
        passed = functional.conv3d(x, shortcut.weight, shortcut.bias).relu()
        assert torch.allclose(block(x), passed, atol=1e-6)


# --- attention ------------------------------------------------------------------------------


def test_parameters_of_the_attention_network():
    plain = UNetConfig(**LEVELS, padding="same", widen_before_pool=False, keep_up_channels=False)
    gate = conv(8, 8, (2, 2, 2), bias=False) + conv(16, 8, ONE) + conv(8, 1, ONE)
    assert parameter_count(AttentionUNetConfig(**LEVELS)) == parameter_count(plain) + gate


def test_the_gate_is_that_of_oktay():
    """q = ψ(relu(θ(x) + φ(g))), α = σ(q), α·x; θ steps by 2 and has no bias (eq. 1, 2)."""
    torch.manual_seed(0)
    gate = AttentionGate(4, 6, (2, 2, 2)).eval()
    x, g = torch.randn(1, 4, 8, 8, 8), torch.randn(1, 6, 4, 4, 4)
    assert gate.theta.bias is None
    theta = functional.conv3d(x, gate.theta.weight, stride=2)
    phi = functional.conv3d(g, gate.phi.weight, gate.phi.bias)
    q = functional.conv3d((theta + phi).relu(), gate.psi.weight, gate.psi.bias)
    alpha = functional.interpolate(q.sigmoid(), scale_factor=2, mode="trilinear")
    with torch.no_grad():
        assert torch.allclose(gate(x, g), x * alpha, atol=1e-5)
        weights = gate.weights(x, g)
    assert weights.shape == (1, 1, 8, 8, 8)
    assert weights.min() > 0
    assert weights.max() < 1


def test_the_finest_skip_is_not_gated():
    network = built(AttentionUNetConfig(**LEVELS))
    assert list(network.gates) == ["1"]
    x = image()
    with torch.no_grad():
        before = network(x)
        network.gates["1"].psi.bias.fill_(-100.0)  # a closed gate
        assert not torch.allclose(network(x), before)


@pytest.mark.parametrize(("levels", "gate"), [(LEVELS, 1)])
def test_a_gate_can_be_shown_as_a_probability(levels, gate):
    network = built(AttentionUNetConfig(**levels, n_classes=4))
    shown = built(AttentionUNetConfig(**levels, n_classes=4, gate=gate), seed=3)
    shown.load_state_dict(network.state_dict())
    seen = []
    network.gates[str(gate)].psi.register_forward_hook(lambda _, __, out: seen.append(out))
    x = image()
    with torch.no_grad():
        network(x)
        probability = shown(x).softmax(1)[0]
    alpha = functional.interpolate(seen[0].sigmoid(), TILE, mode="trilinear")[0, 0]
    # Twice interpolated, to the skip and to the tile, or at once: nearly the same.
    assert (probability[1] - alpha).abs().mean() < 0.02
    assert probability[2:].max() < 1e-6


def test_a_gate_that_is_not_there():
    with pytest.raises(ValueError, match="gates 1 to 1, not 2"):
        AttentionUNetConfig(**LEVELS, gate=2)


# --- U-Net++ --------------------------------------------------------------------------------


def test_parameters_of_the_nested_network():
    flat, cube = (1, 3, 3), (3, 3, 3)

    def block(a: int, b: int, kernel: tuple[int, ...]) -> int:
        return conv(a, b, kernel) + conv(b, b, kernel)

    up = {0: conv(8, 4, (1, 2, 2), bias=False), 1: conv(16, 8, (2, 2, 2), bias=False)}
    expected = (
        block(1, 4, flat) + block(4, 8, cube) + block(8, 16, cube)  # x00, x10, x20
        + up[0] + block(2 * 4, 4, flat)  # x01 = H([x00, U(x10)])
        + up[1] + block(2 * 8, 8, cube)  # x11
        + up[0] + block(3 * 4, 4, flat)  # x02 = H([x00, x01, U(x11)])
    )  # fmt: skip
    heads = conv(4, 2, ONE)
    deep = NestedUNetConfig(**LEVELS)
    assert parameter_count(deep) == expected + 2 * heads
    assert parameter_count(NestedUNetConfig(**LEVELS, deep_supervision=False)) == expected + heads


def test_the_output_is_the_mean_of_all_heads():
    network = built(NestedUNetConfig(**LEVELS))
    x = image()
    with torch.no_grad():
        (half, shallow), (other, deep) = network.supervised(x)
        assert (half, other) == (0.5, 0.5)
        assert torch.allclose(network(x), (shallow + deep) / 2, atol=1e-6)
        assert not torch.allclose(shallow, deep)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_pruned_network_is_the_part_of_the_whole_one(depth):
    """Its outputs are those of the heads that are left (Zhou et al. 2018, sec. 3.2)."""
    whole = built(NestedUNetConfig(**LEVELS))
    config = NestedUNetConfig(**LEVELS, pruned=depth)
    pruned = built(config, seed=5)
    pruned.load_state_dict({n: whole.state_dict()[n] for n in pruned.state_dict()})
    x = image()
    with torch.no_grad():
        heads = [logits for _, logits in whole.supervised(x)]
        assert torch.allclose(pruned(x), torch.stack(heads[:depth]).mean(0), atol=1e-5)
    if depth == 1:
        assert parameter_count(config) < parameter_count(whole.config)


@pytest.mark.parametrize("changes", [{"pruned": 3}, {"pruned": 1, "deep_supervision": False}])
def test_a_network_that_cannot_be_pruned_says_so(changes):
    with pytest.raises(ValueError, match="cannot be pruned"):
        NestedUNetConfig(**LEVELS, **changes)


# --- 2D -------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["batch", "tile", "instance"])
@pytest.mark.parametrize(("orientation", "axis"), [("z", 0), ("y", 1), ("x", 2)])
def test_a_2d_network_sees_one_slice(orientation, axis, normalization):
    changes = {"kernels": ((3, 3, 3),) * 3, "strides": ((2, 2, 2),) * 2}
    config = SliceUNetConfig(
        **(LEVELS | changes | {"normalization": normalization}), orientation=orientation
    )
    network = built(config)
    assert receptive_field(config)[axis] == 1
    assert all(n > 20 for a, n in enumerate(receptive_field(config)) if a != axis)
    x = image(shape=(8, 16, 16) if axis else (5, 16, 16))
    one = x.narrow(axis + 2, 3, 1)
    with torch.no_grad():
        whole = network(x)
        assert torch.allclose(network(one), whole.narrow(axis + 2, 3, 1), atol=1e-5)
        network.train()
        if normalization != "batch":
            assert torch.allclose(network(one), network(x).narrow(axis + 2, 3, 1), atol=1e-5)


def test_a_slice_is_normalized_as_by_torch_in_2d():
    norm = SliceNorm(4, axis=1)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 4, 5, 3, 6)
    by_torch = nn.InstanceNorm2d(4, affine=True)
    by_torch.load_state_dict(norm.state_dict())
    for i in range(3):
        torch.testing.assert_close(norm(x)[:, :, :, i], by_torch(x[:, :, :, i]))


def test_a_2d_network_is_the_2d_network_of_torch():
    """The same weights in 2D convolutions give the same output."""
    network = built(SliceUNetConfig(**(LEVELS | {"normalization": "none"}))).networks["z"]
    x = image(shape=(1, 16, 16))

    def flat(block: nn.Module, y: torch.Tensor) -> torch.Tensor:
        for layer in block:
            if isinstance(layer, nn.Conv3d):
                y = functional.conv2d(y, layer.weight[:, :, 0], layer.bias, padding=1)
            elif isinstance(layer, nn.ConvTranspose3d):
                y = functional.conv_transpose2d(y, layer.weight[:, :, 0], layer.bias, stride=2)
            elif isinstance(layer, nn.ReLU):
                y = y.relu()
        return y

    y, skips = x[:, :, 0], []
    for level in range(2):
        y = flat(network.encoder[level], y)
        skips.append(y)
        y = functional.max_pool2d(y, 2)
    y = flat(network.encoder[2], y)
    for level in (1, 0):
        y = flat(network.decoder[level], torch.cat([flat(network.ups[level], y), skips[level]], 1))
    y = functional.conv2d(y, network.head.weight[:, :, 0], network.head.bias)
    with torch.no_grad():
        assert torch.allclose(network(x)[:, :, 0], y, atol=1e-4)


def test_three_orientations_give_the_mean_of_their_probabilities():
    config = SliceUNetConfig(**LEVELS, orientation="mean")
    network = built(config)
    x = image()
    with torch.no_grad():
        each = [one(x).softmax(1) for one in network.networks.values()]
        assert len(each) == 3
        assert torch.allclose(network(x).softmax(1), torch.stack(each).mean(0), atol=1e-5)


# --- multiple skips ---------------------------------------------------------------------------


def test_parameters_of_the_network_with_multiple_skips():
    """MobileNetV2 (t, c, n, s of Sandler et al. 2018, Table 2) and U-Net 3+ (Huang et al. 2020)."""
    widths, cube = (16, 24, 32, 64, 96), (3, 3, 3)
    expected, before = conv(2, 32, cube), 32
    for t, c, n in ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3)):
        for _ in range(n):
            middle = before * t
            expand = conv(before, middle, ONE, bias=False) if t > 1 else 0
            expected += expand + 27 * middle + conv(middle, c, ONE, bias=False)
            before = c
    for i in range(4):
        for j in range(5):
            width = widths[j] if j <= i or j == 4 else 64
            expected += conv(width, 64, ONE)
        expected += conv(5 * 64, 64, cube)
        if i:
            below = 96 if i == 3 else 64
            theta = conv(widths[i], widths[i], (2, 2, 2), bias=False)
            expected += theta + conv(below, widths[i], ONE) + conv(widths[i], 1, ONE)
    expected += conv(64, 3, ONE)
    assert parameter_count(MultiSkipConfig(in_channels=2, n_classes=3)) == expected


def test_an_inverted_residual_is_that_of_mobilenet_v2():
    """Expand, convolve each channel alone, project linearly; the input is added (sec. 3.3)."""
    config = MultiSkipConfig(normalization="none")
    torch.manual_seed(0)
    block = InvertedResidual(8, 8, 2, ONE, config).eval()
    x = torch.randn(1, 8, 6, 6, 6)
    expand, depthwise, project = block.expand[0], block.depthwise[0], block.project[0]
    assert depthwise.groups == depthwise.in_channels == 48
    y = functional.conv3d(x, expand.weight).clamp(0, 6)
    y = functional.conv3d(y, depthwise.weight, padding=1, groups=48).clamp(0, 6)
    with torch.no_grad():
        assert torch.allclose(block(x), x + functional.conv3d(y, project.weight), atol=1e-5)


def test_each_decoder_level_sees_all_levels():
    """A change of any encoder map reaches the output, also where its own decoder level is blind."""
    network = built(MultiSkipConfig())
    x = image(shape=(32, 32, 32))
    with torch.no_grad():
        before = network(x)
        for stage in range(5):
            handle = network.encoder[stage].register_forward_hook(lambda _, __, out: out + 1)
            assert not torch.allclose(network(x), before)
            handle.remove()
    assert {f"{i}_{j}" for i in range(4) for j in range(5)} == set(network.reduce)


# --- deep supervision, mirroring ------------------------------------------------------------------


def test_coarse_levels_are_supervised_at_the_size_of_the_output():
    levels = LEVELS | {
        "widths": (4, 8, 8, 8),
        "strides": ((1, 2, 2), (2, 2, 2), (2, 2, 2)),
        "kernels": ((3, 3, 3),) * 4,
    }
    config = UNetConfig(**levels, padding="same", deep_supervision=True)
    network = built(config)
    x = image()
    with torch.no_grad():
        outputs = network.supervised(x)
        assert [share for share, _ in outputs] == pytest.approx([2 / 3, 1 / 3])
        assert torch.allclose(outputs[0][1], network(x), atol=1e-6)
        assert outputs[1][1].shape == outputs[0][1].shape
    plain = config.model_copy(update={"deep_supervision": False})
    assert parameter_count(config) == parameter_count(plain) + conv(8, 2, ONE)
    assert set(network.state_dict()) - set(built(plain).state_dict()) == {
        "coarse_heads.1.weight",
        "coarse_heads.1.bias",
    }


def test_an_unpadded_network_cannot_be_supervised_deeply():
    with pytest.raises(ValueError, match="needs padding 'same'"):
        UNetConfig(deep_supervision=True)


def test_a_mirrored_network_does_not_mind_mirrors():
    network = built(UNetConfig(**LEVELS, padding="same"))
    mirrored, x = Mirrored(network), image()
    with torch.no_grad():
        expected = mirrored(x)
        assert not torch.allclose(network(x.flip(3)).flip(3), network(x), atol=1e-3)
        for axes in ((2,), (3,), (2, 4), (2, 3, 4)):
            assert torch.allclose(mirrored(x.flip(axes)).flip(axes), expected, atol=1e-4)
        assert torch.allclose(expected.exp().sum(1), torch.ones(1, *TILE), atol=1e-5)


# --- cascade ----------------------------------------------------------------------------------


def cascade(found: float) -> tuple[Cascade, CascadeConfig]:
    """A cascade whose first network gives every voxel the same probability of foreground."""
    config = CascadeConfig.plan(
        "balanced", (2, 1, 1), (16, 32, 32), in_channels=1, n_classes=3, accelerator=False
    )
    network = built(config)
    with torch.no_grad():
        network.first.head.weight.zero_()
        network.first.head.bias.copy_(torch.tensor([1 - found, found]).log())
    return network, config


class _Finder(nn.Module):
    """Finds bright voxels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([-20 * (x - 5), 20 * (x - 5)], 1)


def test_the_second_network_works_where_the_first_one_finds_something():
    network, config = cascade(0.5)
    network.first = _Finder()
    x = image(shape=(16, 32, 32)).clamp(-2, 2)
    x[0, 0, 8, 16, 16] = 9
    with torch.no_grad():
        whole, found = network.second(x), network(x)
    z, y, x_ = config.margin
    assert (z, y, x_) == (3, 6, 6)
    inside = torch.zeros(16, 32, 32, dtype=torch.bool)
    inside[8 - z : 8 + z + 1, 16 - y : 16 + y + 1, 16 - x_ : 16 + x_ + 1] = True
    assert (found[0, 0][~inside] > found[0, 1:][:, ~inside] + 10).all(), "background elsewhere"
    spread = network._spread(network.first(x))
    changed = (found != spread)[0].any(0)
    assert torch.equal(changed, inside)
    # The second network sees a part of the tile only, so its output differs near the border of it.
    assert found[0][:, 8, 16, 16].sub(whole[0][:, 8, 16, 16]).abs().max() < 1.0


def test_where_nothing_is_found_the_second_network_does_not_run():
    network, _ = cascade(0.1)
    network.second = None  # would fail
    with torch.no_grad():
        probability = network(image(shape=(16, 32, 32))).softmax(1)
    assert probability[0, :, 0, 0, 0].tolist() == pytest.approx([0.9, 0.05, 0.05], abs=1e-5)


def test_the_whole_tile_is_that_of_the_second_network_where_all_is_found():
    network, _ = cascade(0.9)
    x = image(shape=(16, 32, 32))
    with torch.no_grad():
        assert torch.allclose(network(x), network.second(x), atol=1e-5)


@pytest.mark.parametrize("place", [(0, 0, 0), (15, 31, 31), (8, 0, 31)])
def test_a_small_find_in_a_corner_can_be_normalized(place):
    config = CascadeConfig.plan(
        "balanced", (1, 1, 1), (32, 32, 32), in_channels=1, n_classes=2, accelerator=False,
        normalization="instance",
    )  # fmt: skip
    network = built(config.model_copy(update={"margin": (0, 0, 0)}))
    network.first = _Finder()
    x = torch.zeros(1, 1, 32, 32, 32)
    x[(0, 0, *place)] = 9
    with torch.no_grad():
        assert network(x).isfinite().all()


def test_the_second_network_learns_in_the_region_only():
    network, _ = cascade(0.5)
    network.first = _Finder()
    x = image(shape=(16, 32, 32)).clamp(-2, 2)
    x[0, 0, 8, 16, 16] = 9
    (half, first), (_, both) = network.supervised(x)
    assert half == 0.5
    assert first.shape == both.shape == (1, 3, 16, 32, 32)
    outside = both[0, :, 0].sum()  # far from the bright voxel
    assert not outside.requires_grad or not any(
        g.any()
        for g in torch.autograd.grad(
            outside, list(network.second.parameters()), allow_unused=True, retain_graph=True
        )
        if g is not None
    )
    inside = torch.autograd.grad(both[0, :, 8, 16, 16].sum(), network.second.head.weight)[0]
    assert inside.any()


def test_a_cascade_takes_what_both_networks_take():
    _, config = cascade(0.5)
    assert all(
        config.fits(axis, n) == (config.first.fits(axis, n) and config.second.fits(axis, n))
        for axis in range(3)
        for n in range(1, 80)
    )
    other = config.for_classes(5)
    assert other.second.n_classes == other.n_classes == 5
    assert other.first == config.first


# --- memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("network", OWN, ids=kind_of)
def test_recomputing_maps_gives_the_same_gradients(network):
    config = network.plan(
        "balanced", (1, 1, 1), (32, 32, 32), in_channels=1, n_classes=2, accelerator=False
    )
    tile = normalizable(config, next_fitting(config, (1, 1, 1)))
    x = torch.randn(2, 1, *tile, generator=torch.Generator().manual_seed(0))
    gradients = []
    for recomputes in (False, True):
        module = built(config).train()
        kept: list[int] = []

        def keep(t: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(t.numel())
            return t

        for part in module.modules():
            if hasattr(part, "recomputes"):
                part.recomputes = recomputes
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            outputs = module.supervised(x)
        sum(share * logits.square().mean() for share, logits in outputs).backward()
        gradients.append((sum(kept), [p.grad for p in module.parameters()]))
    (many, expected), (few, found) = gradients
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(expected, found, strict=True))
    assert few < 0.75 * many
