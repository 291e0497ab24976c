"""OME-XML, the description that an OME-TIFF carries: sizes, files of a set, promised planes."""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from napari_unet3d.data.io.file_metadata import Length, Placement, parse_seconds
from napari_unet3d.data.wording import either
from napari_unet3d.errors import BadInputError

_MOST_NAMED = 8
"""Planes or files that a message lists; more are counted."""


@dataclass(frozen=True)
class OmeImage:
    """The first image that an OME-XML describes.

    Parameters
    ----------
    sizes
        Planes that it promises along Z, C and T; color samples of a plane count as one.
    files
        Names of the files that its planes are in, in the order of the description; empty where
        all are in the file that holds the description.
    placement
        Voxel size, position and time step.
    n_images
        Images that are described in all.
    metadata_file
        The file that holds the description instead of this one; None for most.
    channel_names
        Of the channels, in their order; None for one without a name.
    """

    sizes: Mapping[str, int]
    files: tuple[str, ...] = ()
    placement: Placement = field(default_factory=Placement)
    n_images: int = 1
    metadata_file: str | None = None
    channel_names: tuple[str | None, ...] = ()

    @property
    def n_planes(self) -> int:
        """Planes that are promised."""
        return math.prod(self.sizes.values())


def parse_ome(xml: str) -> OmeImage | None:
    """Read an OME-XML; None where it describes no image.

    Raises
    ------
    xml.etree.ElementTree.ParseError, ValueError, TypeError
        When it is broken.
    """
    root = ElementTree.fromstring(xml)
    elsewhere = root.find("./{*}BinaryOnly")
    if elsewhere is not None:
        return OmeImage({}, metadata_file=elsewhere.get("MetadataFile", "unknown"))
    images = root.findall("./{*}Image")
    pixels = root.find("./{*}Image/{*}Pixels")
    if pixels is None:
        return None
    sizes = {axis: int(pixels.get(f"Size{axis}", "1")) for axis in "ZCT"}
    channel = pixels.find("./{*}Channel")
    samples = 1 if channel is None else int(channel.get("SamplesPerPixel", "1"))
    sizes["C"] = max(1, sizes["C"] // max(1, samples))
    names = [u.get("FileName") for u in pixels.findall("./{*}TiffData/{*}UUID")]
    files = tuple(dict.fromkeys(name for name in names if name))
    channels = tuple(c.get("Name") for c in pixels.findall("./{*}Channel"))
    return OmeImage(sizes, files, _placement(pixels), len(images), channel_names=channels)


def check_files(image: OmeImage, path: Path) -> None:
    """Raise `BadInputError` unless the files of a set of OME-TIFFs lie beside `path`."""
    if len(image.files) < 2:
        return  # a single one may have been renamed
    missing = [name for name in image.files if not _is_file(path.parent / name)]
    if missing:
        is_are = either(len(missing), "is", "are")
        raise BadInputError(
            f"{listed([repr(name) for name in missing])} {is_are} missing beside '{path}', which "
            f"is one of {len(image.files)} files that hold the image together. Copy all of them "
            "into one folder, or export the stack as one file."
        )


def listed(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    if len(names) <= _MOST_NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:_MOST_NAMED])} and {len(names) - _MOST_NAMED} more"


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)  # reading a pipe would wait for ever
    except (OSError, ValueError):
        return False


def _placement(pixels: ElementTree.Element) -> Placement:
    sizes = [
        Length.parse(pixels.get(f"PhysicalSize{a}"), pixels.get(f"PhysicalSize{a}Unit", "µm"))
        for a in "ZYX"
    ]
    origin = [Length()] * 3
    first = next(_first_planes(pixels), None)
    if first is not None:
        origin = [
            # A position without a unit is in that of the voxel size: so most programs write it.
            Length.parse(first.get(f"Position{a}"), first.get(f"Position{a}Unit", size.unit))
            for a, size in zip("ZYX", sizes, strict=True)
        ]
    step = parse_seconds(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    return Placement((sizes[0], sizes[1], sizes[2]), (origin[0], origin[1], origin[2]), step)


def _first_planes(pixels: ElementTree.Element) -> Iterator[ElementTree.Element]:
    for plane in pixels.iterfind("./{*}Plane"):
        if all(plane.get(f"The{axis}", "0") == "0" for axis in "ZCT"):
            yield plane
