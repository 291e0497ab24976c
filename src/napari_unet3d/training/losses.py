"""The loss of a sparse annotation: unlabelled voxels count for nothing, exactly."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def masked_loss(
    logits: Tensor, target: Tensor, *, dice_share: float = 0.5, weights: Tensor | None = None
) -> Tensor:
    """Weighted cross-entropy plus soft Dice over the labelled voxels only.

    The labelled voxels are picked out *before* the softmax, so nothing that is unlabelled
    can enter a sum: its gradient is exactly 0. (Multiplying logits by a mask, as some
    libraries do, turns the others into p = 0.5.)

    Parameters
    ----------
    logits
        (N, K, Z, Y, X), K = background and classes.
    target
        (N, Z, Y, X) integers: 0 unlabelled, output index + 1 elsewhere.
    dice_share
        Share of the Dice term, 0…1; the rest is cross-entropy.
    weights
        (K,) weights of the cross-entropy, Σ w·(−log p) / Σ w (Çiçek et al. 2016, sec. 2).

    Returns
    -------
    Tensor
        A scalar; exactly 0, with gradient 0, when nothing is labelled.
    """
    mask = target > 0
    picked = logits.movedim(1, -1)[mask].float()
    if not len(picked):
        return logits.float().sum() * 0
    index = target[mask].long() - 1
    loss = (1 - dice_share) * functional.cross_entropy(picked, index, weights)
    if weights is not None and not weights[index].any():
        loss = picked.sum() * 0  # Σ w = 0: the mean would not be a number
    if dice_share:
        probability = picked.softmax(1)[:, 1:]
        truth = functional.one_hot(index, logits.shape[1])[:, 1:].to(probability.dtype)
        overlap = (probability * truth).sum(0)
        total = probability.sum(0) + truth.sum(0)
        present = truth.sum(0) > 0
        if present.any():
            # A class that is absent has no Dice; its false positives are the CE's matter.
            dice = 2 * overlap[present] / total[present]
            loss = loss + dice_share * (1 - dice.mean())
    return loss


def balanced_weights(counts: Tensor) -> Tensor:
    """Class weights (1 − f_c)/(K − 1) from counts of labelled voxels; absent classes get 0.

    Source: the rule published with a relative of the paper's network; the paper's own
    values are unpublished (its sec. 3 only says that background weighs less).
    """
    share = counts / counts.sum()
    return torch.where(counts > 0, (1 - share) / max(len(counts) - 1, 1), 0)
