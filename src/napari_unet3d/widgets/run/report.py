"""Shows what a run tells: footer, curve and scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QObject, QTimer

from napari_unet3d.config import ClassInfo
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import (
    FinishingStarted,
    HeldOutScores,
    Notice,
    PixelsStarted,
    PredictionProgress,
    TrainingProgress,
    TrainingStarted,
)
from napari_unet3d.session.texts import (
    PHASES,
    error_text,
    forecast_line,
    phase_line,
    plan_line,
    prediction_line,
    training_line,
)
from napari_unet3d.training.clock import RunClock
from napari_unet3d.widgets.parts.curve import Curve
from napari_unet3d.widgets.parts.footer import Footer
from napari_unet3d.widgets.parts.results import Results
from napari_unet3d.widgets.run.runner import Runner

_MOST_NOTES = 3
_TICK_MS = 250
"""Milliseconds from one reading of the clock to the next."""


class RunReport(QObject):
    """Turns the runner's events into what the user sees."""

    def __init__(self, runner: Runner, footer: Footer, curve: Curve, results: Results) -> None:
        super().__init__(runner)
        self._runner, self._footer, self._curve, self._results = runner, footer, curve, results
        self._classes: tuple[ClassInfo, ...] = ()
        self._started: TrainingStarted | None = None
        self._measured = False
        self._training: TrainingProgress | None = None
        self._segmenting: PredictionProgress | None = None
        self._clock, self._ending = RunClock(), ""
        self._timer = QTimer(self)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self._show_clock)
        self._notes: list[str] = []
        self._before: tuple[Any, Any] | None = None
        runner.phaseChanged.connect(self._show_phase)
        runner.eventsArrived.connect(self._show_events)
        runner.trained.connect(self._show_unmeasured)

    def begin(
        self,
        classes: Sequence[ClassInfo],
        notes: Sequence[str],
        *,
        training: bool,
        time_points: int,
    ) -> None:
        """Forget the last run; `notes` are said right away.

        Parameters
        ----------
        classes, notes
            What the result is of; what is to be said about the run.
        training
            Whether the run trains, or only segments.
        time_points
            How many are segmented.
        """
        self._clock, self._ending = RunClock(time_points), ""
        self._training = self._segmenting = None
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

    def ending(self, text: str) -> None:
        """Say what the user wished, until it is done; `text` as "Cancelling"."""
        self._ending = text
        self._show_clock()

    def elapsed(self) -> float:
        """Seconds of the run so far."""
        return self._clock.read().elapsed

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
            self._timer.stop()
            self._footer.show_ready()
            return
        self._footer.show_running(can_stop=phase == "training")
        if phase == "saving":
            self._footer.set_progress(0.0, "Saving")
            return
        if phase == "segmenting":
            self._ending = ""
            self._clock.segment()
        self._timer.start()
        self._show_clock()

    def _show_clock(self) -> None:
        """Progress of the whole run, and the figures of what is being done."""
        reading = self._clock.read()
        self._footer.set_progress(reading.fraction, self._ending or PHASES[reading.phase])
        if reading.phase == "training" and self._training is not None:
            line = training_line(self._training, self._started, reading)
        elif reading.phase == "segmenting" and self._segmenting is not None:
            line = prediction_line(self._segmenting, reading)
        else:
            line = phase_line(reading)
        self._footer.set_status(line)

    def _show_events(self, events: list[Any]) -> None:
        for event in events:
            self._clock.handle(event)
            if isinstance(event, TrainingStarted):
                self._started = event
                self._footer.status.setToolTip(plan_line(event))
                for text in (forecast_line(event, self._clock.time_points), *event.notes):
                    if text is not None:
                        self.note(text)
                self._show_clock()
            elif isinstance(event, PixelsStarted | FinishingStarted):
                if isinstance(event, FinishingStarted):
                    self._ending = ""  # Stop was heard
                self._show_clock()
            elif isinstance(event, TrainingProgress):
                self._curve.add_loss(event.elapsed, event.loss)
                self._training = event
            elif isinstance(event, HeldOutScores):
                self._show_scores(event)
            elif isinstance(event, PredictionProgress):
                self._segmenting = event
            elif isinstance(event, Notice):
                self.note(event.text)
            elif isinstance(event, float):
                self._footer.set_progress(event, "Saving")
        if any(isinstance(event, TrainingProgress) for event in events):
            self._curve.draw()

    def _show_scores(self, scores: HeldOutScores) -> None:
        self._measured = True
        if scores.mean_iou is not None:
            self._curve.add_iou(scores.elapsed, scores.mean_iou)
            self._curve.draw()
        self._results.set_scores(
            scores.classes,
            self._classes,
            scores.slices,
            scores.distance,
            scored=scores.scored,
            final=scores.final,
        )

    def _show_unmeasured(self, _bundle: Any) -> None:
        if not self._measured:
            self._results.set_scores((), self._classes, ())
