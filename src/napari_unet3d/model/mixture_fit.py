"""Finds how far to trust the U-Net and the pixel classifier, from labelled voxels.

Dice makes a network too sure. How much is measured on the annotated slices of the training, never
on held-out ones.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from napari_unet3d.model.mixture import Calibration

_WEIGHTS = torch.linspace(0, 1, 11)
_SHIFTS = torch.linspace(-3, 3, 25)
_PRICE = 0.002
"""Mean IoU that a shift by 1 must gain: noise must not move the border."""
_SEEN = 0.5
"""Of the say that the network earns on voxels it was trained on, this much is believed."""
_TEMPERATURES = torch.logspace(-0.5, 1, 31)
_SWEEPS, _MANY = 2, 10
"""Rounds over the classes; one round where there are many."""


def fit_calibration(
    network: Tensor, pixels: Tensor | None, target: Tensor, *, shift: bool = False
) -> Calibration:
    """Weights and temperature for the best likelihood; on demand, shifts for the best overlap.

    Parameters
    ----------
    network
        (N, K) log-probabilities of the U-Net on labelled voxels, which it was trained on.
    pixels
        (N, K) those of a pixel classifier that has not seen these voxels, or None.
    target
        (N,) output index of each voxel.
    shift
        Whether classes may be shifted. A few slices hardly tell how far a class must be shifted
        on others, and a single one does not tell at all.
    """
    share, logits = 1.0, network
    if pixels is not None:
        mixtures = [torch.lerp(pixels, network, w) for w in _WEIGHTS.tolist()]
        best = min(range(len(mixtures)), key=lambda i: _temperature(mixtures[i], target)[1])
        share = _SEEN * float(_WEIGHTS[best])
        logits = torch.lerp(pixels, network, share)
    by = _best_shift(logits, target) if shift else torch.zeros(logits.shape[1])
    temperature, _ = _temperature(logits + by, target)
    return Calibration(
        network=share / temperature,
        pixels=(1 - share) / temperature,
        shift=tuple((by / temperature).tolist()) if shift else (),
    )


def _temperature(logits: Tensor, target: Tensor) -> tuple[float, float]:
    """Temperature with the best likelihood (Guo et al. 2017, sec. 4.2), and its loss."""
    losses = torch.stack([functional.cross_entropy(logits / t, target) for t in _TEMPERATURES])
    best = int(losses.argmin())
    return float(_TEMPERATURES[best]), float(losses[best])


def _best_shift(logits: Tensor, target: Tensor) -> Tensor:
    """What to add to each class for the largest mean IoU; 0 for the background."""
    shift = torch.zeros(logits.shape[1])
    present = [c for c in range(1, logits.shape[1]) if (target == c).any()]
    if not present or len(target.unique()) < 2:
        return shift
    for _ in range(_SWEEPS if 1 < len(present) <= _MANY else 1):
        for c in present:
            scores = []
            for delta in _SHIFTS:
                trial = shift.clone()
                trial[c] = delta
                found = (logits + trial).argmax(1)
                scores.append(mean_iou(found, target, present) - _PRICE * abs(float(delta)))
            shift[c] = _SHIFTS[max(range(len(scores)), key=scores.__getitem__)]
    return shift


def mean_iou(found: Tensor, target: Tensor, classes: list[int]) -> float:
    """Mean IoU of some classes: (N,) output indices as found, and as they should be."""
    n = max(int(found.max()), int(target.max())) + 1
    a, b = found.bincount(minlength=n), target.bincount(minlength=n)
    both = found[found == target].bincount(minlength=n)
    return float((both[classes] / (a + b - both)[classes].clamp(min=1)).mean())
