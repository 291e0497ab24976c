"""One progress over all phases of a run, from the events that it yields."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from napari_unet3d.events import (
    FinishingStarted,
    PixelsStarted,
    PredictionProgress,
    TrainingProgress,
    TrainingStarted,
)

Phase = Literal["checking", "preparing", "pixels", "training", "finishing", "segmenting", "done"]

_OVERDUE = 0.1
"""A phase that takes longer than expected is expected to take a tenth of its time more."""
_UNKNOWN_END = 0.25
"""Share of the training that its end is taken for while no forecast is there."""


@dataclass(frozen=True)
class Reading:
    """What the clock shows at a moment.

    Attributes
    ----------
    phase
        What is being done.
    fraction
        Of the whole run; never goes back, and is 1 only when all is done.
    elapsed, remaining
        Seconds of the whole run; `remaining` is None while unknown.
    """

    phase: Phase
    fraction: float
    elapsed: float
    remaining: float | None


class RunClock:
    """Reads the progress of a run: checking, training, finishing, segmenting.

    It is told the events of a run as they come, and may be read at any time between them, from
    any thread: phases that tell nothing are measured against the time they were expected to take.

    Parameters
    ----------
    time_points
        How many are segmented after the training; 0 for none.
    now
        Seconds of a clock that never goes back.
    """

    def __init__(self, time_points: int = 0, now: Callable[[], float] = time.monotonic) -> None:
        self._time_points, self._now = time_points, now
        self._begin = now()
        self._phase: Phase = "checking"
        self._left = _Countdown(None, self._begin)
        """Of what is being done; the training and its classifier are one."""
        self._segmenting: float | None = None if time_points else 0.0
        self._after: float | None = None
        """Seconds of what follows it."""
        self._fraction = 0.0

    @property
    def time_points(self) -> int:
        """Time points that are segmented after the training; 0 for none."""
        return self._time_points

    def handle(self, event: Any) -> None:
        """Take an event of a training or a prediction into account; others are ignored."""
        now = self._now()
        if isinstance(event, TrainingStarted):
            self._phase = "preparing"
            if (forecast := event.forecast) is not None:
                self._left = _Countdown(forecast.training, now)
                self._segmenting = forecast.segmenting * self._time_points
                self._after = forecast.finishing + self._segmenting
        elif isinstance(event, PixelsStarted):
            self._phase = "pixels"
        elif isinstance(event, TrainingProgress):
            self._phase = "training"
            if event.remaining is not None:
                self._left = _Countdown(event.remaining, now)
        elif isinstance(event, FinishingStarted):
            self._phase = "finishing"
            self._left = _Countdown(event.expected, now)
            self._after = self._segmenting
        elif isinstance(event, PredictionProgress):
            self._phase = "segmenting"
            self._left, self._after = _Countdown(event.remaining, now), 0.0

    def segment(self) -> None:
        """The training is over, the segmentation begins."""
        self._phase = "segmenting"
        self._left, self._after = _Countdown(self._segmenting, self._now()), 0.0

    def finish(self) -> None:
        """All is done."""
        self._phase, self._left, self._after = "done", _Countdown(0.0, self._now()), 0.0

    def read(self) -> Reading:
        """The progress now."""
        now = self._now()
        elapsed = now - self._begin
        left = self._left.at(now)
        remaining = None if left is None or self._after is None else left + self._after
        if self._phase == "done":
            return Reading("done", 1.0, elapsed, 0.0)
        guess = remaining
        if guess is None and left is not None:  # what follows is not known
            guess = left + _UNKNOWN_END * (elapsed + left)
        if guess is not None and elapsed + guess > 0:
            self._fraction = max(self._fraction, min(elapsed / (elapsed + guess), 0.99))
        return Reading(self._phase, self._fraction, elapsed, remaining)


class _Countdown:
    """Seconds that are left of a phase, as expected at some moment."""

    def __init__(self, seconds: float | None, since: float) -> None:
        self._seconds, self._since = seconds, since

    def at(self, now: float) -> float | None:
        """What is left of them; never 0, since the phase is not over."""
        if self._seconds is None:
            return None
        spent = now - self._since
        return max(self._seconds - spent, _OVERDUE * spent)
