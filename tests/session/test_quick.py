"""The quick answer: learned from strokes, on the slice in view."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_unet3d.config import default_class
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.session import quick, squares
from napari_unet3d.session.quick import Answer, Question, QuickAnswer
from napari_unet3d.session.squares import SquareFeatures

CLASSES = (default_class(2), default_class(3))
SHAPE = (12, 60, 70)
Z = SliceRef(0, 6)


@pytest.fixture(autouse=True)
def small_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six squares in a slice of 60 × 70, so that a small stack has several."""
    for module in (quick, squares):
        monkeypatch.setattr(module, "SIDE", 32)


@pytest.fixture
def truth() -> np.ndarray:
    """A bright and a dark bar, 2 and 3, along all of z."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 8:24] = 2
    labels[:, 36:52] = 3
    return labels


@pytest.fixture
def volume(truth: np.ndarray) -> Volume:
    gray = np.array([100, 0, 200, 20])[truth] + np.random.default_rng(0).normal(0, 10, SHAPE)
    return Volume(gray.astype(np.float32), "ZYX")


def strokes(truth: np.ndarray, *columns: slice, ref: SliceRef = Z) -> np.ndarray:
    """The truth on some columns of a slice."""
    plane = np.take(truth, ref.index, ref.axis)
    labels = np.zeros_like(plane)
    for part in columns:
        labels[:, part] = np.maximum(plane[:, part], 1)
    return labels


def ask(question: dict[str, Any], answerer: QuickAnswer, **more: Any) -> Answer:
    defaults: dict[str, Any] = {
        "ref": Z,
        "field": ((0, 0), (60, 70)),
        "focus": (30, 30),
        "painted": frozenset({Z}),
        "changed": {},
        "held_out": frozenset(),
        "classes": CLASSES,
    }
    return answerer.answer(Question(**defaults | question), 60.0, **more)


def assembled(answer: Answer, shape: tuple[int, int] = (60, 70)) -> np.ndarray:
    labels = np.full(shape, 99, np.uint8)
    for (row, column), part in answer.parts:
        labels[row : row + part.shape[0], column : column + part.shape[1]] = part
    return labels


@pytest.fixture
def enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits as long as in the product; other tests need no good answer."""
    monkeypatch.setattr(quick, "_FIRST", quick.Schedule(100, 0.1))


@pytest.mark.usefixtures("enough")
def test_two_strokes_classify_the_slice_in_view(volume: Volume, truth: np.ndarray) -> None:
    answerer = QuickAnswer(volume)
    answer = ask({"changed": {Z: strokes(truth, slice(10, 14))}}, answerer)
    assert answer.complete and not answer.problem
    assert (assembled(answer) == truth[6]).mean() > 0.9
    # A slice of another orientation, without any paint on it.
    y = SliceRef(2, 40)
    other = ask({"ref": y, "field": ((0, 0), (12, 60))}, answerer)
    assert (assembled(other, (12, 60)) == truth[:, :, 40]).mean() > 0.9


def test_without_two_classes_it_says_what_to_paint(volume: Volume, truth: np.ndarray) -> None:
    answerer = QuickAnswer(volume)
    only = np.where(truth[6] == 2, 2, 0).astype(np.uint8)
    answer = ask({"changed": {Z: only}}, answerer)
    assert answer.problem.startswith("Paint some of two classes") and not answer.parts
    assert not ask({"changed": {Z: strokes(truth, slice(10, 14))}}, answerer).problem


def test_a_stroke_is_learned_and_nothing_else_is_computed_again(
    volume: Volume, truth: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    answerer = QuickAnswer(volume)
    ask({"changed": {Z: strokes(truth, slice(10, 14))}}, answerer)
    before = ask({}, answerer)
    assert before.parts == () and before.complete  # nothing is new
    monkeypatch.setattr(squares, "filter_bank", None)  # it is not needed again
    after = ask({"changed": {Z: strokes(truth, slice(10, 14), slice(40, 44))}}, answerer)
    assert after.fit == before.fit + 1 and len(after.parts) == 6


def test_removed_paint_and_held_out_slices_are_forgotten(volume: Volume, truth: np.ndarray) -> None:
    answerer = QuickAnswer(volume)
    other = SliceRef(0, 9)
    labels = strokes(truth, slice(10, 14))
    both = {"painted": frozenset({Z, other}), "changed": {Z: labels * (labels == 2), other: labels}}
    assert not ask(both, answerer).problem
    held_out = {"painted": frozenset({Z}), "held_out": frozenset({other})}
    assert ask(held_out, answerer).problem  # class 2 alone is left
    erased = {"changed": {Z: np.zeros_like(labels)}}
    assert ask(erased, answerer).problem


def test_voxels_on_a_held_out_slice_that_crosses_do_not_count(
    volume: Volume, truth: np.ndarray
) -> None:
    answerer = QuickAnswer(volume)
    labels = strokes(truth, slice(10, 11))
    held_out = frozenset({SliceRef(2, 10)})
    assert ask({"changed": {Z: labels}, "held_out": held_out}, answerer).problem
    assert not ask({"changed": {Z: labels}}, answerer).problem


def test_the_focus_comes_first_and_asking_again_completes(
    volume: Volume, truth: np.ndarray
) -> None:
    answerer = QuickAnswer(volume)
    first = {"changed": {Z: strokes(truth, slice(10, 14))}, "focus": (50, 60)}
    ask(first, answerer)
    # New view, no time: one square an answer, the focus first.
    question = Question(
        SliceRef(0, 3), ((0, 0), (60, 70)), (50, 60), frozenset({Z}), {}, frozenset(), CLASSES
    )
    answers = [answerer.answer(question, 0.0) for _ in range(6)]
    assert answers[0].parts[0][0] == (32, 64) or answers[0].parts[0][0] == (32, 32)
    assert [a.complete for a in answers] == [False] * 5 + [True]
    assert len({part[0] for a in answers for part in a.parts}) == 6


def test_an_interruption_ends_it_early(volume: Volume, truth: np.ndarray) -> None:
    answerer = QuickAnswer(volume)
    labels = {"changed": {Z: strokes(truth, slice(10, 14))}}
    answer = ask(labels, answerer, interrupted=lambda: True)
    assert not answer.complete and not answer.parts
    assert ask({}, answerer).complete  # what was new is not lost


def test_another_class_table_begins_anew(volume: Volume, truth: np.ndarray) -> None:
    answerer = QuickAnswer(volume)
    labels = strokes(truth, slice(10, 14))
    ask({"changed": {Z: labels}}, answerer)
    fewer = ask({"classes": CLASSES[:1]}, answerer)
    assert set(np.unique(assembled(fewer))) <= {0, 2}


def test_features_are_kept_within_bounds(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squares, "_CACHE", 3 * 2 * 21 * 32 * 32)
    features = SquareFeatures(volume)
    places = [(0, 0), (0, 1), (1, 0), (1, 2)]
    for place in places:
        features.of(Z, place)
    assert [features.holds(Z, place) for place in places] == [False, True, True, True]
    assert features.of(Z, (1, 2)).shape == (21, 28, 6)
