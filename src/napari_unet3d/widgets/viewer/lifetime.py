"""Tells when a dock's window was closed, or the dock was taken out of it; asks before that."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from qtpy.QtCore import QCoreApplication, QEvent, QObject, QTimer, Signal
from qtpy.QtWidgets import QMainWindow, QWidget


class WindowWatch(QObject):
    """Watches one widget of a dock; tells once.

    Parameters
    ----------
    widget
        The widget.
    reason_to_ask
        Whether something would be lost when the window is closed.
    may_close
        Asks the user, and tells whether the window may be closed. Called only when the user
        closes the window, with its × or from the menu, never when a program does; it takes the
        place of napari's own question.
    """

    closed = Signal()
    """The window is gone, or the program ends."""
    removed = Signal()
    """The dock was closed with its ×; the window is still there."""

    def __init__(
        self,
        widget: QWidget,
        reason_to_ask: Callable[[], bool] = lambda: False,
        may_close: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__(widget)
        self._widget = widget
        self._reason_to_ask, self._may_close = reason_to_ask, may_close
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
        self._let_go()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        kind = None if event is None else event.type()
        if watched is self._widget:
            if kind == QEvent.Type.Show:
                self._find_window()
            elif kind == QEvent.Type.ParentChange:
                self._timer.start(0)
        elif kind == QEvent.Type.Close and event is not None:
            if event.spontaneous() and self._reason_to_ask():
                event.ignore()
                QTimer.singleShot(0, self._ask_and_close)  # not within the event
                return True
            # The user may still refuse: look again once it was decided.
            self._timer.start(0)
        return False

    def _find_window(self) -> None:
        window: QWidget | None = self._widget.window()
        if not isinstance(window, QMainWindow):  # the dock floats
            above = window.parentWidget() if window is not None else None
            window = above.window() if above is not None else None
        if isinstance(window, QMainWindow) and window is not self._window:
            self._let_go()
            self._window = window
            window.installEventFilter(self)
            self._ask_from_the_menu(window)

    def _let_go(self) -> None:
        window, self._window = self._window, None
        if window is not None:
            window.removeEventFilter(self)
            with suppress(AttributeError):
                del window.close

    def _ask_and_close(self) -> None:
        # The second `close` comes from a program: nobody asks again.
        if self._window is not None and self._may_close() and self._window is not None:
            self._window.close()

    def _ask_from_the_menu(self, window: QMainWindow) -> None:
        """Ask in File ▸ Close Window and File ▸ Exit too.

        napari calls ``window.close(quit_app=…, confirm_need=True)`` for them: what then reaches
        Qt is not to be told from a program that closes the window.
        """
        close: Any = window.close

        def ask_first(*args: Any, confirm_need: bool = False, **options: Any) -> Any:
            if not confirm_need:
                return close(*args, **options)
            if not self._reason_to_ask():
                return close(*args, confirm_need=True, **options)
            return close(*args, **options) if self._may_close() else None

        window.close = ask_first  # type: ignore[method-assign]

    def _decide(self) -> None:
        if self._window is None:
            return
        if not self._window.isVisible():
            self.closed.emit()
        elif self._widget.parent() is None:
            self.removed.emit()

    def _quit(self) -> None:
        self.closed.emit()
