"""Voxel sizes and units, as file formats write them and as this package does."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from napari_unet3d.data.lazy import rearranged
from napari_unet3d.data.volume import Volume
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
    "dm": ("mm", 100.0),
    "decimeter": ("mm", 100.0),
    "m": ("mm", 1000.0),
    "meter": ("mm", 1000.0),
    "in": ("mm", 25.4),
    "inch": ("mm", 25.4),
    "thou": ("mm", 0.0254),
    "ft": ("mm", 304.8),
    "foot": ("mm", 304.8),
}
_SECONDS = {
    "ns": 1e-9,
    "nanosecond": 1e-9,
    "µs": 1e-6,
    "us": 1e-6,
    "microsecond": 1e-6,
    "ms": 1e-3,
    "millisecond": 1e-3,
    "msec": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
    "day": 86400.0,
}
FILE_AXES = "TCZYX"
"""Axes that a volume may have, in its order."""
_IMPROBABLE_ANISOTROPY = 50
"""Ratio of the longest to the shortest side of a voxel; no microscope comes near, but a spacing
in the wrong unit is 1000 times too long."""


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a file lie, known without reading them.

    Parameters
    ----------
    axes, shape
        The volume's axes, "ZYX", "CZYX", "TZYX" or "TCZYX", and the length of each.
    voxel_size
        Size of a voxel along z, y, x, in `unit`.
    unit
        "µm", "nm", "mm" or "pixel".
    translation
        Position of the first voxel's center along z, y, x, in `unit`.
    time_step
        Seconds between two time points; None where the file does not say.
    file_axes
        What the file calls these axes, in its own order, such as "ZCYX". A letter other than those
        of `FILE_AXES` stands for an axis without a name.
    """

    axes: str
    shape: tuple[int, ...]
    voxel_size: tuple[float, float, float]
    unit: str
    translation: tuple[float, float, float]
    time_step: float | None
    file_axes: str = ""


@dataclass(frozen=True)
class Length:
    """A length as a file writes it: a number, if it says one, and its unit, if it names one."""

    value: float | None = None
    unit: str | None = None

    @classmethod
    def parse(cls, text: object, unit: str | None = None) -> Length:
        """Take a number, or a text with one; anything else counts as missing."""
        try:
            value = float(text)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return cls(None, unit)
        return cls(value if math.isfinite(value) else None, unit)


@dataclass(frozen=True)
class Placement:
    """Size and position of the voxels as a file writes them, along z, y, x.

    `time_step` is in seconds; `notes` are on the sizes, for the user.
    """

    sizes: tuple[Length, Length, Length] = (Length(), Length(), Length())
    origin: tuple[Length, Length, Length] = (Length(), Length(), Length())
    time_step: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wishes:
    """Axes and sizes that the caller gives in place of those of the file.

    Parameters
    ----------
    axes
        One letter for each axis of the file, or for each that is longer than 1.
    voxel_size
        Along z, y, x, in the file's unit; in µm where the file names none.
    labels
        The file holds labels: they have no channels, and their voxel size is not used.
    """

    axes: str | None = None
    voxel_size: tuple[float, float, float] | None = None
    labels: bool = False

    @classmethod
    def check(
        cls, axes: str | None, voxel_size: Sequence[float] | None, labels: bool = False
    ) -> Wishes:
        """Make them from what a user gave; `BadInputError` with the cure when that is wrong."""
        if axes is not None:
            axes = axes.strip().upper()
            letters = set(axes)
            if len(letters) < len(axes) or not {"Z", "Y", "X"} <= letters <= set(FILE_AXES):
                raise BadInputError(
                    f"'{axes}' are no axes. Give one letter for each axis of the file, in its "
                    "order: Z, Y and X, and where there are any T (time points) and C (channels), "
                    "as in TZYX."
                )
        if voxel_size is None:
            return cls(axes, None, labels)
        try:
            sizes = tuple(float(s) for s in voxel_size)
        except (TypeError, ValueError):
            sizes = ()
        if len(sizes) != 3 or not all(math.isfinite(s) and s > 0 for s in sizes):
            raise BadInputError(
                f"{voxel_size!r} is no voxel size. Give three numbers above zero, along z, y, x, "
                "as in 2, 0.5, 0.5."
            )
        return cls(axes, (sizes[0], sizes[1], sizes[2]), labels)


