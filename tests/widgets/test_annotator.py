"""Viewer, annotation layer and tables in step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.layers import Image

from napari_unet3d.config import default_class
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.widgets.annotator import Annotator
from napari_unet3d.widgets.parts.class_table import ClassTable
from napari_unet3d.widgets.parts.slice_table import SliceTable
from napari_unet3d.widgets.viewer.layers import new_annotation_layer, read_classes, read_held_out
from napari_unet3d.widgets.viewer.navigation import show_slice, shown_slice


@pytest.fixture
def parts(qtbot: Any, stack: np.ndarray) -> Any:
    """An annotator on a viewer model, which needs no window."""
    from napari.components import ViewerModel

    viewer = ViewerModel()
    image = Image(stack, scale=(2, 0.5, 0.5), translate=(10, 0, 0))
    viewer.add_layer(image)
    layer = new_annotation_layer(image, "time")
    viewer.add_layer(layer)
    tables = ClassTable(), SliceTable()
    for table in tables:
        qtbot.addWidget(table)
    annotator = Annotator(viewer, *tables)
    annotator.set_layer(layer)
    yield viewer, layer, annotator, *tables
    annotator.cleanup()


@pytest.mark.parametrize("ref", [SliceRef(0, 7), SliceRef(1, 20), SliceRef(2, 43), SliceRef(0, 0)])
def test_jumping_shows_the_slice(parts: Any, ref: SliceRef) -> None:
    viewer, layer, annotator, *_ = parts
    annotator.jump(ref)
    assert shown_slice(viewer, layer) == ref
    assert viewer.dims.displayed == tuple(a for a in range(3) if a != ref.axis)


def test_no_slice_is_shown_in_3d(parts: Any) -> None:
    viewer, layer, annotator, *_ = parts
    viewer.dims.ndisplay = 3
    assert shown_slice(viewer, layer) is None
    annotator.jump(SliceRef(1, 3))
    assert viewer.dims.ndisplay == 2


def test_a_time_series_shows_its_time_point(stack: np.ndarray) -> None:
    from napari.components import ViewerModel

    viewer = ViewerModel()
    image = Image(np.stack([stack] * 3), scale=(1, 2, 1, 1))
    viewer.add_layer(image)
    layer = new_annotation_layer(image, "time")
    viewer.add_layer(layer)
    show_slice(viewer, layer, SliceRef(2, 5, time=2))
    assert shown_slice(viewer, layer) == SliceRef(2, 5, time=2)


def test_labels_of_an_image_with_channels(stack: np.ndarray) -> None:
    from napari.components import ViewerModel

    viewer = ViewerModel()
    image = Image(np.stack([stack] * 2))
    viewer.add_layer(image)
    layer = new_annotation_layer(image, "channels")
    viewer.add_layer(layer)
    show_slice(viewer, layer, SliceRef(1, 5))
    assert shown_slice(viewer, layer) == SliceRef(1, 5)
    assert viewer.dims.order == (0, 2, 1, 3)


def test_the_ledger_follows_painting_and_undo(parts: Any, qtbot: Any) -> None:
    _, layer, annotator, _, slices = parts
    annotator.jump(SliceRef(0, 4))
    layer.paint((4, 20, 20), 2)
    qtbot.waitUntil(lambda: len(slices.slices()) == 1, timeout=3000)
    assert slices.slices()[0].ref == SliceRef(0, 4)
    layer.undo()  # emits no paint event
    qtbot.waitUntil(lambda: not slices.slices(), timeout=3000)


def test_complete_slice_is_one_undo_step(parts: Any, qtbot: Any) -> None:
    _, layer, annotator, _, slices = parts
    annotator.jump(SliceRef(0, 4))
    layer.paint((4, 20, 20), 2)
    annotator.rescan()
    before = layer.data.copy()
    slices.complete_button.click()
    assert (layer.data[4] > 0).all()
    assert (layer.data[[3, 5]] == 0).all()
    np.testing.assert_array_equal(layer.data == 2, before == 2)
    assert slices.slices()[0].state == "complete"
    layer.undo()
    np.testing.assert_array_equal(layer.data, before)


def test_completing_works_across_the_stack(parts: Any) -> None:
    _, layer, annotator, *_ = parts
    annotator.jump(SliceRef(2, 30))
    layer.data_setitem((np.array([3]), np.array([3]), np.array([30])), 2)
    annotator.complete(SliceRef(2, 30))
    assert (layer.data[:, :, 30] > 0).all()
    assert np.count_nonzero(layer.data) == layer.data[:, :, 30].size


def test_classes_and_held_out_slices_live_in_the_layer(parts: Any, qtbot: Any) -> None:
    viewer, layer, annotator, classes, slices = parts
    classes.add()
    classes.set_color(3, "#010203")
    layer.data[2, 5:9] = 3
    annotator.rescan()
    annotator.jump(SliceRef(0, 2))
    slices.hold_out_button.click()
    annotator.set_layer(None)
    assert not classes.isEnabled()
    assert [c.value for c in read_classes(layer)] == [2, 3]
    assert read_held_out(layer) == frozenset({SliceRef(0, 2)})
    tables = ClassTable(), SliceTable()
    for table in tables:
        qtbot.addWidget(table)
    again = Annotator(viewer, *tables)
    again.set_layer(layer)
    assert tables[0].value()[1].color == "#010203"
    assert tables[1].value() == frozenset({SliceRef(0, 2)})
    again.cleanup()


def test_a_foreign_labels_layer_brings_its_classes(parts: Any) -> None:
    viewer, _, annotator, classes, _ = parts
    labels = np.zeros((10, 40, 44), np.uint16)
    labels[1, :5], labels[2, :5] = 1, 7
    layer = viewer.add_labels(labels)
    annotator.set_layer(layer)
    assert classes.value() == (default_class(7),)


def test_choosing_a_class_makes_the_brush_ready(parts: Any) -> None:
    viewer, layer, annotator, classes, _ = parts
    viewer.layers.selection.active = viewer.layers[0]
    annotator.choose_label(1)
    assert viewer.layers.selection.active is layer
    assert layer.mode == "paint"
    assert layer.selected_label == 1
    annotator.choose_label(0)
    assert layer.mode == "erase"
    layer.selected_label = 2
    assert classes.selected_label() == 2
