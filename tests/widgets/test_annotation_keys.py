"""Keys of the true window: classes, states of the slice in view, undo whatever has the focus."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_unet3d.data.edits import SliceEdit
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.widgets.viewer.layers import prediction_layer, read_accepted, read_held_out
from napari_unet3d.widgets.viewer.marks import read_marks

Z3, Z5 = SliceRef(0, 3), SliceRef(0, 5)
KEY, NONE = Qt.Key, Qt.KeyboardModifier.NoModifier
CONTROL, SHIFT, ALT = (
    Qt.KeyboardModifier.ControlModifier,
    Qt.KeyboardModifier.ShiftModifier,
    Qt.KeyboardModifier.AltModifier,
)


class Window:
    """Presses keys with the focus somewhere."""

    def __init__(self, dock: Any, qtbot: Any) -> None:
        self.dock, self.qtbot, self.viewer = dock, qtbot, dock._viewer
        self.layer = dock.choice.value()[1]
        self.viewer.layers.selection.active = self.layer
        self.places = {
            "canvas": self.viewer.window._qt_viewer.canvas.native,
            "class table": dock.class_table.table,
            "slice table": dock.slice_table.table,
            "a button": dock.slice_table.complete_button,
            "the train button": dock.run_bar.start_button,
        }

    def key(self, key: Any, modifier: Any = NONE, place: str = "canvas") -> None:
        widget = self.places[place]
        widget.setFocus()
        self.qtbot.keyClick(widget, key, modifier)

    def state(self) -> tuple[Any, ...]:
        return self.layer.data.tobytes(), read_marks(self.layer)


@pytest.fixture
def window(ready: Any, qtbot: Any) -> Window:
    return Window(ready, qtbot)


@pytest.mark.needs_window
def test_every_action_is_undone_with_the_focus_anywhere(window: Window) -> None:
    """Actions by keys, buttons and the brush; undone and redone with the focus at each place.

    The annotation is selected at first, then the image, then a prediction.
    """
    dock, layer = window.dock, window.layer
    labels = np.zeros_like(layer.data)
    layer.data[:] = labels
    dock.annotator.rescan()
    dock.annotator.jump(Z3)
    edit = SliceEdit(SliceRef(0, 7), (2, 3), np.ones((4, 5), bool), 2)
    actions = [
        lambda: layer.paint((3, 10, 10), 2),
        lambda: window.key(KEY.Key_C),
        lambda: window.key(KEY.Key_H, place="slice table"),
        lambda: dock.class_table.set_color(2, "#102030"),
        lambda: dock.annotator.apply([edit], accepted={edit.ref: "model"}),
        lambda: dock.class_table.add(),
        lambda: dock.annotator.jump(Z5),
        lambda: window.key(KEY.Key_E, SHIFT),
        lambda: dock.annotator.jump(Z3),
        lambda: window.key(KEY.Key_R, SHIFT, "a button"),
        lambda: window.key(KEY.Key_R, SHIFT, "class table"),
        lambda: dock.slice_table.hold_out_button.click(),
        lambda: dock.class_table.remove_selected(),
    ]
    states = [window.state()]
    for action in actions:
        action()
        if window.state() != states[-1]:
            states.append(window.state())
    assert len(states) == len(actions) - 2 + 1  # all but the two jumps
    prediction = prediction_layer(labels, "prediction", dock.annotator.classes(), {})
    layers, places = window.viewer.layers, list(window.places)
    for select in (
        lambda: None,
        lambda: setattr(layers.selection, "active", layers["cells"]),
        lambda: window.viewer.add_layer(prediction),
    ):
        select()
        selected = layers.selection.active.name
        for step, state in enumerate(reversed(states[:-1])):
            window.key(KEY.Key_Z, CONTROL, places[step % len(places)])
            assert window.state() == state, f"undo {step}, {selected}"
        for step, state in enumerate(states[1:]):
            window.key(KEY.Key_Z, CONTROL | SHIFT, places[step % len(places)])
            assert window.state() == state, f"redo {step}, {selected}"
    assert selected == "prediction"


@pytest.mark.needs_window
def test_keys_change_the_slice_in_view_in_any_orientation(window: Window) -> None:
    dock, layer = window.dock, window.layer
    for ref in (Z5, SliceRef(1, 9), SliceRef(2, 17)):
        dock.annotator.jump(ref)
        before = layer.data.copy()
        if ref == Z5:
            window.key(KEY.Key_C)  # nothing is painted there: it must not become background
            assert not layer.data[5].any()
            assert "Shift+E" in dock.run_bar.remark.text()
        window.key(KEY.Key_E, SHIFT)
        plane = np.take(layer.data, ref.index, ref.axis)
        assert (plane > 0).all()
        window.key(KEY.Key_H)
        assert ref in read_held_out(layer)
        assert dock.run_bar.remark.text().startswith(f"{ref} is held out")
        window.key(KEY.Key_R, SHIFT)
        assert ref not in read_held_out(layer)
        window.key(KEY.Key_R, SHIFT)
        np.testing.assert_array_equal(layer.data, before)
    window.viewer.dims.ndisplay = 3
    window.key(KEY.Key_E, SHIFT)
    np.testing.assert_array_equal(layer.data, before)


@pytest.mark.needs_window
def test_paint_and_marks_of_one_action_are_one_step_also_while_training(
    window: Window, qtbot: Any
) -> None:
    dock, layer = window.dock, window.layer
    before = window.state()
    qtbot.mouseClick(dock.run_bar.start_button, Qt.MouseButton.LeftButton)
    edit = SliceEdit(SliceRef(0, 8), (0, 0), np.ones((40, 44), bool), 2)
    dock.annotator.apply([edit], held_out=frozenset({Z3}), accepted={edit.ref: "model"})
    assert (layer.data[8] == 2).all() and read_accepted(layer) and read_held_out(layer)
    window.key(KEY.Key_Z, CONTROL, "slice table")
    assert window.state() == before
    dock.run_actions.cancel()
    qtbot.waitUntil(lambda: not dock.runner.is_running(), timeout=60_000)
    threads = threading.enumerate
    qtbot.waitUntil(lambda: "unet3d" not in {t.name for t in threads()}, timeout=60_000)
    window.key(KEY.Key_Z, CONTROL | SHIFT, "slice table")
    assert (layer.data[8] == 2).all() and read_held_out(layer) == {Z3}


@pytest.mark.needs_window
def test_the_brush_comes_with_a_class(window: Window, qtbot: Any) -> None:
    layer, table = window.layer, window.dock.class_table.table
    assert layer.mode == "pan_zoom"  # a click into the new window paints no dot
    window.dock.class_table.add()
    window.key(KEY.Key_3, ALT)
    assert (layer.mode, layer.selected_label) == ("paint", 3)
    window.key(KEY.Key_1, ALT)
    assert layer.selected_label == 1
    window.key(KEY.Key_0, ALT)
    assert layer.mode == "erase"
    window.key(KEY.Key_9, ALT)  # no such class: nothing happens
    assert layer.mode == "erase"
    layer.mode = "pan_zoom"
    row = table.visualItemRect(table.item(1, 0)).center()
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=row)
    assert (layer.mode, layer.selected_label) == ("paint", 2)


@pytest.mark.needs_window
def test_closing_the_dock_gives_keys_and_undo_back(window: Window) -> None:
    dock, viewer, layer = window.dock, window.viewer, window.layer
    assert "C" in {str(key) for key in viewer.keymap}
    window.key(KEY.Key_H)
    dock.cleanup()
    assert not viewer.keymap
    assert "undo" not in vars(layer) and "redo" not in vars(layer)
    held_out = read_held_out(layer)
    layer.undo()  # what napari knows nothing of stays
    assert read_held_out(layer) == held_out
