"""Lets the threads that compute give way to the window.

A training uses all cores, and so does the window while a user paints where OpenGL is rendered in
software. With equal priorities, each drawing waits for the training.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

_NICENESS = 10
"""Steps of the scheduler of Linux: the thread gets a tenth of a core that the window wants, and
all of one that nobody else wants."""
_BELOW_NORMAL = -1
"""THREAD_PRIORITY_BELOW_NORMAL of Windows."""


def give_way() -> None:
    """Lower the priority of the calling thread, for good.

    On Linux, the threads that it starts from then on inherit it, such as those of OpenMP. On
    Windows they do not. On macOS nothing happens: a lower class would move the thread to the slow
    cores.
    """
    with suppress(OSError, AttributeError):
        if sys.platform.startswith("linux"):
            thread = threading.get_native_id()
            now = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, min(now + _NICENESS, 19))
        elif sys.platform == "win32":
            import ctypes

            kernel = ctypes.windll.kernel32
            kernel.GetCurrentThread.restype = ctypes.c_void_p
            kernel.SetThreadPriority.argtypes = ctypes.c_void_p, ctypes.c_int
            kernel.SetThreadPriority(kernel.GetCurrentThread(), _BELOW_NORMAL)
