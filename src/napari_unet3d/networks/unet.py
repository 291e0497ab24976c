"""The 3D U-Net of Çiçek et al. 2016 and its variants.

Shapes in comments: N batch, C channels, Z Y X voxels.
"""

from __future__ import annotations

from math import prod
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from napari_unet3d.config import Normalization, Preset, Triple
from napari_unet3d.networks.geometry import next_fitting
from napari_unet3d.networks.grids import ONES
from napari_unet3d.networks.levels import LevelsConfig, LevelsNetwork
from napari_unet3d.networks.tracing import Layer, Operation, Walk


class UNetConfig(LevelsConfig):
    """A 3D U-Net (Çiçek et al. 2016, Fig. 2) and its variants."""

    head: ClassVar[tuple[str, ...]] = ("head.", "coarse_heads.")

    kind: Literal["unet"] = Field("unet", description="Kind of network.")
    padding: Literal["same", "valid"] = Field(
        "valid", description="'valid' is the paper's; 'same' keeps the size of the tile."
    )
    normalization: Normalization = Field(
        "tile", description=LevelsConfig.model_fields["normalization"].description
    )
    widen_before_pool: bool = Field(
        True, description="First convolution of a level has half the level's width (paper)."
    )
    keep_up_channels: bool = Field(
        True, description="Up-convolutions keep the channel count (paper); else they halve it."
    )
    deep_supervision: bool = Field(
        False,
        description="Coarser levels of the decoder, but the two coarsest, are compared with the "
        "labels in training, too, as in nnU-Net. Not with 'valid' padding.",
    )

    @model_validator(mode="after")
    def _supervises_what_is_as_large(self) -> Self:
        if self.deep_supervision and self.padding == "valid":
            raise ValueError("deep_supervision needs padding 'same'")
        return self

    def adjusted(self, preset: Preset) -> Self:
        """Padded, with plain widths; 'paper' is the layout of Çiçek et al. 2016."""
        if preset == "paper":
            return self
        plain = {"padding": "same", "widen_before_pool": False, "keep_up_channels": False}
        return self.model_copy(update=plain)

    def build(self) -> UNet3D:
        """Make the network with random weights."""
        return UNet3D(self)

    @property
    def pads(self) -> bool:
        """Whether convolutions keep the size of their map."""
        return self.padding == "same"

    @property
    def supervised_levels(self) -> tuple[int, ...]:
        """Levels beside the finest that are compared with the labels in training."""
        return tuple(range(1, len(self.strides) - 1)) if self.deep_supervision else ()

    def first_width(self, level: int) -> int:
        """Channels after the first convolution of an encoder level."""
        width = self.widths[level]
        if not self.widen_before_pool:
            return width
        return width // 2 if level == 0 else max(self.widths[level - 1], width // 2)

    def up_width(self, level: int) -> int:
        """Channels of the map that is up-sampled to a level."""
        return self.widths[level + 1 if self.keep_up_channels else level]

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
            path.up(level, self.up_width(level), skips[level])
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
        coarse = sum((self.widths[i] + 1) * self.n_classes for i in self.supervised_levels)
        return sum(n.weights for n in layers) + sum(n.out_channels for n in biased) + coarse

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


class UNet3D(LevelsNetwork):
    """3D U-Net (Çiçek et al., MICCAI 2016, sec. 2).

    Parameters
    ----------
    config
        Widths, pooling, kernels, padding, normalization. The default of `UNetConfig` is the
        paper's layout: channels are doubled before each pooling and kept by the up-convolutions;
        the up-sampled map comes first in the concatenation.
    """
