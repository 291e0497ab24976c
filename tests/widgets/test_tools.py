"""Point and click in the true window: each action is one undo step, in any orientation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from napari_unet3d.data.slices import SliceRef, read_slice
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.widgets.features.tools import Tools
from napari_unet3d.widgets.viewer import room
from napari_unet3d.widgets.viewer.belonging import bind
from napari_unet3d.widgets.viewer.layers import prediction_layer, read_accepted, role_of
from napari_unet3d.widgets.viewer.placement import spatial_transform
from napari_unet3d.widgets.viewer.proposals import proposed
from napari_unet3d.widgets.viewer.result_layers import begin_result, is_replaceable

SHAPE = (12, 60, 64)
CENTERS = ((20, 18), (40, 44))


def balls(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Two balls: 0 and 2, as a prediction has them."""
    z, y, x = np.indices(shape)
    inside = [
        np.hypot(np.hypot(2 * (z - shape[0] // 2), y - row), x - column) < 10
        for row, column in CENTERS
    ]
    return np.where(inside[0] | inside[1], 2, 0).astype(np.uint8)


class Mouse:
    """Clicks at rows and columns of the slice in view, whatever its orientation and scale."""

    def __init__(self, hands: Any, layer: Any) -> None:
        self.hands, self.layer = hands, layer

    def events(self, *steps: tuple[str, Sequence[float]], modifier: str = "No") -> None:
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        kinds = {"press": "MouseButtonPress", "move": "MouseMove", "release": "MouseButtonRelease"}
        left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        canvas, viewer = self.hands.canvas, self.hands.viewer
        for kind, voxel in steps:
            world = np.asarray(self.layer.data_to_world(tuple(voxel)))
            displayed = [a - viewer.dims.ndim for a in viewer.dims.displayed]
            pixel = self.hands.position([world[a] for a in displayed])
            event = QMouseEvent(
                getattr(QEvent.Type, kinds[kind]),
                QPointF(pixel),
                QPointF(canvas.mapToGlobal(pixel)),
                none if kind == "move" else left,
                none if kind == "release" else left,
                getattr(Qt.KeyboardModifier, f"{modifier}Modifier"),
            )
            QApplication.sendEvent(canvas, event)
            QApplication.processEvents()

    def click(self, voxel: Sequence[float], modifier: str = "No") -> None:
        self.events(("press", voxel), ("release", voxel), modifier=modifier)


@pytest.fixture
def bench(dock: Any, viewer: Any, hands: Any, qtbot: Any) -> Iterator[SimpleNamespace]:
    """The dock with two noisy balls, flat voxels, and a prediction of them."""
    truth = balls()
    rng = np.random.default_rng(0)
    image = (100 + 30.0 * truth + rng.normal(0, 6, SHAPE)).astype(np.float32)
    placed = {"scale": (2, 1, 1), "translate": (5, -3, 7)}
    layer = viewer.add_image(image, name="cells", **placed)
    qtbot.waitUntil(lambda: dock.choice.value()[1] is not None, timeout=20_000)
    annotation = dock.choice.value()[1]
    dock.annotator.jump(SliceRef(0, 6))
    viewer.reset_view()
    tools = next(f for f in dock.features if isinstance(f, Tools))

    def predict() -> Any:
        classes = dock.annotator.classes()
        prediction = prediction_layer(truth, "cells prediction", classes, placed)
        bind(prediction, layer)
        viewer.layers.insert(1, prediction)
        viewer.layers.selection.active = annotation
        return prediction

    bench = SimpleNamespace(
        dock=dock,
        viewer=viewer,
        tools=tools,
        bar=tools.bar,
        truth=truth,
        layer=annotation,
        image=layer,
        mouse=Mouse(hands, annotation),
        predict=predict,
        status=lambda: dock.run_bar.remark.text(),
    )
    yield bench
    vars(bench).clear()


def checked(bench: Any, act: Callable[[], Any]) -> np.ndarray:
    """Act, check that this is one undo step, and leave the annotation with it."""
    before = np.array(bench.layer.data)
    accepted = read_accepted(bench.layer)
    steps = len(bench.layer._undo_history)
    act()
    bench.told = bench.status()
    after = np.array(bench.layer.data)
    assert len(bench.layer._undo_history) == steps + 1
    assert not (after == before).all()
    bench.dock.annotator.undo()
    assert (np.array(bench.layer.data) == before).all()
    assert read_accepted(bench.layer) == accepted
    bench.layer.redo()
    assert (np.array(bench.layer.data) == after).all()
    return after


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


# --- grow -----------------------------------------------------------------------------------


def test_a_click_grows_one_ball_in_any_orientation(bench: Any) -> None:
    order = tuple(bench.viewer.dims.order)
    for axis, index, voxel, transposed in (
        (0, 6, (6, 20, 18), False),
        (0, 6, (6, 20, 18), True),
        (1, 20, (6, 20, 18), False),
        (2, 44, (6, 40, 44), True),
    ):
        bench.viewer.dims.order = order
        grow_one_ball(bench, axis, index, voxel, transposed)
        bench.dock.annotator.undo()
        assert not bench.layer.data.any()


def grow_one_ball(
    bench: Any, axis: int, index: int, voxel: tuple[int, ...], transposed: bool
) -> None:
    bench.dock.annotator.jump(SliceRef(axis, index))
    if transposed:
        order = list(bench.viewer.dims.order)
        bench.viewer.dims.order = (order[0], order[2], order[1])
    bench.viewer.reset_view()
    if bench.bar.value() != "grow":
        bench.tools.toggle("grow")
    data = checked(bench, lambda: bench.mouse.click(voxel))
    truth = np.take(bench.truth, index, axis)
    ball = truth > 0
    rows, columns = np.indices(ball.shape)
    place = np.delete(voxel, axis)
    ball &= np.hypot(rows - place[0], columns - place[1]) < 12
    assert iou(np.take(data, index, axis) == 2, ball) > 0.7
    assert data.sum() == np.take(data, index, axis).sum()
    assert "voxels of 'structure' painted" in bench.told


def test_a_drag_bounds_the_size_shows_an_outline_and_does_not_move_the_camera(bench: Any) -> None:
    bench.viewer.scene.camera.zoom = 6
    bench.tools.toggle("grow")
    center = tuple(bench.viewer.scene.camera.center)
    mouse, outline = bench.mouse, bench.tools.pointing.outline
    path = [("move", (6, 20, 18 + i)) for i in (1, 2, 3, 4, 5)]

    def drag() -> None:
        mouse.events(("press", (6, 20, 18)), *path)
        assert outline.is_shown()
        assert not bench.layer.data.any()  # nothing is painted before the release
        mouse.events(("release", (6, 20, 23)))

    data = checked(bench, drag)
    assert 60 <= np.count_nonzero(data) <= 90  # a disk of radius 5
    assert tuple(bench.viewer.scene.camera.center) == center
    assert not outline.is_shown()


def test_escape_cancels_the_click_then_ends_the_tool(bench: Any, qtbot: Any) -> None:
    from qtpy.QtCore import Qt

    bench.tools.toggle("grow")
    bench.mouse.events(("press", (6, 20, 18)))
    canvas = bench.mouse.hands.canvas
    qtbot.keyClick(canvas, Qt.Key.Key_Escape)
    bench.mouse.events(("release", (6, 20, 18)))
    assert not bench.layer.data.any()
    assert bench.bar.value() == "grow"
    qtbot.keyClick(canvas, Qt.Key.Key_Escape)
    assert bench.bar.value() == ""
    bench.mouse.click((6, 20, 18))
    assert not bench.layer.data.any()


def test_the_wheel_takes_in_more(bench: Any) -> None:
    bench.tools.toggle("grow")
    sizes = []
    for steps in (-8, 8, 6):
        bench.mouse.events(("press", (6, 20, 18)))
        for _ in range(abs(steps)):
            bench.tools.pointing._mouse.wheeled.emit(int(np.sign(steps)))
        bench.mouse.events(("release", (6, 20, 18)))
        sizes.append(np.count_nonzero(bench.layer.data))
        bench.dock.annotator.undo()
    assert sizes[0] < sizes[1] <= sizes[2]


def test_other_classes_are_not_painted_over_and_background_is(bench: Any) -> None:
    bench.dock.class_table.add()
    painted = np.zeros(SHAPE, np.uint8)
    painted[6, :20, :] = 3
    painted[6, 20:, :] = 1
    where = np.nonzero(painted)
    bench.layer.data_setitem(where, painted[where])
    bench.dock.annotator.choose_label(2)
    bench.tools.toggle("grow")
    data = checked(bench, lambda: bench.mouse.click((6, 22, 18)))
    assert (data[6, :20] == 3).all()
    assert (data[6, 20:] == 2).sum() > 100


def test_a_predicted_object_grows_in_the_selected_class(bench: Any) -> None:
    bench.bar.source_box.setCurrentIndex(bench.bar.source_box.findData("prediction"))
    bench.tools.toggle("grow")
    assert bench.bar.value() == ""
    assert "no prediction is visible" in bench.status().lower()
    bench.predict()
    bench.dock.class_table.add()
    bench.dock.annotator.choose_label(3)
    bench.tools.toggle("grow")
    data = checked(bench, lambda: bench.mouse.click((6, 20, 18)))
    assert ((data[6] == 3)[:, :30] == (bench.truth[6] > 0)[:, :30]).all()


def test_the_tools_end_with_a_brush_in_3d_and_stay_when_a_class_is_chosen(bench: Any) -> None:
    callbacks = list(bench.viewer.mouse_double_click_callbacks)
    bench.tools.toggle("grow")
    assert bench.layer.mode == "pan_zoom"
    assert bench.layer.cursor == "cross"
    bench.dock.annotator.choose_label(1)
    assert bench.bar.value() == "grow"
    bench.layer.mode = "paint"
    assert bench.bar.value() == ""
    assert bench.viewer.mouse_double_click_callbacks == callbacks
    bench.tools.toggle("grow")
    bench.viewer.dims.ndisplay = 3
    assert bench.bar.value() == ""
    assert not bench.bar.tool_buttons["grow"].isEnabled()
    assert "Show it in 2D" in bench.bar.tool_buttons["grow"].toolTip()
    bench.viewer.dims.ndisplay = 2
    bench.dock.annotator.choose_label(2)
    assert bench.layer.mode == "paint"
    assert bench.bar.tool_buttons["grow"].isEnabled()


# --- take and accept ------------------------------------------------------------------------


def test_take_and_reject_an_object(bench: Any) -> None:
    prediction = bench.predict()
    begin_result(prediction)
    bench.tools.toggle("take")
    data = checked(bench, lambda: bench.mouse.click((6, 20, 18)))
    assert ((data[6] == 2)[:, :30] == (bench.truth[6] > 0)[:, :30]).all()
    assert not data[6, :, 32:].any()
    data = checked(bench, lambda: bench.mouse.click((6, 40, 44), "Control"))
    assert ((data[6] == 1) == (bench.truth[6] > 0) & (np.arange(64) > 31)).all()
    assert "rejected" in bench.told
    assert is_replaceable(prediction)  # what was taken is in the annotation
    before = data.copy()
    bench.mouse.click((6, 2, 2))
    assert "no object here" in bench.status()
    assert (bench.layer.data == before).all()


def test_accept_keeps_the_users_paint_and_says_where_the_labels_come_from(bench: Any) -> None:
    prediction = bench.predict()
    begin_result(prediction)
    bench.layer.data_setitem((np.full(5, 6), np.arange(5), np.arange(5)), 2)
    data = checked(bench, lambda: bench.tools.do("accept"))
    assert bench.told == "2 objects of 'structure' taken from the prediction; Ctrl+Z undoes it."
    assert not bench.status()  # it was undone and repeated since: no longer the last action
    expected = np.where(bench.truth[6] > 0, 2, 1)
    expected[np.arange(5), np.arange(5)] = 2
    assert (data[6] == expected).all()
    assert not np.delete(data, 6, 0).any()
    assert read_accepted(bench.layer) == {SliceRef(0, 6): "layer 'cells prediction'"}
    assert is_replaceable(prediction)  # ten rounds of accepting and training leave one result
    bench.tools.do("accept")
    assert "Nothing to accept" in bench.status()


def test_a_hidden_prediction_a_held_out_slice_and_unknown_classes_are_not_accepted(
    bench: Any,
) -> None:
    prediction = bench.predict()
    prediction.visible = False
    assert not bench.bar.action_buttons["accept"].isEnabled()
    bench.tools.do("accept")
    assert "Press D to show it" in bench.status()
    prediction.visible = True
    bench.layer.data_setitem((np.array([6]), np.array([0]), np.array([0])), 1)
    bench.dock.annotator.hold_out(SliceRef(0, 6), True)
    bench.tools.do("accept")
    assert "held out" in bench.status()
    bench.dock.annotator.hold_out(SliceRef(0, 6), False)
    info = bench.dock.annotator.classes()[0]
    other = [info.model_copy(update={"value": 5, "name": "vessels"}).model_dump()]
    prediction.metadata = {
        "napari-unet3d": {**prediction.metadata["napari-unet3d"], "classes": other}
    }
    bench.tools.do("accept")
    assert "'vessels'" in bench.status()
    assert np.count_nonzero(bench.layer.data) == 1


def test_paint_on_the_prediction_offers_to_accept_it(bench: Any) -> None:
    prediction = bench.predict()
    prediction.data_setitem((np.array([6]), np.array([0]), np.array([0])), 2)
    notice = bench.dock.pairing.notice.value()
    answers = dict(notice.answers)
    answers["Accept this slice"]()
    assert (bench.layer.data[6] > 0).all()
    assert bench.dock.pairing.notice.value() is None


# --- retouching, copies, proposals ----------------------------------------------------------


def paint(bench: Any, z: int, *, complete: bool = True) -> None:
    where = np.nonzero(bench.truth[z])
    bench.layer.data_setitem((np.full(len(where[0]), z), *where), 2)
    if complete:
        bench.dock.annotator.complete(SliceRef(0, z))
    bench.dock.annotator.rescan()


def test_fill_holes_and_smooth(bench: Any) -> None:
    paint(bench, 6)
    holes = (np.full(3, 6), np.array([20, 21, 24]), np.array([18, 18, 19]))
    bench.layer.data_setitem(holes, 1)
    data = checked(bench, lambda: bench.tools.do("fill"))
    assert ((data[6] == 2) == (bench.truth[6] > 0)).all()
    bench.layer.data_setitem((np.full(6, 6), np.full(6, 20), np.arange(29, 35)), 2)
    data = checked(bench, lambda: bench.tools.do("smooth"))
    assert (data[6, 20, 30:] == 1).all()
    assert iou(data[6] == 2, bench.truth[6] > 0) > 0.9


def test_copy_takes_the_nearest_slice_that_is_not_held_out(bench: Any) -> None:
    paint(bench, 4, complete=False)
    paint(bench, 5)
    bench.dock.annotator.hold_out(SliceRef(0, 5), True)
    data = checked(bench, lambda: bench.tools.do("copy"))
    assert (data[6] == data[4]).all()
    assert "copied from z=4" in bench.told


def test_proposals_count_only_when_they_are_accepted(bench: Any, qtbot: Any) -> None:
    paint(bench, 3)
    paint(bench, 9)
    before = bench.layer.data.copy()
    bench.tools.do("interpolate")
    qtbot.waitUntil(lambda: "5 slices proposed" in bench.status(), timeout=20_000)
    proposals = next(x for x in bench.viewer.layers if role_of(x) == "proposal")
    assert bench.viewer.layers.selection.active is bench.layer
    assert not proposals.editable
    assert (bench.layer.data == before).all()
    assert [s.ref.index for s in bench.dock.annotator.slices()] == [3, 9]
    assert sorted(r.index for r in proposed(proposals)) == [4, 5, 6, 7, 8]
    assert tuple(proposals.scale) == tuple(bench.image.scale)

    bench.tools.do("accept")
    qtbot.waitUntil(lambda: len(proposed(proposals)) == 4, timeout=20_000)
    assert iou(bench.layer.data[6] == 2, bench.truth[6] > 0) > 0.5
    assert read_accepted(bench.layer)[SliceRef(0, 6)].startswith("interpolated between z=3 and z=9")
    assert not proposals.data[6].any()
    bench.dock.annotator.undo()
    qtbot.waitUntil(lambda: len(proposed(proposals)) == 5, timeout=20_000)
    assert (bench.layer.data == before).all()
    assert proposals.data[6].any()

    bench.dock.annotator.holding.hold("A session is being opened.")
    bench.tools.do("accept all")
    assert bench.status() == "A session is being opened."
    qtbot.wait(50)
    assert (bench.layer.data == before).all()
    bench.dock.annotator.holding.release("A session is being opened.")

    def accept_all() -> None:
        bench.tools.do("accept all")
        qtbot.waitUntil(lambda: "5 proposals accepted" in bench.status(), timeout=20_000)

    data = checked(bench, accept_all)
    assert (data[3:10] > 0).all()
    qtbot.waitUntil(lambda: not proposed(proposals), timeout=20_000)
    assert not bench.bar.action_buttons["accept all"].isEnabled()
    bench.dock.annotator.undo()
    qtbot.waitUntil(lambda: len(proposed(proposals)) == 5, timeout=20_000)
    bench.tools.do("discard")
    assert proposals not in bench.viewer.layers
    assert (bench.layer.data == before).all()


def test_interpolation_along_another_axis(bench: Any, qtbot: Any) -> None:
    for x in (14, 22):
        plane = np.where(bench.truth[:, :, x] > 0, 2, 1).astype(np.uint8)
        rows, columns = np.indices(plane.shape)
        indices = (rows.ravel(), columns.ravel(), np.full(plane.size, x))
        bench.layer.data_setitem(indices, plane.ravel())
    bench.dock.annotator.rescan()
    bench.dock.annotator.jump(SliceRef(2, 18))
    bench.tools.do("interpolate")
    qtbot.waitUntil(lambda: "7 slices proposed" in bench.status(), timeout=20_000)
    data = checked(bench, lambda: bench.tools.do("accept"))
    assert iou(data[:, :, 18] == 2, bench.truth[:, :, 18] > 0) > 0.8


def test_reasons_say_what_is_missing(bench: Any) -> None:
    bench.tools.do("interpolate")
    assert "before and one after" in bench.status()
    bench.tools.do("copy")
    assert "no other slice" in bench.status().lower()
    tip = bench.bar.action_buttons["accept"].toolTip()
    assert "Not now: no prediction is visible" in tip
    assert "Key: A." in tip


# --- stacks of other kinds ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["series", "sparse series"])
def test_every_tool_on_labels_of_another_kind(
    kind: str,
    dock: Any,
    viewer: Any,
    hands: Any,
    qtbot: Any,
    annotate_anew: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Labels of stacks that are larger than the memory, and of time series."""
    time = 1 if "series" in kind else 0
    truth = np.stack([np.zeros(SHAPE, np.uint8), balls()]) if time else balls()
    if "sparse" in kind:
        monkeypatch.setattr(room, "annotation_fits", lambda shape: False)
    image = 100.0 + 30 * truth + np.random.default_rng(0).normal(0, 6, truth.shape)
    scale = (2, 0.5, 0.5)
    layer = viewer.add_image(
        image.astype(np.float32), name="stack", scale=(1, *scale) if time else scale
    )
    qtbot.waitUntil(lambda: dock.choice.value()[0] is layer, timeout=20_000)
    annotation = dock.choice.value()[1] or annotate_anew()
    assert isinstance(annotation.data, SparseLabels) == ("sparse" in kind)

    def z(index: int) -> SliceRef:
        return SliceRef(0, index, time)

    def at(index: int, *where: int) -> tuple[int, ...]:
        return (time, index, *where) if time else (index, *where)

    dock.annotator.jump(z(6))
    viewer.reset_view()
    prediction = prediction_layer(
        truth, "stack prediction", dock.annotator.classes(), spatial_transform(layer, truth.ndim)
    )
    bind(prediction, layer)
    viewer.layers.insert(1, prediction)
    viewer.layers.selection.active = annotation
    tools = next(f for f in dock.features if isinstance(f, Tools))
    bench = SimpleNamespace(dock=dock, layer=annotation, status=dock.run_bar.remark.text)
    mouse = Mouse(hands, annotation)
    balls_at_6 = read_slice(truth, z(6)) > 0

    def plane(data: np.ndarray, index: int = 6) -> np.ndarray:
        return read_slice(data, z(index))

    tools.toggle("grow")
    data = checked(bench, lambda: mouse.click(at(6, 20, 18)))
    assert (plane(data) == 2).sum() > 200
    assert np.count_nonzero(data) == np.count_nonzero(plane(data))
    tools.toggle("take")
    data = checked(bench, lambda: mouse.click(at(6, 40, 44)))
    assert (plane(data) == 2)[balls_at_6][-1]
    data = checked(bench, lambda: mouse.click(at(6, 20, 18), "Control"))
    assert plane(data)[20, 18] == 1
    tools.toggle("take")
    dock.annotator.clear(z(6))
    data = checked(bench, lambda: tools.do("accept"))
    assert ((plane(data) == 2) == balls_at_6).all()
    assert read_accepted(annotation).keys() == {z(6)}
    annotation.data_setitem(tuple(np.array([i]) for i in at(6, 20, 18)), 1)
    data = checked(bench, lambda: tools.do("fill"))
    assert plane(data)[20, 18] == 2
    annotation.data_setitem(tuple(np.array([i] * 5) for i in at(6, 20, 18)), 1)
    annotation.data_setitem(tuple(np.array([i]) for i in at(6, 2, 2)), 2)
    data = checked(bench, lambda: tools.do("smooth"))
    assert plane(data)[2, 2] == 1
    dock.annotator.rescan()
    dock.annotator.jump(z(8))
    data = checked(bench, lambda: tools.do("copy"))
    assert (plane(data, 8) == plane(data)).all()
    dock.annotator.rescan()
    dock.annotator.jump(z(7))
    tools.do("interpolate")
    qtbot.waitUntil(lambda: "1 slice proposed" in bench.status(), timeout=20_000)

    def accept_all() -> None:
        tools.do("accept all")
        qtbot.waitUntil(lambda: "1 proposal accepted" in bench.status(), timeout=20_000)

    data = checked(bench, accept_all)
    assert (plane(data, 7) == plane(data)).all()
    assert not plane(data, 5).any()
    if time:
        assert not data[0].any()
    tools.do("discard")
    vars(mouse).clear()
    vars(bench).clear()
