"""Decides which Labels layers may hold the annotation, and with which classes.

A Labels layer that the user made may be hours of work. The plugin never paints in it unasked, and
never overwrites it.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils import DirectLabelColormap

from napari_unet3d.config import FIRST_CLASS, ClassInfo, default_class
from napari_unet3d.data.conventions import MOST_CLASSES
from napari_unet3d.data.slices import check_layout, count_values, n_times, painted_planes
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.viewer.layers import role_of

_HIGHEST = 255
"""The largest label value of a class: annotations are stored as uint8."""


def may_annotate(layer: Layer, image: Image | None) -> TypeGuard[Labels]:
    """Return whether this layer can be offered as the annotation of `image`."""
    return (
        isinstance(layer, Labels)
        and image is not None
        and not image.rgb
        and not layer.multiscale
        and role_of(layer) in (None, "annotation")
        and can_be_painted(layer.data)
    )


def can_be_painted(data: Any) -> bool:
    """Return whether voxels can be written; dask arrays and read-only files cannot."""
    if isinstance(data, np.ndarray):
        return data.flags.writeable
    if hasattr(data, "__dask_graph__") or getattr(data, "read_only", False):
        return False
    return hasattr(data, "__setitem__")


def can_be_taken_unasked(layer: Labels) -> bool:
    """Return whether the plugin made this layer, or nothing is painted in it."""
    if role_of(layer) == "annotation":
        return True
    try:
        check_layout(layer.data)
    except BadInputError:
        return False
    times = range(n_times(layer.data))
    return not any(True for time in times for _ in painted_planes(layer.data, time))


def classes_of(layer: Labels) -> tuple[ClassInfo, ...]:
    """Make classes for the label values of a layer that has no class table.

    Raises
    ------
    BadInputError
        The labels are no classes: they have values outside 0 … 255, more different values than
        `SparseAnnotation.from_labels` takes for classes, or axes or a dtype of another kind.
    """
    values = sorted(count_values(layer.data))
    if len(values) > MOST_CLASSES or any(not 0 <= value <= _HIGHEST for value in values):
        raise BadInputError(
            f"'{layer.name}' holds {len(values)} different labels, such as {values[-1]}: these "
            "look like numbered objects. An annotation holds 0 unlabelled, 1 background and "
            f"classes from 2 to {_HIGHEST}. Press New for a layer of its own and paint there; "
            f"'{layer.name}' stays as it is."
        )
    return tuple(_class(layer, value) for value in values if value >= FIRST_CLASS)


def _class(layer: Labels, value: int) -> ClassInfo:
    """Make a class; it has the color that the user gave to this label, if any."""
    info = default_class(value)
    colormap = layer.colormap
    if isinstance(colormap, DirectLabelColormap) and value in colormap.color_dict:
        red, green, blue = (round(255 * float(c)) for c in colormap.color_dict[value][:3])
        info = info.model_copy(update={"color": f"#{red:02x}{green:02x}{blue:02x}"})
    return info
