"""Axes of a file: which of them make up a volume, and in what order."""

from __future__ import annotations

from collections.abc import Sequence

from napari_unet3d.data.io.file_metadata import FILE_AXES, Wishes
from napari_unet3d.data.shapes import AXES, describe_shape
from napari_unet3d.errors import BadInputError

_UNNAMED = "QI?"
"""How tifffile and we write an axis that the file gives no name."""
_WORDS = {"T": "time points", "C": "channels"}
MOST_CHANNELS = 4
"""Length of an axis without a name up to which it may be channels; more are time points."""


def arrange_axes(
    names: str, shape: Sequence[int], what: str, wishes: Wishes | None = None
) -> tuple[tuple[int, ...], str, tuple[str, ...]]:
    """Decide which axes of a file make up the volume, and in what order.

    Axes of length 1 are dropped. Where no axis is named z, the one in front of y and x is
    taken for it when nothing else can be meant: many programs call slices channels, time
    points or just images.

    Parameters
    ----------
    names
        One letter per axis; "S" are color samples.
    shape
        Length of each axis.
    what
        What messages call the file.
    wishes
        Axes and sizes that the caller gives in place of those of the file.

    Returns
    -------
    tuple of int, str, tuple of str
        Axes of the file in the order of the volume's axes, these, and notes for the user.

    Raises
    ------
    BadInputError
        RGB or 2D image, or axes that are not known. The text names the cure.
    """
    wishes = wishes or Wishes()
    kept = [i for i, n in enumerate(shape) if n != 1]
    letters = [names[i] for i in kept]
    described = f"{what} ({describe_shape(shape)})"
    notes: list[str] = []
    if wishes.axes is not None:
        kept, letters = _given_axes(wishes.axes, kept, shape, described)
    elif "S" in letters:
        raise BadInputError(
            f"{described} is a color (RGB) image. Convert it to gray, or to one channel per "
            "color, and save it again (Fiji: Image > Type > 8-bit, or Image > Color > Split "
            "Channels). If its colors are slices or channels, say so: give its axes, such as "
            f"{'ZYX' if len(letters) == 3 else 'ZYXC'}."
        )
    else:
        _name_unnamed(letters, [shape[i] for i in kept], described, wishes.labels, notes)
    named = len(set(letters)) == len(letters) and set(letters) <= set(FILE_AXES)
    if (named or len(letters) < 3) and not {"Z", "Y", "X"} <= set(letters):
        raise BadInputError(
            f"{described} is a 2D image; a stack with several z slices is needed. Save the slices "
            "together as one stack (Fiji: Image > Stacks > Images to Stack)."
        )
    order = sorted(range(len(kept)), key=lambda i: FILE_AXES.find(letters[i]))
    axes = "".join(letters[i] for i in order)
    if axes not in AXES:
        example = {3: "ZYX", 4: "CZYX or TZYX"}.get(len(letters), "TCZYX")
        raise BadInputError(
            f"{described} has axes '{names}', of which only t, c, z, y, x are known. Give its "
            f"axes (such as {example}), or save it as OME-TIFF or OME-Zarr, where the axes are "
            "named, or keep one position along the others."
        )
    return tuple(kept[i] for i in order), axes, tuple(notes)


def _given_axes(
    axes: str, kept: list[int], shape: Sequence[int], described: str
) -> tuple[list[int], list[str]]:
    """The axes of the file that are longer than 1, and the letters that the user gave them."""
    if len(axes) == len(shape):
        return kept, [axes[i] for i in kept]
    if len(axes) == len(kept):
        return kept, list(axes)
    raise BadInputError(
        f"{described} has {len(shape)} axes, but '{axes}' names {len(axes)}. Give one letter for "
        "each axis."
    )


def _name_unnamed(
    letters: list[str], sizes: list[int], described: str, labels: bool, notes: list[str]
) -> None:
    """Name the axes in front of y and x that the file leaves unnamed, where that is safe."""
    unnamed = [i for i, letter in enumerate(letters) if letter not in FILE_AXES]
    if "Z" not in letters:
        if unnamed:
            letters[unnamed.pop()] = "Z"
        else:
            _take_for_z(letters, sizes, described, notes)
    # Labels have no channels, and channels are few.
    open_first = unnamed == [0] and letters[0] in _UNNAMED and "T" not in letters
    if open_first and (labels or sizes[0] > MOST_CHANNELS):
        letters[0] = "T"
        notes.append(
            f"The first axis of {described} is taken for {sizes[0]} time points. If it is "
            "something else, give the axes (CZYX for channels)."
        )


def _take_for_z(letters: list[str], sizes: list[int], described: str, notes: list[str]) -> None:
    rest = [i for i, letter in enumerate(letters) if letter in "TC"]
    if len(rest) != 1:
        return
    (i,) = rest
    if letters[i] == "C" and sizes[i] <= MOST_CHANNELS:
        raise BadInputError(
            f"{described} is a 2D image with {sizes[i]} {_WORDS['C']}; a stack with several z "
            "slices is needed. If the channels are slices, give the axes ZYX, or save it with z "
            "named (Fiji: Image > Hyperstacks > Re-order Hyperstack)."
        )
    notes.append(
        f"{described} has no z axis: its {sizes[i]} {_WORDS[letters[i]]} are taken for slices "
        "along z. A series of 2D images is no stack."
    )
    letters[i] = "Z"
