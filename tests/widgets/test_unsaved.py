"""Where a session cannot be saved, nobody closes the window and loses paint without being told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QApplication, QDialog, QFileDialog, QMessageBox

from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.widgets.viewer.layers import write_classes
from napari_unet3d.widgets.viewer.unsaved import is_unsaved, mark_saved

pytestmark = pytest.mark.needs_window


@pytest.fixture(autouse=True)
def nowhere_to_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no session be saved: there is a file where the folder of the user's data would be."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))


class Answers:
    """Presses a button of each dialog that appears, and keeps what it said."""

    def __init__(self, button: str) -> None:
        self.button, self.said = button, list[str]()
        self._timer = QTimer()
        self._timer.timeout.connect(self._look)
        self._timer.start(50)

    def _look(self) -> None:
        dialog = QApplication.activeModalWidget()
        if isinstance(dialog, QMessageBox):
            self.said.append(dialog.text())
            names = {b.text().replace("&", ""): b for b in dialog.buttons()}
            names[self.button].click()
        elif isinstance(dialog, QDialog):
            self.said.append(type(dialog).__name__)
            dialog.reject()

    def stop(self) -> None:
        self._timer.stop()


@pytest.fixture
def answers(qtbot: Any) -> Any:
    made: list[Answers] = []

    def make(button: str) -> Answers:
        made.append(Answers(button))
        return made[-1]

    yield make
    for one in made:
        one.stop()


class UserClose(QCloseEvent):
    """What Qt makes of a press on the × of the window."""

    def spontaneous(self) -> bool:
        return True


def by_its_cross(window: Any) -> None:
    """Close as the window system does when the user presses the ×."""
    QApplication.sendEvent(window, UserClose())


def by_ctrl_w(window: Any) -> None:
    """Do what File ▸ Close Window does."""
    window.close(quit_app=False, confirm_need=True)


WAYS = [by_its_cross, by_ctrl_w]


def window_of(dock: Any) -> Any:
    """The window of the dock, which napari's fixture will delete, not Qt when it is closed."""
    window = dock._viewer.window._qt_window
    window.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose, False)
    return window


@pytest.fixture
def asking() -> Any:
    """Let napari ask before closing, as it does by default."""
    from napari.settings import get_settings

    settings = get_settings().application
    before, settings.confirm_close_window = settings.confirm_close_window, True
    yield
    settings.confirm_close_window = before


@pytest.mark.parametrize("close", WAYS)
def test_cancel_keeps_the_window_and_closing_without_saving_asks_once(
    ready: Any, qtbot: Any, answers: Any, asking: None, close: Callable[[Any], None]
) -> None:
    window = window_of(ready)
    (keeping,) = (f for f in ready.features if hasattr(f, "keeper"))
    qtbot.waitUntil(lambda: keeping.line.value().problem, timeout=5000)
    answer = answers("Cancel")
    close(window)
    qtbot.waitUntil(lambda: bool(answer.said), timeout=5000)
    qtbot.wait(300)
    (text,) = answer.said
    assert text.startswith("The annotation 'cells annotation' (painted on 2 slices) is not saved.")
    assert "There is no folder" in text  # why the session is not saved, with the cure
    assert window.isVisible()
    answer.stop()
    answer = answers("Close without saving")
    close(window)
    qtbot.waitUntil(lambda: not window.isVisible(), timeout=5000)
    assert len(answer.said) == 1


def test_saving_from_the_question(
    ready: Any,
    qtbot: Any,
    answers: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    window, data = window_of(ready), ready.choice.value()[1].data
    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "paint"), "OME-TIFF (*.tif)")
    )
    answers("Save…")
    by_its_cross(window)
    qtbot.waitUntil(lambda: not window.isVisible(), timeout=5000)
    saved = read_labels(tmp_path / "paint.ome.tif")
    np.testing.assert_array_equal(saved.data, data)
    assert saved.voxel_size == (2, 0.5, 0.5)


def test_a_file_dialog_that_is_cancelled_keeps_the_window(
    ready: Any, qtbot: Any, answers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    window = window_of(ready)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: ("", ""))
    answer = answers("Save…")
    by_its_cross(window)
    qtbot.waitUntil(lambda: bool(answer.said), timeout=5000)
    qtbot.wait(200)
    assert window.isVisible()


def test_a_program_that_closes_the_window_is_not_asked(
    ready: Any, qtbot: Any, answers: Any
) -> None:
    window = window_of(ready)
    answer = answers("Cancel")
    assert is_unsaved(ready.choice.value()[1])
    ready._viewer.close()
    qtbot.wait(200)
    assert not window.isVisible()
    assert not answer.said


def test_napari_itself_asks_when_nothing_is_painted(
    dock: Any, qtbot: Any, answers: Any, asking: None, stack: np.ndarray
) -> None:
    dock._viewer.add_image(stack)
    qtbot.waitUntil(lambda: dock.choice.value()[1] is not None, timeout=3000)
    answer = answers("Cancel")
    by_its_cross(dock._viewer.window._qt_window)
    qtbot.waitUntil(lambda: bool(answer.said), timeout=5000)
    assert answer.said == ["ConfirmCloseDialog"]


def test_what_is_saved_with_napari_is_saved(ready: Any, tmp_path: Path) -> None:
    viewer, layer = ready._viewer, ready.choice.value()[1]
    assert is_unsaved(layer)
    viewer.layers.selection = {viewer.layers["cells"]}
    viewer.layers.save(str(tmp_path / "image.tif"), selected=True)
    assert is_unsaved(layer)
    viewer.layers.selection = {layer}
    assert viewer.layers.save(str(tmp_path / "paint.tif"), selected=True)
    assert not is_unsaved(layer)
    layer.data_setitem((np.array([0]), np.array([0]), np.array([0])), 2)
    assert is_unsaved(layer)
    layer.undo()
    assert not is_unsaved(layer)


def test_an_annotation_that_comes_from_a_file_is_saved(
    dock: Any, qtbot: Any, stack: np.ndarray, painted: np.ndarray, tmp_path: Path
) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "paint.tif", painted)
    dock._viewer.add_image(stack, name="cells")
    (layer,) = dock._viewer.open(tmp_path / "paint.tif", layer_type="labels", plugin="napari")
    qtbot.wait(100)
    dock.choice.setValue(dock._viewer.layers["cells"], layer)
    assert dock.annotator.layer() is layer
    assert not is_unsaved(layer)
    layer.data_setitem((np.array([0]), np.array([0]), np.array([0])), 2)
    assert is_unsaved(layer)


def test_closing_the_dock_says_where_the_paint_is(
    ready: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("napari_unet3d.widgets.dock.show_info", said.append)
    viewer = ready._viewer
    save = type(viewer.layers).save
    viewer.window.remove_dock_widget(ready)
    qtbot.waitUntil(lambda: bool(said), timeout=3000)
    assert "'cells annotation' (painted on 2 slices) is not saved" in said[0]
    assert "It stays in the layer list" in said[0]
    assert viewer.layers.save.__func__ is save  # nothing of ours is left behind
    assert "close" not in vars(viewer.window._qt_window)


def test_only_annotations_with_paint_count(painted: np.ndarray) -> None:
    from napari.layers import Labels

    own = Labels(painted.copy())
    assert not is_unsaved(own)  # the user's own layer: napari's business
    write_classes(own, ())
    assert is_unsaved(own)
    mark_saved(own)
    assert not is_unsaved(own)
    own.data[:] = 0
    assert not is_unsaved(own)  # nothing is left to be lost
