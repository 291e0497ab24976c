"""A time budget that is read and typed as people say it: "90 s", "5 min", "2 h"."""

from __future__ import annotations

import re

from qtpy.QtGui import QValidator
from qtpy.QtWidgets import QDoubleSpinBox

STEPS = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800)
"""What the arrow keys step through, seconds."""
_UNITS = {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hour": 3600, "hours": 3600}
_PATTERN = re.compile(r"\s*(\d+(?:[.,]\d*)?)\s*([a-z]*)\s*")
_SHORTEST, _LONGEST = 1.0, 30 * 86400.0


def show_duration(seconds: float) -> str:
    """Seconds as "45 s", "3 min", "3:20 min" or "2:05 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min" if whole % 60 else f"{whole // 60} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes % 60 else f"{minutes // 60} h"


def read_duration(text: str) -> float | None:
    """Seconds in a text such as "90", "90 s", "1.5 min", "3:20 min"; None when it is none."""
    text = text.strip().lower()
    if match := re.fullmatch(r"(\d+):(\d{1,2})\s*(min|h|m)?", text):
        minor, major = (60.0, 3600.0) if match[3] == "h" else (1.0, 60.0)
        return int(match[1]) * major + int(match[2]) * minor
    match = _PATTERN.fullmatch(text)
    if match is None or match[2] not in _UNITS:
        return None
    return float(match[1].replace(",", ".")) * _UNITS[match[2]]


class DurationBox(QDoubleSpinBox):
    """Edits seconds; `value()` is in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.setDecimals(2)
        self.setRange(_SHORTEST, _LONGEST)

    def textFromValue(self, v: float) -> str:
        return show_duration(v)

    def valueFromText(self, text: str | None) -> float:
        seconds = read_duration(text or "")
        return self.value() if seconds is None else seconds

    def validate(self, input: str | None, pos: int) -> tuple[QValidator.State, str, int]:
        text = input or ""
        seconds = read_duration(text)
        if seconds is not None and _SHORTEST <= seconds <= _LONGEST:
            return QValidator.State.Acceptable, text, pos
        typing = re.fullmatch(r"[\d.,:\sa-zA-Z]*", text)
        return (
            QValidator.State.Intermediate if typing else QValidator.State.Invalid,
            text,
            pos,
        )

    def stepBy(self, steps: int) -> None:
        value = self.value()
        for _ in range(abs(steps)):
            if steps > 0:
                value = next((s for s in STEPS if s > value), value)
            else:
                value = next((s for s in reversed(STEPS) if s < value), value)
        self.setValue(value)
        self.selectAll()
