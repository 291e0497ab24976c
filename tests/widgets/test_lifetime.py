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


def test_a_window_that_is_deleted_at_once_is_closed_first(qtbot: Any) -> None:
    window, content = QMainWindow(), QWidget()
    window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dock = QDockWidget(window)
    dock.setWidget(content)
    window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, dock)
    watch, titles = WindowWatch(content), list[str]()
    content.setWindowTitle("alive")
    watch.closed.connect(lambda: titles.append(content.windowTitle()))
    with qtbot.waitExposed(window):
        window.show()
    window.close()
    assert not titles  # the user might still be asked
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    assert titles == ["alive"]
