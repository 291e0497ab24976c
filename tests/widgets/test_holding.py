"""Nobody paints in a layer that is held, and all is as before when it is let go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_unet3d.config import default_class
from napari_unet3d.data.edits import SliceEdit
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.widgets.annotator import Annotator
from napari_unet3d.widgets.parts.class_table import ClassTable
from napari_unet3d.widgets.parts.slice_table import SliceTable
from napari_unet3d.widgets.viewer.layers import read_accepted, write_classes
from napari_unet3d.widgets.viewer.stepwise import Stepwise

WHY = "Something is being done: wait."


@pytest.fixture
def annotator(qtbot: Any) -> Iterator[Annotator]:
    viewer = ViewerModel()
    layer = viewer.add_labels(np.zeros((6, 10, 12), np.uint8))
    write_classes(layer, (default_class(2, "cell"),))
    classes, slices = ClassTable(), SliceTable()
    for widget in (classes, slices):
        qtbot.addWidget(widget)
    annotator = Annotator(viewer, classes, slices)
    annotator.set_layer(layer)
    yield annotator
    annotator.cleanup()


def layer_of(annotator: Annotator) -> Labels:
    layer = annotator.layer()
    assert layer is not None
    return layer


def edit(index: int) -> SliceEdit:
    return SliceEdit(SliceRef(0, index), (0, 0), np.ones((3, 4), bool), 2)


def test_the_brush_goes_and_comes_back_and_nothing_is_written(annotator: Annotator) -> None:
    layer = layer_of(annotator)
    annotator.apply([edit(1)])
    said: list[str] = []
    annotator.told.connect(said.append)
    annotator.choose_label(2)
    assert layer.mode == "paint"
    annotator.holding.hold(WHY)
    assert layer.mode == "pan_zoom"
    annotator.choose_label(2)
    layer.mode = "fill"
    assert layer.mode == "pan_zoom"
    assert said[-1] == WHY
    before = layer.data.copy()
    said.clear()
    for number, act in enumerate(
        (
            lambda: annotator.apply([edit(2)]),
            annotator.undo,
            layer.undo,
            lambda: annotator.empty(SliceRef(0, 3)),
            lambda: annotator.clear(SliceRef(0, 1)),
            lambda: annotator.revert(SliceRef(0, 3)),
            lambda: annotator.complete(SliceRef(0, 1)),
            lambda: annotator.hold_out(SliceRef(0, 1), True),
            lambda: annotator.remove_class(2),
        ),
        start=1,
    ):
        act()
        assert said == [WHY] * number
        np.testing.assert_array_equal(layer.data, before)
    annotator.holding.release(WHY)
    assert layer.mode == "fill"
    annotator.undo()
    assert not layer.data.any()


def test_many_edits_of_one_who_holds_the_layer_are_one_undo_step(annotator: Annotator) -> None:
    layer = layer_of(annotator)
    annotator.apply([edit(0)])
    for i in range(1, 5):
        accepted = {**read_accepted(layer), SliceRef(0, i): "a model"}
        annotator.apply([edit(i)], accepted=accepted, goes_on=i > 1)
        annotator.holding.hold(WHY)
    annotator.holding.release(WHY)
    after = layer.data.copy()
    assert len(layer._undo_history) == 2
    annotator.undo()
    assert layer.data[0].any()
    assert not layer.data[1:].any()
    assert read_accepted(layer) == {}
    annotator.redo()
    np.testing.assert_array_equal(layer.data, after)
    assert len(read_accepted(layer)) == 4


def test_steps_are_taken_one_by_one_and_an_error_ends_them(qtbot: Any) -> None:
    parent, taken, ends = ClassTable(), [], []
    qtbot.addWidget(parent)

    def steps() -> Iterator[None]:
        for i in range(9):
            if i == 3:
                raise ValueError("no more")
            taken.append(i)
            yield

    Stepwise(parent, steps(), ends.append)
    assert taken == []  # the caller goes on first
    qtbot.waitUntil(lambda: bool(ends), timeout=5000)
    assert taken == [0, 1, 2]
    assert str(ends[0]) == "no more"
    stopped = Stepwise(parent, iter(range(9)), ends.append)
    stopped.stop()
    assert ends[1:] == [None]
