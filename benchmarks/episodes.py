"""Imitates the use of features: few labelled slices, a closed-form classifier, the other slices.

`pretrain.py` learns from it. What the classes are is drawn anew for each volume.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from synthetic import Crops
from synthetic_scenes import PARTS, smooth, standardized
from torch import Tensor
from torch.nn import functional

CLASSES = 3
"""Classes of an episode at most, background included."""
TASKS = 2
"""Episodes on the features of one volume; they cost little beside the network."""


@dataclass(frozen=True)
class Episodes:
    """What the classes are, and which voxels are labelled: (N, TASKS, Z, Y, X) each."""

    target: Tensor
    support: Tensor


def classes_of(crops: Crops) -> Tensor:
    """(N, TASKS, Z, Y, X) int64: classes that are parts, groups of parts, or their borders."""
    n = len(crops.part)
    offset = torch.arange(n, device=crops.part.device).view(-1, 1, 1, 1) * PARTS
    counts = torch.bincount((crops.part + offset).flatten(), minlength=n * PARTS)
    shares = (counts.view(n, PARTS) / crops.part[0].numel()).tolist()
    tables, borders, widths = [], [], []
    for share in shares:
        here = [p for p in range(PARTS) if 0.002 < share[p] < 0.85]
        for _ in range(TASKS):
            table = [0] * PARTS
            random.shuffle(here)
            if here:
                table[here[0]] = 1
            for p in here[1:]:
                # A class may have several parts; two classes beside the background are common.
                table[p] = random.choices([0, 1, 2], [0.65, 0.15, 0.2])[0]
            tables.append(table)
            borders.append(random.random() < (0.15 if here else 1))
            widths.append(random.uniform(0.7, 2))
    device = crops.part.device
    table = torch.tensor(tables, device=device).view(n, TASKS * PARTS)
    flat = crops.part.flatten(1)
    maps = [table.gather(1, flat + t * PARTS).view_as(crops.part) for t in range(TASKS)]
    target = torch.stack(maps, 1)
    shape = (n, TASKS, 1, 1, 1)
    width = torch.tensor(widths, device=device).view(shape)
    edge = crops.distance[:, None] < width
    is_border = torch.tensor(borders, device=device).view(shape)
    # Either the border alone, or the border as a class of its own around class 1.
    around = torch.where(edge, 2, (target == 1).long())
    alone = torch.rand(shape, device=device) < 0.5
    return torch.where(is_border, torch.where(alone, edge.long(), around), target)


def make_episodes(crops: Crops, any_axis: bool) -> Episodes:
    """Draw the classes and the labelled slices."""
    target = classes_of(crops)
    support = torch.zeros_like(target, dtype=torch.bool)
    axis = random.choice([0, 0, 1, 2]) if any_axis else 0
    others = [a + 2 for a in range(3) if a != axis]
    # Slices that hold something other than background.
    filled = (target > 0).float().mean(others) > 0.005
    for n, tasks in enumerate(filled.tolist()):
        for t, there in enumerate(tasks):
            places = [i for i, yes in enumerate(there) if yes] or list(range(len(there)))
            for i in random.sample(places, min(random.choice([1, 1, 2, 3]), len(places))):
                support[n, t].select(axis, i).fill_(True)
    return Episodes(target, support)


def solve(features: Sequence[Tensor], episodes: Episodes) -> tuple[Tensor, Tensor]:
    """Fit a ridge regression to the labelled voxels of each episode.

    Parameters
    ----------
    features
        Those of each task, (N, C, Z, Y, X) float32; C may differ.

    Returns
    -------
    scores, known
        (N, TASKS, CLASSES, Z·Y·X) regression of the classes, near 0 and 1; (N, TASKS, CLASSES)
        whether a class was among the labelled voxels.
    """
    target, support = episodes.target.flatten(2), episodes.support.flatten(2)
    scores, known = [], []
    for t, maps in enumerate(features):
        flat = maps.flatten(2)
        identity = torch.eye(flat.shape[1], device=flat.device)
        one_hot = functional.one_hot(target[:, t], CLASSES).float() * support[:, t, :, None]
        count = one_hot.sum(1)
        # Rare classes weigh more, by the root of their frequency.
        weight = one_hot / count.clamp(min=1).sqrt()[:, None]
        weight = weight.sum(2)
        weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-6)
        middle = torch.einsum("bcn,bn->bc", flat, weight)
        centered = flat - middle[..., None]
        weighted = centered * weight[:, None]
        share = torch.einsum("bnk,bn->bk", one_hot, weight)
        covariance = weighted @ centered.transpose(1, 2)
        trace = covariance.diagonal(dim1=1, dim2=2).mean(1).view(-1, 1, 1)
        mixed = weighted @ (one_hot - share[:, None] * support[:, t, :, None])
        found = torch.linalg.solve_ex(covariance + (2e-3 * trace + 1e-6) * identity, mixed)[0]
        scores.append(torch.einsum("bcn,bck->bkn", centered, found) + share[..., None])
        known.append(count > 0)
    return torch.stack(scores, 1), torch.stack(known, 1)


def episode_loss(scores: Tensor, known: Tensor, scale: Tensor, episodes: Episodes) -> Tensor:
    """Cross-entropy and Dice on the voxels without label, for classes that were labelled."""
    logits = (scores * scale.exp()).masked_fill(~known[..., None], -1e4)
    log_p = logits.log_softmax(2)
    target = episodes.target.flatten(2)
    there = known.gather(2, target.clamp(max=CLASSES - 1)) & ~episodes.support.flatten(2)
    one_hot = functional.one_hot(target, CLASSES).float() * there[..., None]
    one_hot = one_hot.transpose(2, 3)  # (N, TASKS, CLASSES, voxels)
    count = one_hot.sum(3)
    weight = 1 / count.clamp(min=1).sqrt()
    picked = (log_p.clamp(min=-30) * one_hot).sum(3)
    entropy = -(weight * picked).sum(2) / (weight * count).sum(2).clamp(min=1e-6)
    p = log_p.exp() * there[:, :, None]
    dice = 1 - (2 * (p * one_hot).sum(3) + 1) / (p.sum(3) + count + 1)
    valid = known[..., 1:] & (count[..., 1:] > 0)
    dice = (dice[..., 1:] * valid).sum(2) / valid.sum(2).clamp(min=1)
    useful = (known.sum(2) > 1).float()
    loss: Tensor = ((entropy + 0.5 * dice) * useful).sum() / useful.sum().clamp(min=1)
    return loss


@torch.no_grad()
def episode_iou(scores: Tensor, known: Tensor, episodes: Episodes) -> float:
    """Mean IoU of the classes on the voxels without label."""
    answer = scores.masked_fill(~known[..., None], -1e4).argmax(2)
    target, there = episodes.target.flatten(2), ~episodes.support.flatten(2)
    total = []
    for c in range(1, CLASSES):
        a, b = (answer == c) & there, (target == c) & there
        union = (a | b).sum(2)
        valid = (known[..., c] & (b.sum(2) > 50)).flatten()
        total.append((((a & b).sum(2) / union.clamp(min=1)).flatten())[valid])
    joined = torch.cat(total)
    return float(joined.mean()) if len(joined) else float("nan")


@torch.no_grad()
def few_filters(gray: Tensor, spacing: Tensor) -> Tensor:
    """Smoothed gray values and edges at three scales, (N, 7, Z, Y, X)."""
    found = [gray]
    along = torch.clamp(2 / spacing, max=1)
    for scale in (1.0, 2.0, 4.0):
        sigma = scale * torch.stack([along, torch.ones_like(along), torch.ones_like(along)], 1)
        level = smooth(gray, sigma)
        slope = torch.stack(torch.gradient(level, dim=(1, 2, 3))).square().sum(0).sqrt()
        found += [level, standardized(slope)]
    return torch.stack(found, 1)
