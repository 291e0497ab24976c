"""Shows where the model is unsure, and goes to the most unsure place."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from qtpy.QtWidgets import QPushButton, QVBoxLayout

from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.slice_summary import SliceSummary
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.slice_view import SliceView
from napari_unet3d.widgets.features.in_view import InView, Views
from napari_unet3d.widgets.run.runner import Finished
from napari_unet3d.widgets.viewer.slice_layer import SliceLayer
from napari_unet3d.widgets.viewer.slice_summaries import read_summary_of
from napari_unet3d.widgets.workbench import Workbench


class WhereUnsure(InView):
    """A layer that is bright where the model is undecided, and a button to the next such place.

    A run that made an uncertainty image for the whole stack has its own layer, which is shown
    instead.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench, "Show where the model is unsure", "Uncertainty")
        self.jump_button = QPushButton("Jump to the most unsure place")
        assert self.widget is not None
        layout = self.widget.layout()
        assert isinstance(layout, QVBoxLayout)
        layout.insertWidget(1, self.jump_button)
        key = bench.shortcuts.add("U", "Show where the model is unsure, or not", self.toggle)
        self.check_box.setToolTip(
            f"A layer that is bright where the model is undecided (key {key.shown}). It is "
            "computed for the slice in view, which takes a moment."
        )
        self.jump_button.setToolTip(
            "Center the view on the place where the model is least sure. Press again for the next."
        )
        self._stack: Any = None
        """The uncertainty of the whole stack, where the last run made it."""
        self._number = -1
        """Of the unsure place that was shown last."""
        self.jump_button.clicked.connect(self.jump)
        bench.runner.finished.connect(self._finished)
        self._follow()

    @property
    def layer(self) -> Image | None:
        """The layer that follows the slice in view; None while it is off."""
        return next(iter(self.layers), None)

    def toggle(self) -> None:
        """Show or hide the uncertainty, if there is a model."""
        if self.check_box.isEnabled():
            self.check_box.toggle()
        elif self.bench.runner.is_running():
            self.bench.run_bar.tell("Where the model is unsure is shown after the run.")
        else:
            self.bench.run_bar.tell("There is no model yet. Train one, or load one.")

    def jump(self) -> None:
        """Show the most unsure place; when called again, the next one."""
        summary, layer = self._summary(), self.bench.annotator.layer()
        if summary is None or layer is None:
            return
        places = summary.unsure_places()
        if not places:
            self.status.setText("The model is sure everywhere.")
            return
        self._number = (self._number + 1) % len(places)
        place = places[self._number]
        shown = self.bench.annotator.shown()
        axis, time = (0, 0) if shown is None else (shown.axis, shown.time)
        self.bench.annotator.jump(self._beside_paint(SliceRef(axis, place[axis], time)))
        world = layer.data_to_world(place if layer.ndim == 3 else (time, *place))
        first = layer.ndim - 3
        displayed = [float(world[first + a]) for a in range(3) if a != axis]
        self._watch.center_on((displayed[0], displayed[1]))
        z, y, x = place
        self.status.setText(f"Place {self._number + 1} of {len(places)}: z={z}, y={y}, x={x}.")
        self.check_box.setChecked(True)

    def _beside_paint(self, ref: SliceRef) -> SliceRef:
        """The slice or, where that is painted all over, a neighbor: paint would hide the layer."""
        complete = {s.ref for s in self.bench.annotator.slices() if s.state == "complete"}
        layer = self.bench.annotator.layer()
        last = 0 if layer is None else layer.data.shape[ref.axis - 3] - 1
        near = (replace(ref, index=ref.index + step) for step in (0, 1, -1, 2, -2))
        return next((r for r in near if 0 <= r.index <= last and r not in complete), ref)

    # ---- what is known

    def _finished(self, finished: Finished | None) -> None:
        if isinstance(finished, Finished):
            self._stack, self._number = finished.outputs.get("uncertainty"), -1
        self._update()

    def _summary(self) -> SliceSummary | None:
        """What the last run said about the slices of the image and the time point in view."""
        image, shown = self.bench.choice.value()[0], self.bench.annotator.shown()
        summary = read_summary_of(image)
        if summary is None:
            return None
        return summary.by_time.get(0 if shown is None else shown.time)

    def _show_state(self) -> None:
        running = self.bench.runner.is_running()
        image, bundle = self.bench.choice.value()[0], self._bundle()
        self.check_box.setEnabled(bundle is not None and image is not None and not running)
        self.jump_button.setEnabled(self._summary() is not None and not running)

    # ---- the layer

    def _toggled(self, on: bool) -> None:
        layer = self._stack_layer()
        if layer is not None:
            layer.visible = on
        super()._toggled(on)

    def _stack_layer(self) -> Layer | None:
        """The layer with the uncertainty of the whole stack, if the last run made one."""
        layers = self.bench.viewer.layers
        return next((x for x in layers if self._stack is not None and x.data is self._stack), None)

    def _is_wanted(self) -> bool:
        return super()._is_wanted() and self._stack_layer() is None

    def _make_views(self, bundle: ModelBundle, volume: Volume, config: PredictionConfig) -> Views:
        return {"uncertainty": SliceView(bundle, volume, config)}

    def _make_layer(self, name: Hashable) -> SliceLayer[Image]:
        return SliceLayer(self.bench.viewer, _unsure_layer, np.float32, f"{name} in view")


def _unsure_layer(values: Any, **options: Any) -> Image:
    return Image(
        values, colormap="magma", blending="additive", contrast_limits=(0.0, 1.0), **options
    )
