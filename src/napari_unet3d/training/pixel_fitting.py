"""Fits the pixel classifier to a sparse annotation, in a few seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_unet3d.data.boxes import Box, plan_blocks, slice_box
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.model.mixture_fit import mean_iou
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.pixels.features import Read, filter_bank
from napari_unet3d.sampling.patches import PatchSampler
from napari_unet3d.sampling.source import Source

_PART, _SMALLEST_PART = 256, 96
"""Parts of slices have about the area of such a square; smaller where there are many slices."""
_AREA, _VOXELS = 800_000, 300_000
"""Voxels of the parts, and labelled ones that are learned from, about; of one channel."""
_LEAST_AREA = 2000
"""What a smaller part counts: its surroundings are read, too."""
_BATCH, _RATE, _DECAY = 2048, 5e-3, 1e-2
_CAREFUL, _THOROUGH = (300, 0.3), (900, 0.1)
"""Iterations and dropout: where slices differ, and where they do not."""
_FOLDS = 2
_ROWS = 1 << 15
"""Voxels that are judged at once: a hundredth of a second, after which a stop is heard."""


@dataclass(frozen=True)
class PixelSample:
    """Labelled voxels of a part of a slice.

    Attributes
    ----------
    ref, box
        The slice, and where in it the part lies.
    chosen
        Flat indices of the voxels in the box, ascending.
    features
        (n, features).
    target
        (n,) output index.
    """

    ref: SliceRef
    box: Box
    chosen: Tensor
    features: Tensor
    target: Tensor


def sample_pixels(
    sampler: PatchSampler,
    device: torch.device,
    interrupted: Callable[[], bool],
    stopped: Callable[[], bool] = lambda: False,
) -> list[PixelSample]:
    """Features of labelled voxels, from parts spread over all slices of the training.

    Parameters
    ----------
    sampler, device
        What is learned from; where the features are computed.
    interrupted
        Asked between parts: when True, the parts so far are enough, but there is at least one.
    stopped
        Asked before each scale of each part: when True, the parts that are complete are
        returned at once, even if there is none.
    """
    volume = sampler.volume
    rng = np.random.default_rng(sampler.seed)
    parts = _choose(sampler, rng, stopped)
    quota = max(2000, _VOXELS // max(len(parts), 1)) // volume.n_channels + 1
    samples: list[PixelSample] = []
    for ref, box in parts:
        if stopped() or (samples and interrupted()):
            break
        codes = sampler.annotation.training_crop(ref.time, box.start, box.stop).ravel()
        order = rng.permutation(np.flatnonzero(codes))
        if not len(order):  # erased meanwhile
            continue
        one_of_each = np.unique(codes[order], return_index=True)[1]
        order = np.concatenate([order[one_of_each], np.delete(order, one_of_each)])
        chosen = np.sort(order[:quota])
        source = Source(volume, sampler.intensity, device)
        read = _until(stopped, partial(source.read, ref.time, beyond="nearest"))
        try:
            features = filter_bank(read, box.start, box.stop, volume.voxel_size)
        except _StoppedError:
            break
        index = torch.from_numpy(chosen).to(device)
        target = torch.from_numpy(codes[chosen].astype(np.int64) - 1).to(device)
        picked = features.flatten(1)[:, index].T.contiguous()
        samples.append(PixelSample(ref, box, index, picked, target))
    return samples


class _StoppedError(Exception):
    """The training was stopped while features were computed."""


def _until(stopped: Callable[[], bool], read: Read) -> Read:
    """A reader that asks before each reading; the filter bank reads once a scale."""

    def reading(start: tuple[int, ...], stop: tuple[int, ...]) -> Tensor:
        if stopped():
            raise _StoppedError
        return read(start, stop)

    return reading


def _choose(
    sampler: PatchSampler, rng: np.random.Generator, stopped: Callable[[], bool]
) -> list[tuple[SliceRef, Box]]:
    """Labelled parts of as many slices as possible, in turn one of each.

    The first ones hold every class that is painted: one that was never seen would be ruled out
    everywhere.
    """
    most = _AREA // sampler.volume.n_channels
    missing = {int(c) for c in np.flatnonzero(sampler.class_counts) + 1}
    first: list[tuple[SliceRef, Box]] = []
    rest: list[tuple[SliceRef, Box]] = []
    area = 0
    for ref, part in _parts(sampler, most, rng):
        if stopped() or (area > most and not missing):
            break
        codes = sampler.annotation.training_crop(ref.time, part.start, part.stop)
        new = missing & set(np.unique(codes).tolist())
        if new or (area <= most and codes.any()):
            box = _around(codes, part)
            (first if new else rest).append((ref, box))
            area += max(math.prod(box.shape), _LEAST_AREA)
            missing -= new
    return first + rest


def _parts(
    sampler: PatchSampler, most: int, rng: np.random.Generator
) -> Iterator[tuple[SliceRef, Box]]:
    """The parts of slices that hold labelled voxels, in random order, but in turn one of each."""
    side = min(max(int((most / len(sampler.slices)) ** 0.5), _SMALLEST_PART), _PART)
    rounds: list[list[tuple[SliceRef, Box]]] = []
    for painted in sampler.slices:
        whole = slice_box(sampler.volume.shape, painted.ref)
        z, y, x = (-(-min(n, side) // 2) for n in whole.shape)
        boxes = plan_blocks(whole.shape, (z, y, x), side * side).moved(whole.start)
        held = np.unique(boxes.containing(painted.coordinates))
        rounds.append([(painted.ref, boxes[held[i]]) for i in rng.permutation(len(held))])
    for i in range(max((len(own) for own in rounds), default=0)):
        for j in rng.permutation(len(rounds)):
            if i < len(rounds[j]):
                yield rounds[j][i]


def _around(codes: np.ndarray, part: Box) -> Box:
    """The labelled voxels of a part, and no more: strokes need few features."""
    low, high = [], []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        there = np.flatnonzero(codes.any(axis=others))
        low.append(part.start[axis] + int(there[0]))
        high.append(part.start[axis] + int(there[-1]) + 1)
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def folds(samples: Sequence[PixelSample]) -> list[Tensor]:
    """Two folds for cross-fitting, one number for each voxel of each sample.

    The first and the second half of the slices, so that neighbors are together. Where a class
    would be missing from one of them, the halves of each part instead; and where that leaves a
    single class in one of them, the halves of each class.
    """
    refs = sorted({s.ref for s in samples})
    by_slice = [torch.full_like(s.target, refs.index(s.ref) * _FOLDS // len(refs)) for s in samples]
    target = torch.cat([s.target for s in samples])
    fold = torch.cat(by_slice)
    classes = target.unique()
    if all(len(fold[target == c].unique()) == _FOLDS for c in classes):
        return by_slice
    by_part = [_halves(len(s.target), target.device) for s in samples]
    fold = torch.cat(by_part)
    if len(classes) == 1 or all(len(target[fold == i].unique()) > 1 for i in range(_FOLDS)):
        return by_part
    for c in classes:
        own = target == c
        fold[own] = _halves(int(own.sum()), target.device)
    return list(fold.split([len(s.target) for s in samples]))


def _halves(n: int, device: torch.device) -> Tensor:
    return torch.arange(n, device=device) * _FOLDS // max(n, 1)


def fit_pixels(
    samples: Sequence[PixelSample],
    channels: int,
    n_classes: int,
    seed: int,
    left: Callable[[], float],
) -> tuple[PixelClassifier, list[Tensor]]:
    """Train a classifier on samples, and judge it by cross-fitting.

    It learns carefully at first, since slices differ. Where learning more gives a better mean
    IoU on what it has not seen, it learns more.

    Parameters
    ----------
    samples
        What is learned; at least one labelled voxel.
    channels, n_classes
        Of the image; background included.
    seed
        Of weights, batches and dropout.
    left
        Asked again and again for the seconds that are left.

    Returns
    -------
    classifier, judged
        In eval mode, on the samples' device; and the log-probabilities (n, K) of each sample,
        of each voxel by a classifier that has not seen its fold. None of these when time was
        short.
    """
    features = torch.cat([s.features for s in samples])
    target = torch.cat([s.target for s in samples])
    fold = torch.cat(folds(samples))
    classes = [c for c in target.unique().tolist() if c] or [0]

    def interrupted() -> bool:
        return left() <= 0

    careful, thorough = (
        partial(_fit, channels, n_classes, seed, iterations, dropout, interrupted)
        for iterations, dropout in (_CAREFUL, _THOROUGH)
    )
    begin = time.monotonic()
    classifier = careful(features, target)
    judged = _cross_fit(careful, features, target, fold, n_classes, interrupted)
    if interrupted():
        return classifier, []
    if left() > (time.monotonic() - begin) * _THOROUGH[0] / _CAREFUL[0]:
        again = _cross_fit(thorough, features, target, fold, n_classes, interrupted)
        before, after = (mean_iou(j.argmax(1), target, classes) for j in (judged, again))
        if after > before:
            learned = thorough(features, target)
            if not interrupted():
                classifier, judged = learned, again
    return classifier, list(judged.split([len(s.target) for s in samples]))


def _cross_fit(
    fit: Callable[[Tensor, Tensor], PixelClassifier],
    features: Tensor,
    target: Tensor,
    fold: Tensor,
    n_classes: int,
    interrupted: Callable[[], bool],
) -> Tensor:
    """Log-probabilities (N, K) of each voxel by a classifier fitted to the other fold, if any.

    After an interruption the rest of them is left undefined.
    """
    judged = torch.empty((len(target), n_classes), device=target.device)
    for i in fold.unique():
        own = fold == i
        others = ~own if (~own).any() else own  # parts of one voxel each
        classifier = fit(features[others], target[others])
        for j, voxels in enumerate(own.nonzero().flatten().split(_ROWS)):
            if j and interrupted():
                return judged
            judged[voxels] = classifier.voxel_log_probabilities(features[voxels])
    return judged


def _fit(
    channels: int,
    n_classes: int,
    seed: int,
    iterations: int,
    dropout: float,
    interrupted: Callable[[], bool],
    features: Tensor,
    target: Tensor,
) -> PixelClassifier:
    device = features.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = PixelClassifier(channels, n_classes, dropout).to(device)
        classifier.mean.copy_(features.mean(0))
        std = features.std(0, correction=0)
        classifier.std.copy_(torch.where(std < 1e-3, 1.0, std))  # constant where painted
        optimizer = torch.optim.AdamW(classifier.parameters(), _RATE, weight_decay=_DECAY)
        for i in range(iterations):
            if interrupted():
                break
            for group in optimizer.param_groups:
                group["lr"] = _RATE * 0.5 * (1 + math.cos(math.pi * i / iterations))
            chosen = torch.randint(len(target), (min(_BATCH, len(target)),), device=device)
            loss = functional.cross_entropy(classifier(features[chosen]), target[chosen])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return classifier.eval().requires_grad_(False)
