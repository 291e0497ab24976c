"""Fits how the network and the pixel classifier decide together, on labelled voxels.

A network trained with the Dice loss is too sure of itself. How much is measured on the annotated
slices of the training, never on held-out ones.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from napari_unet3d.model.mixture import Calibration
from napari_unet3d.pixels.fit import mean_iou

_NETWORK_WEIGHTS = torch.linspace(0, 1, 11)
"""Weights of the network that are tried, in steps of 0.1; the pixel classifier has the rest."""
_TRUST_IN_SEEN_VOXELS = 0.5
"""The fitted weight of the network is halved: it was fitted on voxels the network was trained on,
where it looks better than it is. Fitted weights are 0.6 to 1; the best ones are 0.3 to 0.5."""
_CONVINCING_GAIN = 0.1
"""Share of the loss that the network must save on seen voxels to be trusted so far; a smaller gain
counts in proportion. After 60 s on two AVX2 cores it saves 0.19 on tubules, where it then gains
0.010 IoU on other slices, 0.10 on vessels (0.004), 0.04 on nuclei, where it loses 0.001, and 0 on
plant cells."""
_SMALLEST_LOSS = 1e-6
"""Nats. A classifier with a smaller loss leaves nothing to gain."""
_USUAL_WEIGHT = 0.25
"""Share of the network where its stack does not tell; the pixel classifier has the rest. With one
annotated slice and 60 s, on five development stacks, the mean IoU is 0.589 with it, 0.571 without
the network, and 0.576 with the weight that was fitted on the slice itself. After 300 s the best
weight on nuclei still was 0.2."""
_TRAINED_WEIGHT, _TRAINED_SPREAD = 0.4, 0.2
"""Mean and standard deviation of the best weights after 300 s, on six development stacks, which is
what is known before a network is judged: tubules 0.7, ovule 0.6, hippocampus 0.5, vessels_large and
vnc 0.3 (three slices), bbbc050_emb04 0.2 (one slice)."""
_VOXELS_LIKE_ONE, _MOST_OF_A_SLICE = 100, 100
"""Labelled voxels that tell as much as an independent one, and as how many a slice counts at most:
neighbors look alike, and so do all places of a slice."""
_ITERATIONS_FOR_HALF = 20
"""Iterations after which the network has half of the weight that it has in the end. With all of it
after 12 iterations, the mixture lost 0.005 IoU to the pixel classifier on one of four stacks; after
40 it was ahead."""
_SLICES_FOR_HALF = 4
"""Slices beyond the first whose fitted weight, temperature and shifts count half. Cross-fitting
leaves out half of the slices, so its classifiers should be less sure than one that has seen all: on
vessels with three slices, the full temperature raised the calibration error from 0.002 to 0.03. The
weight is fitted on voxels that the network knows by heart after a long training: with three slices
and 300 s it was 0.39 on vessels, where 0.3 is best. Where it counts two thirds with three slices,
no development stack gains more than 0.002 IoU."""
_TEMPERATURES = torch.logspace(-0.5, 1, 31)
"""Temperatures that are tried: from 0.3, which makes probabilities surer, to 10, which makes all
classes almost equal; in steps of 12 %."""
_SHIFTS = torch.linspace(-3, 3, 25)
"""Shifts of a class's log-probability that are tried, in steps of 0.25. A shift by 3 makes a class
20 times as probable."""
_SHIFT_PENALTY_IOU = 0.002
"""Mean IoU that a shift by 1 must gain, so that noise does not move the borders of the classes."""
_ROUNDS = 2
"""Rounds over the classes when several are shifted, since each shift changes the others."""
_CLASSES_FOR_ROUNDS = 10
"""Classes. With more of them one round has to do, since a round takes 25 trials for each class."""


def usual_calibration(iterations: int) -> Calibration:
    """Weights of both learners before any are fitted; fitting them takes two annotated slices.

    Parameters
    ----------
    iterations
        Iterations that the network has learned in; with few, it gets less weight.
    """
    weight = _learned(iterations) * _USUAL_WEIGHT
    return Calibration(network=weight, pixels=1 - weight)


def fit_calibration(
    network: Tensor,
    pixels: Tensor | None,
    target: Tensor,
    *,
    iterations: int,
    slices: int,
    shift: bool = False,
    unseen: float | None = None,
) -> Calibration:
    """Weights and temperature with the best likelihood, and shifts with the best mean IoU.

    Parameters
    ----------
    network
        (N, K) log-probabilities of the network on labelled voxels, which it was trained on.
    pixels
        (N, K) log-probabilities of a pixel classifier that has not seen these voxels; None for a
        network that stands alone.
    target
        (N,) output index of each voxel.
    iterations
        Iterations that the network has learned in; with few, it gets less weight.
    slices
        Annotated slices that the voxels are of. With few, fitted values count less; with one, not
        at all: half of a slice hardly tells how the other slices look.
    shift
        Whether classes are shifted. A few slices hardly tell how far a class must be shifted on
        other slices, and a single slice does not tell at all.
    unseen
        The weight of the network by `weight_on_unseen`; None while that is unknown.
    """
    weight, logits = 1.0, network
    evidence = (slices - 1) / (slices - 1 + _SLICES_FOR_HALF)
    if pixels is not None:
        if unseen is None:
            best, gain = _most_likely_weight(network, pixels, target)
            fitted = _TRUST_IN_SEEN_VOXELS * min(1.0, gain / _CONVINCING_GAIN) * best
            unseen = _USUAL_WEIGHT + evidence * (fitted - _USUAL_WEIGHT)
        weight = _learned(iterations) * unseen
        logits = torch.lerp(pixels, network, weight)
    shifts = torch.zeros(logits.shape[1])
    if shift:
        shifts = evidence * _best_shifts(logits, target)
    temperature = _best_temperature(logits + shifts, target)[0] ** evidence
    return Calibration(
        network=weight / temperature,
        pixels=(1 - weight) / temperature,
        shift=tuple((shifts / temperature).tolist()) if shift else (),
    )


def weight_on_unseen(network: Tensor, pixels: Tensor, target: Tensor, slices: int) -> float:
    """The weight of a network to expect, after it was judged on slices that no learner has seen.

    It is the mean of the posterior, where what is known of other stacks is the prior.

    Parameters
    ----------
    network, pixels, target
        As in `fit_calibration`, on these slices.
    slices
        How many there are.
    """
    independent = min(len(target) / _VOXELS_LIKE_ONE, _MOST_OF_A_SLICE * slices)
    losses = torch.tensor(_losses(network, pixels, target))
    doubt = (_NETWORK_WEIGHTS - _TRAINED_WEIGHT).square() / (2 * _TRAINED_SPREAD**2)
    posterior = (-independent * losses - doubt).softmax(0)
    return float(posterior @ _NETWORK_WEIGHTS)


def _most_likely_weight(network: Tensor, pixels: Tensor, target: Tensor) -> tuple[float, float]:
    """The weight with the least loss, and the share of the loss that the network saves with it."""
    losses = _losses(network, pixels, target)
    best = min(range(len(losses)), key=losses.__getitem__)
    gain = (losses[0] - losses[best]) / max(losses[0], _SMALLEST_LOSS)
    return float(_NETWORK_WEIGHTS[best]), gain


def _losses(network: Tensor, pixels: Tensor, target: Tensor) -> list[float]:
    """The loss with each of the weights that are tried, with the best temperature for it."""
    mixtures = (torch.lerp(pixels, network, w) for w in _NETWORK_WEIGHTS.tolist())
    return [_best_temperature(mixture, target)[1] for mixture in mixtures]


def _learned(iterations: int) -> float:
    """Share of its weight that a network has after so many iterations."""
    return iterations / (iterations + _ITERATIONS_FOR_HALF)


def _best_temperature(logits: Tensor, target: Tensor) -> tuple[float, float]:
    """The temperature with the best likelihood (Guo et al. 2017, sec. 4.2), and its loss."""
    losses = torch.stack([functional.cross_entropy(logits / t, target) for t in _TEMPERATURES])
    best = int(losses.argmin())
    return float(_TEMPERATURES[best]), float(losses[best])


def _best_shifts(logits: Tensor, target: Tensor) -> Tensor:
    """Shift (K,) of each class with the largest mean IoU; 0 for the background."""
    shifts = torch.zeros(logits.shape[1])
    present = [c for c in range(1, logits.shape[1]) if (target == c).any()]
    if not present or len(target.unique()) < 2:
        return shifts
    for _ in range(_ROUNDS if 1 < len(present) <= _CLASSES_FOR_ROUNDS else 1):
        for c in present:
            scores = []
            for shift in _SHIFTS:
                trial = shifts.clone()
                trial[c] = shift
                iou = mean_iou((logits + trial).argmax(1), target, present)
                scores.append(iou - _SHIFT_PENALTY_IOU * abs(float(shift)))
            shifts[c] = _SHIFTS[max(range(len(scores)), key=scores.__getitem__)]
    return shifts
