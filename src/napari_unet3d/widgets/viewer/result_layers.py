"""The layers of one result, and how a newer result of the same image takes their place.

Each run marks its prediction and the layers beside it with one identifier. The next result of the
image takes the place of these layers, unless the user has made the prediction his own: renamed it
or changed its voxels. Slices that he accepted from it are in the annotation.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from napari.layers import Image, Labels, Layer

from napari_unet3d.widgets.viewer.belonging import belongs_to
from napari_unet3d.widgets.viewer.layers import (
    base_name,
    insert_quietly,
    metadata_of,
    remember,
    role_of,
    unique_name,
)

_RESULT, _NAME, _KEPT, _BEGUN = "result", "result_name", "result_kept", "result_begun"
"""Entries of the plugin's metadata: the identifier of the result, the name that the plugin gave to
its prediction, whether the user has made it his own, and when it was begun (s)."""
_LOOKS = ("opacity", "blending", "contour")
"""What a new prediction takes over from the one before."""


@dataclass(frozen=True, eq=False)
class Result:
    """The layers of a result.

    Parameters
    ----------
    labels
        The prediction.
    companions
        The layers of its optional outputs.
    """

    labels: Labels
    companions: tuple[Layer, ...]

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers of the result, from bottom to top."""
        return (*self.companions, self.labels)


def begin_result(labels: Labels) -> None:
    """Mark the prediction of a new result, and watch whether the user changes it."""
    new = {_RESULT: uuid.uuid4().hex, _NAME: labels.name, _KEPT: False, _BEGUN: time.time()}
    remember(labels, **new)
    for event in (labels.events.paint, labels.events.data):
        event.connect(_changed)


def begun(labels: Layer) -> float:
    """When a prediction was begun, in seconds of the system's clock; 0 where that is not known."""
    when = metadata_of(labels).get(_BEGUN)
    return float(when) if isinstance(when, float) else 0.0


def add_to_result(labels: Labels, companion: Layer) -> None:
    """Mark a layer that belongs to the result of a prediction."""
    remember(companion, **{_RESULT: metadata_of(labels).get(_RESULT)})


def keep_result(labels: Labels) -> None:
    """Let no newer result take the place of this prediction."""
    if not metadata_of(labels).get(_KEPT):
        remember(labels, **{_KEPT: True})


def is_replaceable(labels: Layer) -> bool:
    """Whether a layer is a prediction of the plugin that the user has not made his own."""
    known = metadata_of(labels)
    return (
        isinstance(labels, Labels)
        and role_of(labels) == "prediction"
        and isinstance(known.get(_RESULT), str)
        and not known.get(_KEPT)
        and base_name(labels.name) == known.get(_NAME)
    )


def earlier_result(viewer: Any, image: Image, but: Layer | None = None) -> Result | None:
    """The topmost result of an image that a newer one may replace, other than `but`."""
    for layer in reversed(viewer.layers):
        if layer is not but and is_replaceable(layer) and belongs_to(layer, image):
            return result_of(viewer, layer)
    return None


def result_of(viewer: Any, labels: Labels) -> Result:
    """A prediction with the layers of its other outputs that are still there."""
    identifier = metadata_of(labels).get(_RESULT)
    return Result(
        labels,
        tuple(
            layer
            for layer in viewer.layers
            if layer is not labels
            and role_of(layer) == "companion"
            and metadata_of(layer).get(_RESULT) == identifier is not None
        ),
    )


def look_like(labels: Labels, old: Labels) -> None:
    """Show a prediction as the user had set up the one before."""
    for name in _LOOKS:
        setattr(labels, name, getattr(old, name))


def replace_result(viewer: Any, new: Result, old: Result) -> None:
    """Let a result take the place, the name and the visible layers of an older one."""
    layers, name = viewer.layers, old.labels.name
    was_active = layers.selection.active is old.labels
    for layer in new.layers[::-1]:  # each below the one before, all above the old prediction
        layers.move(layers.index(layer), layers.index(old.labels) + 1)
    endings = {_ending(layer, new.labels.name): layer for layer in new.companions}
    for layer in old.companions:
        if (same := endings.get(_ending(layer, name))) is not None:
            same.visible, same.opacity = layer.visible, layer.opacity
    for layer in old.layers:
        layers.remove(layer)
    remember(new.labels, **{_NAME: name})
    new.labels.name = name
    for ending, layer in endings.items():
        layer.name = f"{name}{ending}"
    if was_active:
        layers.selection.active = new.labels


def bring_back(viewer: Any, old: Result) -> None:
    """Show a replaced result again, beside the one that took its place; it is kept from now on."""
    layers, name = viewer.layers, old.labels.name
    above = _topmost(layers, name)
    new_name = unique_name(f"{name} (earlier)", (x.name for x in layers))
    for layer in old.layers:
        if layer in layers:
            continue
        layer.name = f"{new_name}{_ending(layer, name)}"
        insert_quietly(viewer, above, layer)
        above += 1
    keep_result(old.labels)
    for layer in layers:
        if role_of(layer) == "prediction":
            layer.visible = layer is old.labels


def _topmost(layers: Sequence[Layer], name: str) -> int:
    """The index above the layer with this name, or above all layers."""
    return next((i + 1 for i, x in enumerate(layers) if x.name == name), len(layers))


def _ending(layer: Layer, name: str) -> str:
    """What the name of a layer adds to that of its prediction, such as ": uncertainty"."""
    return layer.name.removeprefix(name) if layer.name.startswith(name) else f": {layer.name}"


def _changed(event: Any) -> None:
    keep_result(event.source)
