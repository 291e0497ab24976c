"""Compare a whole segmentation with its truth, piece by piece: arrays may exceed the memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
from napari_unet3d.data.piecewise import PIECE_VOXELS, Range, planes_in, shared_pieces
from napari_unet3d.data.slices import SliceRef, at_time, check_in_stack, count_labels
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import ClassScore
from napari_unet3d.prediction.scores import Overlap

TruthKind = Literal["dense", "slices", "sparse"]
"""dense: 0 is background. slices: 0 is background on slices with paint, other slices do not count.
sparse: an annotation, in which 0 does not count and 1 is background."""

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
    for time, box in shared_pieces(predicted, truth, piece_voxels):
        where = at_time(truth, time, tuple(slice(a, b) for a, b in box))
        p, t = np.asarray(predicted[where]), np.asarray(truth[where])
        mask = _counted(t, kind, time, box, painted, skip)
        if kind == "sparse":
            p, t = (np.where(a == BACKGROUND, UNLABELLED, a) for a in (p, t))
        have |= count_labels(p).keys()
        want |= count_labels(t).keys()
        overlap.add(p, t, mask)
    notes = _check_classes(have, want, kind)
    # A class that occurs only on slices that do not count has a row without a score.
    return Comparison(kind, overlap.scores(sorted(have | want)), notes)


def guess_kind(
    predicted: Convention, truth: Convention, labels: Any = None
) -> tuple[TruthKind, str]:
    """Guess how a truth is to be read.

    Without a reason for something else it is dense: then every voxel counts, which flatters
    nobody. Slices without paint are left out only where the paint is on single slices.

    Parameters
    ----------
    predicted, truth
        What was counted in the segmentation and in the truth.
    labels
        The truth; its xz and yz slices are looked at when it is given.

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
    if labels is not None and not truth.is_solid and (crossing := _crossing(labels)):
        return "slices", (
            f"The truth is painted on {crossing}: only slices with paint count, and 0 is "
            "background there. Say --labels dense to count all, --labels sparse to count painted "
            "voxels only."
        )
    texts = []
    if BACKGROUND in predicted.counts and is_annotation(predicted) and is_annotation(truth):
        texts.append(
            "1 is scored as a class. Say --labels sparse where 1 is background in both files."
        )
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


def _crossing(truth: Any) -> str:
    """Name the slices, such as "y=3, x=9", if all paint is on few slices that cross z; else ""."""
    slices = [row.ref for row in find_painted_slices(truth)]
    counts = Counter(ref.axis for ref in slices)
    if 0 in counts or any(2 * n > truth.shape[axis - 3] for axis, n in counts.items()):
        return ""
    return ", ".join(map(str, slices[:_CLASSES_LISTED])) + ", …" * (len(slices) > _CLASSES_LISTED)


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


def _counted(
    truth: np.ndarray,
    kind: TruthKind,
    time: int,
    box: Sequence[Range],
    painted: Sequence[SliceRef] | None,
    skip: Sequence[SliceRef],
) -> NDArray[np.bool_] | None:
    """Mask of the voxels of a piece that count; None when all do."""
    mask: NDArray[np.bool_] | None = truth != UNLABELLED if kind == "sparse" else None
    if painted is not None:
        mask = np.zeros(truth.shape, bool)
        for plane in planes_in(painted, time, box):
            mask[plane] = True
    for plane in planes_in(skip, time, box):
        mask = np.ones(truth.shape, bool) if mask is None else mask
        mask[plane] = False
    return mask
