"""Boxes for typed values that use exactly what the user typed.

Qt's own spin boxes round numbers, ignore keys and restore old values. These boxes keep the text,
and raise an error with words for a text that cannot be used.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QAbstractSpinBox, QWidget

from napari_unet3d.errors import BadInputError

AUTOMATIC = "automatic"
_LONGEST_TEXT = 60
"""Characters of the longest number that is read: a float needs no more than 25."""
_SHOWN_TEXT = 30
"""Characters of a wrong text that a message repeats; the rest is cut."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,4})?", re.ASCII)
_GROUPED = re.compile(r"[+-]?\d{1,3}([ \u00a0\u2009\u202f']\d{3})+(?=$|[.,e])", re.ASCII)


@dataclass(frozen=True)
class Bounds:
    """The range of the numbers that a field takes.

    Parameters
    ----------
    low, high
        The bounds; None for no bound.
    low_excluded, high_excluded
        Whether the bound itself cannot be used.
    """

    low: float | None = None
    high: float | None = None
    low_excluded: bool = False
    high_excluded: bool = False

    def hold(self, number: float) -> bool:
        """Return whether a number lies within the bounds."""
        low, high = self.low, self.high
        above = low is None or (number > low if self.low_excluded else number >= low)
        return above and (high is None or (number < high if self.high_excluded else number <= high))

    def __str__(self) -> str:
        low, high = _short(self.low), _short(self.high)
        if not low:
            return f"{'below' if self.high_excluded else 'up to'} {high}" if high else ""
        if not high:
            return f"above {low}" if self.low_excluded else f"{low} or more"
        if not self.low_excluded and not self.high_excluded:
            return f"from {low} to {high}"
        first = f"above {low}" if self.low_excluded else f"{low} or more"
        return f"{first}, and {'below' if self.high_excluded else 'at most'} {high}"


