"""A table for a narrow dock: as high as its rows, which are selected as a whole."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtGui import QKeyEvent, QShowEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

_KEYS = frozenset(
    {
        Qt.Key.Key_Up,
        Qt.Key.Key_Down,
        Qt.Key.Key_PageUp,
        Qt.Key.Key_PageDown,
        Qt.Key.Key_Home,
        Qt.Key.Key_End,
        Qt.Key.Key_Return,
        Qt.Key.Key_Enter,
        Qt.Key.Key_F2,
    }
)
_EDGES = 6
"""Pixels above and below the rows together: a focus ring of 2 and a margin of 1 on each side."""
_MEASURED_ROWS = 60
"""Rows whose texts decide the width of a column. Qt measures 1,000 at each change, in 4 ms."""
LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


class NarrowTable(QTableWidget):
    """A table whose columns are as wide as needed; Tab leaves it.

    Parameters
    ----------
    name
        Its name for screen readers.
    most_rows
        Rows up to which it grows; with more, it scrolls.
    """

    def __init__(self, name: str, most_rows: int) -> None:
        super().__init__(0, 0)
        self._most_rows = most_rows
        self.setAccessibleName(name)
        rows, columns = self.verticalHeader(), self.horizontalHeader()
        assert rows is not None and columns is not None
        rows.hide()
        columns.setHighlightSections(False)
        columns.setResizeContentsPrecision(_MEASURED_ROWS)
        self.titles = columns
        self.setShowGrid(False)
        self.setIconSize(QSize(14, 14))
        self.setTabKeyNavigation(False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)

    def keyPressEvent(self, e: QKeyEvent | None) -> None:
        """Move in the table; napari gets all other keys, as if its canvas had the focus."""
        if e is None:
            return
        plain = e.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        if e.key() in _KEYS and plain == Qt.KeyboardModifier.NoModifier:
            super().keyPressEvent(e)
        else:
            e.ignore()

    def showEvent(self, a0: QShowEvent | None) -> None:
        super().showEvent(a0)
        self.fit_height()  # before, the fonts and margins of the style are not known

    def changeEvent(self, a0: QEvent | None) -> None:
        super().changeEvent(a0)
        if a0 is not None and a0.type() in (QEvent.Type.StyleChange, QEvent.Type.FontChange):
            self.fit_height()

    def set_titles(self, items: list[QTableWidgetItem], stretched: int) -> None:
        """Name the columns; the column `stretched` takes the width that the others leave."""
        self.setColumnCount(len(items))
        for column, item in enumerate(items):
            self.setHorizontalHeaderItem(column, item)
            stretch = column == stretched
            self.titles.setSectionResizeMode(
                column,
                QHeaderView.ResizeMode.Stretch
                if stretch
                else QHeaderView.ResizeMode.ResizeToContents,
            )

    def fit_height(self) -> None:
        """Set the height to that of the rows, up to `most_rows`."""
        self.resizeRowsToContents()
        edges = self.contentsMargins().top() + self.contentsMargins().bottom() + _EDGES
        rows = sum(self.rowHeight(row) for row in range(min(self.rowCount(), self._most_rows)))
        self.setFixedHeight(self.titles.sizeHint().height() + rows + edges)


def cell(text: str, alignment: Qt.AlignmentFlag = LEFT) -> QTableWidgetItem:
    """Make an item of a table that cannot be edited."""
    item = QTableWidgetItem(text)
    item.setTextAlignment(alignment)
    item.setFlags(Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled)
    return item
