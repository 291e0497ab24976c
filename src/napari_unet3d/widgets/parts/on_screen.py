"""Keeps the bottom of a dock on the screen.

napari's own docks need about 590 pixels of height. On a laptop with 1366 × 768 pixels at 150 %
there are 512: the window reaches below the screen, and with it the bottom of every dock.
"""

from __future__ import annotations

import weakref

from qtpy.QtCore import QEvent, QObject, QTimer
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QWidget

_EVENTS = frozenset({QEvent.Type.Resize, QEvent.Type.Move, QEvent.Type.Show})


class KeepOnScreen(QObject):
    """Sets the bottom margin of the widget's layout to the height that lies below the screen.

    The widget's `minimumSizeHint` must not count that margin, or the window could not shrink.
    """

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        self._window: weakref.ref[QWidget] | None = None  # weak, so that a closed window is deleted
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self.update)
        widget.installEventFilter(self)

    def eventFilter(self, a0: QObject | None, a1: QEvent | None) -> bool:
        if a1 is not None and a1.type() in _EVENTS:
            before = None if self._window is None else self._window()
            window = self._widget.window()
            if window is not None and window is not before and window is not self._widget:
                if before is not None:
                    before.removeEventFilter(self)
                self._window = weakref.ref(window)
                window.installEventFilter(self)
            self._timer.start(0)  # once the layout is done
        return False

    def update(self) -> None:
        """Set the margin for the present place of the window."""
        layout = self._widget.layout()
        if layout is None or not self._widget.isVisible():
            return
        margins = layout.contentsMargins()
        room = self._widget.height() - self._widget.minimumSizeHint().height()
        bottom = max(0, min(self._below_screen(), room))
        if bottom != margins.bottom():
            margins.setBottom(bottom)
            layout.setContentsMargins(margins)

    def _below_screen(self) -> int:
        """Pixels of the widget that lie below the screen, or under its task bar."""
        end = self._widget.mapToGlobal(self._widget.rect().bottomLeft())
        own, there = self._widget.screen(), QGuiApplication.screenAt(end)
        if own is None or (there is not None and there is not own):
            return 0  # the bottom lies on another screen
        return end.y() - own.availableGeometry().bottom()
