"""Two networks: a small one finds the region in which a larger one works."""

from __future__ import annotations

from math import lcm, log
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from napari_unet3d.config import Normalization, Preset, Triple, VoxelSize
from napari_unet3d.networks import tracing
from napari_unet3d.networks.architecture import Architecture, Network, Supervised
from napari_unet3d.networks.tracing import Walk
from napari_unet3d.networks.unet import UNetConfig

_THRESHOLD = 0.3
"""Probability of any class from which on a voxel is in the region: rather too many voxels than too
few, since what the first network misses is lost."""
_MARGIN = 6
"""Voxels by which the region grows along the finest axis, so that the second network sees the
surroundings of what it segments."""
_NARROWER = 2
"""The first network has so many times fewer channels."""
_PADDED = UNetConfig(
    padding="same", normalization="batch", widen_before_pool=False, keep_up_channels=False
)

Margin = Annotated[int, Field(ge=0, le=64)]


class CascadeConfig(Architecture):
    """A cascade of two U-Nets: the second one works in a region of the first (Roth et al. 2017)."""

    head: ClassVar[tuple[str, ...]] = tuple(f"second.{prefix}" for prefix in UNetConfig.head)

    kind: Literal["cascade"] = Field("cascade", description="Kind of network.")
    first: UNetConfig = Field(
        _PADDED, description="The network that finds the region: all classes against background."
    )
    second: UNetConfig = Field(_PADDED, description="The network that segments the region.")
    margin: tuple[Margin, Margin, Margin] = Field(
        (_MARGIN,) * 3, description="Voxels (z, y, x) by which the region grows on each side."
    )
    threshold: float = Field(
        _THRESHOLD, gt=0, lt=1, description="Probability from which on a voxel is in the region."
    )

    @model_validator(mode="after")
    def _networks_go_together(self) -> Self:
        if any(network.padding != "same" for network in (self.first, self.second)):
            raise ValueError("both networks of a cascade must be padded")
        if self.first.n_classes != 2 or self.second.n_classes != self.n_classes:
            raise ValueError("the first network has 2 outputs, the second one those of the cascade")
        if {self.first.in_channels, self.second.in_channels} != {self.in_channels}:
            raise ValueError("both networks must have the channels of the cascade")
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
        """Configure both networks for a stack; see `UNetConfig.plan`.

        The first one begins on a coarser grid also on a GPU, and is narrower.
        """
        padded: Preset = "balanced" if preset == "paper" else preset
        first, second = (
            UNetConfig.plan(
                padded,
                voxel_size,
                stack_shape,
                in_channels=in_channels,
                n_classes=classes,
                accelerator=on_gpu,
                normalization=normalization,
            )
            for classes, on_gpu in ((2, False), (n_classes, accelerator))
        )
        widths = tuple(width // _NARROWER for width in first.widths)
        finest = min(voxel_size)
        z, y, x = (max(1, round(_MARGIN * finest / size)) for size in voxel_size)
        return cls(
            in_channels=in_channels,
            n_classes=n_classes,
            first=first.model_copy(update={"widths": widths}),
            second=second,
            margin=(z, y, x),
        )

    def for_classes(self, n_classes: int) -> Self:
        """The same cascade with another number of outputs."""
        second = self.second.for_classes(n_classes)
        return self.model_copy(update={"n_classes": n_classes, "second": second})

    def build(self) -> Cascade:
        """Make both networks with random weights."""
        return Cascade(self)

    def stride(self) -> Triple:
        """Voxels of the input per voxel of the coarsest map, along z, y and x."""
        z, y, x = map(lcm, self.first.stride(), self.second.stride())
        return z, y, x

    def walk(self, tile: Triple) -> Walk:
        """Follow a tile through both networks; see `Architecture.walk`."""
        return tracing.walk(self, tile, (0, 0, 0))

    def fits(self, axis: int, size: int) -> bool:
        """Whether both networks take tiles of `size` voxels along `axis`."""
        return self.first.fits(axis, size) and self.second.fits(axis, size)

    def receptive_field(self) -> Triple:
        """Input voxels that one output voxel depends on at most, along z, y and x."""
        first, second = self.first.receptive_field(), self.second.receptive_field()
        z, y, x = (max(a + 2 * m, b) for a, b, m in zip(first, second, self.margin, strict=True))
        return z, y, x


class Cascade(Network):
    """A cascade of two U-Nets in one.

    Where the first network finds nothing, and around it, the second one does not run. In training
    it learns from the labelled voxels of the region alone, as it will be used; but it runs on whole
    patches there, and on the box of the region later, so its padding lies elsewhere.

    Parameters
    ----------
    config
        Both networks, and how the region grows.
    """

    config: CascadeConfig

    def __init__(self, config: CascadeConfig) -> None:
        super().__init__(config)
        self.first = config.first.build()
        self.second = config.second.build()

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) → logits (N, n_classes, Z, Y, X)."""
        logits = self._spread(self.first(x))
        region = self.region(logits)
        if x.is_meta:  # shapes are asked for, and there are no values
            return torch.where(region, self.second(x), logits)
        box = self._box(region)
        if box is None:
            return logits
        inner = (slice(None), slice(None), *box)
        second = self.second(x[inner]).to(logits.dtype)
        logits[inner] = torch.where(region[inner], second, logits[inner])
        return logits

    def supervised(self, x: Tensor) -> Supervised:
        """The outputs of both networks: that of the second one counts in the region only."""
        first = self.first(x)
        spread = self._spread(first)
        # Outside the region, nothing is learned from a constant.
        both = torch.where(self.region(spread), self.second(x), spread.detach())
        return (0.5, spread), (0.5, both)

    def region(self, logits: Tensor) -> Tensor:
        """Where the second network works, (N, 1, Z, Y, X), from the logits of the first one."""
        found = 1 - logits.detach().float().softmax(1)[:, :1] > self.config.threshold
        grown = found.float()
        for axis, n in enumerate(self.config.margin):
            kernel, padding = [1, 1, 1], [0, 0, 0]
            kernel[axis], padding[axis] = 2 * n + 1, n
            grown = functional.max_pool3d(grown, kernel, stride=1, padding=padding)
        return grown > 0

    def _spread(self, logits: Tensor) -> Tensor:
        """Logits of all classes from those of background and foreground, which they share."""
        others = self.config.n_classes - 1
        foreground = (logits[:, 1:] - log(others)).expand(-1, others, -1, -1, -1)
        return torch.cat([logits[:, :1], foreground], 1)

    def _box(self, region: Tensor) -> tuple[slice, slice, slice] | None:
        """The smallest box of whole steps of the second network that holds a region."""
        found = region.any(0)[0]
        if not found.any():
            return None
        # A map of a single voxel cannot be normalized: the box has two steps along an axis.
        slices, lengths = [], region.shape[2:]
        steps = self.config.second.stride()
        for axis, step in enumerate(steps):
            other = tuple(a for a in range(3) if a != axis)
            indices = found.any(other[1]).any(other[0]).nonzero()
            low, high = int(indices[0]), int(indices[-1]) + 1
            slices.append(slice(low // step * step, -(-high // step) * step))
        if all(s.stop - s.start == step for s, step in zip(slices, steps, strict=True)):
            axis = max(range(3), key=lambda a: lengths[a] // steps[a])
            first = min(slices[axis].start, max(0, lengths[axis] - 2 * steps[axis]))
            slices[axis] = slice(first, min(first + 2 * steps[axis], lengths[axis]))
        z, y, x = slices
        return z, y, x
