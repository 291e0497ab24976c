"""Fits the pixel classifier to labelled voxels, in a few seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from napari_unet3d.data.boxes import Box
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.pixels.classifier import PixelClassifier


@dataclass(frozen=True)
class Schedule:
    """How long a classifier is fitted.

    Attributes
    ----------
    iterations
        Steps of the optimizer.
    dropout
        Share of the hidden units that are left out in each step.
    """

    iterations: int
    dropout: float


SHORT = Schedule(iterations=300, dropout=0.3)
"""For slices that differ. On four stacks of nuclei and vessels it comes to within 0.02 IoU of a
random forest in 3 s; thousands of iterations without dropout lose up to 0.06 there."""
LONG = Schedule(iterations=900, dropout=0.1)
"""For slices that resemble each other: the IoU of chloroplasts rises from 0.80 to 0.88."""
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
        (n, features) of the filter bank.
    target
        (n,) output index.
    """

    ref: SliceRef
    box: Box
    chosen: Tensor
    features: Tensor
    target: Tensor


def fit_pixels(
    samples: Sequence[PixelSample],
    channels: int,
    n_classes: int,
    seed: int,
    seconds_left: Callable[[], float],
) -> tuple[PixelClassifier, list[Tensor]]:
    """Fit a classifier to samples, and classify the samples by cross-fitting.

    The classifier is fitted with the `SHORT` schedule, and with the `LONG` one where that gives a
    better mean IoU in cross-fitting.

    Parameters
    ----------
    samples
        At least one labelled voxel.
    channels, n_classes
        Channels of the image; classes, background included.
    seed
        Seed of weights, batches and dropout.
    seconds_left
        Asked in each step; the fit ends at 0.

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
    classes = [c for c in target.unique().tolist() if c] or [0]

    def interrupted() -> bool:
        return seconds_left() <= 0

    fit_short, fit_long = (
        partial(fit_classifier, channels, n_classes, seed, schedule, interrupted)
        for schedule in (SHORT, LONG)
    )
    begin = time.monotonic()
    classifier = fit_short(features, target)
    cross_fitted = _cross_fit(fit_short, features, target, fold, n_classes, interrupted)
    if interrupted():
        return classifier, []
    taken = time.monotonic() - begin
    if seconds_left() > taken * LONG.iterations / SHORT.iterations:
        longer = _cross_fit(fit_long, features, target, fold, n_classes, interrupted)
        before, after = (mean_iou(c.argmax(1), target, classes) for c in (cross_fitted, longer))
        if after > before:
            fitted_longer = fit_long(features, target)
            if not interrupted():
                classifier, cross_fitted = fitted_longer, longer
    return classifier, list(cross_fitted.split([len(s.target) for s in samples]))


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


def _cross_fit(
    fit: Callable[[Tensor, Tensor], PixelClassifier],
    features: Tensor,
    target: Tensor,
    fold: Tensor,
    n_classes: int,
    interrupted: Callable[[], bool],
) -> Tensor:
    """Log-probabilities (N, K) of each voxel by a classifier that was fitted to the other fold.

    After an interruption, those that are missing are left undefined.
    """
    log_probabilities = torch.empty((len(target), n_classes), device=target.device)
    for i in fold.unique():
        inside = fold == i
        # There is one fold only where each sample is a single voxel.
        outside = ~inside if (~inside).any() else inside
        classifier = fit(features[outside], target[outside])
        for number, voxels in enumerate(inside.nonzero().flatten().split(_CHUNK)):
            if number and interrupted():
                return log_probabilities
            log_probabilities[voxels] = classifier.voxel_log_probabilities(features[voxels])
    return log_probabilities


def fit_classifier(
    channels: int,
    n_classes: int,
    seed: int,
    schedule: Schedule,
    interrupted: Callable[[], bool],
    features: Tensor,
    target: Tensor,
    start: PixelClassifier | None = None,
) -> PixelClassifier:
    """Fit one classifier to (N, features) and (N,) output indices; it is returned in eval mode.

    It begins with the weights and the scaling of `start`, where one is given. An interruption
    ends the fit after the current step.
    """
    device = features.device
    with _seeded(seed, device):
        classifier = PixelClassifier(channels, n_classes, schedule.dropout).to(device)
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
