"""Fits the pixel classifier to labelled voxels, in a few seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from napari_unet3d.data.boxes import Box
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.pixels.features import MORE_SCALES, SCALES, Scales, feature_count
from napari_unet3d.pixels.trees import SHORTEST, TREES, ObliviousTrees, fit_trees


@dataclass(frozen=True)
class Schedule:
    """How long a classifier is fitted.

    Attributes
    ----------
    iterations
        Steps of the optimizer.
    dropout
        Share of the hidden units that are left out in each step.
    trees
        Trees that are grown.
    """

    iterations: int
    dropout: float
    trees: int = TREES


SCHEDULE = Schedule(iterations=900, dropout=0.1)
"""The schedule where there is time for it. 300 iterations with a dropout of 0.3 lose 0.02 IoU, in
the mean over six development stacks, k = 1 and 3."""
_FEWEST_ITERATIONS = 300
"""Iterations of the shortest schedule of which time is left to cross-fitting."""
_TRIED_ITERATIONS = 20
"""Iterations that are timed first: 0.1 s."""
_USED_SHARE = 0.9
"""Share of the time that is planned to be used; the rest is for what is not planned."""
_TREES_TIME = 0.3
"""Share of the time that the trees of one fit may take."""
MORE_FOR_TREES = 1 / 6
"""Share that the trees have beyond a half, for one slice; it falls with the number of slices. On
six development stacks, equal shares gain 0.002 IoU in the mean and fall behind a random forest by
0.04 where a single slice was annotated; with a third for the perceptron none is behind by more than
0.004. From three slices on, equal shares are not behind either."""
_SLICES_FOR_MORE_SCALES = 2
"""Annotated slices from which on trees may ask about a scale of 16. With two, three and five, the
IoU of the classifier rises by 0.006, 0.010 and 0.014 in the mean of six development stacks (by up
to 0.055 on the hippocampus) and falls on none by more than 0.003. With one, it falls on three of
them, by up to 0.04: what is so coarse looks alike within a slice."""
_BATCH = 2048
"""Voxels of a step of the optimizer, drawn at random; a step on them takes milliseconds."""
_LEARNING_RATE, _WEIGHT_DECAY = 5e-3, 1e-2
"""Settings of AdamW. The rate is the first one; it falls to 0 along a cosine."""
_SMALLEST_STD = 1e-3
"""Standard deviation. A feature that varies less on the labelled voxels counts as constant, and is
not scaled up."""
_FOLDS = 2
"""Parts of the samples for cross-fitting, which fits one classifier for each part: the fewest."""
_CHUNK = 1 << 15
"""Voxels classified at once in cross-fitting: 0.01 s, after which an interruption is noticed."""


@dataclass(frozen=True)
class PixelSample:
    """Labelled voxels of a part of a slice.

    Attributes
    ----------
    ref, box
        The slice, and where in it the part lies.
    chosen
        (n,) flat indices of the voxels in the box, ascending.
    features
        (n, features) of the filter bank, of as many scales in all samples.
    target
        (n,) output index.
    """

    ref: SliceRef
    box: Box
    chosen: Tensor
    features: Tensor
    target: Tensor


def scales_of_trees(slices: int) -> Scales:
    """Scales of the features that trees may ask about, with so many annotated slices."""
    return MORE_SCALES if slices >= _SLICES_FOR_MORE_SCALES else SCALES


def fit_pixels(
    samples: Sequence[PixelSample],
    channels: int,
    n_classes: int,
    seed: int,
    seconds_left: Callable[[], float],
    *,
    crosses: bool = True,
) -> tuple[PixelClassifier, list[Tensor]]:
    """Fit a classifier to samples, and classify the samples by cross-fitting.

    Parameters
    ----------
    samples
        At least one labelled voxel, with features of `scales_of_trees` of their slices.
    channels, n_classes
        Channels of the image; classes, background included.
    seed
        Seed of weights, batches, dropout, and of the features that trees look at.
    seconds_left
        Asked in each step; the fit ends at 0. Where it is finite, the iterations are as many as
        the time allows, up to those of `SCHEDULE`.
    crosses
        Whether the samples are classified by cross-fitting, where there is time for it.

    Returns
    -------
    classifier, cross_fitted
        The classifier in eval mode, on the samples' device. The log-probabilities (n, K) of each
        sample, where each voxel is classified by a classifier that was fitted without the
        voxel's fold; an empty list where the time was too short for them.
    """
    features = torch.cat([s.features for s in samples])
    target = torch.cat([s.target for s in samples])
    fold = torch.cat(assign_folds(samples))
    refs = sorted({s.ref for s in samples})
    of_slice = torch.cat([torch.full_like(s.target, refs.index(s.ref)) for s in samples])

    def interrupted() -> bool:
        return seconds_left() <= 0

    share = 0.5 + MORE_FOR_TREES / len(refs)
    schedule = SCHEDULE
    seconds = _TREES_TIME * seconds_left()
    begin = time.monotonic()
    trees = fit_trees(
        features, target, n_classes, seed, interrupted, schedule.trees, share, seconds
    )
    trees_seconds = time.monotonic() - begin
    if math.isfinite(seconds):
        begin = time.monotonic()
        trial = replace(SCHEDULE, iterations=_TRIED_ITERATIONS)
        fit_classifier(channels, n_classes, seed, trial, interrupted, features, target)
        step = max(time.monotonic() - begin, SHORTEST) / _TRIED_ITERATIONS
        left = _USED_SHARE * seconds_left()
        # Cross-fitting fits the trees of every voxel, and a perceptron for each fold.
        possible = (left - trees_seconds) / step / (1 + _FOLDS)
        fewest = min(_FEWEST_ITERATIONS, SCHEDULE.iterations)
        crosses = crosses and possible >= fewest
        possible = possible if crosses else left / step
        schedule = replace(SCHEDULE, iterations=int(min(max(possible, 1), SCHEDULE.iterations)))
        # A perceptron that has hardly learned leaves its share to the trees.
        trees = trees.with_share(1 - (1 - share) * min(1.0, schedule.iterations / fewest))

    def fit(features: Tensor, target: Tensor, trees: ObliviousTrees) -> PixelClassifier:
        return fit_classifier(
            channels, n_classes, seed, schedule, interrupted, features, target, trees=trees
        )

    classifier = fit(features, target, trees)
    if interrupted() or not crosses:
        return classifier, []
    log_probabilities = torch.empty((len(target), n_classes), device=target.device)
    for i in fold.unique():
        inside = fold == i
        # There is one fold only where each sample is a single voxel.
        outside = ~inside if (~inside).any() else inside
        own, own_target = features[outside], target[outside]
        scales = scales_of_trees(len(of_slice[outside].unique()))
        seen = own[:, : feature_count(channels, scales)]
        own_trees = fit_trees(
            seen, own_target, n_classes, seed, interrupted, schedule.trees, share, seconds
        )
        judge = fit(own, own_target, own_trees)
        for voxels in inside.nonzero().flatten().split(_CHUNK):
            if interrupted():
                return classifier, []
            log_probabilities[voxels] = judge.voxel_log_probabilities(features[voxels])
    return classifier, list(log_probabilities.split([len(s.target) for s in samples]))


def assign_folds(samples: Sequence[PixelSample]) -> list[Tensor]:
    """Fold 0 or 1 of each voxel of each sample.

    The folds are the first and the second half of the slices, so that neighboring slices, which
    look alike, are in one fold. Where a class would be missing from a fold, each sample is halved
    instead. Where that leaves a single class in a fold, the voxels of each class are halved.
    """
    refs = sorted({s.ref for s in samples})
    by_slice = [torch.full_like(s.target, refs.index(s.ref) * _FOLDS // len(refs)) for s in samples]
    target = torch.cat([s.target for s in samples])
    fold = torch.cat(by_slice)
    classes = target.unique()
    if all(len(fold[target == c].unique()) == _FOLDS for c in classes):
        return by_slice
    by_sample = [_halves(len(s.target), target.device) for s in samples]
    fold = torch.cat(by_sample)
    if len(classes) == 1 or all(len(target[fold == i].unique()) > 1 for i in range(_FOLDS)):
        return by_sample
    for c in classes:
        of_class = target == c
        fold[of_class] = _halves(int(of_class.sum()), target.device)
    return list(fold.split([len(s.target) for s in samples]))


def _halves(n: int, device: torch.device) -> Tensor:
    return torch.arange(n, device=device) * _FOLDS // max(n, 1)


def fit_classifier(
    channels: int,
    n_classes: int,
    seed: int,
    schedule: Schedule,
    interrupted: Callable[[], bool],
    features: Tensor,
    target: Tensor,
    start: PixelClassifier | None = None,
    trees: ObliviousTrees | None = None,
) -> PixelClassifier:
    """Fit one classifier to (N, features) and (N,) output indices; it is returned in eval mode.

    Only its perceptron is fitted, to the features of `SCALES`, which come first. It begins with the
    weights and the scaling of `start`, where one is given; `trees` stand beside it. An interruption
    ends the fit after the current step.
    """
    device = features.device
    features = features[:, : feature_count(channels)]
    with _seeded(seed, device):
        classifier = PixelClassifier(channels, n_classes, schedule.dropout, trees=trees).to(device)
        if start is None:
            classifier.mean.copy_(features.mean(0))
            std = features.std(0, correction=0)
            classifier.std.copy_(torch.where(std < _SMALLEST_STD, 1.0, std))
        else:
            classifier.load_state_dict(start.state_dict())
        optimizer = torch.optim.AdamW(
            classifier.parameters(), _LEARNING_RATE, weight_decay=_WEIGHT_DECAY
        )
        for i in range(schedule.iterations):
            if interrupted():
                break
            for group in optimizer.param_groups:
                cosine = 0.5 * (1 + math.cos(math.pi * i / schedule.iterations))
                group["lr"] = _LEARNING_RATE * cosine
            chosen = torch.randint(len(target), (min(_BATCH, len(target)),), device=device)
            loss = functional.cross_entropy(classifier(features[chosen]), target[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return classifier.eval().requires_grad_(False)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's random numbers on the CPU and on one device, and restore both afterwards.

    `torch.manual_seed` would seed every GPU of the computer, and restore none of them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.random.fork_rng(devices=[device]), torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
                yield
        elif device.type == "mps":
            state = torch.mps.get_rng_state()
            torch.mps.manual_seed(seed)
            try:
                yield
            finally:
                torch.mps.set_rng_state(state)
        else:
            yield


def mean_iou(output: Tensor, target: Tensor, classes: list[int]) -> float:
    """Mean IoU of some classes, from the (N,) output indices of a classifier and the true ones."""
    n = max(int(output.max()), int(target.max())) + 1
    a, b = output.bincount(minlength=n), target.bincount(minlength=n)
    both = output[output == target].bincount(minlength=n)
    return float((both[classes] / (a + b - both)[classes].clamp(min=1)).mean())
