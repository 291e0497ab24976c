"""Compare a whole segmentation with its truth, piece by piece: arrays may exceed the memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import BACKGROUND, UNLABELLED
from napari_unet3d.data.conventions import (
    Convention,
    is_annotation,
    on_single_slices,
    read_convention,
)
from napari_unet3d.data.ledger import find_painted_slices
from napari_unet3d.data.slices import (
    SliceRef,
    at_time,
    check_in_stack,
    count_labels,
    n_times,
    space,
)
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import ClassScore
from napari_unet3d.prediction.scores import Overlap

TruthKind = Literal["dense", "slices", "sparse"]
"""dense: 0 is background. slices: 0 is background on slices with paint, other slices do not count.
sparse: an annotation, in which 0 does not count and 1 is background."""

PIECE_VOXELS = 2**22
"""Voxels that are compared at once: 4 MB of labels, 40 MB with the temporary arrays."""
_CLASSES_LISTED = 8
"""Numbers of classes that a message lists before it ends in "…", so that it stays a line long."""


@dataclass(frozen=True)
class Comparison:
    """Scores of a segmentation.

    Attributes
    ----------
    kind
        How the truth was read.
    scores
        One for each class that occurs in the segmentation or in the truth.
    notes
        Sentences that the user should read.
    """

    kind: TruthKind
    scores: tuple[ClassScore, ...]
    notes: tuple[str, ...] = ()


def compare(
    predicted: Any,
    truth: Any,
    kind: TruthKind = "dense",
    skip: Sequence[SliceRef] = (),
    *,
    piece_voxels: int = PIECE_VOXELS,
) -> Comparison:
    """Score a segmentation by its truth.

    Parameters
    ----------
    predicted
        Integers, ZYX or TZYX; in memory, zarr or dask. 0 is background.
    truth
        Of the same shape.
    kind
        What 0 and 1 mean in the truth.
    skip
        Slices that do not count.
    piece_voxels
        Voxels that are compared at once; more where one chunk of a file or one row has more.

    Raises
    ------
    BadInputError
        The shapes differ, a skipped slice is not in the stack, nothing is labelled, or the two
        have no class in common.
    """
    check_shapes(predicted, truth)
    for ref in skip:
        check_in_stack(truth, ref, f"--skip {ref}")
    painted = _painted(truth) if kind == "slices" else None
    overlap = Overlap()
    have: set[int] = set()
    want: set[int] = set()
    for time, box in _pieces(predicted, truth, piece_voxels):
        where = at_time(truth, time, tuple(slice(a, b) for a, b in box))
        p, t = np.asarray(predicted[where]), np.asarray(truth[where])
        mask = _counted(t, kind, time, box, painted, skip)
        if kind == "sparse":
            t = np.where(t == BACKGROUND, UNLABELLED, t)
        have |= count_labels(p).keys()
        want |= count_labels(t).keys()
        overlap.add(p, t, mask)
    notes = _check_classes(have, want, kind)
    # A class that occurs only on slices that do not count has a row without a score.
    return Comparison(kind, overlap.scores(sorted(have | want)), notes)


def guess_kind(predicted: Convention, truth: Convention) -> tuple[TruthKind, str]:
    """Guess how a truth is to be read.

    Without a reason for something else it is dense: then every voxel counts, which flatters
    nobody. Slices without paint are left out only where the paint is on single slices.

    Parameters
    ----------
    predicted, truth
        What was counted in the segmentation and in the truth.

    Returns
    -------
    TruthKind, str
        The kind; and a sentence that says what was assumed and how to choose another kind, which
        is empty where there is no doubt.

    Raises
    ------
    BadInputError
        The segmentation is an annotation, and the truth is not one.
    """
    ours = BACKGROUND not in predicted.counts and is_annotation(truth)
    if BACKGROUND not in truth.counts and truth.counts and is_annotation(predicted):
        raise BadInputError(
            "The prediction looks like an annotation (1 is background in it), and the truth does "
            "not: are the two swapped? The prediction comes first. (--labels dense compares them "
            "as they are.)"
        )
    if ours:
        return "sparse", (
            "The truth is read as an annotation: 1 is background, and 0 (unlabelled) does not "
            "count. Say --labels dense where 0 is background and 1 a class."
        )
    if on_single_slices(truth):
        return "slices", (
            f"The truth is painted on {truth.painted_slices} of {truth.n_slices} slices: only "
            "slices with paint count, and 0 is background there. Say --labels dense to count all, "
            "--labels sparse to count painted voxels only."
        )
    texts = []
    empty = truth.n_slices - truth.painted_slices
    if empty or (BACKGROUND in truth.counts and BACKGROUND not in predicted.counts):
        rest = f", {empty} of them without paint" if empty else ""
        texts.append(
            f"0 is read as background on all {truth.n_slices} slices of the truth{rest}. Say "
            "--labels slices to count slices with paint only, --labels sparse where 0 is "
            "unlabelled."
        )
    if on_single_slices(predicted) and truth.counts:
        texts.append(
            f"The prediction has classes on {predicted.painted_slices} of {predicted.n_slices} "
            "slices: are the two swapped? The prediction comes first."
        )
    return "dense", " ".join(texts)


def check_shapes(predicted: Any, truth: Any) -> None:
    """Raise BadInputError unless two arrays have the same shape."""
    if tuple(predicted.shape) != tuple(truth.shape):
        raise BadInputError(
            f"the prediction has shape {tuple(predicted.shape)}, the truth "
            f"{tuple(truth.shape)}: give two arrays of the same stack"
        )


def _painted(truth: Any) -> list[SliceRef]:
    """Slices with paint: xy slices where whole volumes are painted, else of any orientation."""
    convention = read_convention(truth)
    if not convention.is_solid:
        return [row.ref for row in find_painted_slices(truth)]
    return [SliceRef(0, int(z), int(time)) for time, z in np.argwhere(convention.painted)]


def _check_classes(have: set[int], want: set[int], kind: TruthKind) -> tuple[str, ...]:
    if not want and kind != "dense":
        raise BadInputError(
            "The truth has no class in it, so there is nothing to compare with: paint a class, or "
            "say --labels dense where 0 is background."
        )
    if have and want and not have & want:
        raise BadInputError(
            f"the prediction holds the classes {_listed(have)}, the truth {_listed(want)}: number "
            "them alike (classes of a prediction keep the numbers of the annotation, 2…)"
        )
    if have == want:
        return ()
    hint = "" if kind == "sparse" else " 1 is background in an annotation only (--labels sparse)."
    return (
        f"The prediction holds the classes {_listed(have)}, the truth {_listed(want)}: are they "
        f"numbered alike?{hint}",
    )


def _listed(values: Iterable[int]) -> str:
    ordered = sorted(values)
    more = ", …" if len(ordered) > _CLASSES_LISTED else ""
    return f"[{', '.join(str(v) for v in ordered[:_CLASSES_LISTED])}{more}]"


_Range = tuple[int, int]


def _counted(
    truth: np.ndarray,
    kind: TruthKind,
    time: int,
    box: Sequence[_Range],
    painted: Sequence[SliceRef] | None,
    skip: Sequence[SliceRef],
) -> NDArray[np.bool_] | None:
    """Mask of the voxels of a piece that count; None when all do."""
    mask: NDArray[np.bool_] | None = truth != UNLABELLED if kind == "sparse" else None
    if painted is not None:
        mask = np.zeros(truth.shape, bool)
        for plane in _planes(painted, time, box):
            mask[plane] = True
    for plane in _planes(skip, time, box):
        mask = np.ones(truth.shape, bool) if mask is None else mask
        mask[plane] = False
    return mask


def _planes(
    slices: Sequence[SliceRef], time: int, box: Sequence[_Range]
) -> Iterator[tuple[Any, ...]]:
    """Index in the array of a piece, for every slice that crosses the piece."""
    for ref in slices:
        start, stop = box[ref.axis]
        if ref.time == time and start <= ref.index < stop:
            yield (*(slice(None),) * ref.axis, ref.index - start)


def _pieces(
    predicted: Any, truth: Any, most_voxels: int
) -> Iterator[tuple[int, tuple[_Range, ...]]]:
    """Time points and boxes (z, y, x) that cover a stack; no chunk of a zarr lies in two boxes."""
    shape = space(truth)
    step = [1, 1, shape[2]]
    chunks = [c for c in (_chunk(predicted), _chunk(truth)) if c is not None]
    if chunks:
        step = [min(max(sizes), n) for *sizes, n in zip(*chunks, shape, strict=True)]
    for axis in (2, 1, 0):
        more = max(1, most_voxels // prod(step))
        step[axis] = min(step[axis] * more, shape[axis])
    ranges = [
        [(a, min(a + s, n)) for a in range(0, n, max(1, s))]
        for s, n in zip(step, shape, strict=True)
    ]
    for time in range(n_times(truth)):
        for box in product(*ranges):
            yield time, box


def _chunk(array: Any) -> tuple[int, ...] | None:
    """Chunk along z, y, x of a zarr; None for other arrays."""
    chunks = getattr(array, "chunks", None)
    if not chunks:
        return None
    return tuple(int(c if isinstance(c, int) else max(c)) for c in chunks[-3:])
