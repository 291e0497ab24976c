"""A 3D U-Net with attention gates on its skips (Oktay et al. 2018)."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from napari_unet3d.config import Triple
from napari_unet3d.networks.layers import Convolution, Resize
from napari_unet3d.networks.levels import LevelsConfig, LevelsNetwork, initialize

_NEVER = -100.0
"""Logit of a class that is not shown: its probability is 0."""


class AttentionUNetConfig(LevelsConfig):
    """A 3D U-Net with attention gates (Oktay et al. 2018, sec. 3)."""

    kind: Literal["attention_unet"] = Field("attention_unet", description="Kind of network.")
    gate: int | None = Field(
        None,
        ge=1,
        description="Level of a gate, 1 for the finest, whose weights a prediction shows as the "
        "probability of the first class; empty for classes.",
    )

    @model_validator(mode="after")
    def _gate_is_there(self) -> Self:
        if self.gate is not None and self.gate >= len(self.strides):
            raise ValueError(f"the network has gates 1 to {len(self.strides) - 1}, not {self.gate}")
        return self

    @property
    def shows_maps(self) -> bool:
        """Whether a prediction shows a gate instead of classes."""
        return self.gate is not None

    def build(self) -> AttentionUNet3D:
        """Make the network with random weights."""
        return AttentionUNet3D(self)


class AttentionUNet3D(LevelsNetwork):
    """3D U-Net whose skips pass an attention gate, but for the finest one.

    The coarser map of the decoder tells a gate what matters at a place. The finest skip is not
    gated, since its features are of single edges (Oktay et al. 2018, sec. 3.2).

    Parameters
    ----------
    config
        Widths, pooling, kernels, normalization.
    """

    config: AttentionUNetConfig

    def __init__(self, config: AttentionUNetConfig) -> None:
        super().__init__(config)
        self.gates = nn.ModuleDict(
            {
                str(level): AttentionGate(config.widths[level], config.widths[level + 1], stride)
                for level, stride in enumerate(config.strides)
                if level
            }
        )
        initialize(self.gates)

        self._weights: Tensor | None = None
        self.resize = Resize()

    def skip(self, level: int, skip: Tensor, below: Tensor) -> Tensor:
        """The skip, as far as the gate of its level lets it pass."""
        if not level:
            return skip
        gate: AttentionGate = self.gates[str(level)]  # type: ignore[assignment]
        weights = gate.weights(skip, below)
        if level == self.config.gate:
            self._weights = weights
        return skip * weights

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, Z, Y, X) → logits (N, n_classes, Z, Y, X), or those of a gate."""
        logits = super().forward(x)
        if self._weights is None:
            return logits
        weights, self._weights = self.resize(self._weights, logits), None
        shown = torch.full_like(logits, _NEVER)
        shown[:, :1], shown[:, 1:2] = (1 - weights).log(), weights.log()
        return shown


class AttentionGate(nn.Module):
    """Weighs a skip by α = σ(ψ(relu(θ(x) + φ(g)))), between 0 and 1 at each voxel.

    θ steps like the pooling below the skip and has no bias; φ and ψ see single voxels (Oktay et al.
    2018, eq. 1 and 2).

    Parameters
    ----------
    channels
        Channels of the skip.
    gating
        Channels of the coarser map.
    stride
        Pooling (z, y, x) between the two.
    """

    def __init__(self, channels: int, gating: int, stride: Triple) -> None:
        super().__init__()
        self.theta = Convolution(channels, channels, stride, stride, bias=False)
        self.phi = Convolution(gating, channels, 1)
        self.psi = Convolution(channels, 1, 1)
        self.resize = Resize()

    def weights(self, skip: Tensor, below: Tensor) -> Tensor:
        """α of each voxel, (N, 1, Z, Y, X) of the shape of the skip."""
        # θ steps by the pooling, so both have the size of the coarser map.
        q = self.psi(functional.relu(self.theta(skip) + self.phi(below)))
        weights: Tensor = self.resize(torch.sigmoid(q), skip)
        return weights

    def forward(self, skip: Tensor, below: Tensor) -> Tensor:
        """(N, C, Z, Y, X) and (N, C', Z', Y', X') → the skip, weighed."""
        return skip * self.weights(skip, below)
