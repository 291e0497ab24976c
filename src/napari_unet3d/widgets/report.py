"""Shows what a run tells: footer, curve and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QObject

from napari_unet3d.config import ClassInfo
from napari_unet3d.errors import BadInputError
from napari_unet3d.prediction.predictor import Notice, PredictionProgress
from napari_unet3d.training.events import (
    HeldOutScores,
    PixelsStarted,
    TrainingProgress,
    TrainingStarted,
)
from napari_unet3d.widgets.curve import Curve
from napari_unet3d.widgets.footer import Footer
from napari_unet3d.widgets.results import Results
from napari_unet3d.widgets.runner import Runner
from napari_unet3d.widgets.status import error_text, plan_line, prediction_line, training_line

_MOST_NOTES = 3
_TITLES = {
    "checking": "Checking image and annotation …",
    "training": "Preparing the training …",
    "segmenting": "Segmenting the stack",
    "saving": "Saving",
}


class RunReport(QObject):
    """Turns the runner's events into what the user sees."""

    def __init__(self, runner: Runner, footer: Footer, curve: Curve, results: Results) -> None:
        super().__init__(runner)
        self._runner, self._footer, self._curve, self._results = runner, footer, curve, results
        self._classes: tuple[ClassInfo, ...] = ()
        self._started: TrainingStarted | None = None
        self._measured = False
        self._notes: list[str] = []
        self._before: tuple[Any, Any] | None = None
        runner.phaseChanged.connect(self._show_phase)
        runner.eventsArrived.connect(self._show_events)
        runner.trained.connect(self._show_unmeasured)

    def begin(self, classes: Sequence[ClassInfo], notes: Sequence[str], *, training: bool) -> None:
        """Forget the last run; `notes` are said right away."""
        self._classes, self._started, self._measured = tuple(classes), None, False
        self._notes = list(notes)
        self._before = self._results.state(), self._curve.state()
        self._footer.set_status("")
        self._footer.set_message("\n".join(self._notes))
        if training:
            self._curve.clear()

    def keep(self) -> None:
        """What is shown now belongs to the model there is now."""
        self._before = None

    def roll_back(self) -> None:
        """Show the scores and the curve from before the run, if they were not kept."""
        if self._before is not None:
            results, curve = self._before
            self._results.set_state(results)
            self._curve.set_state(curve)
            self._before = None

    def note(self, text: str) -> None:
        """Add a line to what is said about the run."""
        self._notes.append(text)
        self._footer.set_message("\n".join(self._notes[-_MOST_NOTES:]))

    def fail(self, error: BaseException, more: str = "") -> None:
        """Say what went wrong where the user looks, and as napari says it."""
        text = f"{error_text(error)} {more}".strip()
        self._footer.set_status("")
        self._footer.set_message(text, error=True)
        if not isinstance(error, BadInputError):
            show_error(f"napari-unet3d: {text}")

    def _show_phase(self, phase: str) -> None:
        if phase == "ready":
            self._footer.show_ready()
            return
        self._footer.show_running(can_stop=phase == "training")
        unknown = phase in ("checking", "training")
        self._footer.set_progress(None if unknown else 0.0, _TITLES[phase])

    def _show_events(self, events: list[Any]) -> None:
        training: TrainingProgress | None = None
        segmenting: PredictionProgress | None = None
        for event in events:
            if isinstance(event, TrainingStarted):
                self._started = event
                self._footer.status.setToolTip(plan_line(event))
                for text in event.notes:
                    self.note(text)
            elif isinstance(event, PixelsStarted) and self._runner.phase == "training":
                self._footer.set_progress(None, "Learning from single voxels …")
            elif isinstance(event, TrainingProgress):
                self._curve.add_loss(event.elapsed, event.loss)
                training = event
            elif isinstance(event, HeldOutScores):
                self._show_scores(event)
            elif isinstance(event, PredictionProgress):
                segmenting = event
            elif isinstance(event, Notice):
                self.note(event.text)
            elif isinstance(event, float):
                self._footer.set_progress(event, "Saving")
        if training is not None:
            self._curve.draw()
            done = training.fraction >= 1  # the last statistics and scores may take a while
            if self._runner.phase == "training":
                self._footer.set_status(training_line(training, self._started))
                self._footer.set_progress(
                    None if done else training.fraction,
                    "Measuring and finishing the model …" if done else "Training",
                )
        if segmenting is not None:
            self._footer.set_progress(segmenting.done / segmenting.total, "Segmenting the stack")
            self._footer.set_status(prediction_line(segmenting))

    def _show_scores(self, scores: HeldOutScores) -> None:
        self._measured = True
        if scores.mean_iou is not None:
            self._curve.add_iou(scores.elapsed, scores.mean_iou)
            self._curve.draw()
        self._results.set_scores(scores.classes, self._classes, scores.slices, scores.distance)

    def _show_unmeasured(self, _bundle: Any) -> None:
        if not self._measured:
            self._results.set_scores((), self._classes, ())
