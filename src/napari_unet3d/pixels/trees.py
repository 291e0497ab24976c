"""Gradient boosting of oblivious trees: all nodes of a level ask the same question.

Such a tree is a table: the answers are the bits of the row's number (Prokhorenkova et al. 2018,
sec. 3). So thousands of voxels go through all trees at once, without branches, in a few operations
of PyTorch on any device. Trees do not care how a feature is scaled, and give what lies far from all
labelled voxels the answer of the nearest ones, where a perceptron extrapolates: the two err on
different voxels.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

TREES = 64
"""On six development stacks, k = 1 and 3, 40 trees lose 0.004 IoU, and 100 gain 0.007 alone and
0.002 beside the perceptron, in half as much time again."""
DEPTH = 6
"""Questions of a tree. With five, 0.006 IoU are lost."""
_LEARNING_RATE, _LARGEST_LEARNING_RATE = 0.1, 0.5
"""Share of each tree's answer that is added. Of fewer trees, each counts for more, up to half."""
FEWEST_TREES = 8
"""Trees that are grown at least where time is short."""
SHORTEST = 1e-6
"""Seconds that a timed trial takes at least, on a clock that is too coarse for it."""
_REGULARIZATION = 5.0
"""Curvature that is added to that of each leaf, λ in eq. 5 of Chen and Guestrin 2016: leaves of few
voxels say little. With 20, 0.007 IoU are lost."""
_FEATURE_SHARE = 0.4
"""Share of the features among which a level chooses, so that trees differ from each other."""
_BINS = 64
"""Bins of a feature, which would hold equally many voxels if all classes had equally many; a
question lies between two of them. With equally many voxels as they are, no question would lie
within a class of 1 % that is brighter than all others."""
_VOXELS, _VOXELS_OF_CLASS = 100_000, 1000
"""Voxels that trees are grown on, and those of each class at least where there are so many: a tree
then takes some hundredths of a second."""
_VOXELS_FOR_BINS = 20_000
"""Voxels of each class that the bins follow."""
_SMALLEST_SHARE = 1e-4
"""Share of a class that no voxel belongs to, whose logarithm is the logit before the first tree."""
_AT_ONCE = 1 << 11
"""Voxels that go through the trees at once on a CPU: their answers, half a MiB, stay in the cache.
With 4096 it takes twice as long a voxel, with 1024 as long."""
_AT_ONCE_ON_GPU = 1 << 18
"""The same on a GPU: their answers take 64 MiB."""


