"""A segmentation against its truth: the right voxels count, and a few planes of memory do."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import zarr
from scipy.ndimage import gaussian_filter

from napari_unet3d.data.conventions import read_convention
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.errors import BadInputError
from napari_unet3d.prediction.comparison import PIECE_VOXELS, compare, guess_kind

SHAPE = (20, 40, 44)


def truth(seed: int = 0) -> np.ndarray:
    """Blobs of the classes 2 and 3."""
    smooth = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 3)
    low, high = np.quantile(smooth, [0.15, 0.8])
    return np.where(smooth > high, 2, np.where(smooth < low, 3, 0)).astype(np.uint8)


def worse(labels: np.ndarray) -> np.ndarray:
    """A prediction that is wrong in places, also where the truth is empty."""
    wrong = np.random.default_rng(5).random(labels.shape) < 0.1
    return np.where(wrong, np.roll(labels, 3, -1), labels)


TRUTH = truth()
PREDICTED = worse(TRUTH)
ONE_SLICE = np.where(np.arange(20)[:, None, None] == 7, TRUTH, 0)
SCRIBBLES = np.where(np.random.default_rng(1).random(SHAPE) < 0.02, np.maximum(TRUTH, 1), 0)
COMPLETE = np.where(np.isin(np.arange(20), (3, 9))[:, None, None], np.maximum(TRUTH, 1), 0)


def by_hand(predicted, true, counted=None) -> dict[int, tuple]:
    """IoU, Dice and voxels of each class, over whole arrays."""
    counted = np.ones(true.shape, bool) if counted is None else counted
    by_class = {}
    for value in sorted({*np.unique(predicted), *np.unique(true)} - {0}):
        p, t = (predicted == value) & counted, (true == value) & counted
        both, either = (p & t).sum(), (p | t).sum()
        by_class[int(value)] = (
            (both / either, 2 * both / (p.sum() + t.sum()), t.sum()) if either else (None, None, 0)
        )
    return by_class


def scores(*arguments, **more) -> dict[int, tuple]:
    return {s.value: (s.iou, s.dice, s.voxels) for s in compare(*arguments, **more).scores}


def guessed(predicted, true) -> tuple[str, str]:
    return guess_kind(read_convention(predicted), read_convention(true))


@pytest.mark.parametrize("piece", [1, 500, 2**22])
@pytest.mark.parametrize("chunks", [None, (3, 17, 44), (20, 8, 8)])
def test_scores_do_not_depend_on_how_the_arrays_are_read(piece, chunks) -> None:
    if piece == 1 and chunks is None:
        piece = 44  # no less than a row
    skip = [SliceRef(0, 4), SliceRef(2, 30)]
    counted = np.ones(SHAPE, bool)
    counted[4] = counted[:, :, 30] = False
    true = TRUTH if chunks is None else zarr.array(TRUTH, chunks=chunks)
    assert scores(PREDICTED, true, piece_voxels=piece) == by_hand(PREDICTED, TRUTH)
    skipped = scores(PREDICTED, true, skip=skip, piece_voxels=piece)
    assert skipped == by_hand(PREDICTED, TRUTH, counted)


def test_time_series() -> None:
    predicted, true = np.stack([PREDICTED, TRUTH]), np.stack([TRUTH, TRUTH])
    assert scores(predicted, true) == by_hand(predicted, true)
    counted = np.ones(true.shape, bool)
    counted[0, 2] = False
    skip = [SliceRef(0, 2, 0)]
    assert scores(predicted, true, skip=skip) == by_hand(predicted, true, counted)


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.int8])
def test_other_number_formats(dtype) -> None:
    assert scores(PREDICTED.astype(dtype), TRUTH) == by_hand(PREDICTED, TRUTH)


def test_a_class_that_is_only_on_skipped_slices_has_no_score() -> None:
    predicted, true = PREDICTED.copy(), TRUTH.copy()
    predicted[4, 0, 0] = true[4, 0, 0] = 9
    by_class = scores(predicted, true, skip=[SliceRef(0, 4)])
    assert by_class[9] == (None, None, 0)


def test_memory_is_that_of_a_few_planes() -> None:
    shape = (64, 512, 512)
    true = zarr.create_array({}, shape=shape, chunks=(8, 128, 512), dtype="uint8")
    true[10:20, 100:200, 100:200] = 2
    tracemalloc.start()
    try:
        (score,) = compare(true, true).scores
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert score.iou == 1
    assert np.prod(shape) > 2 * PIECE_VOXELS, "small enough to be read at once"
    assert peak < 20 * PIECE_VOXELS


# --- what the truth is taken for ------------------------------------------------------------


def test_a_dense_truth_counts_every_voxel_and_needs_no_word() -> None:
    assert guessed(PREDICTED, TRUTH) == ("dense", "")


def test_empty_slices_of_a_dense_truth_count() -> None:
    """An object in a part of the stack: false alarms elsewhere must not be overlooked."""
    part = TRUTH.copy()
    part[:6] = part[12:] = 0
    kind, text = guessed(PREDICTED, part)
    assert kind == "dense"
    assert "14 of them without paint" in text
    assert "--labels slices" in text


def test_slices_that_nobody_painted_do_not_count() -> None:
    kind, text = guessed(PREDICTED, ONE_SLICE)
    assert kind == "slices"
    assert "1 of 20 slices" in text
    by_class = scores(PREDICTED, ONE_SLICE, "slices")
    assert by_class == by_hand(PREDICTED[7], TRUTH[7])
    assert by_class[2][0] > 5 * scores(PREDICTED, ONE_SLICE, "dense")[2][0], "empty slices count"


def test_slices_of_any_orientation() -> None:
    true = np.zeros_like(TRUTH)
    true[:, 11] = TRUTH[:, 11]
    assert scores(PREDICTED, true, "slices") == by_hand(PREDICTED[:, 11], TRUTH[:, 11])


@pytest.mark.parametrize("true", [SCRIBBLES, COMPLETE, np.maximum(TRUTH, 1)])
def test_a_painted_background_is_no_class(true) -> None:
    kind, text = guessed(PREDICTED, true)
    assert kind == "sparse"
    assert "1 is background" in text
    assert "--labels dense" in text
    assert scores(PREDICTED, true, kind) == by_hand(
        PREDICTED, np.where(true == 1, 0, true), true > 0
    )
    assert 1 in scores(PREDICTED, true, "dense"), "halves the mean when it is taken for a class"


def test_class_1_that_is_predicted_is_a_class() -> None:
    theirs = [np.where(a > 0, a - 1, 0) for a in (PREDICTED, TRUTH, ONE_SLICE)]
    assert guessed(theirs[0], theirs[1]) == ("dense", "")
    assert guessed(theirs[0], theirs[2])[0] == "slices"


def test_class_1_that_a_poor_model_never_predicts_counts_against_it() -> None:
    theirs = np.where(TRUTH > 0, TRUTH - 1, 0)
    kind, text = guessed(np.where(theirs == 1, 0, theirs), theirs)
    assert kind == "dense"
    assert "--labels sparse" in text


def test_swapped_files() -> None:
    with pytest.raises(BadInputError, match="are the two swapped"):
        guessed(COMPLETE, TRUTH)
    kind, text = guessed(ONE_SLICE, TRUTH)
    assert kind == "dense"
    assert "are the two swapped?" in text


def test_nothing_to_compare_with() -> None:
    with pytest.raises(BadInputError, match="no class"):
        compare(PREDICTED, np.ones_like(TRUTH), "sparse")
    with pytest.raises(BadInputError, match=r"\[2, 3\].*\[7\]"):
        compare(PREDICTED, np.where(TRUTH > 0, 7, 0))
    with pytest.raises(BadInputError, match="shape"):
        compare(PREDICTED, TRUTH[1:])


def test_other_numbers_are_noted() -> None:
    (note,) = compare(PREDICTED, np.where(TRUTH == 3, 0, TRUTH)).notes
    assert "[2, 3]" in note
    assert "numbered alike?" in note
    assert compare(PREDICTED, TRUTH).notes == ()
