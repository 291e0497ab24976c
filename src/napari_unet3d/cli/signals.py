"""What Ctrl-C, SIGTERM and SIGHUP do to a command.

A cluster's time limit and `docker stop` send SIGTERM, a terminal that is closed sends SIGHUP.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

_ECHO_SECONDS = 0.3
"""Seconds in which a second signal is taken for an echo: a closed terminal sends SIGHUP twice, from
the system and from the shell."""

SAVING = "The model is being saved (Ctrl-C again loses it)."

_REQUESTS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class TerminatedError(BaseException):
    """SIGTERM or SIGHUP ends the command, as KeyboardInterrupt does; unfinished files go."""

    def __init__(self, number: int) -> None:
        self.name, self.exit_code = signal.Signals(number).name, 128 + number
        super().__init__(f"ended by {self.name}")


@contextlib.contextmanager
def terminating() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP raise an exception, so that unfinished files are removed.

    An ignored SIGHUP stays ignored: nohup relies on it. An ignored SIGINT does not: a shell ignores
    it for commands that a script starts in the background, but whoever sends it means it.
    """
    with _handling((signal.SIGINT, *_REQUESTS), lambda number, _: interrupt(number)):
        yield


@contextlib.contextmanager
def first_signal(heard: Callable[[int], None]) -> Iterator[None]:
    """Let the first Ctrl-C, SIGTERM or SIGHUP call `heard`; a second one interrupts."""
    first: list[float] = []

    def handle(number: int, _: FrameType | None) -> None:
        if not first:
            first.append(time.monotonic())
            heard(number)
        elif time.monotonic() - first[0] > _ECHO_SECONDS:
            interrupt(number)

    with _handling((signal.SIGINT, *_REQUESTS), handle):
        yield


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Let the first signal only say that a model is being saved; a second one interrupts."""
    with first_signal(lambda _: say(SAVING)):
        yield


def say(text: str) -> None:
    """Print from a signal handler, which may have cut another print in two."""
    with contextlib.suppress(OSError):  # after SIGHUP the terminal is gone
        os.write(2, f"{text}\n".encode())


def interrupt(number: int) -> None:
    """Raise the exception of a signal."""
    raise KeyboardInterrupt if number == signal.SIGINT else TerminatedError(number)


@contextlib.contextmanager
def _handling(
    numbers: tuple[int, ...], handle: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # where Python allows none
        yield
        return
    before = {n: signal.getsignal(n) for n in numbers}
    if hasattr(signal, "SIGHUP") and before.get(signal.SIGHUP) is signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
