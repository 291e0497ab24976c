"""Shapes of images: their axes, their checks, and how messages write them."""

from __future__ import annotations

from collections.abc import Sequence

from napari_unet3d.config import Triple
from napari_unet3d.errors import BadInputError

AXES = ("ZYX", "CZYX", "TZYX", "TCZYX")
"""Orders of axes a volume may have."""
_RGB_SIDE = 16
"""Voxels along the two axes before the last one, from which on an image can be a color image."""


def describe_shape(shape: Sequence[int]) -> str:
    """Write `shape` as the texts show it, e.g. "25 × 256 × 256"."""
    return " × ".join(str(n) for n in shape)


def check_box(start: Triple, stop: Triple, shape: Triple) -> None:
    """Raise IndexError unless the box `start` … `stop` is not empty and inside `shape`."""
    if not all(0 <= a < b <= n for a, b, n in zip(start, stop, shape, strict=True)):
        raise IndexError(f"box {start} … {stop} is empty or outside of a volume of shape {shape}")


TWO_D = (
    "{what} is a 2D image; a stack with several z slices is needed. Open the slices together as "
    "one stack (z, y, x)."
)
RGB = (
    "{what} looks like a color (RGB) image: its last axis has {n} values. Convert it to gray, "
    "or move the colors to a channel axis in front (C, Z, Y, X)."
)


def looks_like_rgb(shape: tuple[int, ...]) -> bool:
    """Whether the last axis has the length of a color and the two before it that of an image."""
    return len(shape) >= 3 and shape[-1] in (3, 4) and min(shape[-3:-1]) >= _RGB_SIDE


def unnamed_axes(shape: Sequence[int], name: str) -> str:
    """Name the axes of an array by their number.

    Parameters
    ----------
    shape
        Of the array.
    name
        What messages call it.

    Returns
    -------
    str
        "ZYX" or "TCZYX", after any "?" for leading axes of length 1.

    Raises
    ------
    BadInputError
        When the axes cannot be told from their number.
    """
    shape = tuple(int(n) for n in shape)
    what = f"'{name}' ({describe_shape(shape)})"
    first = 0
    while len(shape) - first > 5 and shape[first] == 1:
        first += 1
    n_axes = len(shape) - first
    if n_axes == 4 and shape[first] == 1:
        return "?ZYX"
    if n_axes == 2:
        raise BadInputError(TWO_D.format(what=what))
    if looks_like_rgb(shape):
        raise BadInputError(RGB.format(what=what, n=shape[-1]))
    if n_axes == 4:
        raise BadInputError(
            f"{what} has 4 axes: the first may be channels or time points. Say which: "
            "axes='CZYX' (channels) or axes='TZYX' (time points)."
        )
    if n_axes not in (3, 5):
        raise BadInputError(
            f"{what} has {len(shape)} axes; ZYX, CZYX, TZYX or TCZYX are needed. Choose one "
            "position along the others."
        )
    return "?" * first + ("ZYX" if n_axes == 3 else "TCZYX")
