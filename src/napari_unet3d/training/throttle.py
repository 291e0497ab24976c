"""When the training may stop for a look at what it can do."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

_FIRST = 3.0
"""Seconds before the first look: until then, the network has hardly learned."""
_SHARE = 0.08
"""Share of the time that may go into one kind of look, on average."""
_LARGEST_LOOK = 0.25
"""Share of the time until then that a single look may take."""


class Throttle:
    """Decides when the next look of one kind is due, so that looking stays cheap."""

    def __init__(self) -> None:
        self._next = _FIRST

    def due(self, elapsed: float) -> bool:
        """Whether it is time for a look, after `elapsed` seconds of training."""
        return elapsed >= self._next

    def affordable(self, elapsed: float, cost: float) -> bool:
        """Whether a look that takes about `cost` seconds may be taken now."""
        return cost <= _LARGEST_LOOK * elapsed

    @contextlib.contextmanager
    def timed(self, elapsed: float) -> Iterator[None]:
        """Measure how long a look takes, which decides when the next one is due."""
        begin = time.monotonic()
        yield
        cost = time.monotonic() - begin
        self._next = elapsed + cost + cost / _SHARE
