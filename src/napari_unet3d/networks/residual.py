"""A 3D U-Net whose levels have residual blocks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from napari_unet3d.config import Triple
from napari_unet3d.networks.grids import ONES
from napari_unet3d.networks.layers import normalization
from napari_unet3d.networks.levels import (
    ConvolutionBlock,
    LevelsConfig,
    LevelsNetwork,
    convolution,
)


class ResidualUNetConfig(LevelsConfig):
    """A 3D U-Net with residual blocks (He et al. 2016; Zhang et al. 2018), post-activation."""

    kind: Literal["residual_unet"] = Field("residual_unet", description="Kind of network.")

    def build(self) -> ResidualUNet3D:
        """Make the network with random weights."""
        return ResidualUNet3D(self)


class ResidualUNet3D(LevelsNetwork):
    """3D U-Net with residual blocks.

    Parameters
    ----------
    config
        Widths, pooling, kernels, normalization.
    """

    def block(self, channels: tuple[int, int, int], level: int, step: Triple = ONES) -> nn.Module:
        """The residual block of a level."""
        return _ResidualBlock(channels, self.config.kernels[level], self.config, step)


class _ResidualBlock(nn.Module):
    """Two convolutions whose result is added to the input: y = relu(f(x) + g(x)).

    f is convolution, normalization, ReLU, convolution, normalization; g is a convolution of single
    voxels, so that both have as many channels. Post-activation: ReLU follows the sum (He et al.
    2016, CVPR, Fig. 2).
    """

    def __init__(
        self, channels: tuple[int, int, int], kernel: Triple, config: LevelsConfig, step: Triple
    ) -> None:
        super().__init__()
        first, middle, last = channels
        self.first = ConvolutionBlock((first, middle), kernel, config, step)
        self.second = nn.Sequential(
            convolution(middle, last, kernel), normalization(config.normalization, last)
        )
        self.shortcut = convolution(first, last, ONES, step)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, Z, Y, X) → (N, C', Z', Y', X')."""
        y: Tensor = self.relu(self.second(self.first(x)) + self.shortcut(x))
        return y
