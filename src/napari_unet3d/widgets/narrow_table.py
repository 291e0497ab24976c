"""A small table for a narrow dock: as high as its rows, rows are selected as a whole."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter


class NarrowTable(QTableWidget):
    """Columns are as wide as needed, except `stretched`; Tab leaves the table."""

    def __init__(self, name: str, most_rows: int) -> None:
        super().__init__(0, 0)
        self._most_rows = most_rows
        self.setAccessibleName(name)
        rows, columns = self.verticalHeader(), self.horizontalHeader()
        assert rows is not None and columns is not None
        rows.hide()
        columns.setHighlightSections(False)
        self.titles = columns
        self.setShowGrid(False)
        self.setIconSize(QSize(14, 14))
        self.setTabKeyNavigation(False)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)

    def set_titles(self, items: list[QTableWidgetItem], stretched: int) -> None:
        """Name the columns; `stretched` takes the room the others leave."""
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
        """Be as high as the rows, up to the most there should be."""
        self.resizeRowsToContents()
        height = self.titles.sizeHint().height() + 4
        height += sum(self.rowHeight(row) for row in range(min(self.rowCount(), self._most_rows)))
        self.setFixedHeight(height)


def cell(text: str, alignment: Qt.AlignmentFlag = LEFT) -> QTableWidgetItem:
    """An item of a table that cannot be edited."""
    item = QTableWidgetItem(text)
    item.setTextAlignment(alignment)
    item.setFlags(Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled)
    return item
