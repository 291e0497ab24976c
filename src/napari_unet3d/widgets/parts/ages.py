"""Moments in words: "5 s ago", "25 Nov 17:20"."""

from __future__ import annotations

import time

_SOON = 2.0
"""Seconds. What is younger was "just now": a count that starts at 0 would flicker."""


def age_text(seconds: float) -> str:
    """Say how long ago something was: "just now", "5 s ago", "3 min ago", "2 h ago"."""
    if seconds < _SOON:
        return "just now"
    if seconds < 60:
        return f"{seconds:.0f} s ago"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min ago"
    return f"{seconds // 3600:.0f} h ago"


def moment_text(moment: float, now: float | None = None, *, seconds: bool = False) -> str:
    """Write a moment as "14:32" when it is of today, else as "25 Nov 17:20".

    Parameters
    ----------
    moment, now
        Seconds since 1970, as `time.time` returns them.
    seconds
        Whether the seconds are written: "14:32:05".
    """
    then, today = time.localtime(moment), time.localtime(time.time() if now is None else now)
    clock = time.strftime("%H:%M:%S" if seconds else "%H:%M", then)
    if then[:3] == today[:3]:
        return clock
    year = "" if then.tm_year == today.tm_year else f" {then.tm_year}"
    return f"{then.tm_mday} {time.strftime('%b', then)}{year} {clock}"
