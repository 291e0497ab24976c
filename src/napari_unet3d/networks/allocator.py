"""How the C library hands out the main memory while a network runs on the CPU."""

from __future__ import annotations

import ctypes
import functools
import platform
from typing import Any

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # names of mallopt(3)
_DEFAULTS = ((_TRIM_THRESHOLD, 128 * 1024), (_TOP_PAD, 128 * 1024), (_MMAP_MAX, 65536))
_KEEP = ((_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26), (_MMAP_MAX, 0))


def keep_freed() -> None:
    """Let freed feature maps be used again, instead of being given back at once.

    glibc maps and unmaps every large block, and the system clears each page of it anew: a
    third of the time of a prediction tile. In threads, which have heaps of 64 MB, that stays so
    for larger blocks. Elsewhere nothing happens.
    """
    _set(_KEEP)


def give_back() -> None:
    """Give freed memory back to the system, and do so at once from now on."""
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
