"""The layer that shows a prediction while it is made, and when it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from napari.layers import Labels, Layer

from napari_unet3d.config import ClassInfo
from napari_unet3d.widgets.layers import (
    companion_layers,
    prediction_layer,
    role_of,
    unique_name,
)
from napari_unet3d.widgets.run import Outputs


class PredictionView:
    """Shows the arrays of one run as layers; takes everything back when it is cancelled."""

    def __init__(
        self,
        viewer: Any,
        outputs: Outputs,
        image_name: str,
        classes: Sequence[ClassInfo],
        transform: Mapping[str, Any],
    ) -> None:
        self._viewer, self._outputs = viewer, outputs
        self._classes, self._transform = tuple(classes), transform
        self.name = unique_name(f"{image_name} prediction", (x.name for x in viewer.layers))
        self.layer: Labels | None = None
        self._hidden: list[Layer] = []

    def open(self, below: Layer | None) -> None:
        """Add the layer under `below`, and hide earlier predictions."""
        for layer in self._viewer.layers:
            if role_of(layer) == "prediction" and layer.visible:
                layer.visible = False
                self._hidden.append(layer)
        self._add(below)

    def refresh(self) -> None:
        """Redraw what the run has written."""
        if self.layer is not None and self.layer in self._viewer.layers and self.layer.visible:
            self.layer.refresh(extent=False, thumbnail=False)

    def finish(self) -> Labels:
        """Show the result, in a new layer if the user deleted the first one."""
        if self.layer is None or self.layer not in self._viewer.layers:
            self._add(None)
        assert self.layer is not None
        outputs = self._outputs
        for companion in companion_layers(
            self.layer.name,
            self._classes,
            self._transform,
            outputs.probabilities,
            outputs.uncertainty,
        ):
            self._insert(companion, self.layer)
        self.layer.refresh()
        return self.layer

    def discard(self) -> None:
        """Take the layer away and show again what was hidden for it."""
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)
        self.layer = None
        for layer in self._hidden:
            if layer in self._viewer.layers:
                layer.visible = True

    def _add(self, below: Layer | None) -> None:
        self.layer = prediction_layer(
            self._outputs.labels, self.name, self._classes, self._transform
        )
        self._insert(self.layer, below)

    def _insert(self, layer: Layer, below: Layer | None) -> None:
        layers = self._viewer.layers
        selected, active = set(layers.selection), layers.selection.active
        index = layers.index(below) if below is not None and below in layers else len(layers)
        layers.insert(index, layer)
        # napari selects what is added: the user would go on painting in the wrong layer.
        if selected:
            layers.selection = selected
            layers.selection.active = active
