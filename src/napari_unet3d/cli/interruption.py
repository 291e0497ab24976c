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
    """Within, the first Ctrl-C only shows `message`; a second one interrupts.

    SIGTERM and SIGHUP show it, too. Does nothing outside of the main thread, which alone may
    set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}

    def handle(number: int, _frame: object) -> None:
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)
        # After SIGHUP the terminal is gone; and a handler may come in the middle of a print.
        with contextlib.suppress(OSError, RuntimeError):
            errors.print(message, markup=False)

    try:
        for number in numbers:
            if before[number] not in (None, signal.SIG_IGN):  # nohup ignores SIGHUP
                signal.signal(number, handle)
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: set by something that is not Python
                signal.signal(number, handler)
