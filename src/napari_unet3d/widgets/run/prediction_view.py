"""Shows a prediction as layers, while it is made and when it is finished."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari.layers import Image, Labels, Layer

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.slice_summary import StackSummary
from napari_unet3d.session.job import Outputs
from napari_unet3d.widgets.viewer.belonging import bind
from napari_unet3d.widgets.viewer.layers import (
    base_name,
    companion_layers,
    insert_quietly,
    prediction_layer,
    read_classes,
    role_of,
    unique_name,
)
from napari_unet3d.widgets.viewer.objects_layer import hide_objects_of
from napari_unet3d.widgets.viewer.placement import spatial_transform
from napari_unet3d.widgets.viewer.result_layers import (
    Result,
    add_to_result,
    begin_result,
    earlier_result,
    look_like,
    replace_result,
    result_of,
)
from napari_unet3d.widgets.viewer.slice_summaries import read_summary_of, write_summary_of

_HIDING = ("translucent", "translucent_no_depth", "opaque")
"""Blending modes of images that hide the layers below them."""


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

    Attributes
    ----------
    outputs
        As given.
    layer
        The layer of the labels; None until `open`.
    replaced
        The earlier result of the image whose place this one has taken; None until `finish`.
    summary
        What the result says about each slice; None until `summarize`.
    """

    def __init__(
        self,
        viewer: Any,
        outputs: Outputs,
        image: Image,
        classes: Sequence[ClassInfo],
    ) -> None:
        self._viewer, self.outputs, self._image = viewer, outputs, image
        self._classes = tuple(classes)
        wanted = f"{base_name(image.name)} prediction"
        self.name = unique_name(wanted, (x.name for x in viewer.layers))
        self.layer: Labels | None = None
        self.replaced: Result | None = None
        self.summary: StackSummary | None = None
        self._summary_before = read_summary_of(image)
        self._hidden: list[Layer] = []

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

    def summarize(self, summary: StackSummary) -> None:
        """Note with the image what the result says about each slice."""
        self.summary = summary
        write_summary_of(self._image, summary)

    def finish(self) -> Labels:
        """Show the finished result in the place of the earlier one of the image, if there is one.

        The layer is made again if the user deleted it.
        """
        if self.layer is None or self.layer not in self._viewer.layers:
            self._add()
        assert self.layer is not None
        transform = spatial_transform(self._image, self.outputs["labels"].ndim)
        for companion in companion_layers(self.layer.name, self._classes, transform, self.outputs):
            bind(companion, self._image)
            add_to_result(self.layer, companion)
            insert_quietly(self._viewer, self._viewer.layers.index(self.layer), companion)
        self.layer.refresh()
        old = earlier_result(self._viewer, self._image, but=self.layer)
        if old is not None:
            hide_objects_of(self._viewer, old.labels)
            replace_result(self._viewer, result_of(self._viewer, self.layer), old)
            self.replaced = old
        return self.layer

    def before(self) -> Any:
        """The labels of the result that this one will replace; None without one that fits."""
        old = earlier_result(self._viewer, self._image, but=self.layer)
        same = old is not None and read_classes(old.labels) == self._classes
        return old.labels.data if old is not None and same else None

    def discard(self) -> None:
        """Remove the layer, and let all be as it was before the run."""
        if self.summary is not None:
            self.summary = None
            write_summary_of(self._image, self._summary_before)
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
        begin_result(self.layer)
        if (old := earlier_result(self._viewer, self._image)) is not None:
            look_like(self.layer, old.labels)
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
