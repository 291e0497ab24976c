"""Makes a Volume of an Image layer, and makes the layers that the plugin adds.

Classes and held-out slices, which outlive a closed dock, are stored in
``layer.metadata["napari-unet3d"]``.
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
from napari_unet3d.prediction.output import LayerOptions
from napari_unet3d.prediction.outputs import chosen_outputs
from napari_unet3d.widgets.parts.colors import BACKGROUND_ALPHA, BACKGROUND_COLOR
from napari_unet3d.widgets.viewer.placement import spatial_transform
from napari_unet3d.widgets.viewer.room import empty_labels

FirstAxis = Literal["time", "channels"]
Role = Literal["annotation", "prediction", "companion", "truth"]
_ROLES: tuple[Role, ...] = ("annotation", "prediction", "companion", "truth")

METADATA_KEY = "napari-unet3d"
_UNKNOWN_COLOR = "#ff00ff"
_UNITS = {"micrometer": "µm", "nanometer": "nm", "millimeter": "mm", "pixel": "pixel"}


# ---------------------------------------------------------------- image → volume


def image_volume(layer: Image, first_axis: FirstAxis = "time") -> tuple[Volume, tuple[str, ...]]:
    """Make a Volume of an Image layer, without reading its voxels.

    Parameters
    ----------
    layer : Image
        3D (ZYX) or 4D, after leading axes of length 1; only the finest level of a multiscale
        image is used.
    first_axis : {"time", "channels"}
        Meaning of the first axis of a 4D image.

    Returns
    -------
    volume : Volume
        The image, with voxel size, unit and name.
    notes : tuple of str
        Sentences for the user, such as that only one resolution level is used.

    Raises
    ------
    BadInputError
        The image is RGB or 2D, has more than four axes, or a voxel size that is not above zero.
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
    """Say that the units of z, y, x cannot be converted into each other; "" if they can."""
    units = [str(unit) for unit in layer.units[-3:]]
    if "pixel" not in units or set(units) == {"pixel"}:
        return ""
    return (
        f"The axes of '{layer.name}' have units that do not go together ({', '.join(units)}): its "
        "voxel size counts in pixels. Choose a unit."
    )


def stack_ndim(image: Image) -> int:
    """Number of axes of an image, without leading axes of length 1, and without RGB."""
    shape = _shape(image)
    leading = 0
    while len(shape) - leading > 3 and shape[leading] == 1:
        leading += 1
    return len(shape) - leading


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


def labels_shape(layer: Image, first_axis: FirstAxis) -> tuple[int, ...]:
    """Shape of the labels of an image: without leading axes of length 1, and without channels."""
    shape = _shape(layer)[-stack_ndim(layer) :]
    return shape[1:] if len(shape) == 4 and first_axis == "channels" else shape


def _shape(layer: Image) -> tuple[int, ...]:
    data = layer.data[0] if layer.multiscale else layer.data
    shape = tuple(int(size) for size in data.shape)
    return shape[:-1] if layer.rgb else shape


# ---------------------------------------------------------------- metadata of the plugin


def metadata_of(layer: Layer) -> dict[str, Any]:
    """The plugin's own part of a layer's metadata."""
    metadata = layer.metadata.get(METADATA_KEY)
    return dict(metadata) if isinstance(metadata, Mapping) else {}


def role_of(layer: Layer) -> Role | None:
    """The role of a layer of the plugin; None for a layer of the user."""
    role = metadata_of(layer).get("role")
    return role if role in _ROLES else None


def remember(layer: Layer, **values: Any) -> None:
    """Store values in the plugin's own part of a layer's metadata."""
    layer.metadata = {**layer.metadata, METADATA_KEY: {**metadata_of(layer), **values}}


def read_classes(layer: Layer) -> tuple[ClassInfo, ...]:
    """The classes that are stored in a layer; () when none are."""
    try:
        return tuple(ClassInfo.model_validate(c) for c in metadata_of(layer).get("classes", ()))
    except (ValidationError, TypeError):  # someone else has edited the metadata
        return ()


