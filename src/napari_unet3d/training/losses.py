"""The losses of a sparse annotation: an unlabelled voxel counts for nothing, exactly.

`LOSSES` names them. A new loss is one function and one line there. A second function, in `DENSE`,
spares an NVIDIA GPU the wait for the number of labelled voxels; a loss works without one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from napari_unet3d.config import TrainingConfig

Loss = Callable[[Tensor, Tensor, Tensor | None, TrainingConfig], Tensor]
"""Computes a scalar from labelled voxels, one or more.

Its arguments are the logits (M, K) in float32, the output index (M,) of each voxel, the class
weights (K,) or None, and the settings of the training.
"""


def masked_loss(
    logits: Tensor, target: Tensor, config: TrainingConfig, weights: Tensor | None = None
) -> Tensor:
    """The loss that the settings name, over the labelled voxels of a batch.

    The labelled voxels are picked out *before* the softmax, so nothing that is unlabelled can
    enter a sum: its gradient is exactly 0. (Multiplying logits by a mask, as some libraries do,
    turns the others into p = 0.5.)

    Parameters
    ----------
    logits
        (N, K, Z, Y, X), K = background and classes.
    target
        (N, Z, Y, X) integers: 0 unlabelled, output index + 1 elsewhere.
    config
        Names the loss, and holds its settings.
    weights
        (K,) class weights; None weighs all classes alike.

    Returns
    -------
    Tensor
        A scalar; exactly 0, with gradient 0, when nothing is labelled.
    """
    if target.device.type == "cuda" and config.loss in DENSE:
        return DENSE[config.loss](logits, target, weights, config)
    # A GPU makes the CPU wait here, until it has counted the labelled voxels.
    labelled = target.nonzero(as_tuple=True)
    if not len(labelled[0]):
        return logits.float().sum() * 0
    picked = logits.movedim(1, -1)[labelled].float()
    return LOSSES[config.loss](picked, target[labelled].long() - 1, weights, config)


def cross_entropy_and_dice(
    logits: Tensor, target: Tensor, weights: Tensor | None, config: TrainingConfig
) -> Tensor:
    """Weighted cross-entropy plus soft Dice, in shares given by `config.dice_share`.

    The cross-entropy is Σ w·(−log p) / Σ w (Çiçek et al. 2016, sec. 2).
    """
    share = config.dice_share
    loss = (1 - share) * functional.cross_entropy(logits, target, weights)
    if weights is not None and not weights[target].any():
        loss = logits.sum() * 0  # Σ w = 0: the mean would not be a number
    if share:
        probability = logits.softmax(1)[:, 1:]
        truth = functional.one_hot(target, logits.shape[1])[:, 1:].to(probability.dtype)
        overlap = (probability * truth).sum(0)
        total = probability.sum(0) + truth.sum(0)
        # A class that is absent has no Dice: its false positives only enter the cross-entropy.
        mean = mean_of_chosen if total.device.type == "cpu" else mean_without_waiting
        dice = mean(2 * overlap / total.clamp(min=1), truth.sum(0) > 0)
        loss = loss + share * (1 - dice)
    return loss


def dense_cross_entropy_and_dice(
    logits: Tensor, target: Tensor, weights: Tensor | None, config: TrainingConfig
) -> Tensor:
    """`cross_entropy_and_dice` over all voxels of a batch: the same but for rounding.

    No shape depends on the labels, so a GPU is asked nothing, and the computation can be recorded
    in a CUDA graph. Unlabelled voxels are taken out twice: their logits are replaced before the
    softmax, so that their gradient is exactly 0 whatever they are, and their terms are multiplied
    by 0.

    Parameters
    ----------
    logits, target, weights, config
        As for `masked_loss`.
    """
    share, k = config.dice_share, logits.shape[1]
    target = target[:, None]
    labelled = target > 0
    log_probability = torch.where(labelled, logits.float(), 0).log_softmax(1)
    outputs = torch.arange(1, k + 1, device=target.device).view(1, k, 1, 1, 1)
    truth = (target == outputs).float()  # 0 for all outputs where unlabelled
    every = (0, 2, 3, 4)
    entropy, count = -(log_probability * truth).sum(every), truth.sum(every)
    if weights is not None:
        entropy, weight_sum = entropy * weights, count * weights
    else:
        weight_sum = count
    tiny = torch.finfo(torch.float32).tiny
    loss = (1 - share) * entropy.sum() / weight_sum.sum().clamp(min=tiny)
    if share:
        probability = (log_probability.exp() * labelled)[:, 1:]
        overlap = (probability * truth[:, 1:]).sum(every)
        total = probability.sum(every) + count[1:]
        dice = mean_without_waiting(2 * overlap / total.clamp(min=1), count[1:] > 0)
        # Without labelled voxels the loss is 0, as in `masked_loss`.
        loss = loss + share * (1 - dice)
    return loss


def mean_of_chosen(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values; 1 where none is chosen."""
    return values[chosen].mean() if chosen.any() else values.new_ones(())


