"""Attention 3D U-Net with multiple skips and a MobileNetV2 encoder (Nodirov et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field
from torch import Tensor, nn

from napari_unet3d.config import Preset, SmallTriple, Triple
from napari_unet3d.networks.architecture import Network
from napari_unet3d.networks.attention import AttentionGate
from napari_unet3d.networks.grids import ONES
from napari_unet3d.networks.layers import Convolution, Join, Pool, Resize, normalization
from napari_unet3d.networks.levels import (
    ConvolutionBlock,
    LevelsConfig,
    head,
    initialize,
)

_WIDTHS, _REPEATS = (16, 24, 32, 64, 96), (1, 2, 3, 4, 3)
"""Channels, and blocks, of the stages of MobileNetV2 (Sandler et al. 2018, Table 2) that the
encoder has."""
_EXPANSION = 6
"""Channels within a block for each channel of its input; the first stage does not expand."""
_FIRST_WIDTH = 32
"""Channels of the first convolution."""
_SKIP_WIDTH = 64
"""Channels that each map is reduced to before the maps of all levels are joined."""


class MultiSkipConfig(LevelsConfig):
    """An attention 3D U-Net with multiple skips (Nodirov et al. 2022)."""

    poolings: ClassVar[Mapping[Preset, int]] = MappingProxyType({"fast": 3, "balanced": 4})

    kind: Literal["multi_skip_unet"] = Field("multi_skip_unet", description="Kind of network.")
    widths: tuple[Annotated[int, Field(ge=2, le=2048)], ...] = Field(
        _WIDTHS, min_length=1, max_length=5, description="Channels of each encoder level."
    )
    strides: tuple[SmallTriple, ...] = Field(
        ((2, 2, 2),) * 4, description="Steps (z, y, x) between one level and the next."
    )
    kernels: tuple[SmallTriple, ...] = Field(
        ((3, 3, 3),) * 5, description="Convolution kernel (z, y, x) of each level, odd."
    )

    def adjusted(self, preset: Preset) -> Self:
        """The widths stay those of MobileNetV2."""
        return self.model_copy(update={"widths": _WIDTHS[: len(self.kernels)]})

    def build(self) -> MultiSkipUNet3D:
        """Make the network with random weights."""
        return MultiSkipUNet3D(self)


class MultiSkipUNet3D(Network):
    """Attention 3D U-Net with multiple skips.

    Each decoder level joins the maps of all encoder levels that are as fine or finer, pooled to its
    size, with those of all coarser decoder levels, up-sampled; each is reduced to 64 channels
    first, as in U-Net 3+ (Huang et al. 2020). A gate stands before the map of its own level.

    Parameters
    ----------
    config
        Pooling, kernels, normalization.
    """

    config: MultiSkipConfig

    def __init__(self, config: MultiSkipConfig) -> None:
        super().__init__(config)
        widths, levels = config.widths, len(config.widths)
        self.first = ConvolutionBlock(
            (config.in_channels, _FIRST_WIDTH), config.kernels[0], config, config.stem
        )
        self.encoder = nn.ModuleList()
        before = _FIRST_WIDTH
        for i, width in enumerate(widths):
            blocks: list[nn.Module] = []
            for number in range(_REPEATS[i]):
                step = config.strides[i - 1] if i and not number else ONES
                blocks.append(InvertedResidual(before, width, i, step, config))
                before = width
            self.encoder.append(nn.Sequential(*blocks))
        self.gates, self.reduce = nn.ModuleDict(), nn.ModuleDict()
        self.pools, self.decoder = nn.ModuleDict(), nn.ModuleList()
        for i in range(levels - 1):
            below = widths[-1] if i == levels - 2 else _SKIP_WIDTH
            if i:
                self.gates[str(i)] = AttentionGate(widths[i], below, config.strides[i])
            for j in range(levels):
                of_encoder = j <= i or j == levels - 1
                channels = widths[j] if of_encoder else _SKIP_WIDTH
                self.reduce[f"{i}_{j}"] = ConvolutionBlock((channels, _SKIP_WIDTH), ONES, config)
                if j < i:
                    z, y, x = (prod(s[a] for s in config.strides[j:i]) for a in range(3))
                    self.pools[f"{i}_{j}"] = Pool((z, y, x))
            self.decoder.append(
                ConvolutionBlock((levels * _SKIP_WIDTH, _SKIP_WIDTH), config.kernels[i], config)
            )
        last = _SKIP_WIDTH if levels > 1 else widths[0]
        self.head = head(last, config.n_classes, config.stem)
        self.join, self.resize = Join(), Resize()
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) → logits (N, n_classes, Z, Y, X)."""
        x = self.first(x)
        maps: list[Tensor] = []
        for stage in self.encoder:
            x = self.run(stage, x)
            maps.append(x)
        decoded = {len(maps) - 1: maps[-1]}
        for i in reversed(range(len(self.decoder))):
            own = self.gates[str(i)](maps[i], decoded[i + 1]) if i else maps[i]
            finer = [self.pools[f"{i}_{j}"](maps[j]) for j in range(i)]
            coarser = [decoded[j] for j in range(i + 1, len(maps))]
            same = [self.reduce[f"{i}_{j}"](x) for j, x in enumerate([*finer, own])]
            others = [
                self.resize(self.reduce[f"{i}_{j}"](x), own) for j, x in enumerate(coarser, i + 1)
            ]
            joined = [*same, *others]
            decoded[i] = self.run(self.decoder[i], self.join(*joined))
        logits: Tensor = self.head(decoded[0])
        return logits


class InvertedResidual(nn.Module):
    """Block of MobileNetV2: expand, convolve each channel alone, project (Sandler et al. 2018).

    The input is added where the shapes agree (their sec. 3.3).

    Parameters
    ----------
    before, after
        Channels of its input and its output.
    level
        Level of the encoder.
    step
        Voxels (z, y, x) that the convolution steps by.
    config
        Kernels and normalization.
    """

    def __init__(
        self, before: int, after: int, level: int, step: Triple, config: LevelsConfig
    ) -> None:
        super().__init__()
        middle = before * (_EXPANSION if level else 1)
        kernel = config.kernels[level]
        z, y, x = (max(k, s) for k, s in zip(kernel, step, strict=True))
        padding = (z - 1) // 2, (y - 1) // 2, (x - 1) // 2

        def layer(of: Convolution, *, active: bool = True) -> nn.Sequential:
            norm = normalization(config.normalization, of.out_channels)
            return nn.Sequential(of, norm, nn.ReLU6(inplace=True) if active else nn.Identity())

        depthwise = Convolution(middle, middle, (z, y, x), step, padding, groups=middle, bias=False)
        self.expand = layer(Convolution(before, middle, 1, bias=False)) if level else nn.Identity()
        self.depthwise = layer(depthwise)
        self.project = layer(Convolution(middle, after, 1, bias=False), active=False)
        self._adds = before == after and step == ONES

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) → (N, C', Z', Y', X')."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self._adds else y