def parse_unit(text: str | None) -> tuple[str, float]:
    r"""Find the unit that a file names, and the factor to it.

    Parameters
    ----------
    text
        As in a file: "micron", "um", "micrometers", ImageJ's "\\u00B5m", "cm", …

    Returns
    -------
    str, float
        "µm", "nm", "mm" or "pixel" (for unknown units), and the length of one unit in it.
    """
    plain = _plain(text)
    if plain not in _UNITS:
        plain = {"inches": "inch", "feet": "foot"}.get(plain, plain.removesuffix("s"))
    return _UNITS.get(plain, ("pixel", 1.0))


def parse_seconds(value: object, unit: str | None) -> float | None:
    """A duration in seconds; None where it is none, or its unit is not known."""
    plain = _plain(unit)
    factor = _SECONDS.get(plain) or _SECONDS.get(plain.removesuffix("s"))
    number = Length.parse(value).value
    return number * factor if number and factor else None


def _plain(text: str | None) -> str:
    plain = (text or "").strip().lower().replace("\\u00b5", "µ").replace("â", "")
    plain = plain.replace("μ", "µ")  # Greek mu, micro sign
    return re.sub(r"metre(s?)$", r"meter\1", plain)


def common_unit(
    sizes: Sequence[float], units: Sequence[str | None]
) -> tuple[tuple[float, float, float], str]:
    """Express the voxel size along z, y, x in one unit, that of x where possible."""
    parsed = [parse_unit(unit) for unit in units]
    values = [size * factor for size, (_, factor) in zip(sizes, parsed, strict=True)]
    names = [name for name, _ in parsed]
    if "pixel" in names and set(names) != {"pixel"}:
        names, values = ["pixel"] * 3, list(sizes)  # a mixture means nothing
    unit = names[-1]
    if unit != "pixel":
        values = [
            value if name == unit else value * _MICROMETERS[name] / _MICROMETERS[unit]
            for value, name in zip(values, names, strict=True)
        ]
    z, y, x = values
    return (z, y, x), unit


def settle_geometry(
    axes: str,
    shape: tuple[int, ...],
    placement: Placement,
    wishes: Wishes,
    what: str,
) -> tuple[Geometry, tuple[str, ...]]:
    """Decide on voxel size, position and time step of a volume.

    Sizes that are missing, zero or no numbers are taken to be those of another axis; of
    negative ones, which mean a flipped axis, the absolute value counts.

    Parameters
    ----------
    axes, shape
        Of the volume.
    placement
        The geometry of the file.
    wishes
        The geometry that the caller gives; it comes first.
    what
        The name of the file in notes.

    Returns
    -------
    Geometry, tuple of str
        And notes for the user, whole sentences.
    """
    notes = list(placement.notes)
    sizes, units = _usable_sizes(placement.sizes, what, notes)
    (z, y, x), unit = common_unit(sizes, units)
    named = {parse_unit(u)[0] for u in units}
    if len(named) > 1 and "pixel" in named and wishes.voxel_size is None:
        shown = ", ".join(f"{a} {u or 'none'}" for a, u in zip("zyx", units, strict=True))
        notes.append(
            f"The axes of {what} have units that cannot be compared ({shown}): the voxel size is "
            f"taken to be {_by((z, y, x))}, in any unit."
        )
    if wishes.voxel_size is not None:
        notes.clear()
        (z, y, x), unit = wishes.voxel_size, "µm" if unit == "pixel" else unit
    if (note := improbable_voxel_size((z, y, x), unit, what)) is not None:
        notes.append(note)
    geometry = Geometry(
        axes,
        tuple(int(n) for n in shape),
        (z, y, x),
        unit,
        _position(placement.origin, unit),
        placement.time_step if "T" in axes else None,
    )
    return geometry, () if wishes.labels else tuple(notes)


