"""What the buttons do: train and segment, apply, save, load; and how a run is reported."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.bundle import SUFFIX, ModelBundle
from napari_unet3d.training.events import (
    TrainingControl,
)
from napari_unet3d.training.trainer import Trainer
from napari_unet3d.widgets.annotator import Annotator
from napari_unet3d.widgets.curve import Curve
from napari_unet3d.widgets.footer import Footer
from napari_unet3d.widgets.header import LayerChoice
from napari_unet3d.widgets.layers import (
    base_name,
    image_volume,
    labels_shape,
    read_classes,
    read_held_out,
    role_of,
    spatial_transform,
    voxel_size_of,
)
from napari_unet3d.widgets.prediction_view import PredictionView
from napari_unet3d.widgets.report import RunReport
from napari_unet3d.widgets.results import Results
from napari_unet3d.widgets.run import make_outputs, segment, train_and_segment
from napari_unet3d.widgets.runner import Finished, Runner
from napari_unet3d.widgets.saving import SEGMENTATION_FILTER, complete_path, save_labels
from napari_unet3d.widgets.training_form import BUNDLE_FILTER, TrainingForm


class Actions(QObject):
    """Mediates between the parts of the dock and the runner."""

    idle = Signal()
    """A run or a saving is over; the hint may be shown again unless there is an error."""

    def __init__(
        self,
        viewer: Any,
        parent: QWidget,
        *,
        choice: LayerChoice,
        annotator: Annotator,
        form: TrainingForm,
        curve: Curve,
        results: Results,
        footer: Footer,
    ) -> None:
        super().__init__(parent)
        self._viewer, self._window = viewer, parent
        self._choice, self._annotator, self._form = choice, annotator, form
        self._results, self._footer = results, footer
        self.runner = Runner(self)
        self.report = RunReport(self.runner, footer, curve, results)
        self.bundle: ModelBundle | None = None
        self._layer: Labels | None = None
        for signal, slot in (
            (footer.startRequested, self.start),
            (footer.stopRequested, self.stop),
            (footer.cancelRequested, self.cancel),
            (results.applyRequested, self.apply),
            (results.saveSegmentationRequested, self.save_segmentation),
            (results.saveModelRequested, self.save_model),
            (results.loadRequested, self.load_model),
            (annotator.changed, self._watch),
            (self.runner.phaseChanged, self._show_available),
            (self.runner.trained, self._trained),
            (self.runner.finished, self._finished),
            (self.runner.saved, self._saved),
            (self.runner.failed, self._failed),
        ):
            signal.connect(slot)

    # ---- train, stop, cancel, apply

    def start(self) -> None:
        """Train on the annotation and segment the image; what is wrong is said, not raised."""
        self._guarded(self._start)

    def stop(self) -> None:
        """Keep the model and segment with it."""
        self._footer.show_ending()
        self._footer.set_progress(None, "Ending the training …")
        self.runner.stop()

    def cancel(self) -> None:
        """Leave everything as it was."""
        self._footer.show_ending()
        self._footer.set_progress(None, "Cancelling …")
        self.runner.cancel()

    def apply(self) -> None:
        """Segment the chosen image with the model there is."""
        self._guarded(self._apply)

    def _start(self) -> None:
        image, annotation = self._chosen()
        axis = self._choice.first_axis_value()
        volume, notes = image_volume(image, axis)
        if annotation.multiscale:
            raise BadInputError(
                f"'{annotation.name}' is multiscale, which cannot be painted. Press New."
            )
        classes = read_classes(annotation)
        sparse = SparseAnnotation(
            np.array(annotation.data),  # a snapshot: painting goes on while training
            classes,
            read_held_out(annotation),
        )
        config = self._form.value()
        trainer: Callable[[], Trainer] = partial(
            Trainer, volume, sparse, config, start_from=self._starting_bundle()
        )
        outputs = make_outputs(
            volume,
            classes,
            probabilities=self._form.probabilities.isChecked(),
            uncertainty=self._form.uncertainty.isChecked(),
        )
        control = TrainingControl()
        control.watch(self._annotator.shown())
        prediction = PredictionConfig(device=config.device, precision=config.precision)
        self.report.begin(classes, notes, training=True)
        self.runner.run(
            train_and_segment(trainer, control, volume, outputs, prediction),
            control,
            self._view(image, outputs, classes),
            annotation,
        )

    def _apply(self) -> None:
        image, annotation = self._choice.value()
        if image is None:
            raise BadInputError("Choose the image to apply the model to.")
        if self.bundle is None:
            raise BadInputError("There is no model yet. Train one, or load one.")
        bundle = self.bundle
        volume, notes = image_volume(image, self._choice.first_axis_value())
        outputs = make_outputs(
            volume,
            bundle.classes,
            probabilities=self._form.probabilities.isChecked(),
            uncertainty=self._form.uncertainty.isChecked(),
        )
        config = PredictionConfig(device=self._form.value().device)
        self.report.begin(bundle.classes, notes, training=False)
        self.runner.run(
            segment(bundle, volume, outputs, config),
            TrainingControl(),
            self._view(image, outputs, bundle.classes),
            annotation,
        )

    def _chosen(self) -> tuple[Image, Labels]:
        image, annotation = self._choice.value()
        if image is None:
            raise BadInputError(
                "No image is open. Open a 3D stack with File ▸ Open, or a sample with "
                "File ▸ Open Sample ▸ napari-unet3d."
            )
        if annotation is None:
            raise BadInputError(
                "No annotation layer is chosen. Press New at the top, then paint a few slices."
            )
        return image, annotation

    def _starting_bundle(self) -> ModelBundle | None:
        start = self._form.starting_point()
        if isinstance(start, Path):
            return ModelBundle.load(start)
        return self.bundle if start == "last" else None

    def _view(self, image: Image, outputs: Any, classes: Any) -> PredictionView:
        shape = labels_shape(image, self._choice.first_axis_value())
        transform = spatial_transform(image, len(shape))
        return PredictionView(self._viewer, outputs, base_name(image.name), classes, transform)

    def _watch(self) -> None:
        self.runner.watch(self._annotator.shown())

    # ---- what the runner tells

    def _trained(self, bundle: ModelBundle) -> None:
        self.bundle = bundle
        self._form.set_last_run(True)

    def _finished(self, finished: Finished | None) -> None:
        if finished is None:
            self._footer.set_status("Cancelled. The layers are as they were.")
        else:
            self._layer = finished.layer
            self._footer.set_status(f"Done: see the layer '{finished.layer.name}'.")
        self._show_available()
        self.idle.emit()

    def _saved(self, path: Path | None) -> None:
        self._footer.set_status("Saving cancelled." if path is None else f"Saved {path}")
        self.idle.emit()

    def _failed(self, error: BaseException) -> None:
        self.report.fail(error)
        self._show_available()
        self.idle.emit()

    def _show_available(self, _phase: str = "") -> None:
        self._results.set_available(
            segmentation=self._saveable() is not None,
            model=self.bundle is not None,
            busy=self.runner.is_running(),
        )

    # ---- save and load

    def _saveable(self) -> Labels | None:
        active = self._viewer.layers.selection.active
        if isinstance(active, Labels) and role_of(active) == "prediction":
            return active
        return self._layer

    def save_segmentation(self) -> None:
        """Ask for a file and write the selected or newest prediction to it."""
        layer = self._saveable()
        if layer is None:
            return
        path, kind = QFileDialog.getSaveFileName(
            self._window, "Save segmentation", f"{layer.name}.ome.tif", SEGMENTATION_FILTER
        )
        if path:
            target = complete_path(path, kind)
            voxel_size, unit = voxel_size_of(layer)
            self._guarded(
                lambda: self.runner.save(save_labels(layer.data, target, voxel_size, unit))
            )

    def save_model(self) -> None:
        """Ask for a file and write the model to it."""
        if self.bundle is None:
            return
        bundle = self.bundle
        path, _ = QFileDialog.getSaveFileName(
            self._window, "Save model", f"model{SUFFIX}", BUNDLE_FILTER
        )
        if path:
            path = path if Path(path).suffix else path + SUFFIX
            self._guarded(lambda: self._saved(bundle.save(path)))

    def load_model(self) -> None:
        """Ask for a model file and open it."""
        path, _ = QFileDialog.getOpenFileName(self._window, "Load model", "", BUNDLE_FILTER)
        if path:
            self._guarded(lambda: self.use_model(Path(path)))

    def use_model(self, path: Path) -> None:
        """Open a model, to apply it or to train it further."""
        self.bundle = ModelBundle.load(path)
        self._form.set_last_run(True)
        names = ", ".join(c.name for c in self.bundle.classes)
        self._results.set_text(f"Model <b>{path.name}</b>, which segments {names}.")
        self._footer.set_status(f"Loaded {path.name}")
        self._show_available()

    def _guarded(self, action: Callable[[], Any]) -> None:
        self._footer.set_message("")
        try:
            action()
        except Exception as error:  # shown where the user looks, whatever it is
            self._failed(error)
