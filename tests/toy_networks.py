"""Networks that the product has never heard of, for tests of what it promises for any network."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from napari_unet3d.networks.architecture import Architecture, Network
from napari_unet3d.networks.layers import Convolution, Pool, normalization


class _Toy(Architecture):
    """Planned without regard to the stack."""

    @classmethod
    def plan(cls, preset, voxel_size, stack_shape, *, in_channels, n_classes, accelerator,
             normalization=None) -> Self:  # fmt: skip
        return cls(in_channels=in_channels, n_classes=n_classes)


class Plain(_Toy):
    """Three convolutions in a row."""

    kind: Literal["plain"] = Field("plain", description="Kind of network.")
    width: int = Field(4, ge=1, description="Channels between the convolutions.")
    kernels: tuple[int, int, int] = Field((3, 5, 3), description="Kernel of each convolution.")
    padded: bool = Field(True, description="Whether the output is as large as the tile.")

    def build(self) -> Network:
        return _Plain(self)


class _Plain(Network):
    def __init__(self, config: Plain) -> None:
        super().__init__(config)
        a, b, c = config.kernels
        pad = [k // 2 if config.padded else 0 for k in config.kernels]
        self.body = nn.Sequential(
            Convolution(config.in_channels, config.width, a, padding=pad[0]),
            normalization("batch", config.width),
            nn.ReLU(),
            Convolution(config.width, config.width, b, padding=pad[1]),
            nn.ReLU(),
        )
        self.head = Convolution(config.width, config.n_classes, c, padding=pad[2])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


class Branches(_Toy):
    """Two branches that are pooled and added; up-sampled by a function, not a module.

    Along z nothing is pooled.
    """

    head = "out."
    kind: Literal["branches"] = Field("branches", description="Kind of network.")
    attention: bool = Field(True, description="Whether channels are weighted by the whole tile.")

    def build(self) -> Network:
        return _Branches(self)


class _Branches(Network):
    config: Branches

    def __init__(self, config: Branches) -> None:
        super().__init__(config)
        self.start = Convolution(config.in_channels, 4, 3, padding=1)
        self.main = nn.Sequential(
            nn.Conv3d(4, 4, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            nn.Conv3d(4, 4, 3, padding=2, dilation=2),
        )
        self.side = nn.Sequential(Pool((1, 2, 2)), nn.Conv3d(4, 4, 1))
        # A map of one voxel whatever the tile.
        self.attention = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Conv3d(4, 4, 1), nn.Sigmoid())
        self.norm = normalization("channel", 4)
        self.out = nn.Conv3d(4, config.n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.start(x)
        y = self.norm(self.main(x) + self.side(x))
        if self.config.attention:
            y = y * self.attention(y)
        y = functional.interpolate(y, scale_factor=(1, 2, 2), mode="trilinear")
        return self.out(y)


def influence(config: Architecture, tile: tuple[int, int, int], axis: int) -> int:
    """Input voxels that reach one output voxel, at most: not-a-number spreads wherever it is used.

    Normalizations over space and attention spread it everywhere, so none may be in the network.
    """
    network = config.build().eval()
    reach: dict[int, list[int]] = {}
    with torch.inference_mode():
        for position in range(tile[axis]):
            x = torch.zeros(1, config.in_channels, *tile)
            x.select(axis + 2, position)[...] = torch.nan
            out = network(x)[0, 0].isnan().movedim(axis, 0).flatten(1).any(1)
            for voxel in out.nonzero().flatten().tolist():
                reach.setdefault(voxel, []).append(position)
    return max(max(seen) - min(seen) + 1 for seen in reach.values())
