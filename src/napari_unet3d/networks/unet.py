"""The 3D U-Net of Çiçek et al. 2016 and its variants, configured by `NetworkConfig`.

Shapes in comments: N batch, C channels, Z Y X voxels.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_unet3d.config import NetworkConfig, Normalization, Triple
from napari_unet3d.networks.geometry import first_width

_NATIVE_MOST = 20_480
"""Values, N·C·Z·Y: torch hands an fp32 convolution on the CPU to oneDNN only above this, or from a
batch of two on (`use_mkldnn` in ATen's Convolution.cpp, torch 2.13)."""


class Convolution(nn.Conv3d):
    """A 3D convolution that is right and fast in every precision.

    It works around two faults of torch 2.13 on CPUs:

    - The weight gradient of a bf16 convolution with a 3×3×3 kernel is wrong (NaN, inf, or 100 %
      error) when the map is exactly 2 voxels deep. Such a map is computed in fp32. It is a deep
      level, so it costs little.
    - A small fp32 map in a batch of one takes torch's own convolution, which is up to 25 times
      slower than oneDNN's. Without gradients, oneDNN is called directly; its operator has no
      gradient, so with gradients the map is computed twice, as a batch of two.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) → (N, C', Z', Y', X')."""
        if x.device.type != "cpu":
            return super().forward(x)
        if x.shape[2] == 2 and self.kernel_size[0] > 1:
            with torch.autocast("cpu", enabled=False):
                return self._forward(x.float())
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        if not self._takes_slow_path(x):
            return super().forward(x)
        if torch.is_grad_enabled():
            return super().forward(torch.cat([x, x]))[:1]
        y: Tensor = torch.ops.aten.mkldnn_convolution(
            x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups
        )
        return y

    def _takes_slow_path(self, x: Tensor) -> bool:
        return (
            len(x) == 1
            and x.dtype == torch.float32
            and not torch.is_autocast_enabled("cpu")
            and x[..., 0].numel() <= _NATIVE_MOST
            and torch.backends.mkldnn.is_available()
        )


class _Pool(nn.MaxPool3d):
    """Max-pooling in the number format of its input; autocast would take fp32 on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) → (N, C, Z', Y', X')."""
        if x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                return self._pool(x)
        return self._pool(x)

    def _pool(self, x: Tensor) -> Tensor:
        pooled: Tensor = super().forward(x)
        return pooled


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each voxel: independent of the tile."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) → the same shape."""
        x = x.movedim(1, -1)
        x = nn.functional.layer_norm(x, x.shape[-1:], self.weight, self.bias)
        return x.movedim(-1, 1)


def _normalization(kind: Normalization, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm3d(channels)
    if kind == "tile":
        # Without running statistics, torch uses those of the input also in eval mode.
        return nn.BatchNorm3d(channels, track_running_stats=False)
    if kind == "instance":
        return nn.InstanceNorm3d(channels, affine=True)
    if kind == "channel":
        return ChannelNorm(channels)
    return nn.Identity()


class _Level(nn.Sequential):
    """Two convolutions, each followed by normalization and ReLU."""

    def __init__(self, channels: tuple[int, int, int], kernel: Triple, c: NetworkConfig) -> None:
        z, y, x = kernel
        padding = (z // 2, y // 2, x // 2) if c.padding == "same" else (0, 0, 0)
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(channels):
            layers += [
                Convolution(n_in, n_out, kernel, padding=padding),
                _normalization(c.normalization, n_out),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class UNet3D(nn.Module):
    """3D U-Net (Çiçek et al., MICCAI 2016, sec. 2).

    Parameters
    ----------
    config
        Widths, pooling, kernels, padding, normalization. The default of `NetworkConfig` is
        the paper's layout: channels are doubled before each pooling and kept by the
        up-convolutions; the up-sampled map comes first in the concatenation.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.encoder, self.pools = nn.ModuleList(), nn.ModuleList()
        channels = config.in_channels
        for level, width in enumerate(widths):
            middle = first_width(config, level)
            self.encoder.append(_Level((channels, middle, width), config.kernels[level], config))
            channels = width
        self.ups, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level, stride in enumerate(config.strides):
            self.pools.append(_Pool(stride))
            below, width = widths[level + 1], widths[level]
            up = below if config.keep_up_channels else width
            self.ups.append(
                nn.Sequential(
                    nn.ConvTranspose3d(below, up, stride, stride, bias=False),
                    _normalization(config.normalization, up),
                    nn.ReLU(inplace=True),
                )
            )
            self.decoder.append(_Level((up + width, width, width), config.kernels[level], config))
        self.head = nn.Conv3d(widths[0], config.n_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) → logits (N, n_classes, Z', Y', X')."""
        skips = []
        for level, pool in zip(self.encoder, self.pools, strict=False):
            x = level(x)
            skips.append(x)
            x = pool(x)
        x = self.encoder[-1](x)
        for up, level, skip in reversed(list(zip(self.ups, self.decoder, skips, strict=True))):
            x = up(x)
            x = level(torch.cat([x, _center(skip, x)], 1))
        logits: Tensor = self.head(x)
        return logits


def _center(skip: Tensor, like: Tensor) -> Tensor:
    """The center of `skip`, of the spatial shape of `like` (a no-op with 'same' padding)."""
    for axis in (2, 3, 4):
        n = like.shape[axis]
        skip = skip.narrow(axis, (skip.shape[axis] - n) // 2, n)
    return skip


def fold_batch_norm(network: UNet3D) -> UNet3D:
    """A copy for prediction, with batch norms taken into the convolutions before them.

    Its outputs are the same but for rounding; each map is read and written once less.

    Parameters
    ----------
    network
        In eval mode; left as it is. Other normalizations stay.
    """
    folded = copy.deepcopy(network)
    for block in folded.modules():
        if not isinstance(block, nn.Sequential):
            continue
        for i, (before, norm) in enumerate(pairwise(list(block))):
            if isinstance(norm, nn.BatchNorm3d) and norm.track_running_stats:
                assert isinstance(before, nn.Conv3d | nn.ConvTranspose3d)
                transposed = isinstance(before, nn.ConvTranspose3d)
                block[i] = fuse_conv_bn_eval(before, norm, transposed)
                block[i + 1] = nn.Identity()
    return folded
