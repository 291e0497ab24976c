"""Starts, ends and follows runs: what the buttons of the run bar and "Apply to image" do."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from napari.layers import Image, Labels
from qtpy.QtCore import QObject, Signal

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.continuous import run_continuously
from napari_unet3d.session.job import Outputs, make_outputs, run_job
from napari_unet3d.session.more_time import more_seconds, with_more_time
from napari_unet3d.session.session import NamedModel, RunSettings, Session
from napari_unet3d.session.texts import (
    RESCUED,
    TRAINED_WELL,
    applied_text,
    done_text,
    show_duration,
)
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.trainer import TrainingFailedError
from napari_unet3d.widgets.annotator import Annotator
from napari_unet3d.widgets.parts.hint import after_training
from napari_unet3d.widgets.parts.results import Results
from napari_unet3d.widgets.parts.run_bar import Action, RunBar
from napari_unet3d.widgets.parts.training_form import TrainingForm
from napari_unet3d.widgets.run.prediction_view import PredictionView
from napari_unet3d.widgets.run.report import RunReport
from napari_unet3d.widgets.run.runner import Finished, Runner
from napari_unet3d.widgets.viewer.layer_choice import LayerChoice
from napari_unet3d.widgets.viewer.layers import (
    base_name,
    file_of,
    read_classes,
    read_held_out,
)
from napari_unet3d.widgets.viewer.room import check_result, snapshot
from napari_unet3d.widgets.viewer.window_session import WindowSession


class Actions(QObject):
    """Mediates between the parts of the dock, the runner and the session.

    Parameters
    ----------
    viewer
        The napari viewer.
    parent
        The Qt parent.
    session
        The session of the window; a training puts its model there.
    runner, report
        Run the work in a thread, and show its events.
    choice, annotator, form, results, run_bar
        The parts of the dock.
    pair_problem
        Returns why image and annotation cannot be trained on together; "" if they can.
    """

    idle = Signal()
    """A run or a file is finished, or failed: the dock may show a hint again."""

    def __init__(
        self,
        viewer: Any,
        parent: QObject,
        session: WindowSession,
        runner: Runner,
        report: RunReport,
        *,
        choice: LayerChoice,
        annotator: Annotator,
        form: TrainingForm,
        results: Results,
        run_bar: RunBar,
        pair_problem: Callable[[], str],
    ) -> None:
        super().__init__(parent)
        self._viewer, self._session = viewer, session
        self._runner, self._report = runner, report
        self._choice, self._annotator, self._form = choice, annotator, form
        self._results, self._run_bar = results, run_bar
        self._pair_problem = pair_problem
        self._trained_bundle: ModelBundle | None = None
        """The model of the run that goes on; it becomes the current one when the run is over."""
        self._image_name = ""
        self._live: tuple[Labels, tuple[int, ...]] | None = None
        """The annotation that is trained on, and its shape when the training began."""
        self.next_step = ""
        """What to do after a run; "" once the user did something."""
        self.next_actions: tuple[Action, ...] = ()
        """Buttons under it."""
        self._painted = annotator.slices()
        self._learned_from: weakref.ref[Labels] | None = None
        """The annotation that the current model was trained on."""
        self._start_is_ours = True
        """Whether the plugin proposed where the next training starts; not the user's choice."""
        for signal, slot in (
            (run_bar.startRequested, self.start),
            (run_bar.stopRequested, self.stop),
            (run_bar.cancelRequested, self.cancel),
            (results.applyRequested, self.apply),
            (annotator.changed, self._watch),
            (annotator.changed, self._paint_changed),
            (choice.valueChanged, self._layers_chosen),
            (form.valueChanged, self._settings_changed),
            (form.start_from.activated, self._start_chosen),
            (runner.trained, self._trained),
            (runner.finished, self._finished),
            (runner.saved, self._saved),
            (runner.measured, self.idle),
            (runner.failed, self._failed),
        ):
            signal.connect(slot)

    @property
    def bundle(self) -> ModelBundle | None:
        """The current model, which is saved, applied and continued."""
        model = self._session.value().model
        return None if model is None else model.bundle

    # ---- settings

    def settings(self, *, training: bool = True) -> RunSettings:
        """Collect the values of all parts that concern a run.

        Parameters
        ----------
        training
            Whether the settings of a training are read; else they are the default ones.

        Raises
        ------
        BadInputError
            A typed value cannot be used.
        """
        return RunSettings(
            prediction=self._form.prediction_config(),
            outputs=self._form.wanted_outputs(),
            times=self._choice.times_value(),
            **({"training": self._form.value()} if training else {}),
        )

    # ---- train, stop, cancel, apply

    def start(self) -> None:
        """Train on the annotation and segment the image; errors are shown, not raised.

        With "Keep learning", the training goes on until more time does not help.
        """
        if not self._runner.is_running():
            self._guarded(self._start)

    def train_more(self, seconds: float, learned_from: Labels | None = None) -> None:
        """Train the current model, of that annotation, for so many seconds more, and segment."""
        if learned_from is not None:
            self._learned_from = weakref.ref(learned_from)
        if not self._runner.is_running():
            self._guarded(partial(self._start, seconds))

    @property
    def live_layer(self) -> Labels | None:
        """The annotation that is trained on now; None while nothing is trained."""
        return None if self._live is None else self._live[0]

    def stop(self) -> None:
        """End the training, and segment with its model."""
        self._run_bar.show_ending(cancelled=False)
        self._report.ending("Ending the training")
        self._runner.stop()

    def cancel(self) -> None:
        """End the run, and leave everything as it was before."""
        self._run_bar.show_ending(cancelled=True)
        self._report.ending("Cancelling")
        self._runner.cancel()

    def apply(self) -> None:
        """Segment the chosen image with the current model; errors are shown, not raised."""
        self._guarded(self._apply)

    def _start(self, more: float | None = None) -> None:
        """Train; with `more`, the current model for so many seconds."""
        if self._choice.value()[0] is not None:
            self._choice.volume()[0].check_header()  # before an annotation is asked for
        image, annotation = self._choice.chosen()
        if problem := self._pair_problem():
            raise BadInputError(problem)
        volume, notes = self._choice.volume()
        classes = read_classes(annotation)
        outputs = self._outputs(volume, classes)
        labels, note = snapshot(annotation.data)  # painting goes on while training
        if note:
            notes = (*notes, note)
        session = Session(
            volume=volume,
            image_path=file_of(image),
            annotation=SparseAnnotation(labels, classes, read_held_out(annotation)),
            annotation_path=file_of(annotation),
            settings=self.settings(),
            start_from=self._session.value().model if more else self._starting_model(),
            resume=self._is_learned_from(annotation),
        )
        control = TrainingControl()
        self._live = annotation, tuple(annotation.data.shape)
        control.watch(self._live_slice())
        self._begin(image, classes, notes, training=True, time_points=session.time_points)
        keeps_learning = more is None and self._run_bar.keep_learning.isChecked()
        view = PredictionView(self._viewer, outputs, image, classes)
        if keeps_learning:
            work = run_continuously(replace(session, segmentation=view.before()), control, outputs)
        else:
            session = with_more_time(session, more) if more else replace(session, resume=False)
            work = run_job(session, control, outputs)
        self._runner.run(work, control, view)

    def _is_learned_from(self, annotation: Labels) -> bool:
        """Whether the current model was trained on this annotation."""
        return self._learned_from is not None and self._learned_from() is annotation

    def _apply(self) -> None:
        image, _ = self._choice.value()
        if image is None:
            raise BadInputError("Choose the image to apply the model to.")
        model = self._session.value().model
        if model is None:
            raise BadInputError("There is no model yet. Train one, or load one.")
        classes = model.bundle.classes
        volume, notes = self._choice.volume()
        outputs = self._outputs(volume, classes)
        session = Session(
            volume=volume,
            image_path=file_of(image),
            settings=self.settings(training=False),
            model=model,
        )
        self._begin(image, classes, notes, training=False, time_points=session.time_points)
        view = PredictionView(self._viewer, outputs, image, classes)
        self._runner.run(run_job(session, outputs=outputs, train=False), TrainingControl(), view)

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
        self.next_step, self.next_actions = "", ()
        self._report.begin(classes, notes, training=training, time_points=time_points)

    def _starting_model(self) -> NamedModel | None:
        start = self._form.starting_point()
        if isinstance(start, Path):
            return NamedModel.load(start)
        return self._session.value().model if start == "last" else None

    def _watch(self) -> None:
        self._runner.watch(self._live_slice())

    def _live_slice(self) -> SliceRef | None:
        """The slice that is shown, if it is a slice of the stack that is trained on."""
        layer = self._annotator.layer()
        if layer is None or self._live is None or layer is not self._live[0]:
            return None
        return self._annotator.shown() if tuple(layer.data.shape) == self._live[1] else None

    # ---- events of the runner

    def _trained(self, bundle: ModelBundle) -> None:
        self._trained_bundle = bundle

    def _keep_trained(self) -> bool:
        """Make the model of the run the current one; return whether there is such a model."""
        bundle, self._trained_bundle = self._trained_bundle, None
        live, self._live = self._live, None
        if bundle is None:
            return False
        self._report.keep()
        model = NamedModel.trained_on(self._image_name, bundle)
        self._session.update(model=model, scores=self._report.scores())
        self._learned_from = None if live is None else weakref.ref(live[0])
        self._start_is_ours = True
        self._propose_start()
        return True

    def _finished(self, finished: Finished | None) -> None:
        if finished is None:
            self._trained_bundle = self._live = None
            self._report.roll_back()
            text = "Cancelled. Everything is as it was."
            if self._runner.lingers:
                text += " The last step still ends in the background."
            self._run_bar.set_status(text)
        else:
            if not self._keep_trained():
                self._show_applied()
            elif self._form.starting_point() == "last":  # else the button does not say Continue
                self._say_next(finished)
            # It stays: somebody comes back after ten minutes and wants to know.
            self._run_bar.set_status(f"{done_text(self._report.durations())}.", stays=True)
        self._painted = self._annotator.slices()
        self.idle.emit()

    def _say_next(self, finished: Finished) -> None:
        self.next_step = self._report.rest() or after_training(finished.bundle, finished.layer.name)
        seconds = more_seconds(finished.bundle)
        more = f"Train {show_duration(seconds)} more ▸", partial(self.train_more, seconds)
        self.next_actions = (more,)

    def _show_applied(self) -> None:
        model = self._session.value().model
        assert model is not None
        self._report.keep()
        self._results.set_text(escape(applied_text(self._image_name, model.name), quote=False))

    def _saved(self, path: Path | None) -> None:
        self._run_bar.set_status("Saving cancelled." if path is None else f"Saved {path}")
        self.idle.emit()

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, TrainingFailedError) and error.bundle is not None:
            self._trained_bundle = error.bundle
            self._keep_trained()
            self._report.fail(error, RESCUED)
        elif self._keep_trained():
            self._report.fail(error, TRAINED_WELL)
        else:
            self._report.roll_back()
            self._report.fail(error)
        self.idle.emit()

    # ---- the user goes on

    def _paint_changed(self) -> None:
        if self._annotator.slices() != self._painted:
            self._painted = self._annotator.slices()
            self._forget()

    def _layers_chosen(self) -> None:
        self._painted = self._annotator.slices()
        self._forget()
        self._propose_start()

    def _settings_changed(self) -> None:
        self._run_bar.set_continues(self._form.starting_point() != "nothing")
        self._forget(step=False)

    def _start_chosen(self) -> None:
        self._start_is_ours = False

    def _forget(self, *, step: bool = True) -> None:
        """Remove what was said about the last run, and with `step` what to do after it."""
        if self._runner.is_running():
            return
        self._run_bar.set_status("")
        if step:
            self.next_step, self.next_actions = "", ()

    def _propose_start(self) -> None:
        """Propose the current model as a start, if it was trained on the chosen annotation."""
        if self._start_is_ours and self._learned_from is not None:
            same = self._is_learned_from(self._choice.value()[1])
            self._form.set_starting_point("last" if same else "nothing")

    def _guarded(self, action: Callable[[], object]) -> None:
        self._run_bar.set_message("")
        try:
            action()
        except Exception as error:  # any error is shown at the button
            self._failed(error)
