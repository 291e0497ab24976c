"""What the dock finds out about an image when it is chosen: what is wrong, and its voxel size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from napari.layers import Image

from napari_unet3d.data.files import Geometry
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.layers import (
    FirstAxis,
    image_volume,
    labels_shape,
    metadata_of,
    remember,
)
from napari_unet3d.widgets.voxel_size import Size

_CHECKED_AT_ONCE = 2**28
"""Voxels. Images in memory up to this size are searched for NaN when chosen: about a second in
a thread. Larger ones, and those on disk, are searched when the training starts."""


def header_problem(image: Image, first_axis: FirstAxis) -> str:
    """What is wrong with an image, as far as can be told without reading it; "" if nothing."""
    try:
        image_volume(image, first_axis)[0].check_header()
    except BadInputError as error:
        return str(error)
    return ""


def value_check(image: Image, first_axis: FirstAxis) -> Callable[[], str] | None:
    """A function that finds NaN, infinite and constant values, for a thread; None if too large.

    It holds the array, not the layer.
    """
    volume, _ = image_volume(image, first_axis)
    data = volume.data
    if not isinstance(data, np.ndarray) or isinstance(data, np.memmap):
        return None
    if data.size > _CHECKED_AT_ONCE:
        return None

    def check() -> str:
        try:
            volume.check()
        except BadInputError as error:
            return str(error)
        return ""

    return check


def file_without_voxel_size(image: Image) -> str | None:
    """The file of an image whose voxel size napari's reader may have dropped."""
    path = image.source.path
    if path is None or metadata_of(image).get("voxel_size_read") or not _has_no_size(image):
        return None
    return str(path)


def take_voxel_size(image: Image, geometry: Geometry | None) -> str:
    """Give an image the voxel size of its file, unless it has one or has another shape.

    Returns
    -------
    str
        What to tell the user; "" when nothing was taken over.
    """
    if geometry is None or not _has_no_size(image) or not _same_stack(image, geometry):
        return ""
    remember(image, voxel_size_read=True)
    set_voxel_size(image, geometry.voxel_size, geometry.unit)
    size = " × ".join(f"{n:.4g}" for n in geometry.voxel_size)
    return f"Voxel size {size} {geometry.unit} taken from the file."


def set_voxel_size(image: Image, size: Size, unit: str) -> None:
    """Set scale and units of z, y, x; flips, rotation and position stay."""
    if image.ndim < 3:
        return
    old = np.asarray(image.scale, float)
    scale = [*old[:-3], *(np.where(old[-3:] < 0, -1.0, 1.0) * size)]
    name = "um" if unit == "µm" else unit
    image.units = (*map(str, image.units[:-3]), *(name,) * 3)
    if not np.array_equal(scale, old):
        image.scale = np.asarray(scale)


def _has_no_size(image: Image) -> bool:
    pixels = all(str(unit) == "pixel" for unit in image.units[-3:])
    return image.ndim >= 3 and pixels and bool(np.all(np.asarray(image.scale[-3:]) == 1))


def _same_stack(image: Image, geometry: Geometry) -> bool:
    """Whether the layer shows the file's stack: all of it, or one of its channels or times."""
    shape = labels_shape(image, "time")
    others: tuple[Any, ...] = geometry.shape[:-3]
    return shape[-3:] == tuple(geometry.shape[-3:]) and shape[:-3] in (
        (),
        tuple(others),
        *((n,) for n in others),
    )
