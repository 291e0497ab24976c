"""2D U-Nets that see one slice at a time, the baseline of Çiçek et al. 2016, sec. 3.2."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from napari_unet3d.config import AXIS_NAMES, SmallTriple, Triple
from napari_unet3d.networks.architecture import Network
from napari_unet3d.networks.layers import normalize_each_slice
from napari_unet3d.networks.levels import LevelsConfig, LevelsNetwork


class SliceUNetConfig(LevelsConfig):
    """A 2D U-Net, slice by slice, in one orientation or the mean of all three."""

    head: ClassVar[tuple[str, ...]] = tuple(f"networks.{name}.head." for name in AXIS_NAMES)

    kind: Literal["unet_2d"] = Field("unet_2d", description="Kind of network.")
    orientation: Literal["z", "y", "x", "mean"] = Field(
        "z",
        description="Axis that the slices are perpendicular to; 'mean' has a network for each, and "
        "the mean of their probabilities counts.",
    )

    def build(self) -> SliceUNet:
        """Make the network with random weights."""
        return SliceUNet(self)

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes that slices are perpendicular to."""
        return (
            tuple(range(3)) if self.orientation == "mean" else (AXIS_NAMES.index(self.orientation),)
        )

    def stride(self) -> Triple:
        """Voxels of the input per voxel of the coarsest map, along z, y and x."""
        each = [self.across(axis) for axis in self.axes]
        z, y, x = (max(LevelsConfig.stride(config)[a] for config in each) for a in range(3))
        return z, y, x

    def receptive_field(self) -> Triple:
        """Input voxels that one output voxel depends on at most, along z, y and x."""
        if len(self.axes) == 1:
            return super().receptive_field()
        alone = (self.model_copy(update={"orientation": AXIS_NAMES[axis]}) for axis in self.axes)
        z, y, x = map(max, *(config.receptive_field() for config in alone))
        return z, y, x

    def across(self, axis: int) -> LevelsConfig:
        """The 2D U-Net of one orientation: nothing is pooled or convolved along `axis`."""

        def flat(triple: SmallTriple) -> SmallTriple:
            z, y, x = (1 if a == axis else n for a, n in enumerate(triple))
            return z, y, x

        return self.model_copy(
            update={
                "stem": flat(self.stem),
                "strides": tuple(map(flat, self.strides)),
                "kernels": tuple(map(flat, self.kernels)),
            }
        )


class SliceUNet(Network):
    """2D U-Nets that are applied to all slices of a tile.

    A network of one orientation is a 3D network whose kernels and poolings are one voxel thick, so
    training, tiling and prediction are those of any other. Norms by the statistics of a tile take
    those of each slice.

    Parameters
    ----------
    config
        Widths, pooling, kernels, normalization, orientation.
    """

    config: SliceUNetConfig

    def __init__(self, config: SliceUNetConfig) -> None:
        super().__init__(config)
        self.networks = nn.ModuleDict(
            {AXIS_NAMES[axis]: LevelsNetwork(config.across(axis)) for axis in config.axes}
        )
        for axis in config.axes:
            normalize_each_slice(self.networks[AXIS_NAMES[axis]], axis)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) → logits (N, n_classes, Z, Y, X)."""
        logits = [network(x) for network in self.networks.values()]
        if len(logits) == 1:
            alone: Tensor = logits[0]
            return alone
        log_probabilities = torch.stack([each.float().log_softmax(1) for each in logits])
        return log_probabilities.logsumexp(0)  # up to a constant, the mean of the probabilities
