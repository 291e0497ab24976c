"""Tells when a dock's window was closed, or the dock was taken out of it."""

from __future__ import annotations

from qtpy.QtCore import QCoreApplication, QEvent, QObject, QTimer, Signal
from qtpy.QtWidgets import QMainWindow, QWidget


class WindowWatch(QObject):
    """Watches one widget of a dock; tells once."""

    closed = Signal()
    """The window is gone, or the program ends."""
    removed = Signal()
    """The dock was closed with its ×; the window is still there."""

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        self._window: QMainWindow | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._decide)
        widget.installEventFilter(self)
        if (app := QCoreApplication.instance()) is not None:
            app.aboutToQuit.connect(self._quit)

    def stop(self) -> None:
        """Watch no longer."""
        self._timer.stop()
        self._widget.removeEventFilter(self)
        if self._window is not None:
            self._window.removeEventFilter(self)
            self._window = None

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        kind = None if event is None else event.type()
        if watched is self._widget:
            if kind == QEvent.Type.Show:
                self._find_window()
            elif kind == QEvent.Type.ParentChange:
                self._timer.start(0)
        elif kind == QEvent.Type.Close:
            # The user may still refuse: look again once it was decided.
            self._timer.start(0)
        return False

    def _find_window(self) -> None:
        window: QWidget | None = self._widget.window()
        if not isinstance(window, QMainWindow):  # the dock floats
            above = window.parentWidget() if window is not None else None
            window = above.window() if above is not None else None
        if isinstance(window, QMainWindow) and window is not self._window:
            if self._window is not None:
                self._window.removeEventFilter(self)
            self._window = window
            window.installEventFilter(self)

    def _decide(self) -> None:
        if self._window is None:
            return
        if not self._window.isVisible():
            self.closed.emit()
        elif self._widget.parent() is None:
            self.removed.emit()

    def _quit(self) -> None:
        self.closed.emit()
