"""A thread that writes to a session folder until it is stopped."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod


class WriterThread(ABC):
    """A daemon thread, and the condition by which others wake it up.

    A subclass overrides `_turn`. Its constructor calls `_start` when all that `_turn` reads is
    there.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ending = False
        self._thread: threading.Thread | None = None

    def stop(self, timeout: float) -> None:
        """End the thread after what it is at; what was not written by then is not written.

        Parameters
        ----------
        timeout
            Seconds to wait for that; a thread that hangs in the system ends with the program.
        """
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)

    def _start(self, name: str) -> None:
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self._turn():
            pass  # the variables of a turn are gone: while waiting, no written array is kept alive

    @abstractmethod
    def _turn(self) -> bool:
        """Wait for `_changed` until there is work, and do it; False once `_ending` is True."""
