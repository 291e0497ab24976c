"""Settings of the C library's memory allocator while a network runs on the CPU."""

from __future__ import annotations

import ctypes
import functools
import platform
from typing import Any

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # parameters of mallopt(3)
_DEFAULTS = ((_TRIM_THRESHOLD, 128 * 1024), (_TOP_PAD, 128 * 1024), (_MMAP_MAX, 65536))
"""Bytes, and a number of blocks for the last: the values that glibc starts with."""
_KEEP = ((_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26), (_MMAP_MAX, 0))
"""Bytes, and a number of blocks for the last: nothing is given back below 2 GiB, 64 MiB are taken
at once, and no block is mapped on its own."""


def keep_freed() -> None:
    """Keep freed feature maps for reuse, instead of giving them back to the system at once.

    By default glibc maps and unmaps every large block, and the system clears each of its pages
    anew, which takes a third of the time of a prediction tile. Threads other than the main one
    have heaps of 64 MB, so larger blocks are still mapped and unmapped there. Without glibc this
    does nothing.
    """
    _set(_KEEP)


def give_back() -> None:
    """Give freed memory back to the system, now and at once from now on."""
    if (library := _glibc()) is not None:
        _set(_DEFAULTS)
        library.malloc_trim(0)


def _set(options: tuple[tuple[int, int], ...]) -> None:
    if (library := _glibc()) is not None:
        for name, value in options:
            library.mallopt(name, value)


@functools.cache
def _glibc() -> Any:
    if platform.libc_ver()[0] != "glibc":
        return None
    try:
        library = ctypes.CDLL(None)
        return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
    except OSError:
        return None
