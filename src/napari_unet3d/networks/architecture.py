"""What the product needs from a network, whichever it is.

A network is one file beside this one: a subclass of `Architecture`, which is its configuration, and
a subclass of `Network`, which `Architecture.build` makes. `networks/__init__.py` lists them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Self

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from napari_unet3d.config import Normalization, Preset, Triple, VoxelSize
from napari_unet3d.networks import tracing
from napari_unet3d.networks.tracing import Walk


@dataclass(frozen=True)
class PresetFacts:
    """What a preset means for the training of a network.

    Attributes
    ----------
    learning_rate
        Peak learning rate of AdamW; other optimizers have rates of their own.
    pixel_classifier
        Whether the pixel classifier may support the network.
    """

    learning_rate: float
    pixel_classifier: bool


PRESETS: Mapping[Preset, PresetFacts] = MappingProxyType(
    {
        "fast": PresetFacts(learning_rate=5e-3, pixel_classifier=True),
        "balanced": PresetFacts(learning_rate=3e-3, pixel_classifier=True),
        # The paper's network is trained as the paper describes it, alone.
        "paper": PresetFacts(learning_rate=1e-3, pixel_classifier=False),
    }
)
"""Facts of each preset, for networks that state no others."""


Supervised = tuple[tuple[float, Tensor], ...]
"""Weights, whose sum is 1, and logits (N, n_classes, Z', Y', X')."""


class Network(nn.Module):
    """A network: (N, in_channels, Z, Y, X) → logits (N, n_classes, Z', Y', X').

    The output lies at the center of the input. An unpadded network gives fewer voxels than it
    takes.

    Parameters
    ----------
    config
        The configuration that describes it.
    """

    def __init__(self, config: Architecture) -> None:
        super().__init__()
        self.config = config
        self.recomputes = False
        """Whether the maps within a block are computed again in the backward pass."""

    def run(self, block: nn.Module, x: Tensor) -> Tensor:
        """Apply a block, whose maps need not be kept where the network recomputes them."""
        if not (self.recomputes and self.training and torch.is_grad_enabled()):
            y: Tensor = block(x)
            return y
        again: Tensor = checkpoint(block, x, use_reentrant=False)
        return again

    def enter(self, config: Architecture) -> None:
        """Work for the domain that a configuration has active; most networks have only one."""

    def supervised(self, x: Tensor) -> Supervised:
        """What is compared with the labels in training: outputs, and how much each counts.

        By default, the output of a prediction alone.

        Parameters
        ----------
        x
            (N, in_channels, Z, Y, X) gray values.
        """
        return ((1.0, self(x)),)


class Architecture(BaseModel):
    """Configuration of a network, and how it is built, planned and measured.

    A subclass gives `kind` a `Literal` type with a default, adds its own fields, and defines
    `build` and `plan`. The other methods find shapes by tracing the network; a subclass may
    replace them with arithmetic that gives the same answers faster.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: ClassVar[str | tuple[str, ...]] = "head."
    """Prefix, or prefixes, of the parameters whose shapes depend on the number of classes. They are
    made anew when a network is fine-tuned for other classes."""
    presets: ClassVar[Mapping[Preset, PresetFacts]] = PRESETS

    not_chosen: ClassVar[frozenset[str]] = frozenset()
    """Fields that follow from a training; a user cannot choose them."""

    kind: str = Field(description="Kind of network.")
    in_channels: int = Field(1, ge=1, le=64, description="Image channels.")
    n_classes: int = Field(2, ge=2, le=255, description="Outputs, background included.")

    @classmethod
    @abstractmethod
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
        """Configure a network for a stack.

        Parameters
        ----------
        preset
            What the user chose: a quick preview, the best per minute, or the 2016 layout.
        voxel_size
            (z, y, x), any unit.
        stack_shape
            (Z, Y, X), voxels.
        in_channels, n_classes
            Image channels; outputs, background included.
        accelerator
            Whether the network will run on a GPU.
        normalization
            Takes the place of the preset's.
        """

    @classmethod
    def is_available(cls) -> bool:
        """Whether what it needs is installed."""
        return True

    @property
    def shows_maps(self) -> bool:
        """Whether a prediction shows maps from within the network instead of classes."""
        return False

    @property
    def head_prefixes(self) -> tuple[str, ...]:
        """`head`, for this configuration."""
        return (self.head,) if isinstance(self.head, str) else self.head

    def for_classes(self, n_classes: int) -> Self:
        """The same network with another number of outputs."""
        return self.model_copy(update={"n_classes": n_classes})

    @abstractmethod
    def build(self) -> Network:
        """Make the network with random weights."""

    def walk(self, tile: Triple) -> Walk:
        """Follow a tile through the network.

        Parameters
        ----------
        tile
            Shape (z, y, x) of the input, voxels.

        Returns
        -------
        layers, output shape
            Layers in the order of the forward pass.

        Raises
        ------
        ValueError
            The network does not take such a tile.
        """
        return tracing.walk(self, tile)

    def fits(self, axis: int, size: int) -> bool:
        """Whether the network takes tiles of `size` voxels along `axis`."""
        return tracing.fits(self, axis, size)

    def stride(self) -> Triple:
        """Voxels of the input per voxel of the coarsest map, along z, y and x."""
        return tracing.measured(self).stride

    def receptive_field(self) -> Triple:
        """Input voxels that one output voxel depends on at most, along z, y and x.

        Exact where layers follow each other, as in a plain network or a U-Net. Where branches
        run in parallel their reaches are added, which gives an upper bound.
        """
        return tracing.receptive_field(self)

    def parameter_count(self) -> int:
        """Parameters of the network, those of normalizations left out."""
        return tracing.parameter_count(self)
