"""A scroll area for a column of widgets that scrolls vertically only."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QStyle, QWidget


class ColumnScroll(QScrollArea):
    """As wide as its column and a scroll bar need, so that nothing is cut at the right edge."""

    def __init__(self, column: QWidget) -> None:
        super().__init__()
        self.setWidget(column)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

    def minimumSizeHint(self) -> QSize:
        hint, column, style = super().minimumSizeHint(), self.widget(), self.style()
        if column is None or style is None:
            return hint
        bar = self.verticalScrollBar()
        width = 0 if bar is None else bar.sizeHint().width()
        width = max(width, style.pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent))
        margins = self.contentsMargins()
        edges = margins.left() + margins.right()
        return QSize(column.minimumSizeHint().width() + width + edges, hint.height())

    def eventFilter(self, a0: QObject | None, a1: QEvent | None) -> bool:
        if a0 is self.widget() and a1 is not None and a1.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(a0, a1)
