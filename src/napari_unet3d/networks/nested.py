"""U-Net++ in 3D: nested, dense skips (Zhou et al. 2018)."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from napari_unet3d.networks.architecture import Network, Supervised
from napari_unet3d.networks.grids import ONES
from napari_unet3d.networks.layers import Join, Pool
from napari_unet3d.networks.levels import (
    ConvolutionBlock,
    LevelsConfig,
    head,
    initialize,
    up_convolution,
)


class NestedUNetConfig(LevelsConfig):
    """A U-Net++ (Zhou et al. 2018)."""

    kind: Literal["unet_plus_plus"] = Field("unet_plus_plus", description="Kind of network.")
    deep_supervision: bool = Field(
        True,
        description="Each nested U-Net has a head of its own, and the mean of their logits counts; "
        "otherwise the deepest one decides.",
    )
    pruned: int | None = Field(
        None,
        ge=1,
        description="Poolings of the deepest nested U-Net that is kept; all of them when empty. A "
        "pruned network is quicker; it needs deep supervision.",
    )

    @model_validator(mode="after")
    def _can_be_pruned(self) -> Self:
        depth = len(self.strides)
        if self.pruned is not None and not (self.deep_supervision and self.pruned <= depth):
            raise ValueError(
                f"a network of {depth} poolings, "
                f"{'with' if self.deep_supervision else 'without'} deep supervision, cannot be "
                f"pruned to {self.pruned}"
            )
        return self

    @property
    def depth(self) -> int:
        """Poolings of the deepest nested U-Net."""
        return self.pruned or len(self.strides)

    def build(self) -> NestedUNet3D:
        """Make the network with random weights."""
        return NestedUNet3D(self)


class NestedUNet3D(Network):
    """U-Net++ in 3D.

    Block j of level i gets all blocks of its level before it and, up-sampled, block j - 1 of the
    level below: x[i, j] = H(x[i, 0], …, x[i, j - 1], U(x[i + 1, j - 1])) (Zhou et al. 2018, eq. 1).
    So the blocks of the finest level end nested U-Nets of 1, 2, … poolings.

    Parameters
    ----------
    config
        Widths, pooling, kernels, normalization, deep supervision, pruning.
    """

    config: NestedUNetConfig

    def __init__(self, config: NestedUNetConfig) -> None:
        super().__init__(config)
        widths, depth = config.widths, config.depth
        self.blocks, self.ups, self.pools = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleList()
        for i in range(depth + 1):
            before = widths[i - 1] if i else config.in_channels
            kernel, step = config.kernels[i], ONES if i else config.stem
            self.blocks[f"{i}_0"] = ConvolutionBlock(
                (before, widths[i], widths[i]), kernel, config, step
            )
        for i in range(depth):
            stride = config.strides[i]
            self.pools.append(Pool(stride))
            for j in range(1, depth - i + 1):
                self.ups[f"{i}_{j}"] = up_convolution(widths[i + 1], widths[i], stride, config)
                channels = ((j + 1) * widths[i], widths[i], widths[i])
                self.blocks[f"{i}_{j}"] = ConvolutionBlock(channels, config.kernels[i], config)
        first = 1 if config.deep_supervision else depth
        self.head = nn.ModuleDict(
            {
                str(j): head(widths[0], config.n_classes, config.stem)
                for j in range(first, depth + 1)
            }
        )
        self.join = Join()
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) → mean of the heads' logits (N, n_classes, Z, Y, X)."""
        return torch.stack(self.logits(x)).mean(0)

    def supervised(self, x: Tensor) -> Supervised:
        """The output of each head; all count alike (Zhou et al. 2018, sec. 3.2)."""
        logits = self.logits(x)
        return tuple((1 / len(logits), each) for each in logits)

    def logits(self, x: Tensor) -> list[Tensor]:
        """(N, in_channels, Z, Y, X) → logits (N, n_classes, Z, Y, X) of each head."""
        depth = self.config.depth
        levels: list[list[Tensor]] = []
        for i in range(depth + 1):
            x = self.run(self.blocks[f"{i}_0"], x)
            levels.append([x])
            if i < depth:
                x = self.pools[i](x)
            # As soon as the level below is there, each level above gets its next block.
            for k in reversed(range(i)):
                j = i - k
                up = self.ups[f"{k}_{j}"](levels[k + 1][j - 1])
                joined = self.join(*levels[k], up)
                levels[k].append(self.run(self.blocks[f"{k}_{j}"], joined))
        return [head(levels[0][int(j)]) for j, head in self.head.items()]
