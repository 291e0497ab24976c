"""Networks of levels: an encoder that pools, skips, and a decoder that gives the voxels back.

Shapes in comments: N batch, C channels, Z Y X voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import prod
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from napari_unet3d.config import Normalization, Preset, SmallTriple, Triple, VoxelSize
from napari_unet3d.networks import tracing
from napari_unet3d.networks.architecture import Architecture, Network, Supervised
from napari_unet3d.networks.grids import ONES, Grid
from napari_unet3d.networks.layers import Convolution, Join, Pool, normalization
from napari_unet3d.networks.tracing import Walk

_TRACED_SIDE = 128
"""Voxels: sides of the tile with which the receptive field is found."""


class LevelsConfig(Architecture):
    """Levels of a network, finest first, planned by the voxel size and the shape of a stack."""

    poolings: ClassVar[Mapping[Preset, int]] = MappingProxyType({"fast": 2, "balanced": 3})
    """Largest number of poolings. With three, as in the paper, the network sees 100 voxels of the
    grid that its finest level has; with two it is quicker and sees 44."""

    usual_normalization: ClassVar[Normalization] = "batch"
    """Normalization of planned networks, but for 'paper'."""

    widths: tuple[Annotated[int, Field(ge=2, le=2048)], ...] = Field(
        (64, 128, 256, 512),
        min_length=1,
        max_length=7,
        description="Channels at the end of each encoder level, finest first.",
    )
    strides: tuple[SmallTriple, ...] = Field(
        ((2, 2, 2),) * 3, description="Pooling (z, y, x) between one level and the next."
    )
    stem: SmallTriple = Field(
        (1, 1, 1),
        description="Voxels (z, y, x) of the image for one voxel of the first level: its first "
        "convolution steps by them, and the head gives them back.",
    )
    kernels: tuple[SmallTriple, ...] = Field(
        ((3, 3, 3),) * 4, description="Convolution kernel (z, y, x) of each level, odd."
    )
    normalization: Normalization = Field(
        "batch",
        description=(
            "'batch': statistics re-estimated after training, independent of the tile; "
            "'tile': batch norm with the current tile's statistics also at test time (paper); "
            "'instance', 'channel' (layer norm over channels), 'none'."
        ),
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
        """Configure a network for a stack; see `Architecture.plan`.

        'paper' is the default layout, whatever the stack. 'balanced' and 'fast' follow the voxel
        size by `Grid`. A GPU gets twice the features. On a CPU the first convolution steps over the
        voxels that are pooled first on a GPU, so that an iteration takes a quarter to an eighth of
        the time.
        """
        ends = cls.ends(in_channels, n_classes)
        if preset == "paper":
            chosen = {"normalization": normalization} if normalization else {}
            return cls(**ends, **chosen).adjusted(preset)
        base = 32 if accelerator else 16
        grid = Grid(list(voxel_size), list(stack_shape))
        kernel, stem = grid.kernel(), ONES
        if not accelerator:
            stem = grid.coarsen() or ONES
            kernel = grid.kernel(kernel)
        strides, kernels = [], [kernel]
        for _ in range(cls.poolings[preset]):
            stride = grid.coarsen()
            if stride is None:
                break
            strides.append(stride)
            kernels.append(grid.kernel(kernels[-1]))
        return cls(
            **ends,
            widths=tuple(base * 2**level for level in range(len(kernels))),
            stem=stem,
            strides=tuple(strides),
            kernels=tuple(kernels),
            normalization=normalization or cls.usual_normalization,
        ).adjusted(preset)

    def adjusted(self, preset: Preset) -> Self:
        """The planned network with what is particular to its kind."""
        return self

    @classmethod
    def ends(cls, in_channels: int, n_classes: int) -> dict[str, Any]:
        """Settings that follow from the channels of an image and the outputs."""
        return {"in_channels": in_channels, "n_classes": n_classes}

    def stride(self) -> Triple:
        """Voxels of the input per voxel of the coarsest map, along z, y and x."""
        strides = (self.stem, *self.strides)
        z, y, x = (prod(stride[axis] for stride in strides) for axis in range(3))
        return z, y, x

    def walk(self, tile: Triple) -> Walk:
        """Follow a tile through the network; see `Architecture.walk`."""
        return tracing.walk(self, tile, (0, 0, 0))

    def receptive_field(self) -> Triple:
        """Input voxels that one output voxel depends on at most, along z, y and x."""
        z, y, x = (-(-_TRACED_SIDE // stride) * stride for stride in self.stride())
        return tracing.receptive_field(self, (z, y, x))

    def fits(self, axis: int, size: int) -> bool:
        """Whether the network takes tiles of `size` voxels along `axis`."""
        return size > 0 and size % self.stride()[axis] == 0

    @property
    def pads(self) -> bool:
        """Whether convolutions keep the size of their map."""
        return True

    @property
    def supervised_levels(self) -> tuple[int, ...]:
        """Levels beside the finest that are compared with the labels in training."""
        return ()

    def first_width(self, level: int) -> int:
        """Channels after the first convolution of an encoder level."""
        return self.widths[level]

    def up_width(self, level: int) -> int:
        """Channels of the map that is up-sampled to a level."""
        return self.widths[level]


class ConvolutionBlock(nn.Sequential):
    """Convolutions, each followed by normalization and ReLU; the first one makes steps."""

    def __init__(
        self,
        channels: tuple[int, ...],
        kernel: Triple,
        config: LevelsConfig,
        step: Triple = ONES,
    ) -> None:
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise(channels):
            layers += [
                convolution(n_in, n_out, kernel, step, pads=config.pads),
                normalization(config.normalization, n_out),
                nn.ReLU(inplace=True),
            ]
            step = ONES
        super().__init__(*layers)


def convolution(
    n_in: int, n_out: int, kernel: Triple, step: Triple = ONES, *, pads: bool = True
) -> Convolution:
    """A convolution of a level; one that makes steps has a kernel as many times as large."""
    pairs = list(zip(kernel, step, strict=True))
    z, y, x = (k * s for k, s in pairs)
    a, b, c = (k // 2 * s if pads else 0 for k, s in pairs)
    return Convolution(n_in, n_out, (z, y, x), step, (a, b, c))


def up_convolution(n_in: int, n_out: int, stride: Triple, config: LevelsConfig) -> nn.Sequential:
    """An up-convolution that gives back the voxels of a pooling."""
    return nn.Sequential(
        nn.ConvTranspose3d(n_in, n_out, stride, stride, bias=False),
        normalization(config.normalization, n_out),
        nn.ReLU(inplace=True),
    )


def head(channels: int, n_classes: int, stem: Triple) -> nn.Module:
    """The last layer, which gives back the voxels of the stem."""
    if stem == ONES:
        return nn.Conv3d(channels, n_classes, 1)
    return nn.ConvTranspose3d(channels, n_classes, stem, stem)


def supervise_levels(
    maps: Iterable[tuple[int, Tensor]], heads: Mapping[str, nn.Module], size: Sequence[int]
) -> Supervised:
    """The outputs of levels, interpolated to the size of the finest one.

    Each level counts half as much as the finer one (Isensee et al. 2021, Supplementary Note 2). The
    logits are interpolated rather than the labels: labels of a single slice would vanish.

    Parameters
    ----------
    maps
        Levels and maps of a decoder.
    heads
        The last layer of each level that is supervised, by its number.
    size
        Voxels (z, y, x) of the output.
    """
    logits: dict[int, Tensor] = {}
    for level, decoded in maps:
        if str(level) in heads:
            found = heads[str(level)](decoded)
            logits[level] = (
                functional.interpolate(found, size, mode="trilinear") if level else found
            )
    total = sum(0.5**level for level in logits)
    return tuple((0.5**level / total, logits[level]) for level in sorted(logits))


def initialize(network: nn.Module) -> None:
    """Draw the weights of all convolutions for ReLU (He et al. 2015), with biases of 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class LevelsNetwork(Network):
    """A U-shaped network of levels (Çiçek et al., MICCAI 2016, sec. 2).

    A subclass may replace the block of a level and what a skip passes on.

    Parameters
    ----------
    config
        Widths, pooling, kernels, normalization.
    """

    config: LevelsConfig

    def __init__(self, config: LevelsConfig) -> None:
        super().__init__(config)
        widths = config.widths
        self.encoder, self.pools = nn.ModuleList(), nn.ModuleList()
        channels = config.in_channels
        for level, width in enumerate(widths):
            step = ONES if level else config.stem
            widths_here = channels, config.first_width(level), width
            self.encoder.append(self.block(widths_here, level, step))
            channels = width
        self.ups, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level, stride in enumerate(config.strides):
            self.pools.append(Pool(stride))
            width, up = widths[level], config.up_width(level)
            self.ups.append(up_convolution(widths[level + 1], up, stride, config))
            self.decoder.append(self.block((up + width, width, width), level))
        self.join = Join()
        self.head = head(widths[0], config.n_classes, config.stem)
        self.coarse_heads = nn.ModuleDict(
            {
                str(level): nn.Conv3d(widths[level], config.n_classes, 1)
                for level in config.supervised_levels
            }
        )
        initialize(self)

    def block(self, channels: tuple[int, int, int], level: int, step: Triple = ONES) -> nn.Module:
        """The convolutions of a level: channels before, between and after them."""
        return ConvolutionBlock(channels, self.config.kernels[level], self.config, step)

    def skip(self, level: int, skip: Tensor, below: Tensor) -> Tensor:
        """What a skip passes on to the decoder, whose coarser map is `below`; by default, all."""
        return skip

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) → logits (N, n_classes, Z', Y', X')."""
        finest = x
        for _, finest in self._decode(x):  # noqa: B007
            pass  # the finest map is the last one
        logits: Tensor = self.head(finest)
        return logits

    def supervised(self, x: Tensor) -> Supervised:
        """The output, and those of coarser levels; see `supervise_levels`."""
        if not self.coarse_heads:
            return super().supervised(x)
        heads = {"0": self.head, **dict(self.coarse_heads.items())}
        return supervise_levels(self._decode(x), heads, x.shape[2:])

    def _decode(self, x: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Levels and maps of the decoder, coarsest first, the deepest of the encoder included."""
        skips = []
        for level, pool in zip(self.encoder, self.pools, strict=False):
            x = self.run(level, x)
            skips.append(x)
            x = pool(x)
        x = self.run(self.encoder[-1], x)
        yield len(self.ups), x
        for i in reversed(range(len(self.ups))):
            # Both maps are freed once they are joined: at the finest level, where a prediction
            # needs most memory, they would be a third of it.
            joined = [self.ups[i](x), self.skip(i, skips.pop(), x)]
            if not self.config.pads:
                joined[1] = _center(joined[1], joined[0])
            x = self.join(*joined)
            del joined
            x = self.run(self.decoder[i], x)
            yield i, x


def _center(skip: Tensor, like: Tensor) -> Tensor:
    """The center of `skip`, of the spatial shape of `like`."""
    for axis in (2, 3, 4):
        n = like.shape[axis]
        skip = skip.narrow(axis, (skip.shape[axis] - n) // 2, n)
    return skip
