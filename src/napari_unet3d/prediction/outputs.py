"""Every output of a prediction.

To add an output, write a subclass of `output.Output` and add an instance of it to `OUTPUTS`. It is
then a keyword of `predict`, an option of the command line and a check box of the window.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import BACKGROUND, ClassInfo
from napari_unet3d.errors import BadInputError
from napari_unet3d.prediction.output import LayerOptions, Output, by_voxel, output_table

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Labels(Output):
    """The number of the most probable class (`ClassInfo.output_value`), 0 for background."""

    name = "labels"
    help = "The segmentation: 0 background, classes by their numbers."
    title = "The segmentation"
    tooltip = "A Labels layer: 0 background, classes by their numbers."
    dtype = "uint8"
    of_classes = True
    optional = False

    def block(self, probabilities: Tensor, classes: Sequence[ClassInfo]) -> NDArray[Any]:
        """See `Output.block`."""
        import torch

        numbers = torch.from_numpy(output_table(classes)).to(probabilities.device)
        return by_voxel(probabilities, self.dtype, lambda part: numbers[part.argmax(0)])

    def layers(self, classes: Sequence[ClassInfo]) -> tuple[LayerOptions, ...]:
        """See `Output.layers`."""
        return (LayerOptions("labels", self.name),)

    def check_dtype(self, dtype: np.dtype[Any], classes: Sequence[ClassInfo]) -> None:
        """Raise `BadInputError` when it is not an integer type that holds every number."""
        highest = max((c.output_value for c in classes), default=BACKGROUND)
        if dtype.kind not in "iu" or np.iinfo(dtype).max < highest:
            raise BadInputError(
                f"the array for {self.name} has dtype {dtype}, it must be an integer type that "
                f"holds {highest}"
            )


@dataclass(frozen=True)
class Probabilities(Output):
    """The probability of background and of each class, one channel each; their sum is 1."""

    name = "probabilities"
    help = "Also write probabilities here: one channel per class, background first."
    title = "Also make probability images"
    tooltip = "One hidden Image layer for each class, from 0 to 1."
    dtype = "float32"
    of_classes = True

    def block(self, probabilities: Tensor, classes: Sequence[ClassInfo]) -> NDArray[Any]:
        """See `Output.block`."""
        array: NDArray[Any] = probabilities.cpu().numpy()
        return array

    def channel_names(self, classes: Sequence[ClassInfo]) -> tuple[str, ...]:
        """Background and the classes."""
        return ("background", *(c.name for c in classes))

    def layers(self, classes: Sequence[ClassInfo]) -> tuple[LayerOptions, ...]:
        """See `Output.layers`."""
        return tuple(
            LayerOptions("image", f"probability of {c.name}", channel=i, colormap=c.color)
            for i, c in enumerate(classes, start=1)
        )


@dataclass(frozen=True)
class Uncertainty(Output):
    """Entropy of the probabilities, relative to the largest possible: 0 sure … 1 undecided."""

    name = "uncertainty"
    help = "Also write an uncertainty image (0…1) here."
    title = "Also make an uncertainty image"
    tooltip = "A hidden Image layer: 0 sure, 1 undecided."
    dtype = "float32"

    def block(self, probabilities: Tensor, classes: Sequence[ClassInfo]) -> NDArray[Any]:
        """See `Output.block`."""
        import torch

        def entropy(part: Tensor) -> Tensor:
            relative: Tensor = torch.special.entr(part).sum(0) / math.log(len(part))
            return relative.clamp(0, 1)

        return by_voxel(probabilities, self.dtype, entropy)

    def layers(self, classes: Sequence[ClassInfo]) -> tuple[LayerOptions, ...]:
        """See `Output.layers`."""
        return (LayerOptions("image", self.name, colormap="magma"),)


OUTPUTS: tuple[Output, ...] = (Labels(), Probabilities(), Uncertainty())
"""Every output there is, the labels first."""


def optional_outputs() -> tuple[Output, ...]:
    """The outputs that are made only when they are asked for."""
    return tuple(output for output in OUTPUTS if output.optional)


def chosen_outputs(names: Collection[str]) -> tuple[Output, ...]:
    """The outputs that are always made, and those with these names.

    Raises
    ------
    BadInputError
        No output has one of these names.
    """
    known = [output.name for output in optional_outputs()]
    for name in names:
        if name not in known:
            raise BadInputError(f"'{name}' is not an output; outputs are {', '.join(known)}")
    return tuple(output for output in OUTPUTS if not output.optional or output.name in names)
