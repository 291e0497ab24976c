"""One progress over all phases of a run, read from its events."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from napari_unet3d.events import (
    FinishingStarted,
    Forecast,
    PixelsStarted,
    PredictionProgress,
    RoundStarted,
    TrainingProgress,
    TrainingStarted,
)

Phase = Literal["checking", "preparing", "pixels", "training", "finishing", "segmenting", "done"]

_OVERDUE = 0.1
"""A phase that takes longer than expected is expected to take 10 % of its time more."""
_UNKNOWN_END = 0.25
"""What follows the training is expected to take 25 % of it, as long as no forecast is known."""


@dataclass(frozen=True)
class Reading:
    """What the clock shows at one moment.

    Attributes
    ----------
    phase
        The phase of the run.
    fraction
        Share that is done of the whole run, or of the current round of a continuous training. It
        never falls within these, and is 1 only at the very end.
    elapsed, remaining
        Seconds of the whole run; `remaining` is None while unknown.
    """

    phase: Phase
    fraction: float
    elapsed: float
    remaining: float | None


class RunClock:
    """Reads the progress of a run: checking, training, finishing, segmenting.

    `handle` takes the events of a run as they come; `read` may be called at any time, from any
    thread. A phase without events is measured against the time it was expected to take.

    Parameters
    ----------
    time_points
        Time points that are segmented after the training; 0 for none.
    now
        Clock in seconds, which never goes back.
    """

    def __init__(self, time_points: int = 0, now: Callable[[], float] = time.monotonic) -> None:
        self._time_points, self._now = time_points, now
        self._begin = now()
        self._since = self._begin
        """When the current round began; a run that has no rounds is one."""
        self._phase: Phase = "checking"
        self._entered, self._spent = self._begin, dict[Phase, float]()
        self._left = _Countdown(None, self._begin)
        """Of the current phase; the training and its pixel classifier are one phase here."""
        self._segmenting: float | None = None if time_points else 0.0
        self._after: float | None = None
        """Seconds of the phases after it; None while unknown."""
        self._fraction = 0.0

    @property
    def time_points(self) -> int:
        """Time points that are segmented after the training; 0 for none."""
        return self._time_points

    def durations(self) -> dict[Phase, float]:
        """Seconds of each phase so far, in the order in which they came."""
        return dict(self._spent)

    def _enter(self, phase: Phase) -> None:
        """Begin a phase, or one that was left before."""
        now = self._now()
        self._spent[self._phase] = self._spent.get(self._phase, 0.0) + now - self._entered
        self._phase, self._entered = phase, now

    def handle(self, event: Any) -> None:
        """Take in an event of a training or a prediction; other events change nothing."""
        now = self._now()
        if isinstance(event, TrainingStarted):
            self._enter("preparing")
            if (forecast := event.forecast) is not None:
                self._left = _Countdown(forecast.training, now)
                self._segmenting = forecast.segmenting * self._time_points
                self._after = forecast.finishing + self._segmenting
        elif isinstance(event, Forecast):
            self._segmenting = event.segmenting * self._time_points
            self._after = event.finishing + self._segmenting
        elif isinstance(event, PixelsStarted):
            self._enter("pixels")
        elif isinstance(event, RoundStarted):
            self._enter("training")
            self._fraction, self._since = 0.0, now
            self._left, self._after = _Countdown(event.seconds, now), 0.0
        elif isinstance(event, TrainingProgress):
            self._enter("training")
            if event.remaining is not None:
                self._left = _Countdown(event.remaining, now)
        elif isinstance(event, FinishingStarted):
            self._enter("finishing")
            self._left = _Countdown(event.expected, now)
            self._after = self._segmenting
        elif isinstance(event, PredictionProgress):
            self._enter("segmenting")
            self._left, self._after = _Countdown(event.remaining, now), 0.0

    def segment(self) -> None:
        """Begin the segmentation, since the training is over."""
        self._enter("segmenting")
        self._left, self._after = _Countdown(self._segmenting, self._now()), 0.0

    def finish(self) -> None:
        """Show that the run is done."""
        self._enter("done")
        self._left, self._after = _Countdown(0.0, self._now()), 0.0

    def read(self) -> Reading:
        """Read the progress now."""
        now = self._now()
        elapsed = now - self._begin
        left = self._left.at(now)
        remaining = None if left is None or self._after is None else left + self._after
        if self._phase == "done":
            return Reading("done", 1.0, elapsed, 0.0)
        guess = remaining
        if guess is None and left is not None:  # what follows is not known
            guess = left + _UNKNOWN_END * (now - self._since + left)
        spent = now - self._since
        if guess is not None and spent + guess > 0:
            self._fraction = max(self._fraction, min(spent / (spent + guess), 0.99))
        return Reading(self._phase, self._fraction, elapsed, remaining)


class _Countdown:
    """Seconds that are left of a phase, from an estimate made at one moment."""

    def __init__(self, seconds: float | None, since: float) -> None:
        self._seconds, self._since = seconds, since

    def at(self, now: float) -> float | None:
        """Seconds that are left at time `now`; never 0 before the phase ends. None if unknown."""
        if self._seconds is None:
            return None
        spent = now - self._since
        return max(self._seconds - spent, _OVERDUE * spent)
