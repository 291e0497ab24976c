"""Shows a prediction as layers, while it is made and when it is finished."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from napari.layers import Image, Labels, Layer

from napari_unet3d.config import ClassInfo
from napari_unet3d.session.job import Outputs
from napari_unet3d.widgets.viewer.belonging import bind
from napari_unet3d.widgets.viewer.layers import (
    base_name,
    companion_layers,
    insert_quietly,
    prediction_layer,
    role_of,
    unique_name,
)
from napari_unet3d.widgets.viewer.placement import spatial_transform

_HIDING = ("translucent", "translucent_no_depth", "opaque")
"""Blending modes of images that hide the layers below them."""


class ShownResult:
    """The layers of a finished result, which live no longer for it.

    Parameters
    ----------
    viewer
        The napari viewer.
    image
        The image that was segmented.
    labels, companions
        The layers.
    """

    def __init__(
        self, viewer: Any, image: Image, labels: Labels, companions: Sequence[Layer]
    ) -> None:
        self._viewer, self._image = viewer, weakref.ref(image)
        self._layers = [weakref.ref(layer) for layer in (labels, *companions)]

    def labels_of(self, image: Image) -> Any:
        """The segmentation of `image` (ZYX or TZYX); None where it is of another, or is gone."""
        layer = self._layers[0]()
        known = layer is not None and layer in self._viewer.layers
        return layer.data if known and self._image() is image else None  # type: ignore[union-attr]

    def remove(self) -> str:
        """Remove the layers; return the name of the labels, "" where they were gone."""
        layers, name = self._viewer.layers, ""
        for number, reference in enumerate(self._layers):
            layer = reference()
            if layer is not None and layer in layers:
                name = name if number else layer.name
                layers.remove(layer)
        return name


class PredictionView:
    """Shows the arrays of one run as layers, and removes them when it is cancelled.

    Parameters
    ----------
    viewer
        The napari viewer.
    outputs
        The arrays of the run, by the names of the outputs.
    image
        The image that is segmented.
    classes
        The classes of the model.
    replaces
        An earlier result, whose layers are removed when this one is finished.

    Attributes
    ----------
    outputs
        As given.
    layer
        The layer of the labels; None until `open`.
    """

    def __init__(
        self,
        viewer: Any,
        outputs: Outputs,
        image: Image,
        classes: Sequence[ClassInfo],
        replaces: ShownResult | None = None,
    ) -> None:
        self._viewer, self.outputs, self._image = viewer, outputs, image
        self._classes = tuple(classes)
        wanted = f"{base_name(image.name)} prediction"
        self.name = unique_name(wanted, (x.name for x in viewer.layers))
        self.layer: Labels | None = None
        self._hidden: list[Layer] = []
        self._companions: list[Layer] = []
        self._replaces = replaces

    def open(self) -> None:
        """Add the layer above the image and all layers that hide it; hide earlier predictions."""
        for layer in self._viewer.layers:
            if role_of(layer) == "prediction" and layer.visible:
                layer.visible = False
                self._hidden.append(layer)
        self._add()

    def refresh(self) -> None:
        """Redraw the layer, into whose array the run has written."""
        if self.layer is not None and self.layer in self._viewer.layers and self.layer.visible:
            self.layer.refresh(extent=False, thumbnail=False)

    def finish(self) -> Labels:
        """Show the finished result, in a new layer if the user deleted the first one."""
        if self.layer is None or self.layer not in self._viewer.layers:
            self._add()
        assert self.layer is not None
        transform = spatial_transform(self._image, self.outputs["labels"].ndim)
        for companion in companion_layers(self.layer.name, self._classes, transform, self.outputs):
            bind(companion, self._image)
            insert_quietly(self._viewer, self._viewer.layers.index(self.layer), companion)
            self._companions.append(companion)
        self.layer.refresh()
        if self._replaces is not None:
            name = self._replaces.remove()
            self.layer.name = name or self.layer.name
            self._replaces = None
        return self.layer

    def shown(self) -> ShownResult:
        """The layers of the finished result."""
        assert self.layer is not None
        return ShownResult(self._viewer, self._image, self.layer, self._companions)

    def discard(self) -> None:
        """Remove the layer, and show the layers again that were hidden for it."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self.layer = None
        for layer in self._hidden:
            if layer in self._viewer.layers:
                layer.visible = True

    def _add(self) -> None:
        labels = self.outputs["labels"]
        transform = spatial_transform(self._image, labels.ndim)  # as it lies now
        self.layer = prediction_layer(labels, self.name, self._classes, transform)
        bind(self.layer, self._image)
        below = [i for i, x in enumerate(self._viewer.layers) if x is self._image or _hides(x)]
        # An annotation above all of these stays above the prediction.
        insert_quietly(
            self._viewer, below[-1] + 1 if below else len(self._viewer.layers), self.layer
        )


def _hides(layer: Layer) -> bool:
    """Return whether this layer hides all layers below it."""
    return (
        isinstance(layer, Image)
        and layer.visible
        and layer.opacity > 0.9
        and str(layer.blending) in _HIDING
    )
