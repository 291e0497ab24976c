"""The ledger follows napari's edits, undo and redo; completing a slice costs little memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zarr

from napari_unet3d.data.ledger import find_painted_slices
from napari_unet3d.data.slices import SliceRef, read_slice
from napari_unet3d.widgets.annotator import Annotator
from napari_unet3d.widgets.viewer.navigation import show_slice

SHAPE = (10, 22, 24)


def in_step(annotator: Annotator, qtbot: Any) -> bool:
    """Whether the table says what a full look says, as soon as everything is counted."""
    qtbot.waitUntil(lambda: not annotator._counting.is_waiting(), timeout=5000)
    layer = annotator.layer()
    assert layer is not None
    return annotator.slices() == sorted(find_painted_slices(layer.data), key=lambda row: row.ref)


KINDS: dict[str, Callable[[], Any]] = {
    "numpy": lambda: np.zeros(SHAPE, np.uint8),
    "zarr": lambda: zarr.array(np.zeros(SHAPE, np.uint8), chunks=(5, 11, 12)),
    "time series": lambda: np.zeros((2, *SHAPE), np.uint8),
    "int32": lambda: np.zeros(SHAPE, np.int32),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_follows_whatever_is_done(kind: str, annotate: Any, qtbot: Any) -> None:
    rng = np.random.default_rng(len(kind))
    viewer, layer, annotator = annotate(KINDS[kind]())
    steps: set[str] = set()
    orientations: set[int] = set()

    def somewhere() -> list[int]:
        shown = annotator.shown()
        assert shown is not None
        position = [int(rng.integers(n)) for n in layer.data.shape[-3:]]
        position[shown.axis] = shown.index
        return [shown.time, *position] if layer.ndim == 4 else position

    def move() -> None:
        axis = int(rng.integers(3))
        time = int(rng.integers(2)) if layer.ndim == 4 else 0
        show_slice(viewer, layer, SliceRef(axis, int(rng.integers(SHAPE[axis])), time))

    def paint() -> None:
        layer.paint(somewhere(), int(rng.integers(4)))

    def stroke() -> None:
        with layer.block_history():
            for _ in range(3):
                layer.paint(somewhere(), int(rng.integers(1, 4)))

    def fill() -> None:
        layer.fill(somewhere(), int(rng.integers(4)))

    def items() -> None:
        n = int(rng.integers(1, 6))
        indices = tuple(rng.integers(0, size, n) for size in layer.data.shape)
        layer.data_setitem(indices, int(rng.integers(4)))

    def complete() -> None:
        annotator.complete(annotator.shown())  # type: ignore[arg-type]

    def foreign() -> None:
        layer.data[..., int(rng.integers(SHAPE[1])), 2:9] = int(rng.integers(4))
        layer.refresh()

    def replace() -> None:
        layer.data = KINDS[kind]()

    def undo() -> None:
        for _ in range(int(rng.integers(1, 4))):
            layer.undo()

    def redo() -> None:
        for _ in range(int(rng.integers(1, 4))):
            layer.redo()

    choice = [move, paint, stroke, fill, items, complete, foreign, replace, undo, redo]
    weights = np.array([4, 4, 3, 2, 1, 1, 0.5, 0.3, 4, 3])
    for _ in range(80):
        step = choice[rng.choice(len(choice), p=weights / weights.sum())]
        step()
        steps.add(step.__name__)
        if rng.random() < 0.4:
            assert in_step(annotator, qtbot), step.__name__
            orientations |= {row.ref.axis for row in annotator.slices()}
    assert in_step(annotator, qtbot)
    assert len(steps) >= len(choice) - 1
    assert orientations == {0, 1, 2}


def test_undo_and_redo_of_many_steps_at_once(annotate: Any, qtbot: Any) -> None:
    viewer, layer, annotator = annotate(np.zeros(SHAPE, np.uint8))
    for index in (2, 5, 8):
        show_slice(viewer, layer, SliceRef(0, index))
        layer.paint((index, 9, 9), 1)
        annotator.complete(SliceRef(0, index))
    assert in_step(annotator, qtbot)
    assert [row.state for row in annotator.slices()] == ["complete"] * 3
    for _ in range(5):
        layer.undo()
    assert in_step(annotator, qtbot)
    assert [row.state for row in annotator.slices()] == ["partial"]
    layer.redo()
    layer.redo()
    layer.undo()
    assert in_step(annotator, qtbot)
    assert [row.state for row in annotator.slices()] == ["complete"]
    layer.paint((7, 9, 9), 3)  # what could be redone is gone
    layer.redo()
    assert in_step(annotator, qtbot)
    assert [str(row.ref) for row in annotator.slices()] == ["z=2", "z=7"]


def test_a_stroke_is_counted_when_the_mouse_is_released(annotate: Any, qtbot: Any) -> None:
    _, layer, annotator = annotate(np.zeros(SHAPE, np.uint8))
    with layer.block_history():
        layer.paint((0, 9, 9), 1)
        layer.refresh()  # reading now would count the stroke twice
        qtbot.wait(250)
        layer.paint((0, 9, 15), 2)
    assert in_step(annotator, qtbot)
    assert set(annotator.slices()[0].counts) == {1, 2}


def test_what_others_write_is_found_at_a_redraw_not_by_moving(annotate: Any, qtbot: Any) -> None:
    viewer, layer, annotator = annotate(np.zeros(SHAPE, np.uint8))
    layer.data[3, 5:9] = 2  # by another plugin, which has not redrawn the layer yet
    for axis, index in ((0, 5), (0, 3), (1, 7)):
        show_slice(viewer, layer, SliceRef(axis, index))
        qtbot.waitUntil(lambda: not annotator._counting.is_waiting(), timeout=5000)
        assert annotator.slices() == []  # nothing was read again
    layer.refresh()
    assert in_step(annotator, qtbot)
    assert [str(row.ref) for row in annotator.slices()] == ["z=3"]
    layer.data[:] = 0
    layer.data = layer.data
    assert in_step(annotator, qtbot)
    assert annotator.slices() == []


def test_undo_into_another_array_is_counted(annotate: Any, qtbot: Any) -> None:
    """The undo history is napari's own: an undone stroke was in the array before."""
    _, layer, annotator = annotate(np.zeros(SHAPE, np.uint8))
    layer.paint((0, 9, 9), 1)
    layer.data_setitem(tuple(np.array(i) for i in ((0, 9), (3, 3), (4, 4))), 2)
    other = np.zeros(SHAPE, np.uint8)
    other[:, 3] = 3
    layer.data = other
    assert in_step(annotator, qtbot)
    for _ in range(2):
        layer.undo()
        assert in_step(annotator, qtbot)
    assert (layer.data == 3).sum() == 10 * 24 - 2


