"""The network: the paper's layout, its variants, and gradients that are right in bf16."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from napari_unet3d.networks.layers import Convolution, fold_batch_norm
from napari_unet3d.networks.unet import PAPER_NETWORK, UNet3D, UNetConfig

SMALL = UNetConfig(
    widths=(8, 16, 32),
    strides=((2, 2, 2),) * 2,
    kernels=((3, 3, 3),) * 3,
    padding="same",
    normalization="batch",
)
NORMALIZATIONS = ("batch", "tile", "instance", "channel", "none")


def small(**changes) -> UNetConfig:
    return SMALL.model_copy(update=changes)


def convolution_parameters(network: nn.Module) -> int:
    return sum(
        p.numel()
        for module in network.modules()
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d)
        for p in module.parameters()
    )


# --- the paper ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (PAPER_NETWORK, 19_069_955),
        (PAPER_NETWORK.model_copy(update={"in_channels": 1, "n_classes": 2}), 19_068_162),
    ],
)
def test_paper_parameters(config, expected):
    """Counted without batch norm, as the paper counts them."""
    with torch.device("meta"):
        assert convolution_parameters(UNet3D(config)) == expected


def test_paper_tile():
    with torch.device("meta"):
        out = UNet3D(PAPER_NETWORK)(torch.zeros(1, 3, 116, 132, 132))
    assert tuple(out.shape) == (1, 3, 28, 44, 44)


def test_up_sampled_map_comes_first_in_the_concatenation():
    network = UNet3D(small(normalization="none"))
    seen = {}
    network.ups[0].register_forward_hook(lambda _m, _i, out: seen.update(up=out.detach()))
    network.decoder[0].register_forward_pre_hook(lambda _m, args: seen.update(cat=args[0].detach()))
    network(torch.randn(1, 1, 8, 8, 8))
    assert torch.equal(seen["cat"][:, : seen["up"].shape[1]], seen["up"])


def test_unpadded_network_sees_the_image_in_place():
    """The output of an unpadded network lies at the center of its tile, not at a corner."""
    torch.manual_seed(0)
    network = UNet3D(small(padding="valid", normalization="channel"))
    x = torch.randn(1, 1, 44, 44, 44, requires_grad=True)
    out = network(x)
    at = out.shape[2] // 2
    (grad,) = torch.autograd.grad(out[0, 0, at, at, at], x)
    center = at + (44 - out.shape[2]) // 2
    weight = grad[0, 0].abs()
    positions = torch.arange(44.0)
    for axis in range(3):
        profile = weight.sum([a for a in range(3) if a != axis])
        assert abs((profile * positions).sum() / profile.sum() - center) < 2


# --- normalization --------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_every_normalization_learns(normalization):
    torch.manual_seed(0)
    network = UNet3D(small(normalization=normalization))
    x = torch.randn(1, 1, 8, 16, 16)
    target = (x[:, 0] > 0).long()
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(network(x), target)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize(
    ("normalization", "depends"),
    [("batch", False), ("channel", False), ("none", False), ("tile", True), ("instance", True)],
)
def test_statistics_of_the_tile_at_test_time(normalization, depends):
    """Whether a bright spot far beyond the receptive field changes a voxel."""
    torch.manual_seed(0)
    network = UNet3D(small(normalization=normalization))
    network(torch.randn(1, 1, 16, 16, 16))  # running statistics, where there are any
    network.eval()
    x = torch.randn(1, 1, 16, 16, 128)
    changed = x.clone()
    changed[..., -16:] += 20
    with torch.inference_mode():
        a, b = network(x)[..., :32], network(changed)[..., :32]
    difference = (a - b).abs().max() / a.abs().max()
    assert difference > 1e-2 if depends else difference < 1e-5


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_folding_batch_norm_changes_nothing_but_the_work(normalization, padding):
    torch.manual_seed(0)
    network = UNet3D(small(normalization=normalization, padding=padding))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d) and module.track_running_stats:
            for values in (module.running_mean, module.running_var, module.weight, module.bias):
                values.data.uniform_(0.5, 2)
    network.eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    image = torch.randn(1, 1, 44, 44, 44)
    with torch.no_grad():
        folded = fold_batch_norm(network)
        assert torch.allclose(folded(image), network(image), rtol=1e-3, atol=1e-4)
    left = sum(isinstance(m, nn.BatchNorm3d) for m in folded.modules())
    assert left == (10 + 2 if normalization == "tile" else 0)
    assert all(torch.equal(network.state_dict()[name], before[name]) for name in before)


def test_a_folded_network_is_as_exact_in_bf16():
    torch.manual_seed(0)
    network = UNet3D(small()).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_var.uniform_(0.5, 2)
    image = torch.randn(1, 1, 16, 32, 32)
    with torch.no_grad():
        exact = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            errors = [(n(image) - exact).abs().mean() for n in (network, fold_batch_norm(network))]
    assert 0 < errors[1] < 1.5 * errors[0]


def test_tile_is_batch_norm_with_the_current_statistics():
    torch.manual_seed(0)
    tile = UNet3D(small(normalization="tile"))
    batch = UNet3D(small(normalization="batch"))
    batch.load_state_dict(tile.state_dict(), strict=False)
    x = torch.randn(1, 1, 8, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(tile.eval()(x), batch.train()(x))
        assert not torch.allclose(tile.eval()(x), batch.eval()(x), atol=0.1)
    assert not any("running" in name for name in tile.state_dict())


# --- trap 2: bf16 gradients of maps that are 2 deep -------------------------------------------


def cpu_has_bf16() -> bool:
    from napari_unet3d.networks.device import pick_precision

    return pick_precision(torch.device("cpu")) == "bf16"


def gradients(network: nn.Module, x: torch.Tensor, bf16: bool) -> list[torch.Tensor]:
    network.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = network(x)
    generator = torch.Generator().manual_seed(1)
    (out.float() * torch.randn(out.shape, generator=generator)).sum().backward()
    return [p.grad.clone() for p in network.parameters()]


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    if not found.isfinite().all():
        return float("inf")
    return ((found - expected).norm() / expected.norm().clamp(min=1e-6)).item()


def test_precondition_torch_gets_a_bf16_gradient_wrong_at_depth_2():
    """Why `Convolution` exists. Once this is skipped everywhere, it can go."""
    if not cpu_has_bf16():
        pytest.skip("this CPU computes no bf16")
    worst = {}
    for depth in (2, 3):
        torch.manual_seed(0)
        plain = nn.Conv3d(16, 32, 3, padding=1, bias=False)
        x = torch.randn(1, 16, depth, 16, 16)
        pair = zip(gradients(plain, x, True), gradients(plain, x, False), strict=True)
        worst[depth] = max(relative_error(a, b) for a, b in pair)
    assert worst[3] < 0.05
    if worst[2] < 0.05:
        pytest.skip(f"torch {torch.__version__} has no longer the bug, or not on this CPU")
    assert worst[2] > 0.5


def worst_bf16_error(config: UNetConfig, shape: tuple[int, int, int]) -> tuple[float, set[int]]:
    """Largest relative error of a weight gradient, and the depths of the convolutions' maps."""
    torch.manual_seed(0)
    network = UNet3D(config).to(memory_format=torch.channels_last_3d)
    depths: set[int] = set()
    # Smooth activations and pooling: at the kink of a ReLU, or a tie of a max-pool, bf16 may
    # take the other branch, which is the right gradient of another function.
    for i, pool in enumerate(network.pools):
        network.pools[i] = nn.AvgPool3d(pool.kernel_size)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.forward = nn.functional.softplus
        if isinstance(module, nn.Conv3d):
            module.register_forward_pre_hook(lambda _m, args: depths.add(args[0].shape[2]))
    x = torch.randn(1, 1, *shape).contiguous(memory_format=torch.channels_last_3d)
    found, expected = gradients(network, x, True), gradients(network, x, False)
    errors = [relative_error(a, b) for a, b in zip(found, expected, strict=True) if b.dim() == 5]
    return max(errors), depths


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_bf16_gradients_are_right_when_a_level_is_2_deep(level, guarded, monkeypatch):
    """Without the guard the same network is wrong, or this test would prove nothing."""
    if not cpu_has_bf16():
        pytest.skip("this CPU computes no bf16")
    if not guarded:
        monkeypatch.setattr(Convolution, "forward", nn.Conv3d.forward)
    strides = ((1, 2, 2),) * 2 if level == 0 else ((2, 2, 2),) * 2
    config = small(normalization="channel", widths=(16, 32, 32), strides=strides)

    error, depths = worst_bf16_error(config, (2 * 2**level, 32, 32))

    assert 2 in depths
    if guarded:
        assert error < 0.1
    elif error < 0.1:
        pytest.skip(f"torch {torch.__version__} has no longer the bug, or not on this CPU")
    else:
        assert error > 0.3


