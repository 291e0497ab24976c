"""Saves segmentations and models, and opens models: what the buttons below the results do."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from napari.layers import Labels
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QWidget

from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.quality import scores_of
from napari_unet3d.session.session import NamedModel
from napari_unet3d.widgets.parts.file_dialogs import ask_model, ask_model_to_open, ask_segmentation
from napari_unet3d.widgets.parts.results import Results
from napari_unet3d.widgets.parts.run_bar import RunBar
from napari_unet3d.widgets.parts.training_form import TrainingForm
from napari_unet3d.widgets.run.report import RunReport
from napari_unet3d.widgets.run.runner import Runner
from napari_unet3d.widgets.viewer.layers import role_of
from napari_unet3d.widgets.viewer.predictions import newest_prediction
from napari_unet3d.widgets.viewer.saving import check_not_open, save_layer
from napari_unet3d.widgets.viewer.window_session import WindowSession


class FileActions(QObject):
    """Mediates between files, the session, and the parts that offer to save and load.

    Parameters
    ----------
    viewer
        The napari viewer.
    window
        The Qt parent of this object and of the dialogs.
    session
        The session of the window; a model that is opened is put there.
    runner, report
        Write a segmentation in a thread, and show errors.
    form, results, run_bar
        The parts of the dock.
    """

    idle = Signal()
    """A file was written or opened, or that failed: the dock may show a hint again."""

    def __init__(
        self,
        viewer: Any,
        window: QWidget,
        session: WindowSession,
        runner: Runner,
        report: RunReport,
        *,
        form: TrainingForm,
        results: Results,
        run_bar: RunBar,
    ) -> None:
        super().__init__(window)
        self._viewer, self._window, self._session = viewer, window, session
        self._runner, self._report = runner, report
        self._form, self._results, self._run_bar = form, results, run_bar
        for signal, slot in (
            (results.saveSegmentationRequested, self.save_segmentation),
            (results.saveModelRequested, self.save_model),
            (results.loadRequested, self.load_model),
            (runner.finished, self.show_available),
            (runner.phaseChanged, self.show_available),
            (session.changed, self.show_available),
        ):
            signal.connect(slot)
        if (model := session.value().model) is not None:
            self._show_model(model)
        self.show_available()

    def save_segmentation(self) -> None:
        """Ask for a file, and write the selected or newest prediction to it."""
        layer = self._saveable()
        target = None if layer is None else ask_segmentation(self._window, layer.name)
        if layer is not None and target is not None:
            self._guarded(lambda: self._save_segmentation(layer, target))

    def save_model(self) -> None:
        """Ask for a file, and write the current model to it."""
        model = self._session.value().model
        target = None if model is None else ask_model(self._window)
        if model is not None and target is not None:
            self._guarded(lambda: self._save_model(model.bundle, target))

    def load_model(self) -> None:
        """Ask for a model file, and open it."""
        if (path := ask_model_to_open(self._window, "Load model")) is not None:
            self._guarded(lambda: self.use_model(path))

    def use_model(self, path: Path) -> None:
        """Open a model file, to apply the model or to train it further.

        Raises
        ------
        BadInputError
            The file is missing, or holds no model that can be used.
        """
        self.use_bundle(ModelBundle.load(path), path)

    def use_bundle(self, bundle: ModelBundle, path: Path) -> None:
        """Make a model that was opened the current one.

        Parameters
        ----------
        bundle, path
            The model, and its file.
        """
        self.set_model(NamedModel(bundle, path.name, path))
        self._run_bar.set_status(f"Loaded {path.name}")

    def set_model(self, model: NamedModel) -> None:
        """Make a model the current one, and say what it is."""
        self._session.update(model=model, scores=None)
        self._show_model(model)

    def show_available(self, _event: object = None) -> None:
        """Enable the buttons of what is there: a prediction, a model."""
        has_model = self._session.value().model is not None
        self._form.set_last_run(has_model)
        self._results.set_available(
            segmentation=self._saveable() is not None,
            model=has_model,
            busy=self._runner.is_running(),
        )

    # ---- inside

    def _save_segmentation(self, layer: Labels, target: Path) -> None:
        check_not_open(target, self._viewer.layers)
        self._runner.save(save_layer(layer, target))

    def _save_model(self, bundle: ModelBundle, target: Path) -> None:
        self._run_bar.set_status(f"Saved {bundle.save(target)}")
        self.idle.emit()

    def _saveable(self) -> Labels | None:
        """The prediction to save: the selected one, or else the newest."""
        selected = self._viewer.layers.selection.active
        if isinstance(selected, Labels) and role_of(selected) == "prediction":
            return selected
        return newest_prediction(self._viewer, hidden=True)

    def _show_model(self, model: NamedModel) -> None:
        classes = ", ".join(c.name for c in model.bundle.classes)
        name, classes = (escape(text, quote=False) for text in (model.name, classes))
        text = f"Current model: {name}. Classes: {classes}."
        scores = self._session.value().scores or scores_of(model.bundle)
        if scores is not None and scores.final:
            self._results.set_scores(scores, model.bundle.classes, text)
        else:
            self._results.set_text(text)

    def _guarded(self, action: Callable[[], object]) -> None:
        self._run_bar.set_message("")
        try:
            action()
        except Exception as error:  # any error is shown at the button
            self._report.fail(error)
            self.idle.emit()
