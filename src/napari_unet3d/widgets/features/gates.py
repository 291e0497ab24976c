"""Shows what the gates of an attention network let pass, on the slice in view."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from napari.layers import Image
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_unet3d.data.slices import SliceRef
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.attention import AttentionUNetConfig
from napari_unet3d.session.slice_view import SliceView, first_class
from napari_unet3d.session.texts import error_text
from napari_unet3d.widgets.parts.status_line import StatusLine
from napari_unet3d.widgets.run.newest import Newest, Question
from napari_unet3d.widgets.viewer.slice_layer import SliceLayer
from napari_unet3d.widgets.viewer.view_field import Place, ViewWatch, visible_field
from napari_unet3d.widgets.workbench import Feature, Workbench

_COLORS = ("green", "magenta", "cyan", "yellow")
"""Colors of the layers, the finest gate first."""


class Gates(Feature):
    """A layer for each gate, computed for the slice in view; only for networks that have gates."""

    place = "result"

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self.check_box = QCheckBox("Show what the gates let pass")
        self.check_box.setToolTip(
            "A layer for each attention gate: bright where its skip passes details on to the "
            "result. It is computed for the slice in view, which takes a moment."
        )
        self.status = StatusLine("Gates")
        self.widget = QWidget()
        layout = QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.check_box)
        layout.addWidget(self.status)
        self._layers: dict[int, SliceLayer[Image]] = {}
        self._views: tuple[ModelBundle, tuple[Image, ...], dict[int, SliceView]] | None = None
        self._newest = Newest(bench.background, self._answered, self._failed)
        self._watch = ViewWatch(bench.viewer, self)
        for signal, slot in (
            (self.check_box.toggled, self._toggled),
            (bench.session.changed, self._update),
            (bench.choice.valueChanged, self._update),
            (bench.choice.channelsChanged, self._update),
            (bench.runner.phaseChanged, self._update),
            (self._watch.changed, self._ask),
        ):
            signal.connect(slot)
        self._update()

    @property
    def layers(self) -> list[Image]:
        """The layers that are shown, that of the finest gate first."""
        return [shown.layer for shown in self._layers.values() if shown.layer is not None]

    def cleanup(self) -> None:
        """Stop, and let go of the viewer."""
        self._newest.drop()
        self._watch.cleanup()
        self._remove()

    def _levels(self) -> range:
        """Levels of the gates of the current model."""
        model = self.bench.session.value().model
        network = None if model is None else model.bundle.network
        if not isinstance(network, AttentionUNetConfig):
            return range(0)
        return range(1, len(network.strides))

    def _update(self, _: Any = None) -> None:
        """The model, the image or the phase of a run has changed."""
        has_gates = bool(self._levels())
        assert self.widget is not None
        self.widget.setVisible(has_gates)
        if not has_gates:
            self.check_box.setChecked(False)
        self.check_box.setEnabled(not self.bench.runner.is_running())
        self._ask()

    def _toggled(self, on: bool) -> None:
        if on:
            self._ask()
            return
        self._newest.drop()
        self._remove()
        self.status.setText("")

    def _remove(self) -> None:
        for shown in self._layers.values():
            shown.remove()
        self._layers = {}

    def _ask(self) -> None:
        if not self.check_box.isChecked():
            return
        if self.bench.runner.is_running():
            self._newest.drop()
            return
        self._newest.ask(self._question)

    def _question(self) -> Question | None:
        model, image = self.bench.session.value().model, self.bench.choice.value()[0]
        ref, annotation = self.bench.annotator.shown(), self.bench.annotator.layer()
        if model is None or image is None or ref is None or annotation is None:
            return None
        bundle, images = model.bundle, (image, *self.bench.choice.channels_value())
        if self._views is None or self._views[0] is not bundle or self._views[1] != images:
            self._remove()
            try:
                volume, _ = self.bench.choice.volume()
                volume.check_header()
                config = self.bench.form.prediction_config()
                views = {
                    level: SliceView(
                        bundle.with_network({"gate": level}), volume, config, first_class
                    )
                    for level in self._levels()
                }
            except BadInputError as error:
                self._failed(error)
                return None
            self._views = bundle, images, views
        return partial(_work, self._views[2], ref, visible_field(annotation, ref))

    def _answered(self, outcome: Any) -> None:
        views, ref, parts = outcome
        if self._views is None or views is not self._views[2] or not self.check_box.isChecked():
            return
        annotation = self.bench.annotator.layer()
        if ref != self.bench.annotator.shown() or annotation is None:
            return
        for level, part in parts.items():
            if level not in self._layers:
                color = _COLORS[(level - 1) % len(_COLORS)]
                make = partial(_gate_layer, colormap=color)
                self._layers[level] = SliceLayer(
                    self.bench.viewer, make, np.float32, f"gate {level} in view"
                )
            self._layers[level].open(self._views[1][0], annotation)
            self._layers[level].write(ref, [part])

    def _failed(self, error: Exception) -> None:
        self.check_box.setChecked(False)
        self.status.setText(error_text(error))


def _gate_layer(values: Any, **options: Any) -> Image:
    return Image(values, blending="additive", contrast_limits=(0.0, 1.0), **options)


def _work(
    views: dict[int, SliceView], ref: SliceRef, field: tuple[Place, Place], interrupted: Any
) -> Any:
    parts = {}
    for level, view in views.items():
        if not interrupted():
            parts[level] = view.of(ref, field)
    return views, ref, parts