def read_number(text: str) -> Decimal:
    """Read a number as people type it: 0.001, 1e-3, 0,001, 10 000.

    Raises
    ------
    BadInputError
        The text is not a number, or can be read as two different numbers.
    """
    plain = text.strip().lower().replace("\u2212", "-")  # the typographic minus
    if _GROUPED.match(plain):
        plain = re.sub(r"[ \u00a0\u2009\u202f']", "", plain)
    if re.fullmatch(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?", plain, re.ASCII):
        raise BadInputError(
            f"'{shown(text)}' can mean {plain.replace(',', '')} or {plain.replace(',', '.', 1)}. "
            "Write it without the comma."
        )
    if plain.count(",") == 1 and "." not in plain:
        plain = plain.replace(",", ".")
    if len(plain) > _LONGEST_TEXT or _NUMBER.fullmatch(plain) is None:
        raise BadInputError(f"'{shown(text)}' is not a number.")
    return Decimal(plain)


def shown(text: str) -> str:
    """Shorten a typed text to a line that a message can repeat."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_TEXT else line[:_SHOWN_TEXT] + "…"


class TypedBox(QAbstractSpinBox):
    """A text that stands for a value, with buttons for the next and the previous value.

    Parameters
    ----------
    read
        Turns a text that is not empty into a value; raises BadInputError with reason and cure.
    write
        Turns a value into a text that `read` turns into exactly this value.
    step
        Takes a value (None for an empty field) and ±1, and returns the next value.
    optional
        Whether the field may be empty. Its value is then None, shown as "automatic".
    empty
        A sentence that says what to write into an empty field.
    """

    valueChanged = Signal()

    def __init__(
        self,
        read: Callable[[str], Any],
        write: Callable[[Any], str],
        step: Callable[[Any, int], Any],
        *,
        optional: bool,
        empty: str,
    ) -> None:
        super().__init__()
        self._read, self._write, self._step = read, write, step
        self._optional, self._empty = optional, empty
        line = self.lineEdit()
        assert line is not None
        self._line = line
        if optional:
            line.setPlaceholderText(AUTOMATIC)
        line.textChanged.connect(lambda _text: self.valueChanged.emit())
        steady(self)

    def value(self) -> Any:
        """The typed value; None for an empty field, if it is optional.

        Raises
        ------
        BadInputError
            The text cannot be used; says why, and which text can.
        """
        text = self._line.text().strip()
        if text and text.lower() not in (AUTOMATIC, "auto"):
            return self._read(text)
        if not self._optional:
            raise BadInputError(f"Nothing is typed. {self._empty}" if not text else self._empty)
        return None

    def setValue(self, value: Any) -> None:
        """Show a value."""
        self._line.setText("" if value is None else self._write(value))

    def stepBy(self, steps: int) -> None:
        try:
            value = self.value()
            for _ in range(abs(steps)):
                value = self._step(value, 1 if steps > 0 else -1)
        except BadInputError:
            return  # the text is no value, so there is no next one
        self.setValue(value)
        self.selectAll()

    def stepEnabled(self) -> QAbstractSpinBox.StepEnabledFlag:
        flags = QAbstractSpinBox.StepEnabledFlag
        return flags.StepUpEnabled | flags.StepDownEnabled


class NumberBox(TypedBox):
    """A number within bounds.

    Parameters
    ----------
    bounds
        The range of the numbers.
    whole
        Whether they are whole numbers.
    optional
        Whether the field may be empty, for "automatic".
    """

    def __init__(self, bounds: Bounds, *, whole: bool, optional: bool) -> None:
        self._bounds, self._whole = bounds, whole
        cure = f"Write a {'whole ' if whole else ''}number {bounds}".rstrip()
        cure += f", or leave it empty for {AUTOMATIC}." if optional else "."
        self._cure = cure
        super().__init__(self._number, _write, self._next, optional=optional, empty=cure)

    def minimum(self) -> float | None:
        """The lower bound, included or not."""
        return self._bounds.low

    def maximum(self) -> float | None:
        """The upper bound, included or not."""
        return self._bounds.high

    def _number(self, text: str) -> float:
        try:
            exact = read_number(text)
        except BadInputError as error:
            raise BadInputError(f"{error} {self._cure}") from None
        if self._whole and exact != exact.to_integral_value():
            raise BadInputError(f"'{shown(text)}' is not a whole number. {self._cure}")
        number = float(exact)
        if not math.isfinite(number) or not self._bounds.hold(number):
            raise BadInputError(f"{shown(text)} cannot be used here. {self._cure}")
        return int(exact) if self._whole else number

    def _next(self, value: float | None, way: int) -> float | None:
        low, high = self._bounds.low or 0.0, self._bounds.high
        if value is None:
            if way < 0:
                return None
            start = low if not self._bounds.low_excluded else 1.0 if self._whole else 1e-3
            return int(start) if self._whole else start
        exact = Decimal(repr(value))
        if self._whole:
            new = exact + way
        elif self._bounds.low_excluded and low == 0:
            new = _next_nice(exact, way)
        else:
            span = 1.0 if high is None else high - low
            new = exact + way * Decimal(10) ** (math.floor(math.log10(span)) - 2)
        number = int(new) if self._whole else float(new)
        if self._bounds.hold(number):
            return number
        return None if way < 0 and self._optional else value


def steady(box: QWidget) -> None:
    """Let the mouse wheel change `box` only while it has the focus.

    Otherwise scrolling the dock would change the boxes that come under the pointer.
    """
    box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    box.installEventFilter(_WheelGuard(box))


class _WheelGuard(QObject):
    def eventFilter(self, a0: QObject | None, a1: QEvent | None) -> bool:
        if isinstance(a1, QWheelEvent) and isinstance(a0, QWidget) and not a0.hasFocus():
            a1.ignore()  # the scroll area around the box gets it
            return True
        return False


def _write(number: float) -> str:
    return repr(number).removesuffix(".0")


def _next_nice(value: Decimal, way: int) -> Decimal:
    """The next number above or below among 1, 2, 5 times a power of ten."""
    power = Decimal(10) ** value.adjusted()
    nice = [power * digit for digit in (Decimal("0.5"), 1, 2, 5, 10)]
    if way > 0:
        return next(n for n in nice if n > value)
    return next(n for n in reversed(nice) if n < value)


def _short(bound: float | None) -> str:
    if bound is None:
        return ""
    return f"{bound:,.0f}".replace(",", " ") if float(bound).is_integer() else f"{bound:g}"
