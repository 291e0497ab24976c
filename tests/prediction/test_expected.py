"""What is expected of a result: by simulated stacks whose probabilities are honest or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit

from napari_unet3d.model.evidence import ClassCheck, SliceCheck
from napari_unet3d.prediction.expected import check_slice, expected_iou


def draw(rng: np.random.Generator, n: int, bias: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (n, 2), and a truth that they tell, with log-odds that are wrong by `bias`."""
    log_odds = rng.normal(-1, 3, n)
    truth = (rng.random(n) < expit(log_odds)).astype(np.int64)
    told = expit(log_odds + bias)
    return torch.from_numpy(np.stack([1 - told, told], 1)), torch.from_numpy(truth)


def overlaps(p: torch.Tensor) -> np.ndarray:
    taken = p.argmax(1)
    of_class = [
        [float((taken == c).sum()), float(p[taken == c, c].sum()), float(p[:, c].sum())]
        for c in range(p.shape[1])
    ]
    return np.array(of_class)


def true_iou(p: torch.Tensor, target: torch.Tensor) -> float:
    both = ((p.argmax(1) == 1) & (target == 1)).sum()
    return float(both / ((p.argmax(1) == 1) | (target == 1)).sum())


def test_a_slice_is_counted_as_it_is() -> None:
    p = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.7, 0.2], [0.3, 0.6, 0.1], [0.2, 0.2, 0.6]])
    check = check_slice("z=3", p, torch.tensor([0, 1, 2, 2]))
    assert check.ref == "z=3"
    one, two = check.classes
    assert (one.found, one.hits, one.voxels) == (2, 1, 1)
    assert (one.expected_hits, one.expected_voxels) == pytest.approx((1.3, 1.7))
    assert (two.found, two.hits, two.voxels) == (1, 1, 2)
    assert (two.expected_hits, two.expected_voxels) == pytest.approx((0.6, 0.9))


def test_honest_probabilities_tell_the_iou_with_a_little_caution() -> None:
    rng = np.random.default_rng(0)
    stack, truth = draw(rng, 200_000)
    checks = [check_slice(f"z={i}", *draw(rng, 5000)) for i in range(3)]
    (found,) = expected_iou(overlaps(stack), checks)
    assert found is not None
    assert found.value == pytest.approx(true_iou(stack, truth), abs=0.05)
    assert found.low < true_iou(stack, truth) < found.high
    assert found.slices == 3


@pytest.mark.parametrize("bias", [-1.5, 1.5])
def test_many_slices_correct_probabilities_that_are_not_honest(bias: float) -> None:
    rng = np.random.default_rng(0)
    stack, truth = draw(rng, 200_000, bias)
    checks = [check_slice(f"z={i}", *draw(rng, 5000, bias)) for i in range(40)]
    by_number = [expected_iou(overlaps(stack), checks[:n])[0] for n in (1, 5, 40)]
    errors = [abs(found.value - true_iou(stack, truth)) for found in by_number if found]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.03


def test_slices_that_agree_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    stack, _ = draw(rng, 10_000)
    checks = [check_slice(f"z={i}", *draw(rng, 5000)) for i in range(20)]
    widths = []
    for n in (1, 3, 20):
        (found,) = expected_iou(overlaps(stack), checks[:n])
        assert found is not None
        widths.append(found.high - found.low)
    assert widths[0] > widths[1] > widths[2] > 0


def test_a_class_that_nobody_sees_has_no_iou() -> None:
    nothing, some = ClassCheck(0, 0, 0, 0.0, 0.0), ClassCheck(9, 8, 9, 8.1, 9.2)
    check = SliceCheck("z=1", (nothing, some))
    stack = np.array([[90, 88, 90.0], [0, 0, 0], [30, 27, 31]])
    absent, there = expected_iou(stack, [check])
    assert absent is None
    assert there is not None and 0 < there.low < there.value < there.high < 1
    # A class that is on no annotated slice has the interval of the prior.
    stack[1] = 30, 27, 31
    unseen, _ = expected_iou(stack, [check])
    assert unseen is not None and unseen.high - unseen.low > there.high - there.low


def test_without_a_slice_nothing_is_expected() -> None:
    assert expected_iou(np.ones((3, 3)), []) == ()
