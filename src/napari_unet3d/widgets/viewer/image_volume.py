"""Makes a Volume of an Image layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Image, Layer

from napari_unet3d.data.channels import stack_channels
from napari_unet3d.data.io.file_metadata import common_unit
from napari_unet3d.data.lazy import Rearranged
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.viewer.axes import FirstAxis, order_problem, stack_ndim

_UNITS = {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm", "pixel": "pixel"}


def image_volume(
    layer: Image, first_axis: FirstAxis = "time", channels: Sequence[Image] = ()
) -> tuple[Volume, tuple[str, ...]]:
    """Make a Volume of an Image layer, without reading its voxels.

    Parameters
    ----------
    layer : Image
        3D (ZYX) or 4D, after leading axes of length 1; only the finest level of a multiscale
        image is used.
    first_axis : {"time", "channels"}
        Meaning of the first axis of a 4D image.
    channels : sequence of Image
        Layers of the same shape that are further channels of the image.

    Returns
    -------
    volume : Volume
        The image, with voxel size, unit and name.
    notes : tuple of str
        Sentences for the user, such as that only one resolution level is used.

    Raises
    ------
    BadInputError
        The image is RGB or 2D, has more than four axes, axes whose names stand in another order,
        or a voxel size that is not above zero.
    """
    name = layer.name
    if layer.rgb:
        raise BadInputError(
            f"'{name}' is a color (RGB) image. Right-click it ▸ 'Split RGB' and choose one channel."
        )
    notes: tuple[str, ...] = ()
    data = layer.data
    if layer.multiscale:
        data = layer.data[0]
        notes = (f"'{name}' has {len(layer.data)} resolution levels; the finest one is used.",)
    if data.ndim < 3:
        raise BadInputError(
            f"'{name}' is two-dimensional. A stack with at least two slices is needed: open the "
            "slices together with File ▸ Open Files as Stack."
        )
    if problem := order_problem(layer):
        raise BadInputError(problem)
    ndim = stack_ndim(layer)
    if ndim > 4:
        raise BadInputError(
            f"'{name}' has {ndim} axes. Right-click it ▸ 'Split Stack' until it has z, y, x "
            "and at most one more axis."
        )
    axes = "ZYX" if ndim == 3 else ("TZYX" if first_axis == "time" else "CZYX")
    voxel_size, unit = voxel_size_of(layer)
    if mixed := mixed_units(layer):
        notes += (mixed,)
    data = _without_leading(data, data.ndim - ndim)
    volume = Volume(
        data,
        axes=axes,
        voxel_size=voxel_size,
        unit=unit,
        name=name,
    )
    others = [image_volume(other, first_axis)[0] for other in channels]
    return stack_channels(volume, others), notes


def mixed_units(layer: Layer) -> str:
    """Say that the units of z, y, x cannot be converted into each other; "" if they can."""
    units = [str(unit) for unit in layer.units[-3:]]
    if "pixel" not in units or set(units) == {"pixel"}:
        return ""
    return (
        f"The axes of '{layer.name}' have units that do not go together ({', '.join(units)}): its "
        "voxel size counts in pixels. Choose a unit."
    )


def _without_leading(data: Any, n: int) -> Any:
    """Drop `n` leading axes of length 1 without reading lazy data."""
    if n == 0:
        return data
    if isinstance(data, np.ndarray) or hasattr(data, "__dask_graph__"):
        return data[(0,) * n]
    return Rearranged(data, range(n, data.ndim))  # indexing other arrays would read them


def voxel_size_of(layer: Layer) -> tuple[tuple[float, float, float], str]:
    """Read the voxel size (z, y, x) and its unit from the layer's scale and units.

    The size along a flipped axis (negative scale) is the absolute value. Different units are
    converted as those of files are (`common_unit`).

    Raises
    ------
    BadInputError
        A size is not above zero, or not finite.
    """
    scale = [abs(float(value)) for value in layer.scale[-3:]]
    if not all(np.isfinite(value) and value > 0 for value in scale):
        shown = ", ".join(f"{value:g}" for value in layer.scale[-3:])
        raise BadInputError(
            f"'{layer.name}' has the voxel size ({shown}). Every number must be above zero: type "
            "the right ones at 'Voxel'."
        )
    names = []
    for axis, unit in enumerate(layer.units[-3:]):
        name = _UNITS.get(str(unit))
        if name is None:
            try:
                scale[axis] *= float((1 * unit).to("micrometer").magnitude)
                name = "µm"
            except Exception:  # pint: not a length, so sizes are relative
                name = "pixel"
        names.append(name)
    return common_unit(scale, names)
