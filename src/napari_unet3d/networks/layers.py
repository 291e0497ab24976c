"""Layers that any network can use, each right and fast on every device.

Shapes in comments: N batch, C channels, Z Y X voxels.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_unet3d.config import Normalization

_LARGEST_NATIVE_MAP = 20_480
"""Values, N·C·Z·Y. Torch computes a smaller fp32 map in a batch of one on the CPU itself instead of
calling oneDNN (`use_mkldnn` in ATen's Convolution.cpp, torch 2.13)."""


class Convolution(nn.Conv3d):
    """A 3D convolution that is right and fast in every precision.

    It works around two faults of torch 2.13 on CPUs:

    - The weight gradient of a bf16 convolution with a 3×3×3 kernel is wrong (NaN, inf, or 100 %
      error) when the map is exactly 2 voxels deep, before or after a stride. Such a map is computed
      in fp32, which costs little: only the small maps of coarse levels are so shallow.
    - Torch computes a small fp32 map in a batch of one up to 25 times slower than oneDNN would.
      Without gradients, oneDNN is called directly. Its operator has no gradient, so with gradients
      the map is computed twice, as a batch of two.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) → (N, C', Z', Y', X')."""
        if x.device.type != "cpu":
            return super().forward(x)
        depth = x.shape[2]
        if 2 in (depth, depth // self.stride[0]) and self.kernel_size[0] > 1:
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
            and x[..., 0].numel() <= _LARGEST_NATIVE_MAP
            and torch.backends.mkldnn.is_available()
        )


class Pool(nn.MaxPool3d):
    """Max-pooling in the number format of its input; on a CPU, autocast would change it to fp32."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) → (N, C, Z', Y', X')."""
        if x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                return self._pool(x)
        return self._pool(x)

    def _pool(self, x: Tensor) -> Tensor:
        pooled: Tensor = super().forward(x)
        return pooled


class Join(nn.Module):
    """Concatenates maps along their channels: a module, so that tools can treat it as one."""

    def forward(self, *maps: Tensor) -> Tensor:
        """Maps (N, C, Z, Y, X) → (N, ΣC, Z, Y, X)."""
        return torch.cat(maps, 1)


class Resize(nn.Module):
    """Interpolates a map trilinearly; a module, so that tools can treat it as one."""

    def forward(self, x: Tensor, like: Tensor) -> Tensor:
        """(N, C, z, y, x) → (N, C, Z, Y, X), of the shape of the other map."""
        resized: Tensor = nn.functional.interpolate(
            x, like.shape[2:], mode="trilinear", align_corners=False
        )
        return resized


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each voxel, which does not depend on the tile."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) → the same shape."""
        x = x.movedim(1, -1)
        x = nn.functional.layer_norm(x, x.shape[-1:], self.weight, self.bias)
        return x.movedim(-1, 1)


class TileNorm(nn.BatchNorm3d):
    """Batch norm by the statistics of the current tile, in a prediction, too."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)


class SliceNorm(nn.Module):
    """Normalizes each slice by its own statistics, so that it does not depend on the others.

    Parameters
    ----------
    channels
        Channels of the maps.
    axis
        Axis (0 to 2) of a tile that the slices are perpendicular to.
    """

    def __init__(self, channels: int, axis: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) → the same shape."""
        slices = x.movedim(self.axis + 2, 1)
        each = nn.functional.instance_norm(slices.flatten(0, 1), weight=self.weight, bias=self.bias)
        return each.view(slices.shape).movedim(1, self.axis + 2)


def normalization(kind: Normalization, channels: int) -> nn.Module:
    """Layer that normalizes maps of so many channels; it does nothing for 'none'."""
    if kind == "batch":
        return nn.BatchNorm3d(channels)
    if kind == "tile":
        return TileNorm(channels)
    if kind == "instance":
        return nn.InstanceNorm3d(channels, affine=True)
    if kind == "channel":
        return ChannelNorm(channels)
    return nn.Identity()


def normalize_each_slice(network: nn.Module, axis: int) -> None:
    """Let norms by the statistics of a tile take those of each slice across an axis instead."""
    for part in list(network.modules()):
        for name, norm in part.named_children():
            if isinstance(norm, TileNorm | nn.InstanceNorm3d):
                setattr(part, name, SliceNorm(norm.num_features, axis))


M = TypeVar("M", bound=nn.Module)


def fold_batch_norm(network: M) -> M:
    """Copy a network for prediction, with batch norms merged into the convolutions before them.

    The outputs differ by rounding only; each map is read and written once less. A batch norm is
    merged where it follows a convolution in an `nn.Sequential`; everything else is copied as it
    is.

    Parameters
    ----------
    network
        Any network in eval mode; it is not changed.
    """
    folded = copy.deepcopy(network)
    for block in folded.modules():
        if not isinstance(block, nn.Sequential):
            continue
        for i, (before, norm) in enumerate(pairwise(list(block))):
            if not isinstance(before, nn.Conv3d | nn.ConvTranspose3d):
                continue
            if isinstance(norm, nn.BatchNorm3d) and norm.track_running_stats:
                transposed = isinstance(before, nn.ConvTranspose3d)
                block[i] = fuse_conv_bn_eval(before, norm, transposed)
                block[i + 1] = nn.Identity()
    return folded
