"""Holding back the signals that end a process while something must not be lost."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from napari_unet3d.cli.terminal import errors

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP")


@contextlib.contextmanager
def held_back(message: str) -> Iterator[None]:
    """Within, the first Ctrl-C (or SIGTERM, SIGHUP) only shows `message`; a second one ends.

    Whoever sets a handler of their own within the block, and takes it back, has it meanwhile.
    Does nothing outside of the main thread, which gets no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None:  # None: set by something that is not Python
                signal.signal(number, handler)

    def handle(number: int, _frame: object) -> None:
        restore()
        with contextlib.suppress(OSError):  # the terminal may be gone, after a SIGHUP above all
            errors.print(message)

    try:
        for number in numbers:
            if before[number] not in (None, signal.SIG_IGN):  # nohup ignores SIGHUP
                signal.signal(number, handle)
        yield
    finally:
        restore()
