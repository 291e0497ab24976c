"""Writes OME-TIFF files, with size, unit and position of their voxels."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_unet3d.data.io.description import Description
from napari_unet3d.errors import BadInputError

TIFF_ENDINGS = (".tif", ".tiff", ".btf", ".tf8")
_BIG = 3_900_000_000
"""Bytes of voxels above which a file is a BigTIFF: an ordinary one ends at 4 GiB."""
_OME_TYPES = ("bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")
_CLASS_NAMES = "napari-unet3d/class-names"
_CLASS_COLORS = "napari-unet3d/class-colors"


def create_tiff(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], description: Description
) -> np.memmap[Any, Any]:
    """Make an uncompressed OME-TIFF, to be written through the returned memory map.

    Raises
    ------
    BadInputError
        When OME-TIFF has no such number format.
    OSError
        When the disk is full.
    """
    check_tiff_type(dtype)
    n_bytes = math.prod(shape) * dtype.itemsize
    array = tifffile.memmap(
        path,
        shape=shape,
        dtype=dtype,
        ome=True,
        bigtiff=n_bytes > _BIG,
        photometric="minisblack",
        metadata=_ome_metadata(shape, description),
    )
    _reserve(path)
    return array


def check_tiff_type(dtype: np.dtype[Any]) -> None:
    """Raise `BadInputError` unless OME-TIFF has this number format."""
    if dtype.name not in _OME_TYPES:
        raise BadInputError(
            f"OME-TIFF cannot hold numbers of type {dtype.name}. Use one of "
            f"{', '.join(_OME_TYPES)}, or write OME-Zarr."
        )


def _ome_metadata(shape: tuple[int, ...], description: Description) -> dict[str, Any]:
    """Attributes and elements of OME-XML, as tifffile takes them."""
    metadata: dict[str, Any] = {"axes": description.axes}
    if description.unit != "pixel" or description.voxel_size != (1.0, 1.0, 1.0):
        for name, size in zip("ZYX", description.voxel_size, strict=True):
            metadata |= {f"PhysicalSize{name}": size, f"PhysicalSize{name}Unit": description.unit}
    if description.seconds is not None:
        metadata |= {"TimeIncrement": description.seconds, "TimeIncrementUnit": "s"}
    if description.is_moved:
        metadata["Plane"] = _plane_positions(shape, description)
    channel: dict[str, Any] = {}
    if names := description.names_of_channels():
        channel["Name"] = names
    if colors := description.colors_of_channels():
        channel["Color"] = [_ome_color(color) for color in colors]
    if channel:
        metadata["Channel"] = channel
    if description.is_labels:
        names_by_label = {str(value): name for value, name in description.label_names().items()}
        colors_by_label = {str(c.output_value): c.color for c in description.classes}
        metadata["Description"] = "Labels: " + ", ".join(
            f"{value} {name}" for value, name in names_by_label.items()
        )
        metadata["MapAnnotation"] = [
            {"Namespace": _CLASS_NAMES, "Value": names_by_label},
            {"Namespace": _CLASS_COLORS, "Value": colors_by_label},
        ]
    return metadata


def _plane_positions(shape: tuple[int, ...], description: Description) -> dict[str, list[Any]]:
    """Where the first voxel of each plane lies, plane by plane in the order of the file."""
    z, y, x = description.translation
    planes = math.prod(shape[:-2])
    depths = np.arange(shape[-3]) * description.voxel_size[0] + z
    positions = {"Z": np.resize(depths, planes).tolist(), "Y": [y] * planes, "X": [x] * planes}
    return {f"Position{name}": values for name, values in positions.items()} | {
        f"Position{name}Unit": [description.unit] * planes for name in "ZYX"
    }


def _ome_color(color: tuple[int, int, int]) -> int:
    """OME's color: red, green, blue and opacity as one signed number of 32 bits."""
    return int.from_bytes(bytes((*color, 255)), "big", signed=True)


def _reserve(path: Path) -> None:
    """Give a sparse file its blocks: a full disk would else kill the process (SIGBUS)."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not every disk can
                raise
