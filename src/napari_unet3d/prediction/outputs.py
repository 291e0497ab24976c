"""What a prediction writes: one class for each output.

To add an output, write a subclass of `Output` and add an instance of it to `OUTPUTS`. It is then a
keyword of `predict`, an option of the command line and a check box of the window.

torch is imported where it is used: the command line makes its options from `OUTPUTS` at its start.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import BACKGROUND, ClassInfo
from napari_unet3d.data.boxes import plan_blocks
from napari_unet3d.errors import BadInputError

if TYPE_CHECKING:
    from torch import Tensor

    from napari_unet3d.data.volume import Volume

_VALUES_AT_ONCE = 1 << 24
"""Probabilities that are converted at once: the temporary copies take at most 0.2 GB."""


@dataclass(frozen=True)
class LayerOptions:
    """How a viewer shows an output, or one channel of it.

    Attributes
    ----------
    kind
        'labels' for numbers of classes, which have the colors of the classes; or 'image'.
    suffix
        End of the layer's name, after the name of the prediction and a colon.
    channel
        Index of the channel that the layer shows; None for an output without channels.
    colormap
        Name of a colormap, or ``#rrggbb`` for a ramp from black to this color; images only.
    contrast_limits
        Values that are shown darkest and brightest; images only.
    """

    kind: Literal["labels", "image"]
    suffix: str
    channel: int | None = None
    colormap: str = "gray"
    contrast_limits: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Output(ABC):
    """An array that `predict` fills, made from the probabilities of the classes.

    Attributes
    ----------
    name
        Keyword of `predict`, and option of the command line. A Python identifier.
    help
        Help of the option, a sentence.
    title, tooltip
        Text and tooltip of the check box in the window.
    dtype
        Of the arrays that the program makes for it. An array of the user may have another type
        of the same kind.
    of_classes
        Whether the voxels are numbers of the classes, or the channels are background and the
        classes: files then name and color them.
    optional
        Whether the output is made only when it is asked for. The labels always are.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    title: ClassVar[str]
    tooltip: ClassVar[str]
    dtype: ClassVar[str]
    of_classes: ClassVar[bool] = False
    optional: ClassVar[bool] = True

    @abstractmethod
    def block(self, probabilities: Tensor, classes: Sequence[ClassInfo]) -> NDArray[Any]:
        """The output for one box.

        Parameters
        ----------
        probabilities
            (K, z, y, x) float32 on any device; K = background and the classes. Not to be changed.
        classes
            The foreground classes of the model.

        Returns
        -------
        ndarray
            (z, y, x), or (channels, z, y, x) for an output with channels.
        """

    @abstractmethod
    def layers(self, classes: Sequence[ClassInfo]) -> tuple[LayerOptions, ...]:
        """The layers that show this output."""

    def channel_names(self, classes: Sequence[ClassInfo]) -> tuple[str, ...]:
        """One name for each channel; empty for an output without a channel axis."""
        return ()

    def axes(self, volume: Volume, classes: Sequence[ClassInfo]) -> str:
        """Axes of the array for a volume: ZYX, after T for a series and C for channels."""
        time = "T" if "T" in volume.axes else ""
        return f"{time}{'C' if self.channel_names(classes) else ''}ZYX"

    def shape(self, volume: Volume, classes: Sequence[ClassInfo]) -> tuple[int, ...]:
        """Shape of the array for a volume, in the order of `axes`."""
        times = (volume.n_times,) if "T" in volume.axes else ()
        names = self.channel_names(classes)
        return (*times, *((len(names),) if names else ()), *volume.shape)

    def values_per_voxel(self, classes: Sequence[ClassInfo]) -> int:
        """Number of channels, 1 without a channel axis."""
        return len(self.channel_names(classes)) or 1

    def bytes_per_voxel(self, classes: Sequence[ClassInfo]) -> int:
        """Bytes that one voxel takes in an array that the program makes."""
        return np.dtype(self.dtype).itemsize * self.values_per_voxel(classes)

    def file_options(self, classes: Sequence[ClassInfo]) -> dict[str, Any]:
        """What a file says about the output: keywords of `data.io.outputs.create_output`."""
        if self.of_classes:
            return {"classes": tuple(classes)}
        return {"channel_names": self.channel_names(classes) or (self.name,)}

    def check(self, array: Any, volume: Volume, classes: Sequence[ClassInfo]) -> None:
        """Check that an array can take the output of a volume.

        Raises
        ------
        BadInputError
            The array has another shape, or a type that cannot hold the values.
        """
        shape = self.shape(volume, classes)
        if tuple(array.shape) != shape:
            raise BadInputError(
                f"the array for {self.name} has shape {tuple(array.shape)}, it must be {shape}"
            )
        self.check_dtype(np.dtype(array.dtype), classes)

    def check_dtype(self, dtype: np.dtype[Any], classes: Sequence[ClassInfo]) -> None:
        """Raise `BadInputError` when the values cannot be stored as this type."""
        wanted, given = np.dtype(self.dtype), dtype
        if given.kind == "f" if wanted.kind == "f" else np.can_cast(wanted, given):
            return
        kind = "a floating-point type" if wanted.kind == "f" else f"a type that holds {wanted}"
        raise BadInputError(f"the array for {self.name} has dtype {given}, it must be {kind}")


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


def by_voxel(
    probabilities: Tensor, dtype: str, function: Callable[[Tensor], Tensor]
) -> NDArray[Any]:
    """An output without channels, computed in parts, so that temporary tensors stay small.

    Parameters
    ----------
    probabilities
        (K, z, y, x).
    dtype
        Of the array that is returned.
    function
        Takes the probabilities (K, z, y, x) of a part, and returns its values (z, y, x). A voxel
        must depend on its own probabilities only.
    """
    k, z, y, x = probabilities.shape
    values = np.empty((z, y, x), dtype)
    for part in plan_blocks((z, y, x), (1, 1, 1), max(_VALUES_AT_ONCE // k, 1)):
        own = probabilities[(slice(None), *part.slices)]
        values[part.slices] = function(own).cpu().numpy()
    return values


def label_table(classes: Sequence[ClassInfo]) -> NDArray[np.uint8]:
    """The number in the annotation of background (0) and each class, by index of probability."""
    return np.array([0, *(c.value for c in classes)], np.uint8)


def output_table(classes: Sequence[ClassInfo]) -> NDArray[np.uint8]:
    """The number in a segmentation of background (0) and each class, by index of probability."""
    return np.array([0, *(c.output_value for c in classes)], np.uint8)
