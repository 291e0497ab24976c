"""States of slices, and their changes there and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_unet3d.config import default_class
from napari_unet3d.data.edits import SliceEdit
from napari_unet3d.data.ledger import find_painted_slices
from napari_unet3d.data.marks import Marks, MarksChange, slice_state
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef, read_slice
from napari_unet3d.data.state_changes import (
    Change,
    SliceBefore,
    clear,
    complete,
    empty,
    mark,
    revert,
    was_corrected,
)
from napari_unet3d.errors import BadInputError

SHAPE = (6, 8, 10)
Z2, Y3 = SliceRef(0, 2), SliceRef(1, 3)


def labels_with_stroke() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 1:5, 1:5] = 2
    return labels


def write(labels: np.ndarray, change: Change) -> Marks:
    edits, marks = change
    for edit in edits:
        labels[edit.indices(labels.ndim)] = edit.values()
    return marks


def must(change: Change | None) -> Change:
    assert change is not None
    return change


# --- states ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "state", "held_out", "accepted", "expected"),
    [
        ({2: 3}, "partial", False, False, "partial"),
        ({1: 3}, "partial", False, False, "partial"),
        ({1: 70, 2: 10}, "complete", False, False, "complete"),
        ({1: 80}, "complete", False, False, "empty"),
        ({}, "complete", False, False, "empty"),  # all of it belongs to slices that cross it
        ({1: 70, 2: 10}, "complete", False, True, "accepted"),
        ({1: 80}, "complete", False, True, "accepted"),
        ({2: 3}, "partial", False, True, "accepted"),  # corrected with the eraser
        ({1: 70, 2: 10}, "complete", True, True, "held out"),
        ({2: 3}, "partial", True, False, "held out"),
    ],
)
def test_the_state_of_a_slice(counts, state, held_out, accepted, expected) -> None:
    painted = PaintedSlice(Z2, counts, state, 80)
    others = {Y3}
    assert slice_state(
        painted, {Z2} if held_out else others, {Z2: "m"} if accepted else others
    ) == (expected)


# --- changes --------------------------------------------------------------------------------


def test_complete_and_back_leaves_what_she_painted_since() -> None:
    labels = labels_with_stroke()
    before = labels.copy()
    marks = write(labels, complete(labels, Marks(), Z2))
    assert (labels[2] > 0).all() and not labels[[1, 3]].any()
    np.testing.assert_array_equal(labels == 2, before == 2)
    labels[2, 7, 0:4] = 3  # a correction
    marks = write(labels, must(revert(labels, marks, Z2)))
    before[2, 7, 0:4] = 3
    np.testing.assert_array_equal(labels, before)
    assert revert(labels, marks, Z2) is None
    assert complete(np.ones(SHAPE, np.uint8), Marks(), Z2)[0] == []


@pytest.mark.parametrize("ref", [Z2, Y3, SliceRef(2, 9)])
def test_empty_works_where_nothing_is_painted(ref: SliceRef) -> None:
    labels = np.zeros((2, *SHAPE), np.int16)
    ref = SliceRef(ref.axis, ref.index, 1)
    marks = write(labels, empty(labels, Marks(), ref))
    (row,) = find_painted_slices(labels)
    assert slice_state(row, marks.held_out, marks.accepted) == "empty"
    assert row.ref == ref
    write(labels, must(revert(labels, marks, ref)))
    assert not labels.any()


def test_empty_removes_a_stray_dot_but_not_a_complete_slice_that_crosses() -> None:
    labels = labels_with_stroke()
    labels[:, 3] = 2
    marks = write(labels, empty(labels, Marks(), Z2, [Y3]))
    assert (labels[:, 3] == 2).all()
    assert (np.delete(labels[2], 3, 0) == 1).all()
    write(labels, must(revert(labels, marks, Z2, [Y3])))
    expected = labels_with_stroke()
    expected[:, 3] = 2
    np.testing.assert_array_equal(labels, expected)


def test_clear_removes_paint_and_marks() -> None:
    labels = labels_with_stroke()
    marks = write(labels, complete(labels, Marks(), Z2))
    marks = write(labels, mark(labels, marks, [], held_out=frozenset({Z2, Y3})))
    marks = write(labels, clear(labels, marks, Z2))
    assert not labels.any()
    assert marks.held_out == {Y3}
    assert set(marks.before) == {Y3}


def test_reverting_goes_back_one_change_at_a_time() -> None:
    labels = labels_with_stroke()
    painted = labels.copy()
    marks = write(labels, complete(labels, Marks(), Z2))
    filled = labels.copy()
    marks = write(labels, mark(labels, marks, [], held_out=frozenset({Z2})))
    marks = write(labels, must(revert(labels, marks, Z2)))
    assert not marks.held_out
    np.testing.assert_array_equal(labels, filled)
    marks = write(labels, must(revert(labels, marks, Z2)))
    np.testing.assert_array_equal(labels, painted)
    assert marks == Marks()


def test_training_on_a_slice_again_is_what_reverting_would_do() -> None:
    labels = labels_with_stroke()
    _, marks = mark(labels, Marks(), [], held_out=frozenset({Z2}))
    _, marks = mark(labels, marks, [], held_out=frozenset())
    assert marks == Marks()


def test_an_accepted_slice_can_be_corrected_and_reverted() -> None:
    labels = labels_with_stroke()
    painted = labels.copy()
    prediction = np.ones(SHAPE[1:], np.uint8)
    prediction[4:7, 4:7] = 3
    edit = SliceEdit.between(Z2, labels[2], prediction)
    assert edit is not None
    marks = write(labels, mark(labels, Marks(), [edit], accepted={Z2: "model A"}))
    np.testing.assert_array_equal(labels[2], prediction)
    assert not was_corrected(labels, marks, Z2)
    labels[2, 0, 0] = 2
    assert was_corrected(labels, marks, Z2)
    marks = write(labels, mark(labels, marks, [], accepted={Z2: "model B"}))
    assert not was_corrected(labels, marks, Z2)
    marks = write(labels, must(revert(labels, marks, Z2)))
    assert marks.accepted == {Z2: "model A"}
    marks = write(labels, must(revert(labels, marks, Z2)))
    np.testing.assert_array_equal(labels, painted)
    assert marks == Marks()


@pytest.mark.parametrize("ref", [SliceRef(0, 6), SliceRef(2, -1), SliceRef(0, 0, 1)])
def test_a_slice_outside_is_refused(ref: SliceRef) -> None:
    for change in (complete, empty, clear):
        with pytest.raises(BadInputError, match="outside of the"):
            change(np.zeros(SHAPE, np.uint8), Marks(), ref)


# --- marks ----------------------------------------------------------------------------------


def test_a_change_of_marks_leaves_what_others_changed() -> None:
    one = Marks((default_class(2),), frozenset({Z2}), {Y3: "m"}, {})
    two = Marks((default_class(2, "renamed"), default_class(3)), frozenset(), {Y3: "m"}, {})
    change = MarksChange.between(one, two)
    other = Marks((default_class(2), default_class(4)), frozenset({Z2, Y3}), {}, {})
    after = change.apply(other)
    assert [(c.value, c.name) for c in after.classes] == [
        (2, "renamed"),
        (3, "class 3"),
        (4, "class 4"),
    ]
    assert after.held_out == {Y3} and after.accepted == {}
    assert change.apply(after, undone=True) == other
    assert not MarksChange.between(one, one)


def test_the_earlier_state_is_json() -> None:
    labels = np.arange(12, dtype=np.int16).reshape(3, 4) - 3
    entry = json.loads(json.dumps(SliceBefore("accepted", labels, 7, "model A").to_json()))
    read = SliceBefore.from_json(entry)
    np.testing.assert_array_equal(read.labels, labels)
    assert read.labels is not None and read.labels.dtype == np.int16
    assert (read.change, read.checksum, read.source) == ("accepted", 7, "model A")
    assert SliceBefore.from_json(SliceBefore("held out").to_json()).labels is None


@pytest.mark.parametrize("broken", [{}, {"change": "x"}, {"change": "empty", "labels": "?"}])
def test_a_broken_earlier_state_is_an_error(broken: dict[str, str]) -> None:
    with pytest.raises(BadInputError, match="earlier state"):
        revert(np.zeros(SHAPE, np.uint8), Marks(before={Z2: (broken,)}), Z2)


def test_edits_as_boxes_are_the_same_as_with_indices() -> None:
    rng = np.random.default_rng(0)
    for ref in (SliceRef(0, 2, 1), SliceRef(1, 3, 1), SliceRef(2, 4, 0)):
        first = rng.integers(0, 4, (2, *SHAPE)).astype(np.uint8)
        plane = read_slice(first, ref)
        edit = SliceEdit.between(ref, plane, rng.integers(0, 4, plane.shape).astype(np.uint8))
        assert edit is not None
        second = first.copy()
        first[edit.indices(4)] = edit.values()
        box, mask, values = edit.in_box(4)
        second[box][mask] = values
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(read_slice(first, ref), edit.on(plane))