def test_what_cannot_be_labels_has_no_slices(annotate: Any, qtbot: Any) -> None:
    _, layer, annotator = annotate(np.zeros(SHAPE, np.uint8))
    layer.paint((0, 9, 9), 1)
    assert in_step(annotator, qtbot) and annotator.slices()
    layer.data = np.ones((20, 20), np.uint8)
    qtbot.waitUntil(lambda: annotator.slices() == [], timeout=3000)


# --- completing a slice ---------------------------------------------------------------------


def history_bytes(layer: Any) -> int:
    def size(value: Any) -> int:
        if isinstance(value, np.ndarray):
            return value.nbytes
        return sum(map(size, value)) if isinstance(value, tuple | list) else 0

    return size(layer._undo_history[-1])


COMPLETED: dict[str, Callable[[], Any]] = {
    "numpy": lambda: np.zeros((60, 70, 80), np.uint8),
    "zarr": lambda: zarr.array(np.zeros((60, 70, 80), np.uint8), chunks=(32, 32, 32)),
    "time series": lambda: np.zeros((3, 60, 70, 80), np.uint8),
}


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("kind", COMPLETED)
def test_completing_is_one_small_undo_step(kind: str, axis: int, annotate: Any) -> None:
    viewer, layer, annotator = annotate(COMPLETED[kind]())
    layer.n_edit_dimensions, layer.contiguous, layer.preserve_labels = 3, True, True
    ref = SliceRef(axis, 33, 2 if layer.ndim == 4 else 0)
    show_slice(viewer, layer, ref)
    assert annotator.shown() == ref
    layer.data[(..., slice(30, 40), slice(30, 40), slice(30, 40))] = 2
    before = np.array(layer.data)
    expected = before.copy()
    plane = read_slice(expected, ref)  # a view
    plane[plane == 0] = 1

    annotator.complete(ref)

    np.testing.assert_array_equal(layer.data, expected)
    assert history_bytes(layer) <= 2 * before[0].size * (60 * 70 * 80 // 60) / before[0].size
    layer.undo()
    np.testing.assert_array_equal(layer.data, before)
    layer.redo()
    np.testing.assert_array_equal(layer.data, expected)
    assert (layer.n_edit_dimensions, layer.contiguous, layer.preserve_labels) == (3, True, True)
    annotator.complete(ref)  # nothing is left to do
    layer.undo()
    np.testing.assert_array_equal(layer.data, before)


@pytest.mark.parametrize("kind", COMPLETED)
def test_a_slice_that_is_not_shown_is_completed_too(kind: str, annotate: Any) -> None:
    viewer, layer, annotator = annotate(COMPLETED[kind]())
    viewer.dims.ndisplay = 3
    ref = SliceRef(1, 12)
    annotator.complete(ref)
    painted = np.array(layer.data)
    assert painted[..., 12, :].sum() == painted.sum() == 60 * 80
    assert history_bytes(layer) <= 9 * 60 * 80
    layer.undo()
    assert not np.array(layer.data).any()
