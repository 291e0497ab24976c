"""The IoU that is expected of a result, without a held-out slice.

A voxel that is taken for a class with probability p is a hit with probability p. So the
probabilities of a stack tell its IoU, as far as they are honest. How honest they are is seen on the
annotated slices, which the pixel classifier judges by cross-fitting: there, the true IoU is known
as well. The network only takes part where it is better, so it is not judged apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, stdtrit
from torch import Tensor

from napari_unet3d.data.slice_summary import ExpectedIoU
from napari_unet3d.model.evidence import ClassCheck, SliceCheck

CONFIDENCE = 0.9
"""Share of the stacks whose IoU the interval is meant to hold. It held 91 % of 55 cases of the
development stacks and 75 % of 20 others; what it misses are mostly rare classes, whose IoU was
lower."""
_PRIOR_MEAN, _PRIOR_SLICES = -0.2, 8.0
"""Log-odds, and slices: what the true IoU is above the expected one before a slice is seen, and how
many slices this counts as. The five constants were chosen on development stacks: probabilities are
a little too sure, by more with one slice than with five, and differences on slices by cross-fitting
say less than they seem, since half of the slices teach less than all."""
_PRIOR_SPREAD, _PRIOR_FREEDOM = 1.0, 8.0
"""Log-odds, and slices: the same for the standard deviation of this difference over slices."""
_SMALLEST_IOU = 0.02
"""IoU. A smaller one counts as this much, and 1 as this much less: their log-odds are finite."""


def check_slice(ref: str, probabilities: Tensor, target: Tensor) -> SliceCheck:
    """Compare what a classifier expects of voxels with the truth.

    Parameters
    ----------
    ref
        The slice as text.
    probabilities
        (n, K), of a classifier that has not seen these voxels.
    target
        (n,) true output indices.
    """
    k = probabilities.shape[1]
    top, taken = probabilities.max(1)
    found, voxels = taken.bincount(minlength=k), target.bincount(minlength=k)
    hits = target[taken == target].bincount(minlength=k)
    expected_hits = taken.cpu().bincount(top.cpu().double(), k)
    expected_voxels = probabilities.sum(0)
    counts = (found, hits, voxels, expected_hits, expected_voxels)
    by_class = zip(*(values.tolist() for values in counts), strict=True)
    return SliceCheck(ref, tuple(ClassCheck(*of_class) for of_class in by_class)[1:])


def expected_iou(
    overlaps: NDArray[np.float64], checks: Sequence[SliceCheck]
) -> tuple[ExpectedIoU | None, ...]:
    """Expect an IoU of each class of a stack, and an interval around it.

    The difference between the log-odds of the true and of the expected IoU is assumed to be normal
    over the slices of a class, with a prior for its mean and variance that was chosen on other
    stacks (Gelman et al. 2013, Bayesian Data Analysis, sec. 3.3). So the first slices correct the
    probabilities a little, many correct them wholly, and even one gives an interval.

    Parameters
    ----------
    overlaps
        (K, 3), of the stack; see `SliceTally.overlaps`.
    checks
        How the annotated slices of this stack were judged by cross-fitting.

    Returns
    -------
    tuple
        One entry for each class; None for a class that is neither found nor expected. Empty
        without a slice.
    """
    if not checks:
        return ()
    return tuple(
        _of_class(_iou(*of_stack), [check.classes[c] for check in checks])
        for c, of_stack in enumerate(overlaps[1:].tolist())
    )


def _of_class(stack: float | None, checks: Sequence[ClassCheck]) -> ExpectedIoU | None:
    if stack is None:
        return None
    differences = []
    for c in checks:
        true = _iou(c.found, c.hits, c.voxels)
        expected = _iou(c.found, c.expected_hits, c.expected_voxels)
        # Where the class is not painted, the IoU is 0 whatever was expected.
        if c.voxels and true is not None and expected is not None:
            differences.append(_log_odds(true) - _log_odds(expected))
    n = len(differences)
    mean = sum(differences) / max(n, 1)
    weight, freedom = _PRIOR_SLICES + n, _PRIOR_FREEDOM + n
    shift = (_PRIOR_SLICES * _PRIOR_MEAN + n * mean) / weight
    squares = (
        _PRIOR_FREEDOM * _PRIOR_SPREAD**2
        + sum((d - mean) ** 2 for d in differences)
        + _PRIOR_SLICES * n / weight * (mean - _PRIOR_MEAN) ** 2
    )
    error = math.sqrt(squares / freedom / weight)
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
    center = _log_odds(stack) + shift
    low, value, high = (float(expit(center + by)) for by in (-half, 0.0, half))
    return ExpectedIoU(value, low, high, n)


def _iou(found: float, hits: float, voxels: float) -> float | None:
    """IoU of what is found and what is there; None where both are nothing."""
    union = found + voxels - hits
    return hits / union if union > 0 else None


def _log_odds(iou: float) -> float:
    return float(logit(min(max(iou, _SMALLEST_IOU), 1 - _SMALLEST_IOU)))
