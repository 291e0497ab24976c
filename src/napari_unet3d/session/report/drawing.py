"""Draws a chart on any canvas: the lines of an SVG, or those of a PDF page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, Protocol

from napari_unet3d.session.report.content import Chart, Series

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

WIDTH, HEIGHT = 480.0, 220.0
"""Units of a chart; its texts are 11 units high."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 12.0, 26.0, 40.0
"""Units around the axes, for titles and numbers."""
_TICKS = 5
"""Numbers that an axis should have. Round numbers come first, so it may have one or two more."""
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Colors of the lines, from the palette of Okabe and Ito: readable on white and on dark gray."""
_DOT = 2.5


class Canvas(Protocol):
    """What a chart is drawn on; x goes to the right, y down, in units."""

    def line(self, points: Sequence[Point], color: str | None, width: float) -> None:
        """Draw a line; the color of the text when None."""

    def dot(self, center: Point, radius: float, color: str | None) -> None:
        """Draw a filled circle."""

    def text(self, at: Point, text: str, anchor: Anchor, *, turned: bool = False) -> None:
        """Write a text whose baseline begins, is centered or ends here; upwards when turned."""


def draw(chart: Chart, canvas: Canvas) -> None:
    """Draw a chart of `WIDTH` × `HEIGHT` units."""
    points = [p for series in chart.series for p in series.points]
    ends = [(p[0], e) for s in chart.series for p, pair in _with_errors(s) for e in pair]
    x_ticks = _ticks(*_span([x for x, _ in points], zero=True))
    y_ticks = _ticks(*(chart.y_range or _span([y for _, y in (*points, *ends)], zero=False)))
    (x0, x1), (y0, y1) = (x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1])
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT

    def place(x: float, y: float) -> Point:
        return (
            _LEFT + (x - x0) / (x1 - x0) * (right - _LEFT),
            bottom - (min(max(y, y0), y1) - y0) / (y1 - y0) * (bottom - _TOP),
        )

    canvas.line([(_LEFT, _TOP), (_LEFT, bottom), (right, bottom)], None, 1.0)
    for x in x_ticks:
        at, _ = place(x, y0)
        canvas.line([(at, bottom), (at, bottom + 4)], None, 1.0)
        canvas.text((at, bottom + 15), f"{x:g}", "middle")
    for y in y_ticks:
        _, at = place(x0, y)
        canvas.line([(_LEFT - 4, at), (_LEFT, at)], None, 1.0)
        canvas.text((_LEFT - 7, at + 4), f"{y:g}", "end")
    canvas.text(((_LEFT + right) / 2, HEIGHT - 8), chart.x, "middle")
    canvas.text((12, (_TOP + bottom) / 2), chart.y, "middle", turned=True)
    canvas.text((_LEFT, 14), chart.title, "start")
    for number, series in enumerate(chart.series):
        color = COLORS[number % len(COLORS)]
        placed = [place(*p) for p in series.points]
        if len(placed) > 1:
            canvas.line(placed, color, 1.6)
        if series.marked or len(placed) == 1:
            for p in placed:
                canvas.dot(p, _DOT, color)
        for (x, _), (low, high) in _with_errors(series):
            canvas.line([place(x, low), place(x, high)], color, 1.0)
        if series.name:
            y = _TOP + 12 + 14 * number
            canvas.dot((right - 8, y - 4), _DOT, color)
            canvas.text((right - 16, y), series.name, "end")


def _with_errors(series: Series) -> list[tuple[Point, Point]]:
    return list(zip(series.points, series.errors, strict=True)) if series.errors else []


def _span(values: Sequence[float], *, zero: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    low = min(low, 0.0) if zero else low
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`."""
    raw = (high - low) / _TICKS
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(s * size for s in (1, 2, 2.5, 5, 10) if s * size >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [round(i * step, 12) for i in range(first, last + 1)]
    assert all(a < b for a, b in pairwise(ticks))
    return ticks
