"""Samples that the pixel classifier is fitted to: parts of the annotated slices."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from napari_unet3d.data.boxes import Box, plan_blocks, slice_box
from napari_unet3d.data.labelled_voxels import LabelledVoxels
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.pixels.features import SCALES, Read, Scales, filter_bank
from napari_unet3d.pixels.fit import PixelSample
from napari_unet3d.sampling.patches import PatchSampler

_LARGEST_SIDE, _SMALLEST_SIDE = 256, 96
"""Voxels. A part of a slice has the area of a square with the first side. With many slices the
square is smaller, so that each slice gives a part; below the second side, most voxels that are read
belong to the halo."""
_AREA = 800_000
"""Voxels of all parts together in an image of one channel; their features take a few seconds."""
_SMALLEST_AREA = 2000
"""Voxels. Smaller parts count as this many, since their halo is read too."""
_LABELLED = 300_000
"""Labelled voxels of all parts together in an image of one channel; their features take 25 MB."""
_SMALLEST_QUOTA = 2000
"""Labelled voxels that a part may give however many parts there are, in an image of one channel."""

_Part = tuple[SliceRef, Box]


def sample_pixels(
    sampler: PatchSampler,
    interrupted: Callable[[], bool],
    stopped: Callable[[], bool] = lambda: False,
    only: Collection[SliceRef] | None = None,
    scales: Scales = SCALES,
) -> list[PixelSample]:
    """Features of labelled voxels, from parts spread over all annotated slices.

    Parameters
    ----------
    sampler
        The stack, its annotation and the annotated slices. Features are computed on the device of
        its source.
    interrupted
        Asked between parts. When True, the samples so far are returned, at least one.
    stopped
        Asked before each scale of each part. When True, the samples of complete parts are
        returned at once, even if there is none.
    only
        The slices that samples are taken of, as many as where all slices give some; None takes
        them of all slices.
    scales
        Scales of the features.
    """
    source = sampler.source
    rng = np.random.default_rng(sampler.seed)
    slices = [s for s in sampler.slices if only is None or s.ref in only]
    parts = _choose_parts(sampler, slices, rng, stopped)
    labelled = _LABELLED * len(slices) // max(len(sampler.slices), 1)
    quota = max(_SMALLEST_QUOTA, labelled // max(len(parts), 1)) // source.volume.n_channels + 1
    samples: list[PixelSample] = []
    for ref, box in parts:
        if stopped() or (samples and interrupted()):
            break
        codes = sampler.annotation.training_crop(ref.time, box.start, box.stop).ravel()
        chosen = _choose_voxels(codes, quota, rng)
        if not len(chosen):  # the labels were erased since the parts were chosen
            continue
        read = _until(stopped, partial(source.read, ref.time, beyond="nearest"))
        try:
            voxel_size = source.volume.voxel_size
            features = filter_bank(read, box.start, box.stop, voxel_size, scales)
        except _StoppedError:
            break
        index = torch.from_numpy(chosen).to(source.device)
        target = torch.from_numpy(codes[chosen].astype(np.int64) - 1).to(source.device)
        of_voxels = features.flatten(1)[:, index].T.contiguous()
        samples.append(PixelSample(ref, box, index, of_voxels, target))
    return samples


class _StoppedError(Exception):
    """The training was stopped while features were computed."""


def _until(stopped: Callable[[], bool], read: Read) -> Read:
    """A reader that asks before each reading, which the filter bank does once a scale."""

    def read_unless_stopped(start: tuple[int, ...], stop: tuple[int, ...]) -> Tensor:
        if stopped():
            raise _StoppedError
        return read(start, stop)

    return read_unless_stopped


def _choose_voxels(codes: np.ndarray, quota: int, rng: np.random.Generator) -> np.ndarray:
    """Flat indices of labelled voxels, ascending: one of each class first, then at random."""
    order = rng.permutation(np.flatnonzero(codes))
    one_of_each = np.unique(codes[order], return_index=True)[1]
    order = np.concatenate([order[one_of_each], np.delete(order, one_of_each)])
    return np.sort(order[:quota])


def _choose_parts(
    sampler: PatchSampler,
    slices: Sequence[LabelledVoxels],
    rng: np.random.Generator,
    stopped: Callable[[], bool],
) -> list[_Part]:
    """Labelled parts of as many of the slices as possible, in turn one of each slice.

    The first parts hold every painted class: a class that the classifier never saw would be ruled
    out everywhere.
    """
    side_area = _AREA // sampler.source.volume.n_channels
    largest_area = side_area * len(slices) // max(len(sampler.slices), 1)
    missing = {code for s in slices for code in s.counts}
    with_new_class: list[_Part] = []
    others: list[_Part] = []
    area = 0
    for ref, part in _parts_in_turn(sampler, slices, side_area, rng):
        if stopped() or (area > largest_area and not missing):
            break
        codes = sampler.annotation.training_crop(ref.time, part.start, part.stop)
        new = missing & set(np.unique(codes).tolist())
        if new or (area <= largest_area and codes.any()):
            box = _around_labels(codes, part)
            (with_new_class if new else others).append((ref, box))
            area += max(math.prod(box.shape), _SMALLEST_AREA)
            missing -= new
    return with_new_class + others


def _parts_in_turn(
    sampler: PatchSampler, slices: Sequence[LabelledVoxels], area: int, rng: np.random.Generator
) -> Iterator[_Part]:
    """Parts of slices that hold labelled voxels, in random order, in turn one of each slice."""
    side = int((area / len(sampler.slices)) ** 0.5)
    side = min(max(side, _SMALLEST_SIDE), _LARGEST_SIDE)
    parts: list[list[_Part]] = []
    for painted in slices:
        whole = slice_box(sampler.source.volume.shape, painted.ref)
        z, y, x = (-(-min(n, side) // 2) for n in whole.shape)
        boxes = plan_blocks(whole.shape, (z, y, x), side * side).moved(whole.start)
        labelled = np.unique(boxes.containing(painted.coordinates))
        order = rng.permutation(len(labelled))
        parts.append([(painted.ref, boxes[labelled[i]]) for i in order])
    for turn in range(max((len(of_slice) for of_slice in parts), default=0)):
        for number in rng.permutation(len(parts)):
            if turn < len(parts[number]):
                yield parts[number][turn]


def _around_labels(codes: np.ndarray, part: Box) -> Box:
    """The bounding box of the labelled voxels of a part: a stroke needs few features."""
    low, high = [], []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        labelled = np.flatnonzero(codes.any(axis=others))
        low.append(part.start[axis] + int(labelled[0]))
        high.append(part.start[axis] + int(labelled[-1]) + 1)
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