def write_classes(layer: Labels, classes: Sequence[ClassInfo]) -> None:
    """Store classes in an annotation layer, and show it in their colors.

    Features that are not of the plugin stay.
    """
    ours = class_features(read_classes(layer), annotation=True)
    features = layer.features
    if features.empty or features.to_dict("list") == ours:
        layer.features = class_features(classes, annotation=True)
    remember(layer, role="annotation", classes=[c.model_dump() for c in classes])
    layer.colormap = class_colormap(classes, annotation=True)


def read_held_out(layer: Labels) -> frozenset[SliceRef]:
    """The held-out slices that are stored in an annotation layer."""
    try:
        return frozenset(SliceRef(*map(int, s)) for s in metadata_of(layer).get("held_out", ()))
    except (TypeError, ValueError):
        return frozenset()


def write_held_out(layer: Labels, held_out: Iterable[SliceRef]) -> None:
    """Store the held-out slices in an annotation layer."""
    remember(layer, **held_out_entry(held_out))


def held_out_entry(held_out: Iterable[SliceRef]) -> dict[str, Any]:
    """The part of the metadata that names the held-out slices."""
    return {"held_out": [[r.axis, r.index, r.time] for r in sorted(held_out)]}


def read_accepted(layer: Layer) -> dict[SliceRef, str]:
    """The slices that were taken over from a prediction, each with where it came from."""
    try:
        entries = metadata_of(layer).get("accepted", ())
        return {SliceRef(*map(int, where)): str(source) for where, source in entries}
    except (TypeError, ValueError):
        return {}


def write_accepted(layer: Labels, accepted: Mapping[SliceRef, str]) -> None:
    """Store which slices were taken over from a prediction."""
    remember(layer, **accepted_entry(accepted))


def accepted_entry(accepted: Mapping[SliceRef, str]) -> dict[str, Any]:
    """The part of the metadata that names the accepted slices."""
    return {"accepted": [[[r.axis, r.index, r.time], accepted[r]] for r in sorted(accepted)]}


def starting_classes() -> tuple[ClassInfo, ...]:
    """The classes of a new annotation layer, beside background."""
    return (default_class(FIRST_CLASS, "structure"),)


# ---------------------------------------------------------------- looks


def class_colormap(classes: Sequence[ClassInfo], *, annotation: bool) -> DirectLabelColormap:
    """Make a colormap with the colors of the classes; label 0 is transparent."""
    colors: dict[int | None, str] = {
        c.value if annotation else c.output_value: c.color for c in classes
    }
    colors[0] = "transparent"
    colors[None] = _UNKNOWN_COLOR if annotation else "transparent"
    if annotation:
        colors[BACKGROUND] = f"{BACKGROUND_COLOR}{round(255 * BACKGROUND_ALPHA):02x}"
    return DirectLabelColormap(color_dict=colors)


def class_features(classes: Sequence[ClassInfo], *, annotation: bool) -> dict[str, list[Any]]:
    """Make features with the name of each label value, which napari shows in its status bar."""
    first = {0: "unlabelled", BACKGROUND: "background"} if annotation else {0: "background"}
    names = first | {c.value if annotation else c.output_value: c.name for c in classes}
    return {"index": list(names), "class": list(names.values())}


def unique_name(wanted: str, taken: Iterable[str]) -> str:
    """Return `wanted`, or "wanted 2", "wanted 3" … when it is taken."""
    names = set(taken)
    number, name = 1, wanted
    while name in names:
        number += 1
        name = f"{wanted} {number}"
    return name


def base_name(name: str) -> str:
    """Return the name of a layer without the " [1]" that napari adds to duplicates."""
    return re.sub(r" \[\d+\]$", "", name)


# ---------------------------------------------------------------- new layers


def new_annotation_layer(image: Image, first_axis: FirstAxis, taken: Iterable[str] = ()) -> Labels:
    """Make an empty annotation layer that lies on the image."""
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
    """Make a Labels layer that shows `array` itself, not a copy, in the colors of the classes."""
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
