"""A time budget that is typed as people say it: "90 s", "5 min", "2 h"."""

from __future__ import annotations

import re

from napari_unet3d.errors import BadInputError
from napari_unet3d.session.texts import show_duration
from napari_unet3d.widgets.parts.typed_box import TypedBox, read_number, shown

STEPS = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800)
"""Seconds. The arrow keys step through these budgets."""
LONGEST = 30 * 86400.0
"""Seconds of the longest budget, 30 days: a longer one is a typing error."""
_SECONDS = {
    1: ("", "s", "sec", "second", "seconds"),
    60: ("m", "min", "mins", "minute", "minutes"),
    3600: ("h", "hr", "hrs", "hour", "hours"),
}
_UNITS = {name: seconds for seconds, names in _SECONDS.items() for name in names}
_CURE = "Write a time such as 90 s, 5 min, 3:20 min or 2 h."


def write_duration(seconds: float) -> str:
    """Write seconds as `show_duration` does, or in full where that would round them."""
    text = show_duration(seconds)
    return text if read_duration(text) == seconds else f"{seconds!r} s"


def read_duration(text: str) -> float | None:
    """Read seconds from a text such as "90", "1.5 min" or "3:20 min"; None for other texts."""
    text = text.strip().lower()
    if match := re.fullmatch(r"(\d{1,6}):([0-5]?\d)\s*(min|h|m)?", text, re.ASCII):
        minor, major = (60.0, 3600.0) if match[3] == "h" else (1.0, 60.0)
        return int(match[1]) * major + int(match[2]) * minor
    if match := re.fullmatch(r"(\d{1,4}):([0-5]\d):([0-5]\d)\s*h?", text, re.ASCII):
        return int(match[1]) * 3600.0 + int(match[2]) * 60.0 + int(match[3])
    if match := re.fullmatch(r"(\d+)\s*h[a-z]*\s*(\d+)\s*m[a-z]*", text, re.ASCII):
        return int(match[1]) * 3600.0 + int(match[2]) * 60.0
    match = re.fullmatch(r"(.*?[\d.,])\s*([a-z]*)", text)
    if match is None or match[2] not in _UNITS:
        return None
    try:
        return float(read_number(match[1]) * _UNITS[match[2]])
    except BadInputError:
        return None


class DurationBox(TypedBox):
    """Edits a time in seconds; None when nothing is typed."""

    def __init__(self) -> None:
        super().__init__(_read, write_duration, _step, optional=True, empty=_CURE)
        self._line.setPlaceholderText("no limit of time")
        self._kept: str | None = None

    def value(self) -> float | None:
        if self._kept is None:
            return super().value()  # type: ignore[no-any-return]
        return _read(self._kept) if self._kept.strip() else None

    def setValue(self, value: float | None) -> None:
        if self._kept is None:
            super().setValue(value)
        else:
            self._kept = "" if value is None else write_duration(value)

    def replace(self, by: str | None) -> None:
        """Show the text `by` instead of the time, and disable the box; undo this when None."""
        if by is not None:
            if self._kept is None:
                self._kept = self._line.text()
            self._line.setText(by)
        elif self._kept is not None:
            kept, self._kept = self._kept, None
            self._line.setText(kept)
        self.setEnabled(by is None)


def _read(text: str) -> float:
    seconds = read_duration(text)
    if seconds is None:
        raise BadInputError(f"'{shown(text)}' is not a time. {_CURE}")
    if not 0 < seconds <= LONGEST:
        raise BadInputError(
            f"'{shown(text)}' cannot be used. The time must be above 0 and at most 720 h. {_CURE}"
        )
    return seconds


def _step(value: float | None, way: int) -> float | None:
    if value is None:
        return float(STEPS[0]) if way > 0 else None
    if way > 0:
        return next((float(s) for s in STEPS if s > value), value)
    return next((float(s) for s in reversed(STEPS) if s < value), value)
