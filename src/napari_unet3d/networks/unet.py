"""The 3D U-Net of Çiçek et al. 2016 and its variants.

Shapes in comments: N batch, C channels, Z Y X voxels.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from napari_unet3d.config import Normalization, Preset, SmallTriple, Triple, VoxelSize
from napari_unet3d.networks.architecture import Architecture, Network
from napari_unet3d.networks.geometry import next_fitting
from napari_unet3d.networks.grids import ONES, Grid
from napari_unet3d.networks.layers import Convolution, Pool, normalization
from napari_unet3d.networks.tracing import Layer, Operation, Walk

_STRIDES_OF_PRESET = {"fast": 2, "balanced": 3}
"""Largest number of poolings. With three, as in the paper, the network sees 100 voxels of the grid
that its finest level has; with two it is quicker and sees 44."""


class UNetConfig(Architecture):
    """A 3D U-Net (Çiçek et al. 2016, Fig. 2) and its variants."""

    kind: Literal["unet"] = Field("unet", description="Kind of network.")
    widths: tuple[Annotated[int, Field(ge=2, le=2048)], ...] = Field(
        (64, 128, 256, 512),
        min_length=1,
        max_length=7,
        description="Channels at the end of each encoder level, finest first.",
    )
    strides: tuple[SmallTriple, ...] = Field(
        ((2, 2, 2),) * 3, description="Max-pooling (z, y, x) between one level and the next."
    )
    stem: SmallTriple = Field(
        (1, 1, 1),
        description="Voxels (z, y, x) of the image for one voxel of the first level: its first "
        "convolution steps by them, and the head gives them back.",
    )
    kernels: tuple[SmallTriple, ...] = Field(
        ((3, 3, 3),) * 4, description="Convolution kernel (z, y, x) of each level, odd."
    )
    padding: Literal["same", "valid"] = Field(
        "valid", description="'valid' is the paper's; 'same' keeps the size of the tile."
    )
    normalization: Normalization = Field(
        "tile",
        description=(
            "'batch': statistics re-estimated after training, independent of the tile; "
            "'tile': batch norm with the current tile's statistics also at test time (paper); "
            "'instance', 'channel' (layer norm over channels), 'none'."
        ),
    )
    widen_before_pool: bool = Field(
        True, description="First convolution of a level has half the level's width (paper)."
    )
    keep_up_channels: bool = Field(
        True, description="Up-convolutions keep the channel count (paper); else they halve it."
    )

    @model_validator(mode="after")
    def _lengths_match(self) -> Self:
        levels = len(self.widths)
        if len(self.strides) != levels - 1 or len(self.kernels) != levels:
            raise ValueError(
                f"{levels} widths need {levels - 1} strides and {levels} kernels, got "
                f"{len(self.strides)} and {len(self.kernels)}"
            )
        if any(k % 2 == 0 for kernel in self.kernels for k in kernel):
            raise ValueError(f"kernels must be odd, got {self.kernels}")
        return self

    @classmethod
    def plan(
        cls,
        preset: Preset,
        voxel_size: VoxelSize,
        stack_shape: Triple,
        *,
        in_channels: int,
        n_classes: int,
        accelerator: bool,
        normalization: Normalization | None = None,
    ) -> Self:
        """Configure a U-Net for a stack; see `Architecture.plan`.

        'paper' is the layout of Çiçek et al. 2016 whatever the stack. 'balanced' and 'fast' are
        padded, and follow the voxel size by `Grid`. A GPU gets twice the features. On a CPU the
        first convolution steps over the voxels that are pooled first on a GPU, so that an iteration
        takes a quarter to an eighth of the time.
        """
        if preset == "paper":
            return cls(
                in_channels=in_channels, n_classes=n_classes, normalization=normalization or "tile"
            )
        base = 32 if accelerator else 16
        grid = Grid(list(voxel_size), list(stack_shape))
        kernel, stem = grid.kernel(), ONES
        if not accelerator:
            stem = grid.coarsen() or ONES
            kernel = grid.kernel(kernel)
        strides, kernels = [], [kernel]
        for _ in range(_STRIDES_OF_PRESET[preset]):
            stride = grid.coarsen()
            if stride is None:
                break
            strides.append(stride)
            kernels.append(grid.kernel(kernels[-1]))
        return cls(
            in_channels=in_channels,
            n_classes=n_classes,
            widths=tuple(base * 2**level for level in range(len(kernels))),
            stem=stem,
            strides=tuple(strides),
            kernels=tuple(kernels),
            padding="same",
            normalization=normalization or "batch",
            widen_before_pool=False,
            keep_up_channels=False,
        )

    def build(self) -> UNet3D:
        """Make the network with random weights."""
        return UNet3D(self)

    def first_width(self, level: int) -> int:
        """Channels after the first convolution of an encoder level."""
        width = self.widths[level]
        if not self.widen_before_pool:
            return width
        return width // 2 if level == 0 else max(self.widths[level - 1], width // 2)

    # --- shapes by arithmetic, which `Architecture` would find by tracing -------------------

    def walk(self, tile: Triple) -> Walk:
        """Follow a tile through the network; see `Architecture.walk`."""
        path = _Path(self, tile)
        skips: list[Triple] = []
        for level, width in enumerate(self.widths):
            step = ONES if level else self.stem
            path.convolve_twice(
                f"encoder.{level}", level, self.first_width(level), width, step=step
            )
            if level < len(self.strides):
                skips.append(path.shape)
                path.pool(level)
        for level in reversed(range(len(self.strides))):
            width = self.widths[level]
            path.up(level, path.channels if self.keep_up_channels else width, skips[level])
            path.channels += width
            path.convolve_twice(f"decoder.{level}", level, width, width)
        path.head()
        return tuple(path.layers), path.shape

    def fits(self, axis: int, size: int) -> bool:
        """Whether the network takes tiles of `size` voxels along `axis`."""
        cut = 2 if self.padding == "valid" else 0
        skips = []
        if size % self.stem[axis]:
            return False
        size //= self.stem[axis]
        for level, kernel in enumerate(self.kernels):
            size -= cut * (kernel[axis] - 1)
            if size < 1:
                return False
            if level < len(self.strides):
                skips.append(size)
                if size % self.strides[level][axis]:
                    return False
                size //= self.strides[level][axis]
        for level in reversed(range(len(self.strides))):
            size *= self.strides[level][axis]
            if size > skips[level]:
                return False
            size -= cut * (self.kernels[level][axis] - 1)
            if size < 1:
                return False
        return True

    def stride(self) -> Triple:
        """Voxels of the input per voxel of the coarsest map, along z, y and x."""
        strides = (self.stem, *self.strides)
        z, y, x = (prod(stride[axis] for stride in strides) for axis in range(3))
        return z, y, x

    def receptive_field(self) -> Triple:
        """Input voxels that one output voxel depends on at most, along z, y and x."""
        # The number depends on where the voxel lies in its pooling cell: the largest one counts.
        z, y, x = (
            max(self._reach(axis, position) for position in range(self.stride()[axis]))
            for axis in range(3)
        )
        return z, y, x

    def parameter_count(self) -> int:
        """Weights and biases of the convolutions, without building the network."""
        tile = next_fitting(self, self.receptive_field())
        layers = [layer for layer in self.walk(tile)[0] if layer.is_convolution]
        biased = [n for n in layers if n.operation == "convolution" or n.name == "head"]
        return sum(n.weights for n in layers) + sum(n.out_channels for n in biased)

    def _reach(self, axis: int, position: int) -> int:
        """Input voxels that the output voxel at a position depends on, along an axis."""
        low = high = position // self.stem[axis]
        halo = [kernel[axis] - 1 for kernel in self.kernels]  # of two convolutions, on each side
        strides = [stride[axis] for stride in self.strides]
        for n, stride in zip(halo, strides, strict=False):
            low, high = (low - n) // stride, (high + n) // stride
        low, high = low - halo[-1], high + halo[-1]
        for n, stride in reversed(list(zip(halo, strides, strict=False))):
            low, high = low * stride - n, high * stride + stride - 1 + n
        return (high - low + 1) * self.stem[axis]


PAPER_NETWORK = UNetConfig(in_channels=3, n_classes=3)
"""The layout of Çiçek et al. 2016: 19,069,955 parameters, 132×132×116 → 44×44×28."""


class _Path:
    """A tile on its way through a U-Net: the layers so far, and the map that comes out of them."""

    def __init__(self, config: UNetConfig, tile: Triple) -> None:
        self._config, self._tile = config, tile
        self.layers: list[Layer] = []
        self.shape, self.channels = tile, config.in_channels

    def add(
        self, name: str, operation: Operation, channels: int, kernel: Triple, shape: Triple
    ) -> None:
        """Append a layer that turns the map into one of `channels` and `shape`."""
        if min(shape) < 1:
            raise self._too_small()
        convolves = operation in ("convolution", "up-convolution")
        weights = self.channels * channels * prod(kernel) if convolves else 0
        self.layers.append(
            Layer(name, operation, self.channels, channels, kernel, self.shape, shape, weights)
        )
        self.shape, self.channels = shape, channels

    def _normalize(self, name: str) -> None:
        if self._config.normalization != "none":
            self.add(name, "normalization", self.channels, (1, 1, 1), self.shape)

    def convolve_twice(self, name: str, level: int, *widths: int, step: Triple = ONES) -> None:
        """Two convolutions, each normalized; the first one steps by so many voxels."""
        kernel = self._config.kernels[level]
        cut = 1 if self._config.padding == "valid" else 0
        for i, width in enumerate(widths):
            z, y, x = (n - cut * (k - 1) for n, k in zip(self._divided(step), kernel, strict=True))
            a, b, c = (k * s for k, s in zip(kernel, step, strict=True))
            self.add(f"{name}.{3 * i}", "convolution", width, (a, b, c), (z, y, x))
            self._normalize(f"{name}.{3 * i + 1}")
            step = ONES

    def pool(self, level: int) -> None:
        """Max-pooling to the next level."""
        stride = self._config.strides[level]
        self.add(f"pools.{level}", "pooling", self.channels, stride, self._divided(stride))

    def head(self) -> None:
        """The last layer, which gives back the voxels of the stem."""
        stem = self._config.stem
        operation: Operation = "convolution" if stem == ONES else "up-convolution"
        z, y, x = (n * s for n, s in zip(self.shape, stem, strict=True))
        self.add("head", operation, self._config.n_classes, stem, (z, y, x))

    def _divided(self, stride: Triple) -> Triple:
        if any(n % s for n, s in zip(self.shape, stride, strict=True)):
            raise ValueError(
                f"a tile of {self._tile} voxels does not divide: a map of {self.shape} is divided "
                f"by {stride}"
            )
        z, y, x = (n // s for n, s in zip(self.shape, stride, strict=True))
        return z, y, x

    def up(self, level: int, width: int, skip: Triple) -> None:
        """Up-convolution to a level, whose map must lie within `skip`."""
        stride = self._config.strides[level]
        z, y, x = (n * s for n, s in zip(self.shape, stride, strict=True))
        self.add(f"ups.{level}.0", "up-convolution", width, stride, (z, y, x))
        self._normalize(f"ups.{level}.1")
        if any(n > m for n, m in zip(self.shape, skip, strict=True)):
            raise self._too_small()

    def _too_small(self) -> ValueError:
        return ValueError(f"a tile of {self._tile} voxels is too small for this network")


class _Level(nn.Sequential):
    """Two convolutions, each followed by normalization and ReLU; the first one makes steps."""

    def __init__(
        self, channels: tuple[int, int, int], kernel: Triple, c: UNetConfig, step: Triple = ONES
    ) -> None:
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(channels):
            pairs = list(zip(kernel, step, strict=True))
            z, y, x = (k * s for k, s in pairs)
            a, b, d = (k // 2 * s if c.padding == "same" else 0 for k, s in pairs)
            layers += [
                Convolution(n_in, n_out, (z, y, x), step, (a, b, d)),
                normalization(c.normalization, n_out),
                nn.ReLU(inplace=True),
            ]
            step = ONES
        super().__init__(*layers)


class UNet3D(Network):
    """3D U-Net (Çiçek et al., MICCAI 2016, sec. 2).

    Parameters
    ----------
    config
        Widths, pooling, kernels, padding, normalization. The default of `UNetConfig` is the
        paper's layout: channels are doubled before each pooling and kept by the up-convolutions;
        the up-sampled map comes first in the concatenation.
    """

    config: UNetConfig

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        widths = config.widths
        self.encoder, self.pools = nn.ModuleList(), nn.ModuleList()
        channels = config.in_channels
        for level, width in enumerate(widths):
            middle = config.first_width(level)
            step = ONES if level else config.stem
            widths_here = channels, middle, width
            self.encoder.append(_Level(widths_here, config.kernels[level], config, step))
            channels = width
        self.ups, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level, stride in enumerate(config.strides):
            self.pools.append(Pool(stride))
            below, width = widths[level + 1], widths[level]
            up = below if config.keep_up_channels else width
            self.ups.append(
                nn.Sequential(
                    nn.ConvTranspose3d(below, up, stride, stride, bias=False),
                    normalization(config.normalization, up),
                    nn.ReLU(inplace=True),
                )
            )
            self.decoder.append(_Level((up + width, width, width), config.kernels[level], config))
        self.head: nn.Module = (
            nn.Conv3d(widths[0], config.n_classes, 1)
            if config.stem == ONES
            else nn.ConvTranspose3d(widths[0], config.n_classes, config.stem, config.stem)
        )
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
        for up, level in reversed(list(zip(self.ups, self.decoder, strict=True))):
            # Both maps are freed once they are joined: at the finest level, where a prediction
            # needs most memory, they would be a third of it.
            joined = [up(x), skips.pop()]
            joined[1] = _center(joined[1], joined[0])
            x = torch.cat(joined, 1)
            del joined
            x = level(x)
        logits: Tensor = self.head(x)
        return logits


def _center(skip: Tensor, like: Tensor) -> Tensor:
    """The center of `skip`, of the spatial shape of `like` (a no-op with 'same' padding)."""
    for axis in (2, 3, 4):
        n = like.shape[axis]
        skip = skip.narrow(axis, (skip.shape[axis] - n) // 2, n)
    return skip
