"""Finds the prediction that shows the slice in view, and says where it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import numpy as np
from napari.layers import Image, Labels

from napari_unet3d.config import BACKGROUND, ClassInfo
from napari_unet3d.data.editing.taking import label_map, translated
from napari_unet3d.data.slices import SliceRef, read_slice
from napari_unet3d.data.wording import either
from napari_unet3d.widgets.viewer.belonging import belongs_to
from napari_unet3d.widgets.viewer.layers import metadata_of, read_classes, remember, role_of
from napari_unet3d.widgets.viewer.result_layers import begun

_ORIGIN = "origin"


@dataclass(frozen=True, eq=False)
class Source:
    """Labels of one slice that can be taken over into the annotation.

    Parameters
    ----------
    name
        What messages call it: "the prediction", "the proposal".
    numbers
        (h, w): as the layer has them.
    background
        The number of background among them.
    labels
        (h, w): label values of the annotation; 0 where nothing is known.
    origin
        Where they came from: "model trained on 'cells', 2026-11-26 14:30".
    missing
        Classes that the annotation does not have.
    """

    name: str
    numbers: np.ndarray
    background: int
    labels: np.ndarray
    origin: str
    missing: tuple[ClassInfo, ...] = ()

    @classmethod
    def from_prediction(cls, layer: Labels, ref: SliceRef, annotated: Sequence[ClassInfo]) -> Self:
        """Read a slice of a prediction, for an annotation with these classes."""
        numbers = read_slice(layer.data, ref)
        mapping, missing = label_map(read_classes(layer), annotated)
        labels = translated(numbers, mapping)
        return cls("the prediction", numbers, 0, labels, origin_of(layer), missing)

    @classmethod
    def from_proposals(cls, layer: Labels, ref: SliceRef, origin: str) -> Self:
        """Read a slice of the proposals."""
        labels = np.array(read_slice(layer.data, ref))
        return cls("the proposal", labels, BACKGROUND, labels, origin)

    def missing_text(self) -> str:
        """Say which classes the annotation lacks; "" when it has all."""
        if not self.missing:
            return ""
        names = ", ".join(f"'{c.name}'" for c in self.missing)
        noun = either(len(self.missing), "class", "classes")
        return f"The prediction has the {noun} {names}: add it to the class table first."


def newest_prediction(
    viewer: Any,
    image: Image | None = None,
    annotation: Labels | None = None,
    *,
    hidden: bool = False,
) -> Labels | None:
    """The prediction that was begun last; None without one.

    Parameters
    ----------
    viewer
        The napari viewer.
    image
        The image of the prediction; None for any.
    annotation
        Of the same shape as the prediction; None for any.
    hidden
        Whether a layer that is not visible counts too.
    """
    shape = None if annotation is None else tuple(annotation.data.shape)
    fitting: list[Labels] = [
        layer
        for layer in reversed(viewer.layers)
        if role_of(layer) == "prediction"
        and (hidden or layer.visible)
        and shape in (None, tuple(layer.data.shape))
        and (image is None or belongs_to(layer, image))
    ]
    return max(fitting, key=begun, default=None)


def note_origin(layer: Labels, model: str) -> None:
    """Record in a prediction which model made it, and when.

    Parameters
    ----------
    layer
        The prediction.
    model
        Words that follow "model", such as "trained on 'cells'".
    """
    now = datetime.now().strftime("%Y-%m-%d %H:%M")
    remember(layer, **{_ORIGIN: f"model {model}, {now}"})


def origin_of(layer: Labels) -> str:
    """Say where a prediction came from, with the name of its layer."""
    origin = metadata_of(layer).get(_ORIGIN)
    name = f"layer '{layer.name}'"
    return f"{origin}, {name}" if isinstance(origin, str) else name


def has_origin(layer: Labels) -> bool:
    """Return whether a prediction is finished, and knows its model."""
    return isinstance(metadata_of(layer).get(_ORIGIN), str)
