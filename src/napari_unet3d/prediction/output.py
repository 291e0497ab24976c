"""The class of all outputs of a prediction.

torch is imported where it is used: the command line makes its options from the outputs when it
starts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import ClassInfo
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
        if np.dtype(self.dtype).kind == "f":
            fits, wanted = dtype.kind == "f", "a floating-point type"
        else:
            fits = dtype.kind in "iu" and np.can_cast(self.dtype, dtype)
            wanted = f"an integer type that holds {self.dtype}"
        if not fits:
            raise BadInputError(f"the array for {self.name} has dtype {dtype}, it must be {wanted}")


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


def output_table(classes: Sequence[ClassInfo]) -> NDArray[np.uint8]:
    """The number in a segmentation of background (0) and each class, by index of probability."""
    return np.array([0, *(c.output_value for c in classes)], np.uint8)