class ObliviousTrees(nn.Module):
    """Trees that tell the class of a voxel from its features.

    Parameters
    ----------
    n_classes
        Classes, background included.

    Attributes
    ----------
    feature
        (DEPTH, TREES) int64: what each level of each tree asks about.
    threshold
        (DEPTH, TREES): the answer is yes above it.
    leaf
        (n_classes, TREES · 2^DEPTH): what a tree adds to the logit of each class.
    prior
        (n_classes,) logits before the first tree.
    share
        () weight of the trees beside the perceptron, which has the rest of 1.
    """

    feature: Tensor
    threshold: Tensor
    leaf: Tensor
    prior: Tensor
    share: Tensor

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.register_buffer("feature", torch.zeros(DEPTH, TREES, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(DEPTH, TREES))
        self.register_buffer("leaf", torch.zeros(n_classes, TREES << DEPTH))
        self.register_buffer("prior", torch.zeros(n_classes))
        self.register_buffer("share", torch.tensor(0.5))

    def forward(self, features: Tensor) -> Tensor:
        """(N, features) → logits (N, n_classes), up to a constant for each voxel."""
        at_once = _AT_ONCE if features.device.type == "cpu" else _AT_ONCE_ON_GPU
        return torch.cat([self._logits(part) for part in features.split(at_once)])

    def with_share(self, share: float) -> ObliviousTrees:
        """The same trees with another weight beside the perceptron."""
        other = copy.deepcopy(self)
        other.share.fill_(share)
        return other

    def _logits(self, features: Tensor) -> Tensor:
        n, columns = len(features), features.T.contiguous()
        row = torch.arange(TREES, dtype=torch.float32, device=features.device)
        row = row[:, None].repeat(1, n)
        for feature, threshold in zip(self.feature, self.threshold, strict=True):
            # In place: PyTorch compares floats eight times as fast into floats as into truths.
            answers = columns.index_select(0, feature).gt_(threshold[:, None])
            row.mul_(2).add_(answers)
        place = row.int().flatten()
        # Only differences to the background count, so that it needs no look-up of its own.
        added = [
            (leaf - self.leaf[0]).index_select(0, place).view(TREES, n).sum(0)
            for leaf in self.leaf[1:]
        ]
        logits = torch.stack([torch.zeros_like(columns[0]), *added], 1)
        return logits + self.prior


def fit_trees(
    features: Tensor,
    target: Tensor,
    n_classes: int,
    seed: int,
    interrupted: Callable[[], bool],
    count: int = TREES,
    share: float = 0.5,
    seconds: float = math.inf,
) -> ObliviousTrees:
    """Grow trees one after the other, each on the errors of those before it (Friedman 2001).

    One tree answers for all classes: its questions are those that help them most in sum.

    Parameters
    ----------
    features, target
        (N, features) and (N,) output indices of the labelled voxels, one or more.
    n_classes
        Classes, background included.
    seed
        Chooses the features that each level may ask about.
    interrupted
        Asked before each tree. When True, the trees so far must do.
    count
        Trees that are grown; the others add nothing.
    share
        Weight of the trees beside the perceptron.
    seconds
        Time for the trees. What the first one takes tells whether they must be fewer, but no
        fewer than `FEWEST_TREES`; then each counts for more.

    Returns
    -------
    ObliviousTrees
        On the device of the features; grown on the CPU.
    """
    rng = np.random.default_rng(seed)
    labels = target.cpu().numpy()
    chosen = _choose(rng, labels)
    x = features.cpu().numpy()[chosen].T.copy()
    truth = np.eye(n_classes, dtype=np.float32)[labels[chosen]].T.copy()
    edges = _edges(x, labels[chosen])
    bins = np.stack([np.searchsorted(e, v) for e, v in zip(edges, x, strict=True)])
    trees = ObliviousTrees(n_classes)
    prior = np.log(truth.mean(1).clip(_SMALLEST_SHARE))
    logits = np.repeat(prior[:, None], x.shape[1], 1)
    trees.prior.copy_(torch.from_numpy(prior))
    trees.share.fill_(share)
    rate, begin = _rate(count), time.monotonic()
    leaves = trees.leaf.numpy().reshape(n_classes, TREES, 1 << DEPTH)
    for tree in range(count):
        if tree >= count or interrupted():
            break
        if tree == 1 and math.isfinite(seconds):
            possible = seconds / max(time.monotonic() - begin, SHORTEST)
            count = min(count, max(int(possible), FEWEST_TREES))
            rate = _rate(count)
        probability = np.exp(logits - logits.max(0))
        probability /= probability.sum(0)
        slope, curvature = probability - truth, probability * (1 - probability)
        row = np.zeros(x.shape[1], np.int64)
        for level in range(DEPTH):
            # Of two classes, one tells all about the other.
            of = slice(1 if n_classes == 2 else 0, None)
            feature, last = _best_question(rng, bins, row, slope[of], curvature[of])
            trees.feature[level, tree] = feature
            trees.threshold[level, tree] = float(edges[feature][last])
            row = 2 * row + (bins[feature] > last)
        for c in range(n_classes):
            slopes, curvatures = _sums(row, 1 << DEPTH, slope[c], curvature[c])
            leaves[c, tree] = -rate * slopes / (curvatures + _REGULARIZATION)
            logits[c] += leaves[c, tree][row]
    return trees.to(features.device)


def _rate(count: int) -> float:
    """Share of each tree's answer that is added, where there are so many trees."""
    return min(_LEARNING_RATE * TREES / count, _LARGEST_LEARNING_RATE)


def _choose(rng: np.random.Generator, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which voxels trees are grown on: all, or as many as make trees that are no worse."""
    if len(labels) <= _VOXELS:
        return np.arange(len(labels))
    order = rng.permutation(len(labels))
    rank = np.empty(len(labels), np.int64)  # of a voxel among those of its class
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        rank[of_class] = np.arange(len(of_class))
    kept = rank < _VOXELS_OF_CLASS
    kept[order[:_VOXELS]] = True
    return np.flatnonzero(kept)


def _edges(x: NDArray[np.float32], labels: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """Borders between the bins of each feature (features, voxels); a value on a border is below."""
    shares = np.linspace(0, 1, _BINS + 1)[1:-1]
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    most = max(map(len, classes))
    step = -(-most // _VOXELS_FOR_BINS)
    balanced = np.concatenate([np.resize(of_class, most)[::step] for of_class in classes])
    return list(np.quantile(x[:, balanced], shares, axis=1, method="lower").T.astype(np.float32))


def _best_question(
    rng: np.random.Generator,
    bins: NDArray[np.int64],
    row: NDArray[np.int64],
    slope: NDArray[np.float32],
    curvature: NDArray[np.float32],
) -> tuple[int, int]:
    """The feature and the last of its bins whose answer is no, which lower the loss most."""
    rows, best = 1 << int(row.max()).bit_length(), (-1.0, 0, 0)
    count = max(1, round(_FEATURE_SHARE * len(bins)))
    for feature in rng.choice(len(bins), count, replace=False).tolist():
        place, gain = row * _BINS + bins[feature], np.zeros(_BINS - 1)
        for g, h in zip(slope, curvature, strict=True):
            sums = _sums(place, rows * _BINS, g, h)
            slopes, curvatures = (s.reshape(rows, _BINS).cumsum(1) for s in sums)
            low, low_curvature = slopes[:, :-1], curvatures[:, :-1]
            high, high_curvature = slopes[:, -1:] - low, curvatures[:, -1:] - low_curvature
            gain += (low**2 / (low_curvature + _REGULARIZATION)).sum(0)
            gain += (high**2 / (high_curvature + _REGULARIZATION)).sum(0)
        last = int(gain.argmax())
        best = max(best, (float(gain[last]), feature, last))
    return best[1], best[2]


def _sums(
    place: NDArray[np.int64], count: int, slope: NDArray[np.float32], curvature: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope and curvature of the loss, summed over the voxels of each place."""
    slopes = np.bincount(place, slope, count).astype(np.float64)
    curvatures = np.bincount(place, curvature, count).astype(np.float64)
    return slopes, curvatures