@pytest.mark.parametrize("stem", [(2, 2, 2), (1, 2, 2)])
@pytest.mark.parametrize("depth", [2, 4, 6, 8])
def test_bf16_gradients_of_a_stem_are_right(depth, stem):
    """Its map is shallower than its input."""
    if not cpu_has_bf16():
        pytest.skip("this CPU computes no bf16")
    config = small(normalization="channel", widths=(16, 32), strides=((1, 2, 2),), stem=stem)
    config = config.model_copy(update={"kernels": ((3, 3, 3),) * 2})
    error, _ = worst_bf16_error(config, (depth, 32, 32))
    assert error < 0.1


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3)])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_bf16_gradients_of_shallow_maps_are_right(depth, kernel):
    """With oneDNN's AMX kernels, which the package leaves out, they are wrong or NaN."""
    if not cpu_has_bf16():
        pytest.skip("this CPU computes no bf16")
    torch.manual_seed(0)
    layer = Convolution(128, 128, kernel, padding=tuple(k // 2 for k in kernel))
    x = torch.randn(1, 128, depth, 32, 32)
    for found, expected in zip(
        gradients(layer, x, bf16=True), gradients(layer, x, bf16=False), strict=True
    ):
        assert relative_error(found, expected) < 0.03


# --- fp32 maps that torch computes slowly in a batch of one ----------------------------------

SMALL_MAP = (1, 16, 4, 12, 12)
"""N·C·Z·Y = 768: far below torch's limit."""


class _Operators(TorchDispatchMode):
    """Lists the operators that are carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def backend(convolution: nn.Conv3d, x: torch.Tensor) -> str:
    """What torch would compute this convolution with."""
    three = [1, 1, 1]
    return torch._C._select_conv_backend(
        x, convolution.weight, convolution.bias, three, three, three, False, [0, 0, 0], 1
    ).name


def test_precondition_torch_leaves_onednn_for_small_maps_in_a_batch_of_one():
    """Why `Convolution` does not. Once this is skipped everywhere, it can."""
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    convolution = nn.Conv3d(16, 16, 3, padding=1)
    x = torch.randn(SMALL_MAP)
    assert backend(convolution, torch.cat([x, x])) == "Mkldnn"
    if backend(convolution, x) == "Mkldnn":
        pytest.skip(f"torch {torch.__version__} takes oneDNN for small maps too")


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("training", [True, False])
def test_no_small_map_takes_the_slow_path(training):
    torch.manual_seed(0)
    ours, plain = Convolution(16, 8, 3, padding=1), nn.Conv3d(16, 8, 3, padding=1)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(SMALL_MAP)
    with torch.set_grad_enabled(training), _Operators() as seen:
        out = ours(x)
    assert not any("slow" in name for name in seen.names), seen.names
    assert out.shape == (1, 8, 4, 12, 12)
    torch.testing.assert_close(out, plain(x))
    if training:
        assert gradients_agree(ours, plain, x)


def gradients_agree(ours: nn.Module, plain: nn.Module, x: torch.Tensor) -> bool:
    pair = zip(gradients(ours, x, False), gradients(plain, x, False), strict=True)
    return all(relative_error(a, b) < 1e-4 for a, b in pair)
