"""Shows the events of a run in the run bar, the curve and the results."""

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
    RoundFinished,
    RoundStarted,
    SlicesJoined,
    TrainingProgress,
    TrainingStarted,
)
from napari_unet3d.session.quality_runs import QualityProgress, quality_line
from napari_unet3d.session.texts import (
    PHASES,
    error_text,
    forecast_line,
    joined_text,
    phase_line,
    plan_line,
    prediction_line,
    rest_text,
    round_text,
    training_line,
)
from napari_unet3d.training.clock import Phase, RunClock
from napari_unet3d.widgets.parts.curve import Curve
from napari_unet3d.widgets.parts.results import Results
from napari_unet3d.widgets.parts.run_bar import RunBar
from napari_unet3d.widgets.run.runner import Runner

_MOST_NOTES = 3
"""Lines of notes that the run bar shows: more would push the button off a small screen."""
_TICK_MS = 250
"""Milliseconds between two readings of the clock, so that its seconds run evenly. The curve is
drawn with it: each drawing of the window takes 20 ms where OpenGL is rendered in software."""


class RunReport(QObject):
    """Follows a runner, and shows its phases and events to the user."""

    def __init__(self, runner: Runner, run_bar: RunBar, curve: Curve, results: Results) -> None:
        super().__init__(runner)
        self._runner, self._run_bar, self._curve, self._results = runner, run_bar, curve, results
        self._classes: tuple[ClassInfo, ...] = ()
        self._started: TrainingStarted | None = None
        self._scores: HeldOutScores | None = None
        self._training: TrainingProgress | None = None
        self._segmenting: PredictionProgress | None = None
        self._clock, self._ending = RunClock(), ""
        self._round: RoundStarted | None = None
        self._rest = ""
        self._timer = QTimer(self)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self._show_clock)
        self._curve_waits = False
        """Whether points were added to the curve since it was drawn."""
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
        """Begin a new run: clear the last one, and show `notes`.

        Parameters
        ----------
        classes
            The classes of the model.
        notes
            Sentences about the input of the run.
        training
            Whether the run trains; otherwise it only segments.
        time_points
            Number of time points that are segmented.
        """
        self._clock, self._ending = RunClock(time_points), ""
        self._training = self._segmenting = None
        self._classes, self._started, self._scores = tuple(classes), None, None
        self._round, self._rest = None, ""
        self._notes = list(notes)
        self._before = self._results.state(), self._curve.state()
        self._run_bar.set_status("")
        self._run_bar.set_message("\n".join(self._notes))
        if training:
            self._curve.clear()

    def keep(self) -> None:
        """Keep the scores and the curve of this run: its model is now the current one."""
        self._before = None

    def roll_back(self) -> None:
        """Show the scores and the curve from before the run again, unless `keep` was called."""
        if self._before is not None:
            results, curve = self._before
            self._results.set_state(results)
            self._curve.set_state(curve)
            self._before = None

    def ending(self, text: str) -> None:
        """Show `text`, such as "Cancelling", until the run ends or goes on to its next phase."""
        self._ending = text
        self._show_clock()

    def durations(self) -> dict[Phase, float]:
        """Seconds of each phase of the run; it is over."""
        self._clock.finish()
        return self._clock.durations()

    def scores(self) -> HeldOutScores | None:
        """The newest scores of the run; None when nothing was measured."""
        return self._scores

    def round(self) -> RoundStarted | None:
        """The round of a continuous training; None in another run."""
        return self._round

    def rest(self) -> str:
        """Why a continuous training rests; "" when it does not, or is none."""
        return self._rest

    def note(self, text: str) -> None:
        """Add a line to the notes about the run."""
        self._notes.append(text)
        self._run_bar.set_message("\n".join(self._notes[-_MOST_NOTES:]))

    def fail(self, error: BaseException, more: str = "") -> None:
        """Show an error at the button; an unexpected one in napari's notifications too.

        Parameters
        ----------
        error
            The exception.
        more
            A sentence that is added to its text.
        """
        text = f"{error_text(error)} {more}".strip()
        self._run_bar.set_status("")
        self._run_bar.set_message(text, error=True)
        if not isinstance(error, BadInputError):
            show_error(f"napari-unet3d: {text}")

    def _show_phase(self, phase: str) -> None:
        if phase == "ready":
            self._timer.stop()
            self._draw_curve()
            self._run_bar.show_ready()
            return
        self._run_bar.show_running(can_stop=phase == "training")
        if phase in ("saving", "measuring"):
            self._run_bar.set_progress(0.0, phase.capitalize())
            return
        if phase == "segmenting":
            self._ending = ""
            self._clock.segment()
        self._timer.start()
        self._show_clock()

    def _show_clock(self) -> None:
        """Show the progress of the whole run, and the figures and the curve of its phase."""
        self._draw_curve()
        reading = self._clock.read()
        phase = PHASES[reading.phase]
        if self._round is not None and reading.phase in ("training", "pixels"):
            phase = round_text(self._round)
        self._run_bar.set_progress(reading.fraction, self._ending or phase)
        if reading.phase == "training" and self._training is not None:
            line = training_line(self._training, self._started, reading)
        elif reading.phase == "segmenting" and self._segmenting is not None:
            line = prediction_line(self._segmenting, reading)
        else:
            line = phase_line(reading)
        self._run_bar.set_status(line)

    def _draw_curve(self) -> None:
        if self._curve_waits:
            self._curve_waits = False
            self._curve.draw()

    def _show_events(self, events: list[Any]) -> None:
        for event in events:
            self._clock.handle(event)
            if isinstance(event, TrainingStarted):
                self._started = event
                self._run_bar.status.setToolTip(plan_line(event))
                for text in (forecast_line(event, self._clock.time_points), *event.notes):
                    if text is not None:
                        self.note(text)
                self._show_clock()
            elif isinstance(event, PixelsStarted | FinishingStarted):
                if isinstance(event, FinishingStarted):
                    self._ending = ""  # the trainer has stopped
                self._show_clock()
            elif isinstance(event, TrainingProgress):
                self._curve.add_loss(event.elapsed, event.loss)
                self._training, self._curve_waits = event, True
            elif isinstance(event, HeldOutScores):
                self._show_scores(event)
            elif isinstance(event, SlicesJoined):
                self.note(joined_text(event))
            elif isinstance(event, RoundStarted):
                self._round = event
            elif isinstance(event, RoundFinished):
                self._rest = rest_text(event)
            elif isinstance(event, PredictionProgress):
                self._segmenting = event
            elif isinstance(event, QualityProgress):
                self._run_bar.set_progress(event.fraction, self._ending or event.task)
                self._run_bar.set_status(quality_line(event))
            elif isinstance(event, Notice):
                self.note(event.text)
            elif isinstance(event, float):
                self._run_bar.set_progress(event, "Saving")

    def _show_scores(self, scores: HeldOutScores) -> None:
        self._scores = scores
        if scores.mean_iou is not None:
            self._curve.add_iou(scores.elapsed, scores.mean_iou)
            self._curve_waits = True
        self._results.set_scores(scores, self._classes)

    def _show_unmeasured(self, _bundle: Any) -> None:
        if self._scores is None:
            self._results.set_scores(None, self._classes)
