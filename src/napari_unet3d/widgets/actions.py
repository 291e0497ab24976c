"""What the buttons do: train and segment, apply, save, load; and how a run is reported."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from napari.layers import Image, Labels
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.job import Outputs, make_outputs, run_job
from napari_unet3d.session.session import NamedModel, RunSettings, Session
from napari_unet3d.session.texts import show_duration, starved_text
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.trainer import TrainingFailedError
from napari_unet3d.widgets.annotator import Annotator
from napari_unet3d.widgets.parts.curve import Curve
from napari_unet3d.widgets.parts.footer import Footer
from napari_unet3d.widgets.parts.results import Results
from napari_unet3d.widgets.parts.training_form import TrainingForm
from napari_unet3d.widgets.run.prediction_view import PredictionView
from napari_unet3d.widgets.run.report import RunReport
from napari_unet3d.widgets.run.runner import Finished, Runner
from napari_unet3d.widgets.run.saving import (
    BUNDLE_FILTER,
    ask_model,
    ask_segmentation,
    check_not_open,
    save_layer,
)
from napari_unet3d.widgets.viewer.last_model import keep_model, last_model
from napari_unet3d.widgets.viewer.layer_choice import LayerChoice
from napari_unet3d.widgets.viewer.layers import (
    base_name,
    image_volume,
    read_classes,
    read_held_out,
    role_of,
)
from napari_unet3d.widgets.viewer.room import check_result, snapshot

_html = partial(escape, quote=False)


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
        pair_problem: Callable[[], str],
    ) -> None:
        super().__init__(parent)
        self._pair_problem = pair_problem
        self._viewer, self._window = viewer, parent
        self._choice, self._annotator, self._form = choice, annotator, form
        self._results, self._footer = results, footer
        self.runner = Runner(self)
        self.report = RunReport(self.runner, footer, curve, results)
        self._model: NamedModel | None = None
        self._trained_bundle: ModelBundle | None = None
        self._layer: Labels | None = None
        self._image_name = ""
        self._live: tuple[Labels, tuple[int, ...]] | None = None
        self.next_step = ""
        """What to do after a run, until the user does something."""
        self._painted = annotator.slices()
        self._learned_from: weakref.ref[Labels] | None = None
        """The annotation that the model was trained on."""
        self._start_is_ours = True
        """Whether where the next training starts is our proposal, not the user's choice."""
        for signal, slot in (
            (footer.startRequested, self.start),
            (footer.stopRequested, self.stop),
            (footer.cancelRequested, self.cancel),
            (results.applyRequested, self.apply),
            (results.saveSegmentationRequested, self.save_segmentation),
            (results.saveModelRequested, self.save_model),
            (results.loadRequested, self.load_model),
            (annotator.changed, self._watch),
            (annotator.changed, self._paint_changed),
            (choice.valueChanged, self._layers_chosen),
            (form.valueChanged, self._settings_changed),
            (form.start_from.activated, self._start_chosen),
            (self.runner.phaseChanged, self._show_available),
            (self.runner.trained, self._trained),
            (self.runner.finished, self._finished),
            (self.runner.saved, self._saved),
            (self.runner.failed, self._failed),
        ):
            signal.connect(slot)
        if (model := last_model(viewer)) is not None:
            self._use(model)

    @property
    def bundle(self) -> ModelBundle | None:
        """The model there is to save, to apply and to continue from."""
        return None if self._model is None else self._model.bundle

    # ---- train, stop, cancel, apply

    def start(self) -> None:
        """Train on the annotation and segment the image; what is wrong is said, not raised."""
        self._guarded(self._start)

    def stop(self) -> None:
        """Keep the model and segment with it."""
        self._footer.show_ending(cancelled=False)
        self.report.ending("Ending the training")
        self.runner.stop()

    def cancel(self) -> None:
        """Leave everything as it was."""
        self._footer.show_ending(cancelled=True)
        self.report.ending("Cancelling")
        self.runner.cancel()

    def apply(self) -> None:
        """Segment the chosen image with the model there is."""
        self._guarded(self._apply)

    def _start(self) -> None:
        axis = self._choice.first_axis_value()
        if (image := self._choice.value()[0]) is not None:
            image_volume(image, axis)[0].check_header()  # before an annotation is asked for
        image, annotation = self._choice.chosen()
        if problem := self._pair_problem():
            raise BadInputError(problem)
        volume, notes = image_volume(image, axis)
        classes = read_classes(annotation)
        outputs = self._outputs(volume, classes)
        labels, note = snapshot(annotation.data)  # painting goes on while training
        if note:
            notes = (*notes, note)
        sparse = SparseAnnotation(labels, classes, read_held_out(annotation))
        session = Session(
            volume=volume,
            annotation=sparse,
            settings=RunSettings(
                training=self._form.value(),
                prediction=self._form.prediction_config(),
                times=self._choice.times_value(),
            ),
            start_from=self._starting_model(),
        )
        control = TrainingControl()
        self._live = annotation, tuple(annotation.data.shape)
        control.watch(self._live_slice())
        self._begin(image, classes, notes, training=True, time_points=session.time_points)
        self.runner.run(
            run_job(session, control, outputs),
            control,
            self._view(image, outputs, classes),
        )

    def _apply(self) -> None:
        image, _ = self._choice.value()
        if image is None:
            raise BadInputError("Choose the image to apply the model to.")
        if self._model is None:
            raise BadInputError("There is no model yet. Train one, or load one.")
        bundle = self._model.bundle
        volume, notes = image_volume(image, self._choice.first_axis_value())
        outputs = self._outputs(volume, bundle.classes)
        session = Session(
            volume=volume,
            settings=RunSettings(
                prediction=self._form.prediction_config(), times=self._choice.times_value()
            ),
            model=self._model,
        )
        self._begin(image, bundle.classes, notes, training=False, time_points=session.time_points)
        self.runner.run(
            run_job(session, outputs=outputs, train=False),
            TrainingControl(),
            self._view(image, outputs, bundle.classes),
        )

    def _outputs(self, volume: Volume, classes: tuple[ClassInfo, ...]) -> Outputs:
        wanted = self._form.wanted_outputs()
        check_result(volume, classes, wanted)
        return make_outputs(volume, classes, wanted)

    def _begin(
        self,
        image: Image,
        classes: Sequence[ClassInfo],
        notes: Sequence[str],
        *,
        training: bool,
        time_points: int,
    ) -> None:
        self._trained_bundle, self._image_name = None, base_name(image.name)
        self.next_step = ""
        self.report.begin(classes, notes, training=training, time_points=time_points)

    def _starting_model(self) -> NamedModel | None:
        start = self._form.starting_point()
        if isinstance(start, Path):
            return NamedModel.load(start)
        return self._model if start == "last" else None

    def _view(self, image: Image, outputs: Any, classes: Any) -> PredictionView:
        return PredictionView(self._viewer, outputs, image, classes)

    def _watch(self) -> None:
        self.runner.watch(self._live_slice())

    def _live_slice(self) -> SliceRef | None:
        """The slice that is shown, if it is one of the stack that is trained on."""
        layer = self._annotator.layer()
        if layer is None or self._live is None or layer is not self._live[0]:
            return None
        return self._annotator.shown() if tuple(layer.data.shape) == self._live[1] else None

    # ---- what the runner tells

    def _trained(self, bundle: ModelBundle) -> None:
        self._trained_bundle = bundle  # and the model there is once the run is over

    def _keep_trained(self) -> bool:
        """Take over the model of the run, if its training came to an end."""
        bundle, self._trained_bundle = self._trained_bundle, None
        live, self._live = self._live, None
        if bundle is None:
            return False
        self.report.keep()
        self._set_model(NamedModel.trained_on(self._image_name, bundle))
        self._learned_from = None if live is None else weakref.ref(live[0])
        self._start_is_ours = True
        self._propose_start()
        return True

    def _finished(self, finished: Finished | None) -> None:
        if finished is None:
            self._trained_bundle = self._live = None
            self.report.roll_back()
            text = "Cancelled. Everything is as it was."
            if self.runner.lingers:
                text += " The step that was going on still ends in the background."
            self._footer.set_status(text)
        else:
            self._layer = finished.layer
            if not self._keep_trained():
                self._say_applied()
            elif self._form.starting_point() == "last":  # else the button does not say Continue
                self.next_step = _next_step(finished)
            took = show_duration(self.report.elapsed())
            self._footer.set_status(f"Done in {took}: see the layer '{finished.layer.name}'.")
        self._painted = self._annotator.slices()
        self._show_available()
        self.idle.emit()

    def _say_applied(self) -> None:
        assert self._model is not None
        self.report.keep()
        self._results.set_text(
            f"'{_html(self._image_name)}' was segmented with the model "
            f"{_html(self._model.name)}. Not measured here: scores hold for the stack that a "
            "model was trained on."
        )

    def _saved(self, path: Path | None) -> None:
        self._footer.set_status("Saving cancelled." if path is None else f"Saved {path}")
        self.idle.emit()

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, TrainingFailedError) and error.bundle is not None:
            self._trained_bundle = error.bundle
            self._keep_trained()
            self.report.fail(
                error,
                "What was learned until then is kept: segment with 'Apply to image', save the "
                "model, or continue the training.",
            )
        elif self._keep_trained():
            self.report.fail(
                error,
                "The training had ended well and its model is kept: save it, or segment with "
                "'Apply to image'.",
            )
        else:
            self.report.roll_back()
            self.report.fail(error)
        self._show_available()
        self.idle.emit()

    def _show_available(self, _phase: str = "") -> None:
        self._results.set_available(
            segmentation=self._saveable() is not None,
            model=self.bundle is not None,
            busy=self.runner.is_running(),
        )

    # ---- what the user does next

    def _paint_changed(self) -> None:
        if self._annotator.slices() != self._painted:
            self._painted = self._annotator.slices()
            self._forget()

    def _layers_chosen(self) -> None:
        self._painted = self._annotator.slices()
        self._forget()
        self._propose_start()

    def _settings_changed(self) -> None:
        self._footer.set_continues(self._form.starting_point() != "nothing")
        self._forget(step=False)

    def _start_chosen(self) -> None:
        self._start_is_ours = False

    def _forget(self, *, step: bool = True) -> None:
        """The user has gone on: what happened before is not said any longer."""
        if self.runner.is_running():
            return
        self._footer.set_status("")
        if step:
            self.next_step = ""

    def _propose_start(self) -> None:
        """Go on from the model, as long as the annotation is the one that it learned from."""
        if not self._start_is_ours or self._learned_from is None:
            return
        same = self._learned_from() is self._choice.value()[1]
        start = self._form.start_from
        start.setCurrentIndex(start.findData("last" if same else "nothing"))

    # ---- save and load

    def _saveable(self) -> Labels | None:
        layers = self._viewer.layers
        wanted = (layers.selection.active, self._layer, *reversed(layers))
        return next((x for x in wanted if x is not None and role_of(x) == "prediction"), None)

    def save_segmentation(self) -> None:
        """Ask for a file and write the selected or newest prediction to it."""
        layer = self._saveable()
        target = None if layer is None else ask_segmentation(self._window, layer.name)
        if layer is not None and target is not None:
            self._guarded(lambda: self._save_segmentation(layer, target))

    def _save_segmentation(self, layer: Labels, target: Path) -> None:
        check_not_open(target, self._viewer.layers)
        self.runner.save(save_layer(layer, target))

    def save_model(self) -> None:
        """Ask for a file and write the model to it."""
        bundle = self.bundle
        target = None if bundle is None else ask_model(self._window)
        if bundle is not None and target is not None:
            self._guarded(lambda: self._saved(bundle.save(target)))

    def load_model(self) -> None:
        """Ask for a model file and open it."""
        path, _ = QFileDialog.getOpenFileName(self._window, "Load model", "", BUNDLE_FILTER)
        if path:
            self._guarded(lambda: self.use_model(Path(path)))

    def use_model(self, path: Path) -> None:
        """Open a model, to apply it or to train it further."""
        self._use(NamedModel.load(path))
        self._footer.set_status(f"Loaded {path.name}")

    def _use(self, model: NamedModel) -> None:
        self._set_model(model)
        names = ", ".join(c.name for c in model.bundle.classes)
        self._results.set_text(f"Current model: {_html(model.name)}. Classes: {_html(names)}.")
        self._show_available()

    def _set_model(self, model: NamedModel) -> None:
        self._model = model
        keep_model(self._viewer, model)
        self._form.set_last_run(True)

    def _guarded(self, action: Callable[[], Any]) -> None:
        self._footer.set_message("")
        try:
            action()
        except Exception as error:  # shown where the user looks, whatever it is
            self._failed(error)


def _next_step(finished: Finished) -> str:
    """What to do after a training: look, paint, go on; more time first where it was too short."""
    if finished.bundle.record.starved:
        return (
            f"{starved_text(finished.bundle)} The model is kept in this window: choose a longer "
            "budget and press Continue training."
        )
    return (
        f"The model is kept in this window. Look at the layer '{finished.layer.name}', paint a "
        "slice where it is wrong, then press Continue training."
    )
