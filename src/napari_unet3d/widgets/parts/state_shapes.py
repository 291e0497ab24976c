"""A shape and a color for each state of a slice: the shape alone tells them apart."""

from __future__ import annotations

import math

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPen, QPixmap, QPolygonF

from napari_unet3d.data.marks import SliceState
from napari_unet3d.widgets.parts.colors import EDGE_CONTRAST, readable

_COLORS: dict[SliceState, str] = {
    "partial": "#8a8a8a",
    "complete": "#0072b2",
    "empty": "#0072b2",
    "accepted": "#009e73",
    "held out": "#d55e00",
}
"""Okabe and Ito's blue, green and vermilion; "partial" is neutral, since work is left there."""
ICON_SIZE = 11
"""Pixels of an icon: as high as a lower-case letter of the table."""
_PEN = 1.6
"""Pixels of an outline."""


def state_color(state: SliceState, *backgrounds: str) -> str:
    """The color of a state, or the nearest one with enough contrast to `backgrounds`."""
    return readable(_COLORS[state], *backgrounds, least=EDGE_CONTRAST)


def draw_state(painter: QPainter, box: QRectF, state: SliceState, color: str) -> None:
    """Draw the shape of a state into a square box.

    A low bar: partial. A square: complete; hollow: empty on purpose. A triangle: accepted. A
    diamond: held out.
    """
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(QColor(color))
    left, right, top, bottom = box.left(), box.right(), box.top(), box.bottom()
    middle, center = box.center().x(), box.center().y()
    if state == "partial":
        height = box.height() / 3
        painter.drawRect(QRectF(left, bottom - height, box.width(), height))
    elif state == "complete":
        painter.drawRect(box)
    elif state == "empty":
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(QColor(color), _PEN))
        inset = _PEN / 2
        painter.drawRect(box.adjusted(inset, inset, -inset, -inset))
    elif state == "accepted":
        corners = [QPointF(left, bottom), QPointF(middle, top), QPointF(right, bottom)]
        painter.drawPolygon(QPolygonF(corners))
    else:
        ends = [(middle, top), (right, center), (middle, bottom), (left, center)]
        painter.drawPolygon(QPolygonF([QPointF(x, y) for x, y in ends]))


def state_icon(state: SliceState, color: str, ratio: float = 1.0) -> QIcon:
    """Make an icon with the shape of a state.

    Parameters
    ----------
    state, color
        See `draw_state`.
    ratio
        Device pixels of the screen in a pixel of Qt.
    """
    size = QSize(ICON_SIZE, ICON_SIZE)
    pixmap = QPixmap(size * math.ceil(ratio))
    pixmap.setDevicePixelRatio(math.ceil(ratio))
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    draw_state(painter, QRectF(1, 1, ICON_SIZE - 2, ICON_SIZE - 2), state, color)
    painter.end()
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)  # else Qt tints it in a selected row
    return icon
