"""Decides when a training may pause for a look at its model."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

_FIRST_LOOK_SECONDS = 3.0
"""Seconds of training before the first look: until then, the network has hardly learned."""
_LOOKING_SHARE = 0.08
"""Share of the time that one kind of look takes on average: a twelfth is hardly felt."""
_LARGEST_LOOK = 0.25
"""Share of the time so far that a single look may take: early looks at a large stack wait."""


_HURRIED_SHARE = 0.5
"""Share of the time that looks take while the user moves from slice to slice, and waits for
each."""


class Throttle:
    """Decides when the next look of one kind is due, so that looks stay cheap.

    Parameters
    ----------
    first
        Seconds of training before the first look.
    share
        Share of the time that the looks take on average.
    """

    def __init__(self, first: float = _FIRST_LOOK_SECONDS, share: float = _LOOKING_SHARE) -> None:
        self._next, self._share = first, share
        self._soonest = first

    def due(self, elapsed: float) -> bool:
        """Whether a look is due after `elapsed` seconds of training."""
        return elapsed >= self._next

    def hurry(self) -> None:
        """Let the next look come soon, since the user waits for it."""
        self._next = min(self._next, self._soonest)

    def affordable(self, elapsed: float, cost: float) -> bool:
        """Whether a look of `cost` seconds may be taken after `elapsed` seconds of training."""
        return cost <= _LARGEST_LOOK * elapsed

    @contextlib.contextmanager
    def timed(self, elapsed: float) -> Iterator[None]:
        """Measure the look that the block takes; its seconds decide when the next one is due."""
        begin = time.monotonic()
        yield
        cost = time.monotonic() - begin
        self._next = elapsed + cost + cost / self._share
        self._soonest = elapsed + cost + cost / _HURRIED_SHARE
