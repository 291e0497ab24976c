"""Makes the layers that the plugin adds, and reads and writes their metadata.

Classes and held-out slices, which outlive a closed dock, are stored in
``layer.metadata["napari-unet3d"]``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils import DirectLabelColormap
from pydantic import ValidationError

from napari_unet3d.config import BACKGROUND, FIRST_CLASS, ClassInfo, default_class
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.prediction.output import LayerOptions
from napari_unet3d.prediction.outputs import chosen_outputs
from napari_unet3d.widgets.parts.colors import BACKGROUND_ALPHA, BACKGROUND_COLOR
from napari_unet3d.widgets.viewer.axes import FirstAxis, labels_shape
from napari_unet3d.widgets.viewer.placement import spatial_transform
from napari_unet3d.widgets.viewer.room import empty_labels

Role = Literal["annotation", "prediction", "proposal", "companion", "truth"]
_ROLES: tuple[Role, ...] = ("annotation", "prediction", "proposal", "companion", "truth")

METADATA_KEY = "napari-unet3d"
ANNOTATION_OPACITY = 0.6
"""Opacity, 0 to 1. Paint hides little of the image, and its colors can still be told apart."""
_UNKNOWN_COLOR = "#ff00ff"


# ---------------------------------------------------------------- metadata of the plugin


def metadata_of(layer: Layer) -> dict[str, Any]:
    """The plugin's own part of a layer's metadata."""
    metadata = layer.metadata.get(METADATA_KEY)
    return dict(metadata) if isinstance(metadata, Mapping) else {}


def file_of(layer: Layer) -> Path | None:
    """The file or folder that napari read a layer from; None for one that is in no file."""
    path = layer.source.path
    return None if path is None or "://" in str(path) else Path(path)


def role_of(layer: Layer) -> Role | None:
    """The role of a layer of the plugin; None for a layer of the user."""
    role = metadata_of(layer).get("role")
    return role if role in _ROLES else None


def remember(layer: Layer, **values: Any) -> None:
    """Store values in the plugin's own part of a layer's metadata."""
    layer.metadata = {**layer.metadata, METADATA_KEY: {**metadata_of(layer), **values}}


def insert_quietly(viewer: Any, index: int, layer: Layer) -> None:
    """Add a layer at an index of the list; what was selected stays so, for the user paints there.

    napari selects what is added. Where nothing was selected, that is left so.
    """
    layers = viewer.layers
    selected, active = set(layers.selection), layers.selection.active
    layers.insert(index, layer)
    if selected:
        layers.selection = selected
        layers.selection.active = active


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


def class_colormap(
    classes: Sequence[ClassInfo], *, annotation: bool, hidden: Collection[int] = ()
) -> DirectLabelColormap:
    """Make a colormap with the colors of the classes; label 0 is transparent.

    Parameters
    ----------
    classes
        The classes.
    annotation
        Whether the labels are those of an annotation, with a background of its own.
    hidden
        Label values, in an annotation, that are transparent too.
    """
    colors: dict[int | None, str] = {
        c.value if annotation else c.output_value: "transparent" if c.value in hidden else c.color
        for c in classes
    }
    colors[0] = "transparent"
    colors[None] = _UNKNOWN_COLOR if annotation else "transparent"
    if annotation:
        faint = f"{BACKGROUND_COLOR}{round(255 * BACKGROUND_ALPHA):02x}"
        colors[BACKGROUND] = "transparent" if BACKGROUND in hidden else faint
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
        empty_labels(shape),
        name=unique_name(f"{image.name} annotation", taken),
        **spatial_transform(image, len(shape)),
    )
    write_classes(layer, read_classes(image) or starting_classes())
    write_held_out(layer, ())
    layer.opacity = ANNOTATION_OPACITY
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
