"""Tells when the window of a dock closes, or the dock is closed; asks before paint is lost."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
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
        self._earlier = vars(target).get(name)
        original = getattr(target, name)

        def call(*args: Any, **options: Any) -> Any:
            # Another dock may have overridden this override, and still call it after `stop`.
            if self._function is None:
                return original(*args, **options)
            return self._function(original, *args, **options)

        call.override = self  # type: ignore[attr-defined]
        self._call = call
        setattr(target, name, call)

    def stop(self) -> None:
        """Restore what the method was before."""
        self._function = None
        if vars(self._target).get(self._name) is not self._call:
            return
        earlier = self._earlier  # another dock may have overridden it, too, and have stopped
        while (override := getattr(earlier, "override", None)) and override._function is None:
            earlier = override._earlier
        if earlier is None:
            delattr(self._target, self._name)
        else:
            setattr(self._target, self._name, earlier)


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
    """The window is closed, or the dock deleted with it, or the program ends."""
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
        self._above: list[QWidget] = []
        """The parents that are watched: who deletes one deletes the widget."""
        self._close_override: Override | None = None
        self._is_closing = self._over = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._decide)
        widget.installEventFilter(self)
        if (app := QCoreApplication.instance()) is not None:
            app.aboutToQuit.connect(self._quit)

    def stop(self) -> None:
        """Watch no longer."""
        self._over = True
        self._timer.stop()
        self._widget.removeEventFilter(self)
        self._let_go()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        kind = None if event is None or self._over else event.type()
        if kind == QEvent.Type.DeferredDelete:
            # Qt deletes a closed window before it looks at timers. Python owns the window: without
            # a reference, it would be gone within its own event.
            QTimer.singleShot(0, partial(id, watched))
            if watched is self._widget or watched in self._parents():
                self._tell(self.closed)
            elif watched is self._window and self._widget.parent() is None:
                self._tell(self.removed)
        elif watched is self._widget:
            if kind == QEvent.Type.Show:
                self._find_window()
            elif kind == QEvent.Type.ParentChange:
                self._timer.start(0)
        elif watched is self._window and kind == QEvent.Type.Close and event is not None:
            if event.spontaneous() and self._reason_to_ask():
                event.ignore()
                QTimer.singleShot(0, self._ask_and_close)  # not within the event
                return True
            # napari may ask, and the user refuse: look again after that.
            self._is_closing = True
            self._timer.start(0)
        return False

    def _parents(self) -> list[QWidget]:
        """From the dock around the widget, which may float, up to the window."""
        found, parent = list[QWidget](), self._widget.parentWidget()
        while parent is not None:
            found.append(parent)
            parent = parent.parentWidget()
        return found

    def _find_window(self) -> None:
        above = self._parents()
        window = next((part for part in above if isinstance(part, QMainWindow)), None)
        if window is not None and above != self._above:
            self._let_go()
            self._window, self._above = window, above
            for part in above:
                part.installEventFilter(self)
            self._close_override = Override(window, "close", self._ask_from_the_menu)

    def _let_go(self) -> None:
        above, self._window, self._above = self._above, None, []
        self._is_closing = False
        override, self._close_override = self._close_override, None
        if override is not None:
            override.stop()
        for part in above:
            with suppress(RuntimeError):  # it was deleted with its parent
                part.removeEventFilter(self)

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
        self._find_window()  # another one, or one that is not shown yet
        closing, self._is_closing = self._is_closing, False
        if self._window is None:
            return
        if closing and not self._window.isVisible():
            self._tell(self.closed)
        elif self._widget.parent() is None:
            self._tell(self.removed)

    def _quit(self) -> None:
        self._tell(self.closed)

    def _tell(self, signal: Any) -> None:
        if not self._over:
            self._over = True
            self._timer.stop()
            _window = self._window  # `stop` lets go of it, but not before all is cleaned up
            signal.emit()
