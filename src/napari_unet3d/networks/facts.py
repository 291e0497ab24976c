"""What a network costs and sees, for whoever chooses one."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Self

from napari_unet3d.config import Triple
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.geometry import (
    output_shape,
    parameter_count,
    receptive_field,
    walk,
)
from napari_unet3d.networks.planning import plan_patches, prediction_bytes, training_bytes

_MEMORY = 1 << 34
"""Bytes that are free for a patch: 16 GiB, so that no patch is smaller than it should be."""


@dataclass(frozen=True)
class NetworkFacts:
    """A network in numbers, in fp32.

    Attributes
    ----------
    kind
        Its kind.
    description
        What it is, in a sentence.
    parameters
        Weights and biases, those of normalizations left out.
    receptive_field
        Voxels (z, y, x) that an output voxel depends on at most.
    patch
        Voxels (z, y, x) of a training patch on a slice along z.
    training_bytes, prediction_bytes
        Memory for the maps of such a patch while training, and while predicting.
    multiply_adds
        Of a forward pass, for each voxel of the output.
    """

    kind: str
    description: str
    parameters: int
    receptive_field: Triple
    patch: Triple
    training_bytes: int
    prediction_bytes: int
    multiply_adds: float

    @classmethod
    def of(cls, network: Architecture, stack_shape: Triple, *, accelerator: bool) -> Self:
        """Facts of a network for a stack of a shape (Z, Y, X), on a CPU or an accelerator."""
        patch = plan_patches(network, stack_shape, accelerator, _MEMORY, "fp32")[0]
        work = sum(layer.multiply_adds for layer in walk(network, patch)[0])
        return cls(
            kind=network.kind,
            description=(type(network).__doc__ or "").partition("\n")[0],
            parameters=parameter_count(network),
            receptive_field=receptive_field(network),
            patch=patch,
            training_bytes=training_bytes(network, patch, "fp32", accelerator),
            prediction_bytes=prediction_bytes(network, patch, "fp32", accelerator),
            multiply_adds=work / prod(output_shape(network, patch)),
        )
