"""A layout that puts widgets beside each other, and goes on in the next row where one ends."""

from __future__ import annotations

from qtpy.QtCore import QPoint, QRect, QSize, Qt
from qtpy.QtWidgets import QLayout, QLayoutItem


class WrappingRow(QLayout):
    """Fills each row to its end: the widgets of a row share what is left of its width.

    Parameters
    ----------
    spacing
        Pixels between widgets and between rows.
    """

    def __init__(self, spacing: int = 4) -> None:
        super().__init__()
        self._items: list[QLayoutItem] = []
        self.setContentsMargins(0, 0, 0, 0)
        self.setSpacing(spacing)

    def addItem(self, a0: QLayoutItem | None) -> None:
        if a0 is not None:
            self._items.append(a0)

    def count(self) -> int:
        return len(self._items)

    def itemAt(self, index: int) -> QLayoutItem | None:
        return self._items[index] if 0 <= index < len(self._items) else None

    def takeAt(self, index: int) -> QLayoutItem | None:
        return self._items.pop(index) if 0 <= index < len(self._items) else None

    def expandingDirections(self) -> Qt.Orientation:
        return Qt.Orientation.Horizontal

    def hasHeightForWidth(self) -> bool:
        return True

    def heightForWidth(self, a0: int) -> int:
        return self._arrange(QRect(0, 0, a0, 0), move=False)

    def setGeometry(self, a0: QRect) -> None:
        super().setGeometry(a0)
        self._arrange(a0, move=True)

    def sizeHint(self) -> QSize:
        return self.minimumSize()

    def minimumSize(self) -> QSize:
        width = max((item.sizeHint().width() for item in self._visible()), default=0)
        height = max((item.sizeHint().height() for item in self._visible()), default=0)
        return QSize(width, height)

    def _visible(self) -> list[QLayoutItem]:
        return [item for item in self._items if not item.isEmpty()]

    def _rows(self, width: int) -> list[list[QLayoutItem]]:
        rows: list[list[QLayoutItem]] = []
        left = -1
        for item in self._visible():
            needed = item.sizeHint().width()
            if rows and needed + self.spacing() <= left:
                rows[-1].append(item)
                left -= needed + self.spacing()
            else:
                rows.append([item])
                left = width - needed
        return rows

    def _arrange(self, area: QRect, *, move: bool) -> int:
        """Return the height of all rows; with `move`, put the widgets into their places."""
        y = area.y()
        for row in self._rows(area.width()):
            height = max(item.sizeHint().height() for item in row)
            free = area.width() - sum(item.sizeHint().width() for item in row)
            free -= self.spacing() * (len(row) - 1)
            x = area.x()
            for i, item in enumerate(row):
                extra = max(0, free) // len(row) + (i < max(0, free) % len(row))
                size = QSize(item.sizeHint().width() + extra, height)
                if move:
                    item.setGeometry(QRect(QPoint(x, y), size))
                x += size.width() + self.spacing()
            y += height + self.spacing()
        return max(0, y - self.spacing() - area.y())
