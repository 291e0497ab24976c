"""Shows where the model is unsure, and goes to the most unsure place."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from qtpy.QtWidgets import QCheckBox, QPushButton, QVBoxLayout, QWidget

from napari_unet3d.data.slice_summary import SliceSummary
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.slice_view import SliceView
from napari_unet3d.session.texts import error_text
from napari_unet3d.widgets.parts.status_line import StatusLine
from napari_unet3d.widgets.run.newest import Newest, Question
from napari_unet3d.widgets.run.runner import Finished
from napari_unet3d.widgets.viewer.slice_layer import SliceLayer
from napari_unet3d.widgets.viewer.slice_summaries import read_summary_of
from napari_unet3d.widgets.viewer.view_field import Place, ViewWatch, visible_field
from napari_unet3d.widgets.workbench import Feature, Workbench


class WhereUnsure(Feature):
    """A layer that is bright where the model is undecided, computed for the slice in view.

    A run that made an uncertainty image for the whole stack has its own layer, which is shown
    instead.
    """

    place = "result"

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self.check_box = QCheckBox("Show where the model is unsure")
        self.jump_button = QPushButton("Jump to the most unsure place")
        self.status = StatusLine("Uncertainty")
        self.widget = QWidget()
        layout = QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for part in (self.check_box, self.jump_button, self.status):
            layout.addWidget(part)
        key = bench.shortcuts.add("U", "Show where the model is unsure, or not", self.toggle)
        self.check_box.setToolTip(
            f"A layer that is bright where the model is undecided (key {key.shown}). It is "
            "computed for the slice in view, which takes a moment."
        )
        self.jump_button.setToolTip(
            "Center the view on the place where the model is least sure. Press again for the next."
        )
        self._shown = SliceLayer(bench.viewer, _unsure_layer, np.float32, "uncertainty in view")
        self._model: tuple[ModelBundle, tuple[Image, ...], SliceView] | None = None
        """The model, the image with its further channels, and what applies one to the other."""
        self._stack: Any = None
        """The uncertainty of the whole stack, where the last run made it."""
        self._number = -1
        """Of the unsure place that was shown last."""
        self._newest = Newest(bench.background, self._answered, self._failed)
        self._view = ViewWatch(bench.viewer, self)
        for signal, slot in (
            (self.check_box.toggled, self._toggled),
            (self.jump_button.clicked, self.jump),
            (bench.session.changed, self._update),
            (bench.choice.valueChanged, self._update),
            (bench.choice.channelsChanged, self._update),
            (bench.runner.finished, self._finished),
            (bench.runner.phaseChanged, self._update),
            (self._view.changed, self._ask),
        ):
            signal.connect(slot)
        self._update()

    @property
    def layer(self) -> Image | None:
        """The layer that follows the slice in view; None while it is off."""
        return self._shown.layer

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
        self._view.center_on((displayed[0], displayed[1]))
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

    def cleanup(self) -> None:
        """Stop, and let go of the viewer."""
        self._newest.drop()
        self._view.cleanup()
        self._shown.remove()

    # ---- what is known

    def _finished(self, finished: Finished | None) -> None:
        if isinstance(finished, Finished):
            self._stack, self._number = finished.outputs.get("uncertainty"), -1
        self._update()

    def _bundle(self) -> ModelBundle | None:
        model = self.bench.session.value().model
        return None if model is None else model.bundle

    def _summary(self) -> SliceSummary | None:
        """What the last run said about the slices of the image and the time point in view."""
        image, shown = self.bench.choice.value()[0], self.bench.annotator.shown()
        summary = read_summary_of(image)
        if summary is None:
            return None
        return summary.by_time.get(0 if shown is None else shown.time)

    def _update(self, _: Any = None) -> None:
        """The model, the image or the phase of a run has changed."""
        running = self.bench.runner.is_running()
        image, bundle = self.bench.choice.value()[0], self._bundle()
        self.check_box.setEnabled(bundle is not None and image is not None and not running)
        self.jump_button.setEnabled(self._summary() is not None and not running)
        self._ask()

    # ---- the layer

    def _toggled(self, on: bool) -> None:
        layer = self._stack_layer()
        if layer is not None:
            layer.visible = on
        elif on:
            self._ask()
        if not on:
            self._newest.drop()
            self._shown.remove()
            self.status.setText("")

    def _stack_layer(self) -> Layer | None:
        """The layer with the uncertainty of the whole stack, if the last run made one."""
        layers = self.bench.viewer.layers
        return next((x for x in layers if self._stack is not None and x.data is self._stack), None)

    def _ask(self) -> None:
        if not self.check_box.isChecked() or self._stack_layer() is not None:
            return
        if self.bench.runner.is_running():
            self._newest.drop()
            return
        self._newest.ask(self._question)

    def _question(self) -> Question | None:
        bundle, image = self._bundle(), self.bench.choice.value()[0]
        ref, annotation = self.bench.annotator.shown(), self.bench.annotator.layer()
        if bundle is None or image is None or ref is None or annotation is None:
            return None
        images = (image, *self.bench.choice.channels_value())
        if self._model is None or self._model[0] is not bundle or self._model[1] != images:
            self._shown.remove()
            try:
                volume, _ = self.bench.choice.volume()
                volume.check_header()
                unsure = SliceView(bundle, volume, self.bench.form.prediction_config())
            except BadInputError as error:
                self._failed(error)
                return None
            self._model = bundle, images, unsure
        return partial(_work, self._model[2], ref, visible_field(annotation, ref))

    def _answered(self, outcome: Any) -> None:
        unsure, ref, start, values = outcome
        if self._model is None or unsure is not self._model[2] or not self.check_box.isChecked():
            return
        if ref != self.bench.annotator.shown() or self.bench.runner.is_running():
            return
        if (annotation := self.bench.annotator.layer()) is not None:
            self._shown.open(self._model[1][0], annotation)
            self._shown.write(ref, [(start, values)])

    def _failed(self, error: Exception) -> None:
        self.check_box.setChecked(False)
        self.status.setText(error_text(error))


def _unsure_layer(values: Any, **options: Any) -> Image:
    return Image(
        values, colormap="magma", blending="additive", contrast_limits=(0.0, 1.0), **options
    )


def _work(unsure: SliceView, ref: SliceRef, field: tuple[Place, Place], _interrupted: Any) -> Any:
    return unsure, ref, *unsure.of(ref, field)
