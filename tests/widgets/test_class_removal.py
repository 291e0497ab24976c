"""Classes are removed with a question, undone, and named only when that is wanted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_unet3d.config import default_class
from napari_unet3d.widgets.viewer.layers import read_classes

WALL = default_class(3, "wall").model_copy(update={"color": "#123456"})


@pytest.fixture
def two(ready: Any, qtbot: Any) -> Any:
    """The tiny stack with a second class, which is painted on one slice."""
    ready.class_table.insert(WALL)
    layer = ready.choice.value()[1]
    z, y, x = np.indices((1, 4, 5)).reshape(3, -1)
    layer.data_setitem((z + 6, y, x), 3)
    ready.annotator.rescan()
    qtbot.wait(50)
    return ready


def click_row(dock: Any, qtbot: Any, row: int, double: bool = False) -> None:
    table = dock.class_table.table
    pos = table.visualItemRect(table.item(row, 0)).center()
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=pos)
    if double:
        qtbot.mouseDClick(table.viewport(), Qt.MouseButton.LeftButton, pos=pos)


def values(dock: Any) -> list[int]:
    return [c.value for c in dock.class_table.value()]


def test_delete_asks_what_would_be_lost(two: Any, qtbot: Any) -> None:
    layer = two.choice.value()[1]
    before = layer.data.copy()
    click_row(two, qtbot, 2)
    qtbot.keyClick(two.class_table.table, Qt.Key.Key_Delete)
    assert values(two) == [2, 3]
    assert "'wall' is painted on 1 slice (20 voxels)" in two.run_bar.message.text()
    layer.refresh()
    qtbot.wait(500)  # a redraw, and the scan that follows it, leave the question alone
    two.run_bar.action_buttons()["Keep the class"].click()
    assert values(two) == [2, 3]
    np.testing.assert_array_equal(layer.data, before)
    assert "Keep the class" not in two.run_bar.action_buttons()


@pytest.mark.needs_window
def test_paint_and_class_go_and_come_back_together(two: Any, qtbot: Any) -> None:
    layer = two.choice.value()[1]
    before = layer.data.copy()
    click_row(two, qtbot, 2)
    two.class_table.remove_button.click()
    two.run_bar.action_buttons()["Delete class and paint"].click()
    assert values(two) == [2]
    assert not (layer.data == 3).any()
    assert [c.value for c in read_classes(layer)] == [2]
    assert "removed" in two.run_bar.status.text()
    without = layer.data.copy()
    window = two._viewer.window._qt_viewer
    control, shift = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
    for where in (two.class_table.table, window.canvas.native):
        qtbot.keyClick(where, Qt.Key.Key_Z, control)
        assert two.class_table.value()[1] == WALL  # with its name and color
        np.testing.assert_array_equal(layer.data, before)
        qtbot.keyClick(where, Qt.Key.Key_Z, control | shift)
        assert values(two) == [2]
        np.testing.assert_array_equal(layer.data, without)


def test_what_was_painted_since_is_undone_first(two: Any, qtbot: Any) -> None:
    layer = two.choice.value()[1]
    before = layer.data.copy()
    click_row(two, qtbot, 2)
    two.class_table.remove_button.click()
    two.run_bar.action_buttons()["Delete class and paint"].click()
    removed = layer.data.copy()
    layer.data_setitem((np.array([6]), np.array([0]), np.array([0])), 1)
    layer.undo()
    assert values(two) == [2]
    np.testing.assert_array_equal(layer.data, removed)
    layer.undo()
    assert values(two) == [2, 3]
    np.testing.assert_array_equal(layer.data, before)


def test_a_class_without_paint_goes_at_once_and_comes_back(ready: Any, qtbot: Any) -> None:
    ready.class_table.insert(WALL)
    click_row(ready, qtbot, 2)
    qtbot.keyClick(ready.class_table.table, Qt.Key.Key_Delete)
    assert values(ready) == [2]
    ready.annotator.undo()
    assert ready.class_table.value()[1] == WALL


def test_background_and_the_last_class_stay(ready: Any, qtbot: Any) -> None:
    for row in (0, 1):
        click_row(ready, qtbot, row)
        qtbot.keyClick(ready.class_table.table, Qt.Key.Key_Delete)
    assert values(ready) == [2]
    assert not any("class" in text for text in ready.run_bar.action_buttons())


@pytest.mark.needs_window
def test_keys_after_a_click_go_to_napari(two: Any, qtbot: Any) -> None:
    layer, table = two.choice.value()[1], two.class_table.table
    names = [c.name for c in two.class_table.value()]
    click_row(two, qtbot, 2)
    assert layer.selected_label == 3
    size = layer.brush_size
    qtbot.keyClick(table, Qt.Key.Key_BracketRight)
    assert layer.brush_size > size
    qtbot.keyClick(table, Qt.Key.Key_BracketLeft)
    assert layer.brush_size == size
    layer.mode = "paint"
    qtbot.keyClick(table, Qt.Key.Key_1)  # as on the canvas: the eraser
    assert layer.mode == "erase"
    layer.selected_label = 2
    qtbot.keyClick(table, Qt.Key.Key_M)  # as on the canvas: a label that is not used yet
    assert layer.selected_label == 4
    before = layer.data.copy()
    layer.data_setitem((np.array([0]), np.array([0]), np.array([0])), 2)
    qtbot.keyClick(table, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    np.testing.assert_array_equal(layer.data, before)
    assert [c.name for c in two.class_table.value()] == names


@pytest.mark.needs_window
def test_a_name_is_edited_when_that_is_wanted(two: Any, qtbot: Any) -> None:
    from qtpy.QtWidgets import QLineEdit

    table = two.class_table.table
    for how in ("double click", "F2"):
        click_row(two, qtbot, 2, double=how == "double click")
        if how == "F2":
            qtbot.keyClick(table, Qt.Key.Key_F2)
        (editor,) = table.findChildren(QLineEdit)
        editor.selectAll()
        name = f"lumen [{how}]"
        qtbot.keyClicks(editor, name)
        qtbot.keyClick(editor, Qt.Key.Key_Return)
        qtbot.waitUntil(lambda name=name: two.class_table.value()[1].name == name, timeout=3000)
        qtbot.waitUntil(lambda: not table.findChildren(QLineEdit), timeout=3000)


def test_unknown_paint_gets_its_class_by_a_button(ready: Any, qtbot: Any) -> None:
    layer = ready.choice.value()[1]
    layer.data_setitem((np.array([3]), np.array([0]), np.array([0])), 7)
    ready.annotator.rescan()
    assert ready.run_bar.message.text().startswith("Label 7 is painted on z=3")
    ready.run_bar.action_buttons()["Add class 7"].click()
    assert values(ready) == [2, 7]
    assert ready.run_bar.message.text().startswith("Ready")


@pytest.mark.needs_window
def test_the_error_of_unknown_paint_offers_the_class_too(ready: Any, qtbot: Any) -> None:
    layer = ready.choice.value()[1]
    layer.data_setitem((np.array([3]), np.array([0]), np.array([0])), 7)
    ready.annotator.rescan()
    qtbot.mouseClick(ready.run_bar.start_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: not ready.runner.is_running(), timeout=60_000)
    assert ready.run_bar.is_error()
    assert "class table" in ready.run_bar.message.text()
    ready.run_bar.action_buttons()["Add class 7"].click()
    assert values(ready) == [2, 7]
    assert not ready.run_bar.is_error()
    assert ready.run_bar.message.text().startswith("Ready")
