"""IoU and Dice are right, and a class that is absent has none."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet3d.events import mean
from napari_unet3d.prediction.scores import Overlap, show

PREDICTED = np.array([[2, 2, 0, 0], [3, 0, 0, 0]])
TRUTH = np.array([[2, 0, 2, 2], [0, 0, 0, 0]])


def scores(values, predicted=PREDICTED, truth=TRUTH, mask=None):
    overlap = Overlap(values)
    overlap.add(predicted, truth, mask)
    return overlap.scores()


def test_counts_by_hand():
    (score,) = scores([2])
    # 1 in both, 2 predicted, 3 true.
    assert score.iou == pytest.approx(1 / 4)
    assert score.dice == pytest.approx(2 / 5)
    assert score.voxels == 3


def test_class_that_is_predicted_but_not_there_has_score_0():
    (score,) = scores([3])
    assert (score.iou, score.dice, score.voxels) == (0, 0, 0)


def test_class_in_neither_has_no_score():
    (score,) = scores([7])
    assert (score.iou, score.dice, score.voxels) == (None, None, 0)


def test_parts_add_up():
    whole = scores([2, 3])
    overlap = Overlap([2, 3])
    for row in range(2):
        overlap.add(PREDICTED[row], TRUTH[row])
    assert overlap.scores() == whole


def test_mask_leaves_voxels_out():
    mask = np.ones(TRUTH.shape, bool)
    mask[0, 2:] = False
    (score,) = scores([2], mask=mask)
    assert score.iou == pytest.approx(1 / 2)


def test_mean_leaves_out_what_is_absent():
    assert mean([0.5, None, 1.0]) == pytest.approx(0.75)
    assert mean([None, None]) is None
    assert mean([]) is None


def test_show():
    assert show(None) == "—"
    assert show(0.12345) == "0.123"
    assert show(0.0) == "0.000"
