"""The summary of each slice, added up block by block."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from napari_unet3d.data.boxes import Box, plan_blocks
from napari_unet3d.prediction.tally import SliceTally


def probabilities(shape: tuple[int, int, int], k: int = 3) -> torch.Tensor:
    torch.manual_seed(0)
    return (3 * torch.randn(k, *shape)).softmax(0)


def exact(p: torch.Tensor, axis: int) -> tuple[np.ndarray, np.ndarray]:
    entropy = torch.special.entr(p).sum(0) / math.log(len(p))
    others = [a + 1 for a in range(3) if a != axis]
    return p.sum(others).T.numpy(), (p * entropy).sum(others).T.numpy()


@pytest.mark.parametrize("most", [10**9, 700])
def test_sums_of_a_small_stack_are_exact_however_it_is_cut(most: int) -> None:
    shape = (9, 20, 31)
    p = probabilities(shape)
    tally = SliceTally(shape, 3)
    for box in plan_blocks(shape, (1, 1, 1), most):
        tally.add(0, box, p[(slice(None), *box.slices)])
    found = tally.summaries()[0]
    for axis in range(3):
        amounts, unsure = exact(p, axis)
        assert np.allclose(found.amounts[axis], amounts, rtol=1e-4)
        assert np.allclose(found.unsure[axis], unsure, rtol=1e-4)
        assert np.allclose(found.entropy(axis), unsure / amounts, rtol=1e-4)


def test_long_axes_are_sampled_alike_in_blocks_of_any_place() -> None:
    shape = (5, 101, 130)
    p = probabilities(shape)
    at_once, in_parts = SliceTally(shape, 3), SliceTally(shape, 3)
    at_once.add(0, Box((0, 0, 0), shape), p)
    for box in plan_blocks(shape, (1, 1, 1), 999):
        in_parts.add(0, box, p[(slice(None), *box.slices)])
    one, other = at_once.summaries()[0], in_parts.summaries()[0]
    for axis in range(3):
        assert one.amounts[axis].shape == (shape[axis], 3)
        assert np.allclose(one.amounts[axis], other.amounts[axis], rtol=1e-4)
        truth = exact(p, axis)[0]
        assert np.abs(one.amounts[axis] / truth - 1).mean() < 0.2  # a quarter of the voxels
    assert np.allclose(one.cells, other.cells, rtol=1e-4)


def test_the_most_unsure_place_is_found_in_its_cell() -> None:
    shape = (20, 64, 80)
    p = torch.zeros(2, *shape)
    p[0] = 1
    p[:, 10:14, 40:48, 16:24] = 0.5
    p[:, 3:5, 8:12, 56:60] = 0.5
    tally = SliceTally(shape, 2)
    tally.add(3, Box((0, 0, 0), shape), p)
    (time, found), *_ = tally.summaries().items()
    assert time == 3
    first, second = found.unsure_places()
    assert 8 <= first[0] < 16 and 40 <= first[1] < 48 and 16 <= first[2] < 24
    assert 0 <= second[0] < 8 and 8 <= second[1] < 16 and 56 <= second[2] < 64


def test_overlaps_are_what_the_probabilities_say() -> None:
    shape = (9, 20, 31)
    p = probabilities(shape)
    tally = SliceTally(shape, 3)
    for time in (0, 4):
        for box in plan_blocks(shape, (1, 1, 1), 700):
            tally.add(time, box, p[(slice(None), *box.slices)])
    taken = p.argmax(0)
    expected = [
        [float((taken == c).sum()), float(p[c][taken == c].sum()), float(p[c].sum())]
        for c in range(3)
    ]
    assert np.allclose(tally.overlaps(), 2 * np.array(expected), rtol=1e-4)
