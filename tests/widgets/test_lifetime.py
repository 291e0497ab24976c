"""The session of a window, and methods that are overridden for a time; without napari."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from qtpy.QtCore import QCoreApplication, QEvent, Qt
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

from napari_unet3d.session.session import NamedModel
from napari_unet3d.widgets.viewer.lifetime import Override, WindowWatch
from napari_unet3d.widgets.viewer.window_session import session_of


@pytest.fixture
def windows(qtbot: Any) -> list[QMainWindow]:
    both = [QMainWindow(), QMainWindow()]
    for window in both:
        qtbot.addWidget(window)
    return both


def test_a_window_has_one_session_of_its_own(windows: list[QMainWindow], qtbot: Any) -> None:
    first, second = (
        SimpleNamespace(window=SimpleNamespace(_qt_window=window)) for window in windows
    )
    model: Any = NamedModel(None, "trained on 'cells'")  # type: ignore[arg-type]
    session = session_of(first)
    with qtbot.waitSignal(session.changed):
        session.update(model=model)
    assert session_of(first).value().model is model  # what a new dock finds
    assert session_of(second).value().model is None


def test_an_override_ends_even_below_another_one() -> None:
    class Layers:
        def save(self, path: str) -> str:
            return path

    layers, seen = Layers(), list[str]()

    def override(name: str) -> Override:
        def save(original: Any, path: str) -> Any:
            seen.append(name)
            return original(path)

        return Override(layers, "save", save)

    first, second = override("first"), override("second")
    assert layers.save("a") == "a"
    assert seen == ["second", "first"]
    first.stop()
    assert layers.save("b") == "b"
    assert seen == ["second", "first", "second"]
    second.stop()
    layers.save("c")
    assert len(seen) == 3


def test_the_last_override_leaves_nothing_behind() -> None:
    window = type("Window", (), {"close": lambda self: "closed"})()
    Override(window, "close", lambda close: None).stop()
    assert not vars(window)
    assert window.close() == "closed"


@pytest.mark.parametrize("newest_first", [True, False])
def test_the_override_that_is_left_goes_on(newest_first: bool) -> None:
    class Layers:
        def save(self) -> str:
            return "saved"

    layers, seen = Layers(), list[str]()

    def override(name: str) -> Override:
        def save(original: Any) -> Any:
            seen.append(name)
            return original()

        return Override(layers, "save", save)

    overrides = {name: override(name) for name in ("old", "new")}
    ended, left = ("new", "old") if newest_first else ("old", "new")
    overrides[ended].stop()
    assert layers.save() == "saved"
    assert seen == [left]
    overrides[left].stop()
    assert not vars(layers)


# --- a window that closes -------------------------------------------------------------------


class Docked:
    """A widget in a dock of a window that Qt deletes when it is closed, as napari's."""

    def __init__(self, qtbot: Any, kind: type[QMainWindow] = QMainWindow) -> None:
        self.told = list[str]()
        self.content = QWidget()
        self.content.setWindowTitle("alive")
        self.watch = WindowWatch(self.content)
        for name in ("closed", "removed"):
            getattr(self.watch, name).connect(
                lambda name=name: self.told.append(f"{name}, {self.content.windowTitle()}")
            )
        self.window = kind()
        self.window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.dock = self.put_into(self.window)
        with qtbot.waitExposed(self.window):
            self.window.show()

    def put_into(self, window: QMainWindow) -> QDockWidget:
        dock = QDockWidget(window)
        dock.setWidget(self.content)
        window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, dock)
        return dock


def delete_now() -> None:
    """Delete what is to be deleted, as Qt does before it looks at timers."""
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


@pytest.fixture
def docked(qtbot: Any) -> Docked:
    return Docked(qtbot)


@pytest.mark.parametrize("floating", [False, True])
def test_a_window_that_is_deleted_at_once_is_closed_first(docked: Docked, floating: bool) -> None:
    docked.watch.closed.connect(docked.watch.stop)  # as a dock does
    docked.dock.setFloating(floating)
    docked.window.close()
    assert not docked.told  # the user might still be asked
    del docked.window, docked.dock  # napari lets go of it, too
    delete_now()
    assert docked.told == ["closed, alive"]


def test_a_window_that_is_closed_and_not_deleted_is_noticed(docked: Docked, qtbot: Any) -> None:
    docked.window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
    docked.window.close()
    qtbot.waitUntil(lambda: docked.told == ["closed, alive"])
    docked.watch._quit()
    assert len(docked.told) == 1
    docked.window.deleteLater()


def test_a_window_that_stays_open_is_not_closed(qtbot: Any) -> None:
    class Refuses(QMainWindow):
        def closeEvent(self, event: Any) -> None:
            event.ignore()

    docked = Docked(qtbot, Refuses)
    docked.window.close()
    qtbot.wait(50)
    assert docked.window.isVisible()
    assert not docked.told
    docked.window.deleteLater()


def test_a_dock_that_is_closed_is_removed(docked: Docked, qtbot: Any) -> None:
    docked.window.removeDockWidget(docked.dock)
    docked.content.setParent(None)
    docked.dock.deleteLater()
    delete_now()
    qtbot.waitUntil(lambda: docked.told == ["removed, alive"])
    docked.window.close()
    qtbot.wait(50)
    assert len(docked.told) == 1
    docked.content.deleteLater()


def test_a_dock_that_is_deleted_is_closed_first(docked: Docked) -> None:
    docked.dock.deleteLater()
    delete_now()
    assert docked.told == ["closed, alive"]
    docked.window.close()


def test_a_dock_may_move_to_another_window(docked: Docked, qtbot: Any) -> None:
    other = QMainWindow()
    qtbot.addWidget(other)
    docked.put_into(other)
    docked.window.close()
    delete_now()
    qtbot.wait(50)
    assert not docked.told
    with qtbot.waitExposed(other):
        other.show()
    other.close()
    qtbot.waitUntil(lambda: docked.told == ["closed, alive"])