def make_volume(
    data: Any,
    order: Sequence[int],
    letters: str,
    geometry: Geometry,
    name: str,
    notes: Sequence[str],
    channel_names: Sequence[str | None] = (),
) -> Volume:
    """The volume with the voxels of a file at this place.

    Parameters
    ----------
    data
        The array of the file, with all of its axes.
    order
        The axes of `data` in the order of the volume's axes.
    letters
        What the file calls the axes of `data`, one letter each; any other letter than those of
        `FILE_AXES` stands for an axis without a name.
    geometry
        Of the volume.
    name, notes
        As in `Volume`.
    channel_names
        What the file calls its channels; they are left out where one of them has no name.
    """
    names = [name.strip() for name in channel_names if name is not None and name.strip()]
    n_channels = geometry.shape[geometry.axes.index("C")] if "C" in geometry.axes else 1
    return Volume(
        rearranged(data, order),
        geometry.axes,
        geometry.voxel_size,
        geometry.unit,
        name,
        geometry.translation,
        geometry.time_step,
        tuple(notes),
        file_axes="".join(letters[i] for i in sorted(order)),
        channel_names=tuple(names) if len(names) == n_channels else (),
    )


def improbable_voxel_size(
    voxel_size: Sequence[float], unit: str, what: str = "the image"
) -> str | None:
    """A note on voxels that are more than 50 times longer along one axis than another."""
    if not all(math.isfinite(s) and s > 0 for s in voxel_size):
        return None
    longest = max(range(3), key=lambda i: voxel_size[i])
    shortest = min((2, 1, 0), key=lambda i: voxel_size[i])
    ratio = voxel_size[longest] / voxel_size[shortest]
    if ratio <= _IMPROBABLE_ANISOTROPY:
        return None
    return (
        f"The voxels of {what} are {_by(voxel_size)} {unit} (z × y × x): {ratio:.0f} times longer "
        f"along {'zyx'[longest]} than along {'zyx'[shortest]}, which is improbable. If it is "
        "wrong, give the true voxel size."
    )


def _usable_sizes(
    said: Sequence[Length], what: str, notes: list[str]
) -> tuple[list[float], list[str | None]]:
    """Sizes and units along z, y, x; a missing one is filled in from another axis."""
    known = [i for i, length in enumerate(said) if length.value]
    sizes, units = [1.0] * 3, [length.unit for length in said]
    for i, length in enumerate(said):
        axis, unit = "zyx"[i], length.unit or ""
        if length.value:
            sizes[i] = abs(length.value)
            if length.value < 0:
                notes.append(
                    f"The voxel size of {what} along {axis} is {length.value:g} {unit}".rstrip()
                    + f": the axis is flipped, and {sizes[i]:g} is taken."
                )
        elif known:
            # The last of them: x where it is known.
            sizes[i], units[i] = abs(said[known[-1]].value or 1.0), said[known[-1]].unit
            reason = "has no voxel size" if length.value is None else "has a voxel size of 0"
            notes.append(
                f"{_capital(what)} {reason} along {axis}: that along {'zyx'[known[-1]]} is taken, "
                f"{sizes[i]:g} {units[i] or 'pixel'}. If the voxels are longer, give their size."
            )
    if not known:
        units = [None] * 3
        notes.append(
            f"{_capital(what)} has no voxel size: voxels are taken to be as long along z as along "
            "y and x. If they are not, give the voxel size."
        )
    return sizes, units


def _position(origin: Sequence[Length], unit: str) -> tuple[float, float, float]:
    """The origin in `unit`; 0 along an axis where that is not known."""
    values = []
    for length in origin:
        name, factor = parse_unit(length.unit)
        value = length.value or 0.0
        if unit == "pixel":  # no unit, or units that mean nothing together
            values.append(value)
        elif name == "pixel":
            values.append(0.0)
        else:
            value *= factor
            values.append(
                value if name == unit else value * _MICROMETERS[name] / _MICROMETERS[unit]
            )
    z, y, x = values
    return z, y, x


def _by(sizes: Sequence[float]) -> str:
    return " × ".join(f"{s:g}" for s in sizes)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
