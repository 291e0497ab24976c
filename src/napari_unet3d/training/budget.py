"""How a budget, in seconds or iterations, is shared between the parts of a training."""

from __future__ import annotations

import math
from dataclasses import dataclass

_PIXEL_SHARE, _LEAST_PIXEL_SECONDS, _LARGEST_PIXEL_SHARE = 0.3, 10.0, 0.6
"""Time for the pixel classifier: 30 % of the budget, but at least 10 s, and never more than 60 %
of it."""
_LEAST_REFITTING_SECONDS = 6.0
"""Seconds. Fitting the pixel classifier again takes at least so long: the features of a new slice
take a second or two, and the shortest fit with its cross-fitting another three."""
_LEAST_FINISHING_SECONDS, _FINISHING_SHARE = 10.0, 0.1
"""Time for the final statistics and calibration, and again for the final scores: 10 % of the
budget, but at least 10 s. On idle cores they take less; on busy ones they would take minutes."""
_LEAST_ROUND_END = 4.0
"""Seconds for each of the two parts of the end of a round: more would hold up short rounds."""
_RESTART = 1 / 3
"""Share of the schedule at which later rounds begin. The learning rate rises to 75 % of its peak
there, so that the network leaves where the last round has settled, but forgets little."""
_LEAST_FRACTION = 0.01
"""Share of the budget from which on the remaining time is told; before, it is a wild guess."""


@dataclass(frozen=True)
class Budget:
    """The budget of a training; a number of iterations takes the place of seconds.

    Attributes
    ----------
    seconds, iterations
        As in `TrainingConfig`: one of them is given.
    seconds_before
        Seconds that a resumed training has had before.
    round_begin
        Seconds of the training at which the current round of a continuous training began, and
        which ends with the budget; None for a training that has no rounds.
    """

    seconds: float | None
    iterations: int | None
    seconds_before: float = 0.0
    round_begin: float | None = None

    @property
    def repeats_exactly(self) -> bool:
        """Whether a second run must give the same model: with a number of iterations."""
        return self.iterations is not None

    def fraction(self, iteration: int, elapsed: float) -> float:
        """Share of the budget that is used after so many iterations and seconds; may exceed 1."""
        if self.iterations is not None:
            return iteration / self.iterations
        assert self.seconds is not None
        if self.round_begin is None:
            return elapsed / self.seconds
        done = (elapsed - self.round_begin) / (self.seconds - self.round_begin)
        return done if not self.round_begin else _RESTART + (1 - _RESTART) * done

    def remaining(self, iteration: int, elapsed: float) -> float | None:
        """Seconds until the budget is used; None while that would be a wild guess."""
        fraction = self.fraction(iteration, elapsed)
        if self.round_begin is not None and self.seconds is not None:
            return max(self.seconds - elapsed, 0.0)
        return elapsed * (1 - fraction) / fraction if fraction > _LEAST_FRACTION else None

    @property
    def pixel_seconds(self) -> float:
        """Seconds for the pixel classifier; infinite for a number of iterations."""
        if self.iterations is not None or self.seconds is None:
            return math.inf
        rest = self.seconds - self.seconds_before
        largest = _LARGEST_PIXEL_SHARE * rest
        return max(_PIXEL_SHARE * rest, min(largest, _LEAST_PIXEL_SECONDS))

    def refitting_seconds(self, elapsed: float, before: float) -> float:
        """Seconds for fitting the pixel classifier again, since slices have joined.

        Parameters
        ----------
        elapsed
            Seconds of the training until now.
        before
            Seconds that the last fit took.
        """
        if self.iterations is not None or self.seconds is None:
            return math.inf
        share = _PIXEL_SHARE * (self.seconds - elapsed)
        return max(share, min(before, _LARGEST_PIXEL_SHARE * elapsed), _LEAST_REFITTING_SECONDS)

    @property
    def finishing_seconds(self) -> float:
        """Seconds for each of the two parts of the end; infinite for a number of iterations."""
        if self.iterations is not None or self.seconds is None:
            return math.inf
        if self.round_begin is not None:
            return max(_LEAST_ROUND_END, _FINISHING_SHARE * (self.seconds - self.round_begin))
        return max(_LEAST_FINISHING_SECONDS, _FINISHING_SHARE * self.seconds)
