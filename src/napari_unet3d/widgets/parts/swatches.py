"""Colored squares, as icons of table cells."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap

SWATCH = 12
"""Pixels from one square to the next."""


def swatch(color: str, size: int = SWATCH) -> QIcon:
    """Draw a square of one color."""
    pixmap = QPixmap(size, size)
    pixmap.fill(QColor(color))
    return _untinted(pixmap)


def swatches(colors: Sequence[str], most: int) -> QIcon:
    """Draw a square for each of the first `most` colors, side by side."""
    pixmap = QPixmap(most * SWATCH, SWATCH)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    for i, color in enumerate(colors[:most]):
        painter.fillRect(i * SWATCH, 1, SWATCH - 2, SWATCH - 2, QColor(color))
    painter.end()
    return _untinted(pixmap)


def _untinted(pixmap: QPixmap) -> QIcon:
    """Make an icon that keeps its colors in a selected row, where Qt would tint them."""
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)
    return icon
