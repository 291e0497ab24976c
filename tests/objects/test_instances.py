"""Scores of numbered objects, against examples computed by hand and against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from scipy.optimize import linear_sum_assignment
from skimage.metrics import variation_of_information

from napari_unet3d.data.slices import SliceRef
from napari_unet3d.objects.instances import Contingency, compare_instances


def line(*runs: tuple[int, int]) -> np.ndarray:
    """A stack of one row: (number, length) one after the other."""
    return np.concatenate([np.full(n, value) for value, n in runs]).reshape(1, 1, -1)


def counts(scores, iou) -> tuple[int, int, int]:
    (found,) = [f for f in scores.found if f.iou == iou]
    return found.tp, found.fp, found.fn


def test_by_hand() -> None:
    """Object 1 is found with IoU 0.8, object 2 with 0.6; 3 is missed, and 9 is none.

    truth       1111111111 2222222222 33333 .....
    prediction  11111111.. 444444.... ..... 99999
    """
    truth = line((1, 10), (2, 10), (3, 5), (0, 5))
    predicted = line((1, 8), (0, 2), (4, 6), (0, 4), (0, 5), (9, 5))
    scores = compare_instances(predicted, truth)
    assert (scores.predicted, scores.true) == (3, 3)
    assert counts(scores, 0.5) == (2, 1, 1)
    assert counts(scores, 0.75) == (1, 2, 2)
    assert scores.found[0].average_precision == pytest.approx(2 / 4)
    assert scores.found[0].f1 == pytest.approx(4 / 6)
    assert scores.found[1].average_precision == pytest.approx(1 / 5)


def test_a_pair_is_counted_once_at_an_iou_of_one_half() -> None:
    scores = compare_instances(line((1, 8)), line((1, 4), (2, 4)))
    assert counts(scores, 0.5) == (1, 0, 1)


def test_split_and_merge_by_hand() -> None:
    """One object cut into halves costs one bit of split; two objects as one, one bit of merge."""
    halves = compare_instances(line((1, 4), (2, 4)), line((1, 8)))
    assert (halves.split, halves.merge) == pytest.approx((1.0, 0.0))
    merged = compare_instances(line((1, 8)), line((1, 4), (2, 4)))
    assert (merged.split, merged.merge) == pytest.approx((0.0, 1.0))
    perfect = compare_instances(line((3, 5), (0, 2)), line((8, 5), (0, 2)))
    assert (perfect.split, perfect.merge) == (0.0, 0.0)


def random_objects(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = np.zeros((12, 20, 22), np.int64)
    for value in range(1, 40):
        start = rng.integers(0, labels.shape)
        stop = start + rng.integers(2, 8, 3)
        labels[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = value
    return labels


@pytest.mark.parametrize("seed", range(4))
def test_against_brute_force_and_scikit_image(seed) -> None:
    truth = random_objects(seed)
    predicted = np.where(np.random.default_rng(9).random(truth.shape) < 0.2, 0, truth)
    predicted[:, :, 11:] = np.roll(predicted, 1, 1)[:, :, 11:] * 7
    scores = compare_instances(predicted, truth)
    ps, ts = (np.unique(a[a > 0]) for a in (predicted, truth))
    iou = np.array(
        [
            [
                ((predicted == p) & (truth == t)).sum() / ((predicted == p) | (truth == t)).sum()
                for t in ts
            ]
            for p in ps
        ]
    )
    for threshold in (0.5, 0.75):
        good = iou >= threshold
        rows, columns = linear_sum_assignment(-good.astype(float))
        tp = int(good[rows, columns].sum())
        assert counts(scores, threshold) == (tp, len(ps) - tp, len(ts) - tp)
    inside = truth > 0
    split, merge = variation_of_information(truth[inside], predicted[inside])
    assert (scores.split, scores.merge) == pytest.approx((split, merge))


def test_pieces_and_files_give_the_same() -> None:
    truth, predicted = random_objects(0), random_objects(1)
    whole = compare_instances(predicted, truth)
    stored = zarr.array(truth, chunks=(5, 7, 22))
    assert compare_instances(predicted, stored, piece_voxels=200) == whole


def test_skipped_slices_do_not_count() -> None:
    truth = random_objects(0)
    predicted = truth.copy()
    predicted[3] = 77
    assert compare_instances(predicted, truth).predicted == len(np.unique(truth))
    skipped = compare_instances(predicted, truth, [SliceRef(0, 3)])
    assert skipped.found[1].average_precision == 1


def test_numbers_of_two_time_points_are_two_objects() -> None:
    truth = np.stack([line((1, 4)), line((1, 4))])
    predicted = np.stack([line((1, 4)), line((2, 4))])
    scores = compare_instances(predicted, truth)
    assert (scores.true, scores.predicted) == (2, 2)
    assert counts(scores, 0.75) == (2, 0, 0)


def test_nothing_to_compare_has_no_scores() -> None:
    scores = Contingency().scores()
    assert scores.found[0].average_precision is None
    assert scores.found[0].f1 is None
    assert (scores.split, scores.merge) == (None, None)
