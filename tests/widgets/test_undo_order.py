"""Paint, marks and classes are one undo order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import zarr

from napari_unet3d.config import default_class
from napari_unet3d.data.editing.growing import grow
from napari_unet3d.data.editing.interpolation import Interpolation
from napari_unet3d.data.editing.neighbors import around, neighbors
from napari_unet3d.data.editing.retouching import fill_holes, smooth
from napari_unet3d.data.editing.taking import unlabelled_edit
from napari_unet3d.data.edits import SliceEdit
from napari_unet3d.data.ledger import find_painted_slices
from napari_unet3d.data.slices import SliceRef, read_slice
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.widgets.annotator import Annotator
from napari_unet3d.widgets.viewer.layers import read_accepted, read_classes, read_held_out
from napari_unet3d.widgets.viewer.marks import read_marks
from napari_unet3d.widgets.viewer.navigation import show_slice

SHAPE = (8, 18, 20)
KINDS: dict[str, Callable[[], Any]] = {
    "numpy": lambda: np.zeros(SHAPE, np.uint8),
    "zarr": lambda: zarr.array(np.zeros(SHAPE, np.uint8), chunks=(5, 11, 12)),
    "sparse": lambda: SparseLabels.create(SHAPE),
    "time series": lambda: np.zeros((2, *SHAPE), np.int32),
    "sparse time series": lambda: SparseLabels.create((2, *SHAPE)),
}

TOOLS = "grow", "fill", "smooth", "copy", "between"


def state(annotator: Annotator) -> tuple[Any, ...]:
    layer: Any = annotator.layer()
    table = annotator._class_table, annotator._slice_table
    marks = read_marks(layer)
    assert table[0].value() == marks.classes
    assert table[1].value() == marks.held_out
    return np.array(layer.data).tobytes(), marks


def in_step(annotator: Annotator, qtbot: Any) -> bool:
    """Whether the counts are those of a full look, as soon as everything is counted."""
    layer: Any = annotator.layer()
    qtbot.waitUntil(lambda: not annotator._counting.is_waiting(), timeout=5000)
    return annotator.slices() == sorted(find_painted_slices(layer.data), key=lambda row: row.ref)


@pytest.mark.parametrize(("kind", "seed"), [*((kind, 0) for kind in KINDS), ("numpy", 1)])
def test_any_sequence_of_actions_is_undone_and_redone(
    kind: str, seed: int, annotate: Any, qtbot: Any
) -> None:
    """Against a model: a list of states with a position in it."""
    rng = np.random.default_rng(seed)
    viewer, layer, annotator = annotate(KINDS[kind]())
    classes, slices = annotator._class_table, annotator._slice_table
    tools_done: set[str] = set()

    def ref() -> SliceRef:
        axis = int(rng.integers(3))
        time = int(rng.integers(2)) if layer.ndim == 4 else 0
        return SliceRef(axis, int(rng.integers(0, SHAPE[axis], 3).min()), time)

    def paint() -> None:
        where = ref()
        show_slice(viewer, layer, where)
        position = [int(rng.integers(n)) for n in SHAPE]
        position[where.axis] = where.index
        position = [where.time, *position] if layer.ndim == 4 else position
        with layer.block_history():
            layer.paint(position, int(rng.integers(4)))
            layer.paint([*position[:-1], 0], int(rng.integers(1, 4)))

    def accept() -> None:
        where = ref()
        plane = read_slice(layer.data, where)
        after = rng.integers(1, 4, plane.shape).astype(plane.dtype)
        edit = SliceEdit.between(where, plane, after)
        source = f"model {rng.integers(9)}"
        annotator.apply(
            [] if edit is None else [edit], accepted={**read_accepted(layer), where: source}
        )

    def tool(what: str, where: SliceRef) -> None:
        """Edit a slice as the tools do; "between" accepts all proposals around it."""
        plane = np.array(read_slice(layer.data, where))
        values = [c.value for c in read_classes(layer)]
        near = neighbors(annotator.slices(), where, read_held_out(layer))
        edits, sources = [], {}
        if what == "grow":
            point = int(rng.integers(plane.shape[0])), int(rng.integers(plane.shape[1]))
            region = grow(rng.normal(0, 1, plane.shape), point, (1, 1)).region(radius=4)
            edits.append(region.edit(where, values[0]))
        elif what == "fill":
            edits.append(SliceEdit.between(where, plane, fill_holes(plane, values)))
        elif what == "smooth":
            edits.append(SliceEdit.between(where, plane, smooth(plane, values, (1, 1))))
        elif what == "copy" and near:
            edits.append(unlabelled_edit(where, plane, read_slice(layer.data, near[0])))
        elif what == "between":
            first, last = around(near, where)
            if first is None or last is None:
                return
            one, other = (np.array(read_slice(layer.data, end)) for end in (first, last))
            between = [
                SliceRef(where.axis, i, where.time) for i in range(first.index + 1, last.index)
            ]
            ends = first.index, last.index
            for at, labels in Interpolation.planes(one, other, (1, 1), ends, between):
                edits.append(unlabelled_edit(at, read_slice(layer.data, at), labels))
                sources[at] = f"interpolated between {first} and {last}"
        edits = [edit for edit in edits if edit is not None]
        tools_done.update({what} if edits else set())
        sources = {edit.ref: sources[edit.ref] for edit in edits if edit.ref in sources}
        annotator.apply(edits, accepted={**read_accepted(layer), **sources})

    def hold_out() -> None:
        where = ref()
        annotator.hold_out(where, where not in read_held_out(layer))

    def by_the_table() -> None:
        slices.set_shown(ref())
        slices._toggle_hold_out()

    def class_edit() -> None:
        known = read_classes(layer)
        what = int(rng.integers(4))
        if what == 0 and len(known) < 6:
            classes.insert(default_class(int(rng.integers(20, 90)), "new"))
        elif what == "fill":
            classes.set_color(known[-1].value, f"#{rng.integers(2**24):06x}")
        elif what == "smooth" and len(known) > 1:
            annotator.remove_class(known[-1].value)
        else:
            classes.table.item(1, 0).setText(f"name {rng.integers(1000)}")

    actions = [
        paint,
        lambda: tool(TOOLS[rng.integers(5)], ref()),
        lambda: tool(TOOLS[rng.integers(5)], ref()),
        accept,
        hold_out,
        by_the_table,
        class_edit,
        lambda: annotator.complete(ref()),
        lambda: annotator.empty(ref()),
        lambda: annotator.clear(ref()),
        lambda: annotator.revert(ref()),
    ]
    first_actions = [
        partial(tool, what, SliceRef(0, z, layer.ndim - 3))
        for z, what in ((1, "grow"), (5, "grow"), (3, "between"), (6, "copy"), (1, "smooth"))
    ]
    states, at, done = [state(annotator)], 0, 0
    for step in range(60):
        if step >= len(first_actions) and rng.random() < 0.45:
            back = rng.random() < 0.6
            for _ in range(int(rng.integers(1, 4))):
                (layer.undo if back else layer.redo)()
                at = max(at - 1, 0) if back else min(at + 1, len(states) - 1)
                assert state(annotator) == states[at]
            assert in_step(annotator, qtbot)
        else:
            act = actions[rng.integers(len(actions))]
            (first_actions[step] if step < len(first_actions) else act)()
            now = state(annotator)
            if now != states[at]:
                states, at, done = [*states[: at + 1], now], at + 1, done + 1
    while at:
        layer.undo()
        at -= 1
        assert state(annotator) == states[at]
    layer.undo()
    assert state(annotator) == states[0]
    for expected in states[1:]:
        layer.redo()
        assert state(annotator) == expected
    assert in_step(annotator, qtbot)
    assert done > 15
    assert {*TOOLS} - {"fill"} <= tools_done
