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
"""Seconds. A closed terminal's SIGHUP comes twice, from the system and from the shell."""

SAVING = "The model is being saved (Ctrl-C again loses it)."

_POLITE = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class TerminatedError(BaseException):
    """A signal ends the command, as KeyboardInterrupt does; what was begun is cleaned up."""

    def __init__(self, number: int) -> None:
        self.name, self.exit_code = signal.Signals(number).name, 128 + number
        super().__init__(f"ended by {self.name}")


@contextlib.contextmanager
def terminating() -> Iterator[None]:
    """Within, Ctrl-C, SIGTERM and SIGHUP raise an exception, so that files are cleaned up.

    Where SIGHUP is ignored, as nohup has it, it stays so. SIGINT is heard even where a script
    started the command in the background and the shell had it ignored: who sends it means it.
    """
    with _handling((signal.SIGINT, *_POLITE), lambda number, _: interrupt(number)):
        yield


@contextlib.contextmanager
def first_signal(heard: Callable[[int], None]) -> Iterator[None]:
    """Within, the first Ctrl-C, SIGTERM or SIGHUP calls `heard`; a second one interrupts."""
    first: list[float] = []

    def handle(number: int, _: FrameType | None) -> None:
        if not first:
            first.append(time.monotonic())
            heard(number)
        elif time.monotonic() - first[0] > _ECHO_SECONDS:
            interrupt(number)

    with _handling((signal.SIGINT, *_POLITE), handle):
        yield


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Within, a model is saved: the first signal only says so, a second one interrupts."""
    with first_signal(lambda _: say(SAVING)):
        yield


def say(text: str) -> None:
    """Print from a signal handler, which may have come in the middle of another print."""
    with contextlib.suppress(OSError):  # after SIGHUP the terminal is gone
        os.write(2, f"{text}\n".encode())


def interrupt(number: int) -> None:
    """Raise what a signal raises when nothing is to be kept."""
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
