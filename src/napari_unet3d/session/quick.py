"""A quick answer while painting: the pixel classifier, fitted anew after each stroke.

No training runs: features are computed where something is painted or shown, and kept, so that a
stroke only costs a short fit and the classification of what is in view.
"""

from __future__ import annotations

import time as clock
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.config import BACKGROUND, UNLABELLED, ClassInfo
from napari_unet3d.data.slices import SliceRef, plane_index
from napari_unet3d.data.volume import Volume
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.pixels.fit import Schedule, fit_classifier
from napari_unet3d.session.squares import SIDE, Square, SquareFeatures, distance, span, squares_of

_FIRST = Schedule(iterations=120, dropout=0.2)
"""The first fit. On one core, an iteration takes 2 to 5 ms."""
_AGAIN = Schedule(iterations=40, dropout=0.2)
"""A fit that goes on from the last one, after a stroke."""
_GROWN = 3.0
"""Ratio. With so many times as many voxels as at the first fit, the features have other means and
deviations, and the next fit begins anew."""
_FROM_SQUARE = 2000
"""Labelled voxels that a square gives."""
_SQUARES_OF_SLICE = 6
"""Squares of a slice that are learned from, those with most paint: a complete slice of 2048² has
64, whose features take 6 s."""
_MOST_SQUARES = 120
"""Squares that are learned from in all, evenly from all slices: 20 MB of features."""
_MOST_IN_VIEW = 64
"""Squares that are answered of a view, the nearest to the focus: a whole slice of 2048². A larger
one is answered around the focus."""
_CHUNK = 1 << 15
"""Voxels that are classified at once; their hidden units, 8 MiB, stay in the cache."""


@dataclass(frozen=True, eq=False)
class Question:
    """What is to be answered, and what is new.

    Attributes
    ----------
    ref
        The slice in view.
    field
        First row and column in view, and one past the last.
    focus
        Row and column where the user is; this is answered first.
    painted
        The slices to learn from: painted, and not held out.
    changed
        Labels (2D, uint8) of those slices that have changed since the last question.
    held_out
        The slices to measure on. Their voxels count on no other slice.
    classes
        The class table.
    """

    ref: SliceRef
    field: tuple[tuple[int, int], tuple[int, int]]
    focus: tuple[int, int]
    painted: frozenset[SliceRef]
    changed: Mapping[SliceRef, NDArray[np.uint8]]
    held_out: frozenset[SliceRef]
    classes: tuple[ClassInfo, ...]


@dataclass(frozen=True, eq=False)
class Answer:
    """Labels of parts of the slice in view.

    Attributes
    ----------
    ref
        The slice.
    parts
        Row and column of the first voxel of each part, and its labels (2D, uint8): 0 background,
        2… classes.
    complete
        Whether all that is in view was answered, by all that is painted. If not, asking again
        goes on.
    fit
        Number of the fit that answered; parts of an older fit are out of date.
    problem
        Why there is no answer; "" if there is one.
    """

    ref: SliceRef
    parts: tuple[tuple[tuple[int, int], NDArray[np.uint8]], ...] = ()
    complete: bool = True
    fit: int = 0
    problem: str = ""


@dataclass(frozen=True, eq=False)
class _Sample:
    """Labelled voxels of a square."""

    mark: int
    """A checksum of the labels that it was made of."""
    features: Tensor
    labels: NDArray[np.uint8]


@dataclass(eq=False)
class _Slice:
    """What is learned from one slice."""

    labels: NDArray[np.uint8] | None = None
    """New labels that wait to be looked at."""
    samples: dict[Square, _Sample] = field(default_factory=dict)


