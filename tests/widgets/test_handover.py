"""Which slices of a layer are handed over to a training, and when; without a viewer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_unet3d.config import default_class
from napari_unet3d.data.edits import SliceEdit
from napari_unet3d.data.joined_labels import JoinedLabels
from napari_unet3d.data.ledger import find_painted_slices
from napari_unet3d.data.slices import SliceRef, read_slice
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.widgets.annotator import Annotator
from napari_unet3d.widgets.parts.class_table import ClassTable
from napari_unet3d.widgets.parts.slice_table import SliceTable
from napari_unet3d.widgets.viewer.handover import Handover
from napari_unet3d.widgets.viewer.layers import read_accepted, read_held_out
from napari_unet3d.widgets.viewer.navigation import show_slice

Z2, Z4 = SliceRef(0, 2), SliceRef(0, 4)


class Painter:
    """Paints on a layer, and tells a handover at times that a test chooses."""

    def __init__(self, shape: tuple[int, ...] = (6, 8, 9)) -> None:
        self.layer = Labels(np.zeros(shape, np.uint8))
        self.held_out: set[SliceRef] = set()
        self.put(Z2, (slice(None), slice(None)), 1)
        self.handover = Handover(self.layer, self.slices(), ())
        self.now = 0.0
        self.layer.events.paint.connect(lambda e: self.handover.painted(e.value, self.now))

    def slices(self) -> Any:
        return find_painted_slices(self.layer.data)

    def put(self, ref: SliceRef, where: tuple[slice, slice], value: int) -> None:
        plane = np.zeros([n for a, n in enumerate(self.layer.data.shape[-3:]) if a != ref.axis])
        plane[where] = 1
        first, second = np.nonzero(plane)
        position = [first, second]
        position.insert(ref.axis, np.full_like(first, ref.index))
        if self.layer.ndim == 4:
            position.insert(0, np.full_like(first, ref.time))
        self.layer.data_setitem(tuple(position), value)

    def due(self, now: float) -> list[SliceRef]:
        self.handover.update(self.slices(), self.held_out, now)
        return self.handover.due(now)


@pytest.fixture
def painter() -> Painter:
    return Painter()


def test_a_partial_slice_waits_for_the_end_of_the_strokes(painter: Painter) -> None:
    assert not painter.due(9.0)
    painter.put(Z4, (slice(2), slice(2)), 2)
    assert not painter.due(10.0)
    painter.put(Z4, (slice(3, 5), slice(2)), 2)
    painter.now = 12.0
    assert not painter.due(12.0)
    assert not painter.due(14.9)
    assert painter.due(15.1) == [Z4]
    paint = painter.handover.take(Z4)
    assert np.array_equal(paint.labels, painter.layer.data[4])
    painter.layer.data[4] = 0
    assert paint.labels.any()  # a copy
    assert not paint.held_out


def test_a_complete_and_a_held_out_slice_wait_less(painter: Painter) -> None:
    painter.put(Z4, (slice(None), slice(None)), 1)
    painter.held_out = {Z2}
    assert painter.due(10.0) == [Z2]
    assert painter.handover.take(Z2).held_out
    assert painter.due(11.1) == [Z4]
    painter.handover.take(Z4)
    assert not painter.handover.is_behind()
    painter.held_out = set()
    assert painter.due(12.0) == [Z2]
    assert not painter.handover.take(Z2).held_out


def test_what_is_erased_or_repainted_without_another_count_is_noticed(painter: Painter) -> None:
    painter.put(Z2, (slice(1), slice(1)), 2)
    painter.due(10.0)
    assert painter.due(11.1) == [Z2]
    painter.handover.take(Z2)
    painter.now = 20.0
    painter.put(Z2, (slice(1), slice(1)), 1)
    painter.put(Z2, (slice(1), slice(1, 2)), 2)
    assert painter.due(21.1) == [Z2]  # as many voxels of each class as before
    painter.handover.take(Z2)
    painter.layer.undo()
    painter.layer.undo()
    painter.handover.redrawn(Z2, 30.0)  # the slice in view was drawn again
    assert painter.due(31.1) == [Z2]
    painter.handover.take(Z2)
    painter.put(Z2, (slice(None), slice(None)), 0)
    painter.due(40.0)
    assert painter.due(41.1) == [Z2]
    assert not painter.handover.take(Z2).labels.any()
    assert not painter.handover.is_behind()


def test_nothing_is_due_in_mid_stroke(painter: Painter) -> None:
    painter.put(Z4, (slice(2), slice(2)), 2)
    painter.due(10.0)
    with painter.layer.block_history():
        assert not painter.due(20.0)
    assert painter.due(20.0) == [Z4]


@pytest.mark.parametrize("ref", [SliceRef(0, 3, 1), SliceRef(1, 5, 0), SliceRef(2, 7, 1)], ids=str)
def test_slices_of_a_time_series_in_any_orientation(ref: SliceRef) -> None:
    painter = Painter((2, 6, 8, 9))
    painter.handover = Handover(painter.layer, painter.slices())
    painter.put(ref, (slice(1, 4), slice(2, 5)), 2)
    painter.due(10.0)
    assert ref in painter.due(13.1)
    assert (painter.handover.take(ref).labels == 2).sum() == 9


SHAPE = (7, 12, 14)
KINDS: dict[str, Callable[[], Any]] = {
    "numpy": lambda: np.zeros(SHAPE, np.uint8),
    "sparse": lambda: SparseLabels.create(SHAPE),
    "time series": lambda: np.zeros((2, *SHAPE), np.uint8),
}


@pytest.mark.parametrize(("kind", "seed"), [*((kind, 0) for kind in KINDS), ("numpy", 1)])
def test_the_training_ends_up_with_the_layer_as_it_is_whatever_is_done(
    kind: str, seed: int, qtbot: Any
) -> None:
    """Strokes, tools, states, undo, redo, and a class that is removed, on any slice."""
    rng = np.random.default_rng(seed)
    viewer = ViewerModel()
    layer: Any = viewer.add_labels(KINDS[kind]())
    tables = ClassTable(), SliceTable()
    for table in tables:
        qtbot.addWidget(table)
    annotator = Annotator(viewer, *tables)
    annotator.set_layer(layer)
    tables[0].insert(default_class(3, "wall"))

    def ref() -> SliceRef:
        axis = int(rng.integers(3))
        time = int(rng.integers(2)) if layer.ndim == 4 else 0
        return SliceRef(axis, int(rng.integers(0, SHAPE[axis], 2).min()), time)

    def write(change: Callable[[np.ndarray], np.ndarray], origin: str = "") -> None:
        where = ref()
        plane = np.array(read_slice(layer.data, where))
        edit = SliceEdit.between(where, plane, change(plane).astype(plane.dtype))
        if edit is not None:
            accepted = {**read_accepted(layer), **({where: origin} if origin else {})}
            annotator.apply([edit], accepted=accepted)

    def hold_out() -> None:
        where = ref()
        annotator.hold_out(where, where not in read_held_out(layer))

    actions: list[Callable[[], object]] = [
        lambda: write(lambda plane: np.where(rng.random(plane.shape) < 0.2, 2, plane)),
        lambda: write(lambda plane: rng.integers(0, 3, plane.shape), "model"),
        lambda: write(lambda plane: np.roll(plane, 1, 1)),  # as many voxels of each class
        lambda: write(lambda plane: np.where(plane == 2, 3, plane)),
        lambda: annotator.complete(ref()),
        lambda: annotator.empty(ref()),
        lambda: annotator.revert(ref()),
        lambda: annotator.clear(ref()),
        hold_out,
        lambda: annotator.remove_class(3),
        lambda: show_slice(viewer, layer, ref()),
        layer.undo,
        layer.undo,
        layer.redo,
    ]
    for action in actions * 2:
        action()
    now = 0.0
    handover = Handover(layer, annotator.slices(), read_held_out(layer))
    known, held_out = JoinedLabels(np.array(layer.data)), set(read_held_out(layer))
    layer.events.paint.connect(lambda event: handover.painted(event.value, now))
    layer.events.set_data.connect(lambda: handover.redrawn(annotator.shown(), now))
    for step in rng.integers(len(actions), size=50):
        actions[step]()
        qtbot.waitUntil(lambda: not annotator.is_counting(), timeout=5000)
        handover.update(annotator.slices(), read_held_out(layer), now)
        now += 10
        for at in handover.due(now):
            paint = handover.take(at)
            known.lay(at, paint.labels)
            (held_out.add if paint.held_out else held_out.discard)(at)
        np.testing.assert_array_equal(np.array(known), np.array(layer.data))
        painted = {row.ref for row in annotator.slices()}
        assert held_out & painted == read_held_out(layer) & painted
    assert not handover.is_behind()
    annotator.cleanup()
