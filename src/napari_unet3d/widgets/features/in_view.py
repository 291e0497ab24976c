"""Layers that show what the model makes of the slice in view, and follow the view."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

from napari.layers import Image
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.slice_view import SliceView
from napari_unet3d.session.texts import error_text
from napari_unet3d.widgets.parts.status_line import StatusLine
from napari_unet3d.widgets.run.newest import Newest, Question
from napari_unet3d.widgets.viewer.slice_layer import SliceLayer
from napari_unet3d.widgets.viewer.view_field import Place, ViewWatch, visible_field
from napari_unet3d.widgets.workbench import Feature, Workbench

Views = dict[Hashable, SliceView]
"""What computes the values of each layer, by a name of the layer."""


class InView(Feature):
    """A check box, and layers that are computed for the slice in view while it is checked.

    A subclass says what is shown by `_make_views` and `_make_layer`, and calls `_follow` when its
    own parts exist.

    Parameters
    ----------
    bench
        The parts of the dock.
    text
        Of the check box.
    name
        Of the line below it, for screen readers.
    """

    place = "result"

    def __init__(self, bench: Workbench, text: str, name: str) -> None:
        super().__init__(bench)
        self.check_box, self.status = QCheckBox(text), StatusLine(name)
        self.widget = QWidget()
        layout = QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.check_box)
        layout.addWidget(self.status)
        self._layers: dict[Hashable, SliceLayer[Image]] = {}
        self._model: tuple[ModelBundle, tuple[Image, ...], Views] | None = None
        """The model, the image with its further channels, and what applies one to the other."""
        self._newest = Newest(bench.background, self._answered, self._failed)
        self._watch = ViewWatch(bench.viewer, self)

    # ---- what a subclass says

    def _make_views(self, bundle: ModelBundle, volume: Volume, config: PredictionConfig) -> Views:
        """What computes the values of each layer; raises BadInputError where they do not match."""
        raise NotImplementedError

    def _make_layer(self, name: Hashable) -> SliceLayer[Image]:
        """The layer of a name."""
        raise NotImplementedError

    def _show_state(self) -> None:
        """Enable what makes sense for the model, the image and the phase of a run."""
        raise NotImplementedError

    def _is_wanted(self) -> bool:
        """Whether layers are to be shown."""
        return self.check_box.isChecked()

    # ---- what is shown

    @property
    def layers(self) -> list[Image]:
        """The layers that follow the view; none while the check box is not checked."""
        return [shown.layer for shown in self._layers.values() if shown.layer is not None]

    def cleanup(self) -> None:
        """Stop, and let go of the viewer."""
        self._newest.drop()
        self._watch.cleanup()
        self._remove()

    def _bundle(self) -> ModelBundle | None:
        model = self.bench.session.value().model
        return None if model is None else model.bundle

    def _follow(self) -> None:
        """Follow the model, the image, the runs and the view from now on."""
        bench = self.bench
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

    def _update(self, _: Any = None) -> None:
        """The model, the image or the phase of a run has changed."""
        self._show_state()
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

    # ---- asking the model

    def _ask(self) -> None:
        if not self._is_wanted():
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
            self._remove()
            try:
                volume, _ = self.bench.choice.volume()
                volume.check_header()
                views = self._make_views(bundle, volume, self.bench.form.prediction_config())
            except BadInputError as error:
                self._failed(error)
                return None
            self._model = bundle, images, views
        return partial(_work, self._model[2], ref, visible_field(annotation, ref))

    def _answered(self, outcome: Any) -> None:
        views, ref, parts = outcome
        if self._model is None or views is not self._model[2] or not self.check_box.isChecked():
            return
        annotation = self.bench.annotator.layer()
        if ref != self.bench.annotator.shown() or annotation is None:
            return
        if self.bench.runner.is_running():
            return
        for name, part in parts.items():
            if name not in self._layers:
                self._layers[name] = self._make_layer(name)
            self._layers[name].open(self._model[1][0], annotation)
            self._layers[name].write(ref, [part])

    def _failed(self, error: Exception) -> None:
        self.check_box.setChecked(False)
        self.status.setText(error_text(error))


def _work(views: Views, ref: SliceRef, field: tuple[Place, Place], interrupted: Any) -> Any:
    parts = {}
    for name, view in views.items():
        if not interrupted():
            parts[name] = view.of(ref, field)
    return views, ref, parts