class QuickAnswer:
    """Learns from the painted voxels of one image, and answers on the slice in view.

    It is used by one thread at a time. Its memory is bounded: it keeps the features of the squares
    that were last in use, and of some labelled voxels.

    Parameters
    ----------
    volume
        The image, in memory or not; what is read of it lies around the paint and the view.
    seed
        Of the weights, and of the choice of voxels.
    """

    def __init__(self, volume: Volume, seed: int = 0) -> None:
        self._volume, self._seed = volume, seed
        self._features = SquareFeatures(volume)
        self._slices: dict[SliceRef, _Slice] = {}
        self._classifier: PixelClassifier | None = None
        self._fitted_voxels = 0
        self._values: tuple[int, ...] = ()
        self._fit_number = 0
        self._is_fitted = False
        self._answered: set[tuple[SliceRef, Square]] = set()

    def answer(
        self,
        question: Question,
        seconds: float = 0.4,
        interrupted: Callable[[], bool] = lambda: False,
    ) -> Answer:
        """Learn from what is new, and answer as much of the view as the time allows.

        Parameters
        ----------
        question
            What is in view, and what is new. The labels that it brings are not changed.
        seconds
            Time for features; at least one square is answered. The fit comes on top.
        interrupted
            Asked between steps of at most 0.2 s; when True, the answer is incomplete.

        Raises
        ------
        RunFailedError
            The image cannot be read.
        """
        end = clock.monotonic() + seconds
        self._take_in(question)
        every = self._learn(question, lambda: clock.monotonic() > end or interrupted())
        if interrupted():
            return Answer(question.ref, complete=False, fit=self._fit_number)
        if problem := self._fit(question.classes, interrupted):
            return Answer(question.ref, problem=problem)
        parts: list[tuple[tuple[int, int], NDArray[np.uint8]]] = []
        for square in self._in_view(question):
            if interrupted() or (parts and clock.monotonic() > end):
                every = False
                break
            parts.append(self._classify(question.ref, square))
            self._answered.add((question.ref, square))
        return Answer(question.ref, tuple(parts), every, self._fit_number)

    # ---- learning

    def _take_in(self, question: Question) -> None:
        values = tuple(c.value for c in question.classes)
        if values != self._values:
            self._values, self._classifier, self._is_fitted = values, None, False
        for ref in [r for r in self._slices if r not in question.painted]:
            del self._slices[ref]
            self._is_fitted = False
        for ref, labels in question.changed.items():
            if ref in question.painted:
                known = self._slices.setdefault(ref, _Slice())
                known.labels = _without(labels, ref, question.held_out)

    def _learn(self, question: Question, late: Callable[[], bool]) -> bool:
        """Look at the slices that changed; returns whether all of them were looked at."""
        shown = question.ref
        waiting = [ref for ref, known in self._slices.items() if known.labels is not None]
        for ref in sorted(waiting, key=lambda r: (r != shown, r)):
            focus = question.focus if ref == shown else None
            for number, _ in enumerate(self._sample(ref, focus)):
                # One new square each time, so that asking again comes to an end.
                if number and late():
                    return False
        return True

    def _sample(self, ref: SliceRef, focus: tuple[int, int] | None) -> Iterator[None]:
        """Take samples from the squares of a slice that changed; yields after each new one."""
        known = self._slices[ref]
        labels = known.labels
        assert labels is not None
        for square in self._chosen(ref, labels, focus):
            part = labels[span(square, 0), span(square, 1)]
            mark = zlib.crc32(part.tobytes())
            old = known.samples.get(square)
            if old is not None and old.mark == mark:
                continue
            if not part.any():
                if known.samples.pop(square, None) is not None:
                    self._is_fitted = False
                continue
            # The choice depends on the place alone: a stroke adds voxels, and moves none.
            rng = np.random.default_rng([self._seed, *square])
            order = rng.permutation(part.size)
            order = order[part.ravel()[order] != UNLABELLED]
            voxels = np.sort(order[_first_of_each(part.ravel()[order], _FROM_SQUARE)])
            features = self._features.of(ref, square).flatten(1)[:, torch.from_numpy(voxels)]
            known.samples[square] = _Sample(mark, features.float().T.clone(), part.ravel()[voxels])
            self._is_fitted = False
            yield
        known.labels = None

    def _chosen(
        self, ref: SliceRef, labels: NDArray[np.uint8], focus: tuple[int, int] | None
    ) -> list[Square]:
        """The squares of a slice to look at: known ones, the one in focus, those with paint."""
        known = self._slices[ref].samples
        counts = {
            square: int(np.count_nonzero(labels[span(square, 0), span(square, 1)]))
            for square in squares_of(labels.shape)
        }
        new = sorted((s for s in counts if counts[s] and s not in known), key=lambda s: -counts[s])
        most = max(1, min(_SQUARES_OF_SLICE, _MOST_SQUARES // max(len(self._slices), 1)))
        for square in list(known)[: max(0, len(known) - most)]:
            del known[square]  # the oldest
        room = most - len(known)
        if focus is not None:
            new.sort(key=lambda s: distance(s, focus) > SIDE)
            if new and distance(new[0], focus) <= SIDE:
                room = max(room, 1)  # what was painted last must count
        return [*known, *new[:room]]

    def _fit(self, classes: Sequence[ClassInfo], interrupted: Callable[[], bool]) -> str:
        """Fit the classifier, if there is something new; returns why that is impossible, or ""."""
        samples = [s for known in self._slices.values() for s in known.samples.values()]
        numbers = {BACKGROUND: 0} | {c.value: i for i, c in enumerate(classes, start=1)}
        table = np.full(256, -1, np.int64)
        for value, number in numbers.items():
            table[value] = number
        target = table[np.concatenate([s.labels for s in samples])] if samples else table[:0]
        kept = target >= 0
        if len(np.unique(target[kept])) < 2:
            self._is_fitted = False
            return "Paint some of two classes, or of a class and background."
        if self._is_fitted:
            return ""
        features = torch.cat([s.features for s in samples])[torch.from_numpy(kept)]
        targets = torch.from_numpy(target[kept])
        start = self._classifier
        if start is not None and len(targets) > _GROWN * self._fitted_voxels:
            start = None
        fitted = fit_classifier(
            self._volume.n_channels,
            len(classes) + 1,
            self._seed + self._fit_number,
            _FIRST if start is None else _AGAIN,
            interrupted,
            features,
            targets,
            start,
        )
        if start is None:
            self._fitted_voxels = len(targets)
        self._classifier, self._is_fitted = fitted, not interrupted()
        self._fit_number += 1
        self._answered.clear()
        return ""

    # ---- answering

    def _in_view(self, question: Question) -> list[Square]:
        """Squares in view that the present classifier has not answered, the focus first."""
        (top, left), (bottom, right) = question.field
        rows = range(top // SIDE, -(-bottom // SIDE))
        columns = range(left // SIDE, -(-right // SIDE))
        shown = [(row, column) for row in rows for column in columns]
        near = sorted(shown, key=lambda s: distance(s, question.focus))[:_MOST_IN_VIEW]
        waiting = [s for s in near if (question.ref, s) not in self._answered]
        return sorted(waiting, key=lambda s: not self._features.holds(question.ref, s))

    def _classify(self, ref: SliceRef, square: Square) -> tuple[tuple[int, int], NDArray[np.uint8]]:
        assert self._classifier is not None
        features = self._features.of(ref, square)
        with torch.inference_mode():
            outputs = [
                self._classifier(part.float().T).argmax(1)
                for part in features.flatten(1).split(_CHUNK, 1)
            ]
        table = np.array([0, *self._values], np.uint8)
        labels = table[torch.cat(outputs).numpy()].reshape(features.shape[1:])
        return (square[0] * SIDE, square[1] * SIDE), labels


def _without(
    labels: NDArray[np.uint8], ref: SliceRef, held_out: frozenset[SliceRef]
) -> NDArray[np.uint8]:
    """Labels of a slice, 0 where a held-out slice crosses it."""
    crossing = [r for r in held_out if r.axis != ref.axis and r.time == ref.time]
    if not crossing:
        return labels
    labels = labels.copy()
    for other in crossing:
        labels[plane_index(other.axis - (other.axis > ref.axis), other.index)] = UNLABELLED
    return labels


def _first_of_each(values: NDArray[np.uint8], most: int) -> NDArray[np.intp]:
    """Positions of at most so many values, in turn one of each, so that rare ones are kept."""
    if len(values) <= most:
        return np.arange(len(values))
    turn = np.empty(len(values), np.intp)
    for value in np.unique(values):
        where = np.flatnonzero(values == value)
        turn[where] = np.arange(len(where))
    return np.argsort(turn, kind="stable")[:most]
