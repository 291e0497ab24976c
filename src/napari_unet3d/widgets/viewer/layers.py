"""Layers ↔ core: Image layer → Volume, and the layers the plugin adds.

Nothing here keeps state: what must survive closing the dock (class table, held-out slices)
lies in ``layer.metadata["napari-unet3d"]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils import DirectLabelColormap
from pydantic import ValidationError

from napari_unet3d.config import BACKGROUND, FIRST_CLASS, ClassInfo, default_class
from napari_unet3d.data.io.file_metadata import common_unit
from napari_unet3d.data.lazy import Rearranged
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.prediction.outputs import LayerOptions, chosen_outputs
from napari_unet3d.widgets.viewer.placement import spatial_transform
from napari_unet3d.widgets.viewer.room import empty_labels

FirstAxis = Literal["time", "channels"]
Role = Literal["annotation", "prediction", "companion", "truth"]
_ROLES: tuple[Role, ...] = ("annotation", "prediction", "companion", "truth")

METADATA_KEY = "napari-unet3d"
BACKGROUND_COLOR = "#7a5fd0"
"""Color of painted background: far from every class color and from gray images."""
_UNKNOWN_COLOR = "#ff00ff"
_UNITS = {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm", "pixel": "pixel"}


# ---------------------------------------------------------------- image → volume


def image_volume(layer: Image, first_axis: FirstAxis = "time") -> tuple[Volume, tuple[str, ...]]:
    """The image of a layer as the core sees it, and notes for the user.

    Parameters
    ----------
    layer : Image
        3D (ZYX) or 4D, after leading axes of length 1; only the finest level of a multiscale
        image is used.
    first_axis : {"time", "channels"}
        What the first axis of a 4D image is.

    Raises
    ------
    BadInputError
        For RGB and 2D images, more than four axes, and voxel sizes that are no numbers.
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
    volume = Volume(
        _without_leading(data, data.ndim - ndim),
        axes=axes,
        voxel_size=voxel_size,
        unit=unit,
        name=name,
    )
    return volume, notes


def mixed_units(layer: Layer) -> str:
    """Say that units of z, y, x cannot be brought together; "" when they can."""
    units = [str(unit) for unit in layer.units[-3:]]
    if "pixel" not in units or set(units) == {"pixel"}:
        return ""
    return (
        f"The axes of '{layer.name}' have units that do not go together ({', '.join(units)}): its "
        "voxel size counts in pixels. Choose a unit."
    )


def stack_ndim(image: Image) -> int:
    """Axes of an image without leading ones of length 1, which mean nothing; RGB not counted."""
    shape = _shape(image)
    leading = 0
    while len(shape) - leading > 3 and shape[leading] == 1:
        leading += 1
    return len(shape) - leading


def _without_leading(data: Any, n: int) -> Any:
    """Drop `n` leading axes of length 1 without reading what is lazy."""
    if n == 0:
        return data
    if isinstance(data, np.ndarray) or hasattr(data, "__dask_graph__"):
        return data[(0,) * n]
    return Rearranged(data, range(n, data.ndim))  # others would read all of it


def voxel_size_of(layer: Layer) -> tuple[tuple[float, float, float], str]:
    """Voxel size (z, y, x) and its unit, from the layer's scale and units.

    A flipped axis (negative scale) has the size of its absolute value. Units are brought
    together as those of files are (`common_unit`).
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
            except Exception:  # not a length: sizes are relative then
                name = "pixel"
        names.append(name)
    return common_unit(scale, names)


def labels_shape(layer: Image, first_axis: FirstAxis) -> tuple[int, ...]:
    """Shape of labels for this image: without leading axes of length 1, and without channels."""
    shape = _shape(layer)[-stack_ndim(layer) :]
    return shape[1:] if len(shape) == 4 and first_axis == "channels" else shape


def _shape(layer: Image) -> tuple[int, ...]:
    data = layer.data[0] if layer.multiscale else layer.data
    shape = tuple(int(size) for size in data.shape)
    return shape[:-1] if layer.rgb else shape


# ---------------------------------------------------------------- what the plugin remembers


def metadata_of(layer: Layer) -> dict[str, Any]:
    """The plugin's own part of a layer's metadata."""
    found = layer.metadata.get(METADATA_KEY)
    return dict(found) if isinstance(found, Mapping) else {}


def role_of(layer: Layer) -> Role | None:
    """What the plugin made this layer for; None for the user's own layers."""
    role = metadata_of(layer).get("role")
    return role if role in _ROLES else None


def remember(layer: Layer, **values: Any) -> None:
    """Keep values in the plugin's own part of a layer's metadata."""
    layer.metadata = {**layer.metadata, METADATA_KEY: {**metadata_of(layer), **values}}


def read_classes(layer: Layer) -> tuple[ClassInfo, ...]:
    """The class table that travels with a layer; () when there is none."""
    try:
        return tuple(ClassInfo.model_validate(c) for c in metadata_of(layer).get("classes", ()))
    except (ValidationError, TypeError):  # edited by someone else: start anew
        return ()


