"""OME-Zarr's description of an image (NGFF 0.1 to 0.6): axes, levels, transformations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_unet3d.data.io.file_metadata import Length, Placement, parse_seconds
from napari_unet3d.errors import BadInputError

_KNOWN = re.compile(r"0\.[1-6](\D.*)?")
_LETTERS = {
    "t": "T",
    "time": "T",
    "c": "C",
    "ch": "C",
    "channel": "C",
    "channels": "C",
    "z": "Z",
    "y": "Y",
    "x": "X",
}
_TYPES = {"time": "T", "channel": "C"}


@dataclass(frozen=True)
class Level:
    """One resolution of an image.

    Parameters
    ----------
    path
        Of its array, in the group of the image.
    scale, translation
        Size of a voxel and position of the first one along each axis of the array; None where
        the transformation is none that we understand.
    """

    path: str
    scale: tuple[float, ...] | None
    translation: tuple[float, ...]


@dataclass(frozen=True)
class Multiscale:
    """One image with its resolutions.

    Parameters
    ----------
    names
        One letter for each axis; "?" for axes that are none of t, c, z, y, x.
    units
        Unit of each axis.
    levels
        In the order of the description, which is from fine to coarse.
    """

    names: str
    units: tuple[str | None, ...]
    levels: tuple[Level, ...]

    def placement(self, level: Level, spatial: Sequence[int]) -> Placement:
        """Where the voxels of a level lie; `spatial` are the array's axes for z, y, x."""
        if level.scale is None:
            return Placement()
        z, y, x = (Length.parse(level.scale[i], self.units[i]) for i in spatial)
        oz, oy, ox = (Length.parse(level.translation[i], self.units[i]) for i in spatial)
        step = None
        if "T" in self.names:
            t = self.names.index("T")
            step = parse_seconds(abs(level.scale[t]), self.units[t]) if self.units[t] else None
        return Placement((z, y, x), (oz, oy, ox), step)


def multiscales_of(attributes: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """The images that the attributes of a group describe, and the version of the description."""
    described = attributes.get("ome", attributes)
    multiscales = described.get("multiscales") or []
    if not multiscales:
        return [], ""
    return list(multiscales), str(
        described.get("version") or multiscales[0].get("version") or "0.4"
    )


def channel_labels(attributes: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The names of the channels, which the "omero" part of the attributes holds; () without it."""
    shown = attributes.get("ome", attributes).get("omero")
    channels = shown.get("channels") if isinstance(shown, Mapping) else None
    if not isinstance(channels, Sequence):
        return ()
    labels = [c.get("label") if isinstance(c, Mapping) else None for c in channels]
    return tuple(None if label is None else str(label) for label in labels)


def check_version(version: str, what: str) -> None:
    """Raise `BadInputError` for a version of OME-Zarr that is not known."""
    if not _KNOWN.fullmatch(version):
        raise BadInputError(
            f"{what} is OME-Zarr of version {version}; versions 0.1 to 0.6 can be read. Export it "
            "as version 0.4 or 0.5, or give the path of the array in it."
        )


def parse_multiscale(described: Mapping[str, Any]) -> Multiscale:
    """Read the description of one image, an entry of ``multiscales``.

    Raises
    ------
    KeyError, TypeError, ValueError, AttributeError
        When it breaks the specification.
    """
    system = None
    if "coordinateSystems" in described:
        system = _intrinsic_system(described)
        axes = system["axes"]
    else:
        axes = described.get("axes", list("tczyx"))
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in axes]
    names = "".join(_letter(axis) for axis in axes)
    units = tuple(axis.get("unit") for axis in axes)
    # From 0.6 on, those of the image lead to other systems of coordinates.
    overall = described.get("coordinateTransformations", []) if system is None else []
    levels = []
    for dataset in described["datasets"]:
        steps = [*dataset.get("coordinateTransformations", []), *(overall or [])]
        transform = _apply(steps, np.ones(len(axes)), np.zeros(len(axes)))
        levels.append(
            Level(dataset["path"], None, (0.0,) * len(axes))
            if transform is None
            else Level(dataset["path"], *(tuple(float(v) for v in part) for part in transform))
        )
    return Multiscale(names, units, tuple(levels))


def axis_letters(names: Sequence[Any] | None) -> str | None:
    """Letters for the axes that a plain zarr array names; None where they are not all known."""
    if not names or not all(isinstance(name, str) and name.lower() in _LETTERS for name in names):
        return None
    return "".join(_LETTERS[name.lower()] for name in names)


def _letter(axis: Mapping[str, Any]) -> str:
    known = _LETTERS.get(str(axis["name"]).lower())
    return known or _TYPES.get(str(axis.get("type", "")).lower(), "?")


def _intrinsic_system(described: Mapping[str, Any]) -> Mapping[str, Any]:
    """The system of coordinates that the levels are placed in."""
    systems: list[Mapping[str, Any]] = described["coordinateSystems"]
    outputs = [
        transformation.get("output")
        for dataset in described["datasets"]
        for transformation in dataset.get("coordinateTransformations", [])
    ]
    for system in systems:
        if system.get("name") in [o.get("name") if isinstance(o, dict) else o for o in outputs]:
            return system
    return systems[0]


def _apply(
    steps: Sequence[Mapping[str, Any]], scale: np.ndarray, translation: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Scale and translation after some more transformations; None where one is not known."""
    for step in steps:
        kind = step.get("type")
        if kind == "identity":
            continue
        if kind == "sequence":
            inner = _apply(step["transformations"], scale, translation)
            if inner is None:
                return None
            scale, translation = inner
        elif kind == "scale" and "scale" in step:
            factors = np.asarray(step["scale"], float)
            scale, translation = scale * factors, translation * factors
        elif kind == "translation" and "translation" in step:
            translation = translation + np.asarray(step["translation"], float)
        elif kind == "affine" and "affine" in step:
            matrix = np.asarray(step["affine"], float)[: len(scale)]
            linear = matrix[:, : len(scale)]
            if matrix.shape[1] != len(scale) + 1 or (linear != np.diag(np.diag(linear))).any():
                return None
            factors = np.diag(linear)
            scale, translation = scale * factors, translation * factors + matrix[:, -1]
        else:
            return None
    return scale, translation