def mean_without_waiting(values: Tensor, chosen: Tensor) -> Tensor:
    """The same but for rounding, without a question to the GPU, for which the CPU would wait."""
    mean = torch.where(chosen, values, 0).sum() / chosen.sum().clamp(min=1)
    return torch.where(chosen.any(), mean, 1)


def focal(logits: Tensor, target: Tensor, weights: Tensor | None, config: TrainingConfig) -> Tensor:
    """Cross-entropy in which easy voxels count little: Σ w·(1 − p)^γ·(−log p) / Σ w.

    Lin et al. 2017, eq. 5; γ is `config.focal_gamma`.
    """
    log_p = logits.log_softmax(1).gather(1, target[:, None])[:, 0]
    # exp(log p) may exceed 1 by rounding, and a negative base has no power.
    hard = (1 - log_p.exp()).clamp(min=0)
    terms = -log_p * hard**config.focal_gamma
    if weights is None:
        return terms.mean()
    of_voxels = weights[target]
    return (of_voxels * terms).sum() / of_voxels.sum().clamp(min=torch.finfo(terms.dtype).tiny)


def lovasz_softmax(
    logits: Tensor, target: Tensor, weights: Tensor | None, config: TrainingConfig
) -> Tensor:
    """A convex stand-in for 1 − IoU, the mean of the labelled classes (Berman et al. 2018).

    The errors of a class, sorted, are weighed by how much each makes its Jaccard loss grow (their
    eq. 9, 11 and 12). Class weights are not used: each class counts alike.
    """
    probability = logits.softmax(1)
    losses = []
    for c in target.unique().tolist():
        truth = (target == c).to(probability.dtype)
        errors, order = (truth - probability[:, c]).abs().sort(descending=True)
        inside = truth[order]
        intersection = truth.sum() - inside.cumsum(0)
        union = truth.sum() + (1 - inside).cumsum(0)
        jaccard = 1 - intersection / union
        growth = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
        losses.append(errors @ growth)
    return torch.stack(losses).mean()


def lovasz_and_focal(
    logits: Tensor, target: Tensor, weights: Tensor | None, config: TrainingConfig
) -> Tensor:
    """Sum of `lovasz_softmax` and `focal`, the loss of 3D U²-Net (Huang et al. 2019)."""
    given = target, weights, config
    return lovasz_softmax(logits, *given) + focal(logits, *given)


LOSSES: dict[str, Loss] = {
    "ce_dice": cross_entropy_and_dice,
    "focal": focal,
    "lovasz": lovasz_softmax,
    "lovasz_focal": lovasz_and_focal,
}


DENSE: dict[str, Loss] = {
    "ce_dice": dense_cross_entropy_and_dice,
}
"""The losses that are also written for all voxels of a batch, labelled or not.

Their arguments are those of `masked_loss`: logits (N, K, Z, Y, X) in any format and targets
(N, Z, Y, X), 0 where unlabelled.
"""


def balanced_weights(counts: Tensor) -> Tensor:
    """Class weights (1 − f_c)/(K − 1) from counts of labelled voxels; absent classes get 0.

    Source: the rule published with a relative of the paper's network; the paper's own values are
    unpublished (its sec. 3 only says that background weighs less).
    """
    share = counts / counts.sum()
    return torch.where(counts > 0, (1 - share) / max(len(counts) - 1, 1), 0)
