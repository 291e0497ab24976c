"""Tells when the window of a dock closes, or the dock is closed; asks before paint is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QCoreApplication, QEvent, QObject, QTimer, Signal
from qtpy.QtWidgets import QMainWindow, QWidget


class Override:
    """Runs a function instead of a method of a napari object, until `stop`.

    napari emits no signal when it saves layers, and Qt's close event does not tell whether the
    user or a program closes the window. The method is the only place to learn this.

    Parameters
    ----------
    target, name
        The object, and the name of its method.
    function
        Called with the original method, and with the arguments of the call.
    """

    def __init__(self, target: Any, name: str, function: Callable[..., Any]) -> None:
        self._target, self._name = target, name
        self._function: Callable[..., Any] | None = function
        original = getattr(target, name)

        def call(*args: Any, **options: Any) -> Any:
            # Another dock may have overridden this override, and still call it after `stop`.
            if self._function is None:
                return original(*args, **options)
            return self._function(original, *args, **options)

        self._call = call
        setattr(target, name, call)

    def stop(self) -> None:
        """Restore the original method."""
        self._function = None
        if vars(self._target).get(self._name) is self._call:
            delattr(self._target, self._name)


class WindowWatch(QObject):
    """Watches one dock and its window; emits one of its signals, once.

    Parameters
    ----------
    widget
        The content of the dock.
    reason_to_ask
        Returns whether something would be lost when the window is closed.
    may_close
        Asks the user, and returns whether the window may be closed. It replaces napari's own
        question. It is called when the user closes the window, with its × or from the menu, and
        not when a program does.
    """

    closed = Signal()
    """The window is closed, or the program ends."""
    removed = Signal()
    """The dock was closed with its ×; the window is still open."""

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
        self._close_override: Override | None = None
        self._deleted: QObject | None = None
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
            # napari may ask, and the user refuse: look again after that.
            self._timer.start(0)
        elif kind == QEvent.Type.DeferredDelete:  # before the timer, as a rule
            self._timer.stop()
            # Python owns the window: without a reference, it would be gone in its own event.
            self._deleted = watched
            self.closed.emit()
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
            self._close_override = Override(window, "close", self._ask_from_the_menu)

    def _let_go(self) -> None:
        window, self._window = self._window, None
        override, self._close_override = self._close_override, None
        if override is not None:
            override.stop()
        if window is not None:
            window.removeEventFilter(self)

    def _ask_and_close(self) -> None:
        # This `close` comes from a program, so nothing asks again.
        if self._window is not None and self._may_close() and self._window is not None:
            self._window.close()

    def _ask_from_the_menu(
        self, close: Callable[..., Any], *args: Any, confirm_need: bool = False, **options: Any
    ) -> Any:
        """Ask in File ▸ Close Window and File ▸ Exit too.

        napari calls ``window.close(quit_app=…, confirm_need=True)`` for them.
        """
        if not confirm_need:
            return close(*args, **options)
        if not self._reason_to_ask():
            return close(*args, confirm_need=True, **options)
        return close(*args, **options) if self._may_close() else None

    def _decide(self) -> None:
        if self._window is None:
            return
        if not self._window.isVisible():
            self.closed.emit()
        elif self._widget.parent() is None:
            self.removed.emit()

    def _quit(self) -> None:
        self.closed.emit()
