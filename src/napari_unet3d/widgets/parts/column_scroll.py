"""A scroll area for a column of widgets that scrolls vertically only."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QSize, Qt, QTimer
from qtpy.QtWidgets import QFrame, QScrollArea, QStyle, QWidget

_LAYOUT_MS = 50
"""Milliseconds until Qt has laid out a section that was unfolded, and its height is known."""


class ColumnScroll(QScrollArea):
    """As wide as its column and a scroll bar need, so that nothing is cut at the right edge."""

    def __init__(self, column: QWidget) -> None:
        super().__init__()
        self.setWidget(column)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._target: QWidget | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._scroll)
        if (bar := self.verticalScrollBar()) is not None:
            bar.rangeChanged.connect(self._scroll)  # a section grows as curves and scores appear
            bar.actionTriggered.connect(self.stop)

    def scroll_to(self, widget: QWidget) -> None:
        """Keep a widget of the column in view, until the user scrolls.

        Of one that is higher than the area, the top stays in view.
        """
        self._target = widget
        self._timer.start(_LAYOUT_MS)

    def stop(self) -> None:
        """Keep no widget in view any longer."""
        self._timer.stop()
        self._target = None

    def _scroll(self) -> None:
        target, column, bar = self._target, self.widget(), self.verticalScrollBar()
        if target is None or column is None or bar is None:
            return
        view = self.viewport()
        if view is not None and target.height() > view.height():
            bar.setValue(target.mapTo(column, target.rect().topLeft()).y())
        else:
            self.ensureWidgetVisible(target, 0, 0)

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
