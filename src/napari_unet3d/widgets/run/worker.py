"""One generator in one thread, with what it yields handed over in the main thread.

A plain daemon thread and a timer instead of a Qt worker: the thread never touches Qt, events
are coalesced by construction (one batch per tick), any exception arrives (superqt's worker
swallows RuntimeErrors), and neither napari nor Qt waits for the thread without limit.
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

_TICK_MS = 100
_EXIT_SECONDS = 60.0
"""How long the end of the program waits for the last step: torch crashes when it is cut off."""


class Worker(QObject):
    """Runs a generator to its end, once."""

    eventsArrived = Signal(list)
    """What the generator yielded since the last tick, at most ten times a second."""
    returned = Signal(object)
    """The generator's return value; None after `close`."""
    failed = Signal(object)
    """The exception the generator raised."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._queue: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._close = threading.Event()
        self._thread: threading.Thread | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(_TICK_MS)
        self._timer.timeout.connect(self._tick)

    def start(self, generator: Generator[Any, None, Any], *, to_its_end: bool = False) -> None:
        """Start the thread; the end of the program waits for it, or cuts it short."""
        self._thread = threading.Thread(
            target=_run, args=(generator, self._queue, self._close), name="unet3d", daemon=True
        )
        self._thread.start()
        self._at_exit = (
            partial(_finish, self._thread, self._queue)
            if to_its_end
            else partial(_join, self._thread, self._close)
        )
        atexit.register(self._at_exit)
        self._timer.start()

    def is_running(self) -> bool:
        """Whether `returned` or `failed` is still to come."""
        return self._timer.isActive()

    def closing(self) -> Callable[[], None]:
        """What `close` does, for when this object is gone."""
        return self._close.set

    def close(self) -> None:
        """Close the generator when it yields next; `returned` then gives None."""
        self._close.set()

    def abandon(self, seconds: float) -> bool:
        """Close, wait up to `seconds` for the thread, and emit nothing any more.

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
            atexit.unregister(self._at_exit)
        return True

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
            self._thread.join()  # it has put its last word into the queue
            atexit.unregister(self._at_exit)
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
        if kind == "failed":  # there is no window any more that could tell
            print(f"napari-unet3d: {content}", file=sys.stderr)


def _run(
    generator: Generator[Any, None, Any],
    queue: SimpleQueue[tuple[str, Any]],
    close: threading.Event,
) -> None:
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
    except BaseException as error:  # whatever it is, the user is told and the UI is freed
        queue.put(("failed", error))