def write_classes(layer: Labels, classes: Sequence[ClassInfo]) -> None:
    """Keep the class table with the annotation layer and paint it in the classes' colors.

    Features that somebody else gave the layer stay.
    """
    ours = class_features(read_classes(layer), annotation=True)
    features = layer.features
    if features.empty or features.to_dict("list") == ours:
        layer.features = class_features(classes, annotation=True)
    remember(layer, role="annotation", classes=[c.model_dump() for c in classes])
    layer.colormap = class_colormap(classes, annotation=True)


def read_held_out(layer: Labels) -> frozenset[SliceRef]:
    """The slices of this annotation that are kept for measuring."""
    try:
        return frozenset(SliceRef(*map(int, s)) for s in metadata_of(layer).get("held_out", ()))
    except (TypeError, ValueError):
        return frozenset()


def write_held_out(layer: Labels, held_out: Iterable[SliceRef]) -> None:
    """Keep the held-out slices with the annotation layer."""
    remember(layer, held_out=[[r.axis, r.index, r.time] for r in sorted(held_out)])


def starting_classes() -> tuple[ClassInfo, ...]:
    """The class table of a new annotation layer (background is always there)."""
    return (default_class(FIRST_CLASS, "structure"),)


# ---------------------------------------------------------------- looks


def class_colormap(classes: Sequence[ClassInfo], *, annotation: bool) -> DirectLabelColormap:
    """Colors of the class table; label 0 is transparent."""
    colors: dict[int | None, str] = {
        c.value if annotation else c.output_value: c.color for c in classes
    }
    colors[0] = "transparent"
    colors[None] = _UNKNOWN_COLOR if annotation else "transparent"
    if annotation:
        colors[BACKGROUND] = BACKGROUND_COLOR
    return DirectLabelColormap(color_dict=colors)


def class_features(classes: Sequence[ClassInfo], *, annotation: bool) -> dict[str, list[Any]]:
    """Names by label value, which napari shows in the status bar."""
    first = {0: "unlabelled", BACKGROUND: "background"} if annotation else {0: "background"}
    names = first | {c.value if annotation else c.output_value: c.name for c in classes}
    return {"index": list(names), "class": list(names.values())}


def unique_name(wanted: str, taken: Iterable[str]) -> str:
    """`wanted`, or "wanted 2", "wanted 3" … when it is taken."""
    names = set(taken)
    number, name = 1, wanted
    while name in names:
        number += 1
        name = f"{wanted} {number}"
    return name


def base_name(name: str) -> str:
    """A layer's name without napari's " [1]" for duplicates."""
    return re.sub(r" \[\d+\]$", "", name)


# ---------------------------------------------------------------- new layers


def new_annotation_layer(image: Image, first_axis: FirstAxis, taken: Iterable[str] = ()) -> Labels:
    """An empty annotation layer that lies on the image."""
    shape = labels_shape(image, first_axis)
    layer = Labels(
        empty_labels(shape, image.name),
        name=unique_name(f"{image.name} annotation", taken),
        **spatial_transform(image, len(shape)),
    )
    write_classes(layer, read_classes(image) or starting_classes())
    write_held_out(layer, ())
    layer.opacity = 0.6
    layer.brush_size = max(2, min(shape[-2:]) // 25)
    return layer


def prediction_layer(
    array: np.ndarray, name: str, classes: Sequence[ClassInfo], transform: Mapping[str, Any]
) -> Labels:
    """A Labels layer that shows `array` (not a copy) in the classes' colors."""
    layer = Labels(array, name=name, opacity=0.5, **transform)
    layer.colormap = class_colormap(classes, annotation=False)
    layer.features = class_features(classes, annotation=False)
    remember(layer, role="prediction", classes=[c.model_dump() for c in classes])
    return layer


def companion_layers(
    name: str,
    classes: Sequence[ClassInfo],
    transform: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> list[Layer]:
    """Hidden layers beside a prediction, which show its optional outputs.

    Parameters
    ----------
    name
        Of the prediction's layer.
    classes
        The foreground classes of the model.
    transform
        Scale, translation and units of the layers, which have the labels' dimensions.
    arrays
        The outputs by name; the labels among them are left out.
    """
    layers: list[Layer] = []
    for output in chosen_outputs([key for key in arrays if key != "labels"]):
        for options in output.layers(classes) if output.optional else ():
            array = arrays[output.name]
            if options.channel is not None:  # (C, Z, Y, X) or (T, C, Z, Y, X)
                array = array[..., options.channel, :, :, :]
            layer = _companion(array, f"{name}: {options.suffix}", options, classes, transform)
            remember(layer, role="companion")
            layers.append(layer)
    return layers


def _companion(
    array: np.ndarray,
    name: str,
    options: LayerOptions,
    classes: Sequence[ClassInfo],
    transform: Mapping[str, Any],
) -> Layer:
    if options.kind == "labels":
        layer = Labels(array, name=name, opacity=0.5, visible=False, **transform)
        layer.colormap = class_colormap(classes, annotation=False)
        return layer
    colormap: Any = options.colormap
    if colormap.startswith("#"):
        colormap = f"to {colormap}", _ramp([(0.0, 0.0, 0.0, 1.0), colormap])
    return Image(
        array,
        name=name,
        colormap=colormap,
        blending="additive",
        contrast_limits=options.contrast_limits,
        visible=False,
        **transform,
    )


def _ramp(colors: list[Any]) -> Any:
    from napari.utils import Colormap

    return Colormap(colors)
