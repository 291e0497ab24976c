"""The description that a written file holds: voxel size, position, classes."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass

from napari_unet3d.config import ClassInfo

_BACKGROUND_NAME = "background"
_BACKGROUND_CHANNEL_COLOR = (128, 128, 128)


@dataclass(frozen=True)
class Description:
    """Axes, sizes, position and classes of an array that is written.

    Parameters
    ----------
    axes
        "ZYX", "CZYX", "TZYX" or "TCZYX".
    voxel_size, unit
        Size of a voxel along z, y, x; "µm", "nm", "mm" or "pixel".
    translation
        Position of the first voxel's center along z, y, x, in `unit`.
    time_step
        Seconds between two time points; None when it is not known.
    classes
        Without a channel axis, the voxels are labels: 0 background, and the `output_value` of
        each class. With one, the channels are background and these classes.
    channel_names
        One name a channel; one for an image without a channel axis.
    """

    axes: str = "ZYX"
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    unit: str = "pixel"
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    time_step: float | None = None
    classes: tuple[ClassInfo, ...] = ()
    channel_names: tuple[str, ...] = ()

    @property
    def is_labels(self) -> bool:
        """Whether the voxels are numbers of classes."""
        return bool(self.classes) and "C" not in self.axes

    @property
    def is_moved(self) -> bool:
        """Whether the first voxel lies elsewhere than at 0, 0, 0, as far as that is known."""
        return any(self.translation) and all(map(math.isfinite, self.translation))

    @property
    def seconds(self) -> float | None:
        """The time step, where there are time points and it is known."""
        step = self.time_step if "T" in self.axes else None
        return step if step is not None and math.isfinite(step) and step > 0 else None

    def label_names(self) -> dict[int, str]:
        """The name of each label, background included."""
        return {0: _BACKGROUND_NAME} | {c.output_value: printable(c.name) for c in self.classes}

    def names_of_channels(self) -> list[str]:
        """One name a channel; empty where they have none."""
        if self.channel_names or "C" not in self.axes or not self.classes:
            return [printable(name) for name in self.channel_names]
        return list(self.label_names().values())

    def colors_of_channels(self) -> list[tuple[int, int, int]]:
        """Red, green, blue of each channel, 0…255; empty where the channels are no classes."""
        if "C" not in self.axes or not self.classes:
            return []
        return [_BACKGROUND_CHANNEL_COLOR, *(rgb(c.color) for c in self.classes)]


def rgb(color: str) -> tuple[int, int, int]:
    """Red, green, blue, 0…255, of ``#rrggbb``."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def printable(text: str) -> str:
    """`text` with a mark for each character that XML cannot hold, such as control characters."""
    bad = ("Cc", "Cs", "Cn")
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in bad else c for c in text
    )
