"""Runs a generator in a thread, and hands its events over in the main thread.

This is a plain daemon thread and a timer, not a Qt worker. The thread never touches Qt. Events
arrive in one batch per tick. Every exception arrives, while superqt's worker swallows
RuntimeErrors. Neither napari nor Qt waits for the thread without limit.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable, Generator
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet3d.widgets.run.priority import give_way

_TICK_MS = 100
"""Milliseconds between two batches of events: the display follows, and redraws cost little."""
_EXIT_SECONDS = 60.0
"""Seconds that the end of the program waits for the last step: torch crashes when the interpreter
ends in the middle of one."""


class Worker(QObject):
    """Runs a generator to its end, once."""

    eventsArrived = Signal(list)
    """The events (list) since the last tick, at most ten times a second."""
    returned = Signal(object)
    """The generator's return value; None after `close`."""
    failed = Signal(object)
    """The exception the generator raised."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._queue: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._close = threading.Event()
        self._thread: threading.Thread | None = None
        self._at_exit: Callable[[], None] | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self._tick)

    def start(self, generator: Generator[Any, None, Any], *, to_its_end: bool = False) -> None:
        """Start the thread.

        Parameters
        ----------
        generator
            The work; it is closed when `close` was called, at its next event.
        to_its_end
            Whether the end of the program waits for the last event. Otherwise it closes the
            generator.
        """
        thread = threading.Thread(
            target=_run, args=(generator, self._queue, self._close), name="unet3d", daemon=True
        )
        thread.start()
        self._thread = thread
        self._at_exit = (
            partial(_finish, thread, self._queue)
            if to_its_end
            else partial(_join, thread, self._close)
        )
        atexit.register(self._at_exit)
        self._timer.start()

    def is_running(self) -> bool:
        """Whether `returned` or `failed` is still to come."""
        return self._timer.isActive()

    def closing(self) -> Callable[[], None]:
        """A function that does what `close` does, even after Qt has deleted this object."""
        return self._close.set

    def close(self) -> None:
        """Close the generator at its next event; `returned` then emits None."""
        self._close.set()

    def abandon(self, seconds: float) -> bool:
        """Close the generator, wait up to `seconds` for the thread, and emit nothing more.

        Returns
        -------
        bool
            Whether the thread has ended. If not, it ends after its current step.
        """
        self.close()
        self._timer.stop()
        if self._thread is not None:
            self._thread.join(seconds)
            if self._thread.is_alive():
                return False
            self._forget_exit()
        return True

    def _forget_exit(self) -> None:
        """The thread has ended: the end of the program need not wait for it."""
        if self._at_exit is not None:
            atexit.unregister(self._at_exit)
            self._at_exit = None

    def _tick(self) -> None:
        events = []
        while True:
            try:
                kind, content = self._queue.get_nowait()
            except Empty:
                break
            if kind == "event":
                events.append(content)
                continue
            self._timer.stop()
            assert self._thread is not None
            self._thread.join()  # this was the last entry of its queue
            self._forget_exit()
            if events:
                self.eventsArrived.emit(events)
            if kind == "failed":
                self.failed.emit(content)
            else:
                self.returned.emit(content)
            return
        if events:
            self.eventsArrived.emit(events)


def _join(thread: threading.Thread, close: threading.Event) -> None:
    close.set()
    thread.join(_EXIT_SECONDS)


def _finish(thread: threading.Thread, queue: SimpleQueue[tuple[str, Any]]) -> None:
    thread.join()
    while not queue.empty():
        kind, content = queue.get()
        if kind == "failed":  # no window is left to show it
            print(f"napari-unet3d: {content}", file=sys.stderr)


def _run(
    generator: Generator[Any, None, Any],
    queue: SimpleQueue[tuple[str, Any]],
    close: threading.Event,
) -> None:
    give_way()
    try:
        while not close.is_set():
            try:
                event = next(generator)
            except StopIteration as end:
                queue.put(("returned", end.value))
                return
            queue.put(("event", event))
        generator.close()
        queue.put(("returned", None))
    except BaseException as error:  # the user is told, and the window is freed, in any case
        queue.put(("failed", error))
