"""Axes and units, as file formats write them and as this package does."""

from __future__ import annotations

import re
from collections.abc import Sequence

from napari_unet3d.data.volume import describe_shape
from napari_unet3d.errors import BadInputError

_MICROMETERS = {"nm": 1e-3, "µm": 1.0, "mm": 1e3}
_UNITS: dict[str, tuple[str, float]] = {
    "": ("pixel", 1.0),
    "pixel": ("pixel", 1.0),
    "voxel": ("pixel", 1.0),
    "px": ("pixel", 1.0),
    "pm": ("nm", 1e-3),
    "picometer": ("nm", 1e-3),
    "å": ("nm", 0.1),
    "angstrom": ("nm", 0.1),
    "nm": ("nm", 1.0),
    "nanometer": ("nm", 1.0),
    "µm": ("µm", 1.0),
    "um": ("µm", 1.0),
    "micron": ("µm", 1.0),
    "micrometer": ("µm", 1.0),
    "mm": ("mm", 1.0),
    "millimeter": ("mm", 1.0),
    "cm": ("mm", 10.0),
    "centimeter": ("mm", 10.0),
    "m": ("mm", 1000.0),
    "meter": ("mm", 1000.0),
    "inch": ("mm", 25.4),
}
_AXES = "TCZYX"
_WORDS = {"T": "time points", "C": "channels"}
_MAX_COLORS = 4


def parse_unit(text: str | None) -> tuple[str, float]:
    r"""Find the unit that a file names, and the factor to it.

    Parameters
    ----------
    text
        As in a file: "micron", "um", "micrometers", ImageJ's "\\u00B5m", "cm", …

    Returns
    -------
    str, float
        "µm", "nm", "mm" or "pixel" (for what is not known), and what one unit is in it.
    """
    plain = (text or "").strip().lower().replace("\\u00b5", "µ").replace("â", "")
    plain = plain.replace("μ", "µ")  # Greek mu, micro sign
    plain = re.sub(r"metre(s?)$", r"meter\1", plain)
    if plain not in _UNITS:
        plain = "inch" if plain == "inches" else plain.removesuffix("s")
    return _UNITS.get(plain, ("pixel", 1.0))


def common_unit(
    sizes: Sequence[float], units: Sequence[str | None]
) -> tuple[tuple[float, float, float], str]:
    """Express the voxel size along z, y, x in one unit, that of x where possible."""
    parsed = [parse_unit(unit) for unit in units]
    values = [size * factor for size, (_, factor) in zip(sizes, parsed, strict=True)]
    names = [name for name, _ in parsed]
    if "pixel" in names and set(names) != {"pixel"}:
        names = ["pixel"] * 3  # a mixture means nothing
    unit = names[-1]
    if unit != "pixel":
        values = [
            value if name == unit else value * _MICROMETERS[name] / _MICROMETERS[unit]
            for value, name in zip(values, names, strict=True)
        ]
    z, y, x = values
    return (z, y, x), unit


def arrange_axes(names: str, shape: Sequence[int], what: str) -> tuple[tuple[int, ...], str]:
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

    Returns
    -------
    tuple of int, str
        Axes of the file in the order of the volume's axes, and these.

    Raises
    ------
    BadInputError
        RGB or 2D image, or axes that are not known. The text names the cure.
    """
    kept = [i for i, n in enumerate(shape) if n != 1]
    letters = [names[i] for i in kept]
    described = f"{what} ({describe_shape(shape)})"
    if "S" in letters:
        raise BadInputError(
            f"{described} is a color (RGB) image. Convert it to gray, or to one channel per "
            "color, and save it again (Fiji: Image > Type > 8-bit, or Image > Color > Split "
            "Channels)."
        )
    if "Z" not in letters:
        _name_z_axis(letters, [shape[i] for i in kept], described)
    if not {"Z", "Y", "X"} <= set(letters):
        raise BadInputError(
            f"{described} is a 2D image; a stack with several z slices is needed. Save the slices "
            "together as one stack (Fiji: Image > Stacks > Images to Stack)."
        )
    unknown = [i for i, letter in zip(kept, letters, strict=True) if letter not in _AXES]
    if unknown or len(set(letters)) < len(letters):
        raise BadInputError(
            f"{described} has axes '{names}', of which only t, c, z, y, x are known. Save it as "
            "OME-TIFF or OME-Zarr, where the axes are named, or keep one position along the "
            "others."
        )
    order = sorted(range(len(kept)), key=lambda i: _AXES.index(letters[i]))
    return tuple(kept[i] for i in order), "".join(letters[i] for i in order)


def _name_z_axis(letters: list[str], sizes: list[int], described: str) -> None:
    """Call an axis in front of y and x "Z" where that is what it must be."""
    unnamed = [i for i, letter in enumerate(letters) if letter not in "TCYX"]
    if unnamed:
        letters[unnamed[-1]] = "Z"
        return
    rest = [i for i, letter in enumerate(letters) if letter in "TC"]
    if len(rest) != 1:
        return
    (i,) = rest
    if letters[i] == "C" and sizes[i] <= _MAX_COLORS:
        raise BadInputError(
            f"{described} is a 2D image with {sizes[i]} {_WORDS['C']}; a stack with several z "
            "slices is needed. If the channels are slices, save it with z named (Fiji: Image > "
            "Hyperstacks > Re-order Hyperstack)."
        )
    letters[i] = "Z"
