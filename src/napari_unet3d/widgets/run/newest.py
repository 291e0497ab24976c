"""Asks the newest question in the background, and drops those that it replaces."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from napari_unet3d.widgets.run.background import Background

Question = Callable[[Callable[[], bool]], Any]
"""Called in a thread with a function that tells whether a newer question waits."""


class Newest:
    """Runs one question at a time; while it runs, only the newest of the others waits.

    Parameters
    ----------
    background
        Calls slow functions in threads.
    answer
        Called in the main thread with the result of a question, also of one that was interrupted.
    failed
        Called in the main thread with the exception of a question.
    """

    def __init__(
        self,
        background: Background,
        answer: Callable[[Any], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._background, self._answer, self._failed = background, answer, failed
        self._waiting: Callable[[], Question | None] | None = None
        self._interrupted = threading.Event()
        self._busy = False

    def is_busy(self) -> bool:
        """Whether a question runs."""
        return self._busy

    def ask(self, make: Callable[[], Question | None]) -> None:
        """Ask a question now, or as soon as the present one has ended.

        Parameters
        ----------
        make
            Makes the question in the main thread when its turn has come, so that it is made of
            the newest state; returns None where nothing is to be asked.
        """
        self._waiting = make
        if self._busy:
            self._interrupted.set()
        else:
            self._next()

    def drop(self) -> None:
        """Forget the question that waits, and interrupt the one that runs."""
        self._waiting = None
        self._interrupted.set()

    def _next(self) -> None:
        make, self._waiting = self._waiting, None
        question = None if make is None else make()
        if question is None:
            return
        self._interrupted = interrupted = threading.Event()
        self._busy = True

        def work() -> tuple[Any, Exception | None]:
            try:
                return question(interrupted.is_set), None
            except Exception as error:  # the caller shows it
                return None, error

        self._background.ask(work, self._arrived)

    def _arrived(self, outcome: tuple[Any, Exception | None]) -> None:
        self._busy = False
        result, error = outcome
        if error is None:
            self._answer(result)
        else:
            self._failed(error)
        if not self._busy:
            self._next()
