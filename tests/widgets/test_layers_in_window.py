"""Layers and dock in the true window: strokes land where they are seen, one dock a viewer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from napari_unet3d.data.slices import SliceRef
from napari_unet3d.widgets.launch import DOCK_NAME, add_dock
from napari_unet3d.widgets.viewer.layers import read_classes, read_held_out

pytestmark = pytest.mark.needs_window


def test_a_stroke_lands_on_the_slice_that_is_seen_after_the_image_was_scaled(
    dock: Any, hands: Any, qtbot: Any, stack: np.ndarray
) -> None:
    viewer = dock._viewer
    image = viewer.add_image(stack, name="cells")
    qtbot.waitUntil(lambda: dock.choice.value()[1] is not None, timeout=5000)
    annotation = dock.choice.value()[1]
    image.scale = (4, 0.5, 0.5)
    viewer.reset_view()
    qtbot.wait(200)
    for z in (1, 8):
        annotation.data[:] = 0
        viewer.dims.set_point(0, 4.0 * z)
        dock.annotator.choose_label(2)
        annotation.brush_size = 1
        hands.stroke((7, 8), (13, 14))
        painted = np.argwhere(annotation.data)
        assert set(painted[:, 0]) == {z}
        assert painted[:, 1].min() in (13, 14, 15)
        assert painted[:, 2].max() in (27, 28, 29)


def test_training_on_a_layer_that_lies_elsewhere_is_refused(
    ready: Any, hands: Any, qtbot: Any
) -> None:
    annotation = ready.choice.value()[1]
    annotation.translate = (2, 0, 0)
    assert ready.pairing.notice.isVisible()
    assert not ready.run_bar.message.isVisible()  # no "Ready." beside it
    hands.press(ready.run_bar.start_button)
    assert ready.run_bar.is_error()
    assert "does not lie on" in ready.run_bar.message.text()
    assert not ready.runner.is_running()
    assert not ready.pairing.notice.isVisible()  # one fact is said once, with its button
    (button,) = ready.run_bar.action_buttons().values()
    hands.press(button)
    assert not ready.run_bar.is_error()
    assert not ready.pairing.notice.isVisible()
    assert ready.run_bar.message.text().startswith("Ready to train")


def test_an_annotation_of_another_shape_is_refused_in_one_message(ready: Any, hands: Any) -> None:
    annotation = ready.choice.value()[1]
    annotation.data = np.asarray(annotation.data)[:, 5:]  # as a plugin that crops does
    said = ready.pairing.notice.value().text
    assert "does not fit" in said
    hands.press(ready.run_bar.start_button)
    assert not ready.runner.is_running()
    assert ready.run_bar.is_error()
    assert ready.run_bar.message.text() == said
    assert not ready.pairing.notice.isVisible()
    hands.press(ready.run_bar.action_buttons()["New annotation"])
    assert ready.choice.value()[1] is not annotation
    assert not ready.run_bar.is_error()


def test_a_stroke_on_the_prediction_is_named(ready: Any, hands: Any, qtbot: Any) -> None:
    from napari_unet3d.widgets.viewer.layers import prediction_layer

    viewer, image = ready._viewer, ready.choice.value()[0]
    shown = prediction_layer(np.zeros(image.data.shape, np.uint8), "p", (), {})
    shown.scale, shown.units = image.scale, image.units
    viewer.add_layer(shown)
    viewer.layers.selection.active = shown
    shown.mode = "paint"
    shown.selected_label = 2
    viewer.reset_view()
    qtbot.wait(200)
    hands.stroke((7, 8), (13, 14))
    assert shown.data.any()
    assert "'p' is a prediction" in ready.pairing.notice.text.text()
    select, accept = ready.pairing.notice.buttons
    assert "Accept" in accept.text()
    hands.press(select)
    assert viewer.layers.selection.active is ready.choice.value()[1]


def test_the_plugins_menu_finds_the_dock_of_the_command(viewer: Any, qtbot: Any) -> None:
    from npe2 import PluginManager

    from napari_unet3d.widgets.dock import SegmentationDock

    PluginManager.instance().discover()
    try:
        first = add_dock(viewer)
        _, second = viewer.window.add_plugin_dock_widget("napari-unet3d", DOCK_NAME)
        assert add_dock(viewer) is second
        found = viewer.window._qt_window.findChildren(SegmentationDock)
        assert found == [first]
        assert second is first
    finally:
        with qtbot.waitSignal(first.destroyed):
            viewer.window.remove_dock_widget("all")
        qtbot.waitUntil(lambda: not [t for t in threading.enumerate() if t.name == "unet3d"])


@pytest.fixture
def second(ready: Any, qtbot: Any) -> Iterator[Any]:
    """Another dock on the same viewer, as a script can make one."""
    from napari_unet3d.widgets.dock import SegmentationDock

    second = SegmentationDock(ready._viewer)
    ready._viewer.window.add_dock_widget(second, name="again", area="right")
    qtbot.waitUntil(lambda: not second.annotator.holding.reason(), timeout=5000)
    yield second
    with suppress(RuntimeError):
        second.cleanup()
    vars(second).clear()


def test_two_docks_do_not_overwrite_each_other(
    ready: Any, second: Any, hands: Any, qtbot: Any
) -> None:
    annotation = ready.choice.value()[1]
    assert second.choice.value() == ready.choice.value()
    ready.class_table.add()
    assert [c.value for c in second.class_table.value()] == [2, 3]
    second.class_table.set_color(2, "#123456")
    for dock in (ready, second):
        assert dock.class_table.value()[0].color == "#123456"
    for dock, z in ((ready, 6), (second, 3)):
        dock.annotator.jump(SliceRef(0, z))
        qtbot.waitUntil(lambda d=dock: d.slice_table.hold_out_button.isEnabled())
        dock.slice_table.hold_out_button.click()
    expected = frozenset({SliceRef(0, 3), SliceRef(0, 6)})
    assert read_held_out(annotation) == expected
    assert ready.slice_table.value() == second.slice_table.value() == expected
    assert [c.value for c in read_classes(annotation)] == [2, 3]


def test_a_stale_table_writes_only_what_was_changed(ready: Any) -> None:
    annotation = ready.choice.value()[1]
    own = dict(annotation.metadata["napari-unet3d"])
    own["held_out"] = [[0, 3, 0]]
    annotation.metadata["napari-unet3d"] = own  # in place: napari tells nobody
    assert ready.slice_table.value() == frozenset()
    ready.annotator._held_out_edited(frozenset({SliceRef(0, 6)}))
    expected = frozenset({SliceRef(0, 3), SliceRef(0, 6)})
    assert read_held_out(annotation) == ready.slice_table.value() == expected


def test_devices_are_tried_in_a_thread(
    viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_unet3d.widgets import dock as module
    from napari_unet3d.widgets.parts.devices import find_devices

    asked = threading.Event()
    answer = threading.Event()
    names: list[str] = []

    def slow() -> Any:
        names.append(threading.current_thread().name)
        asked.set()
        answer.wait(30)
        return find_devices()

    monkeypatch.setattr(module, "find_devices", slow)
    dock = module.SegmentationDock(viewer)
    qtbot.addWidget(dock)
    assert asked.wait(30)
    assert names == ["unet3d"]
    assert [dock.form.device.itemData(i) for i in range(dock.form.device.count())] == ["auto"]
    assert dock.form.value().device == "auto"
    answer.set()
    qtbot.waitUntil(lambda: dock.form.device.findData("cpu") >= 0)
    dock.cleanup()
