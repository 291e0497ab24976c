"""The voxels that the pixel classifier is fitted to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.boxes import Box
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.samples import Sample, tubules
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.pixels.features import filter_bank
from napari_unet3d.pixels.fit import PixelSample
from napari_unet3d.sampling import pixel_samples
from napari_unet3d.sampling.patches import PatchSampler
from napari_unet3d.sampling.pixel_samples import sample_pixels
from napari_unet3d.sampling.source import Source


@pytest.fixture(scope="module")
def sample() -> Sample:
    return tubules((16, 48, 48))


def _never() -> bool:
    return False


def _sampler(volume: Volume, annotation: SparseAnnotation, seed: int = 0) -> PatchSampler:
    source = Source(volume, IntensityNormalization.estimate(volume), torch.device("cpu"))
    return PatchSampler(source, annotation, seed=seed)


def _annotated(sample: Sample, refs: Sequence[SliceRef], held_out: Sequence[SliceRef] = ()):
    annotation = SparseAnnotation(sample.annotate(refs), sample.classes, frozenset(held_out))
    return _sampler(sample.image, annotation)


def _of_labels(labels: np.ndarray, seed: int = 0) -> PatchSampler:
    image = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)
    return _sampler(Volume(image), SparseAnnotation.from_labels(labels), seed)


def test_every_painted_voxel_is_taken_once(sample: Sample) -> None:
    refs = (SliceRef(0, 3), SliceRef(1, 20))
    samples = sample_pixels(_annotated(sample, refs), _never)
    assert {s.ref for s in samples} == set(refs)
    truth = np.maximum(sample.truth, 1) - 1
    for s in samples:
        box = tuple(slice(a, b) for a, b in zip(s.box.start, s.box.stop, strict=True))
        assert np.array_equal(truth[box].ravel()[s.chosen], s.target)
    assert sum(len(s.target) for s in samples) >= 48 * 48 + 16 * 48 - 48


def test_its_features_are_those_of_its_voxels(sample: Sample) -> None:
    sampler = _annotated(sample, [SliceRef(0, 3)])
    (found,) = sample_pixels(sampler, _never)

    def read(start: tuple[int, ...], stop: tuple[int, ...]) -> torch.Tensor:
        return sampler.source.read(0, start, stop, beyond="nearest")

    box = found.box
    features = filter_bank(read, box.start, box.stop, sample.image.voxel_size)
    assert torch.equal(found.features, features.flatten(1)[:, found.chosen].T)


def test_held_out_slices_are_not_looked_at(sample: Sample) -> None:
    refs = (SliceRef(0, 3), SliceRef(0, 12))
    samples = sample_pixels(_annotated(sample, refs, held_out=refs[1:]), _never)
    assert {s.ref for s in samples} == {refs[0]}


def test_an_interruption_leaves_one_sample_at_least(sample: Sample) -> None:
    refs = (SliceRef(0, 3), SliceRef(0, 12))
    assert len(sample_pixels(_annotated(sample, refs), lambda: True)) == 1


@pytest.mark.parametrize(("asked", "complete"), [(0, 0), (6, 0), (11, 1)])
def test_a_stop_leaves_what_is_complete(sample: Sample, asked: int, complete: int) -> None:
    """Stop takes effect at the next scale: choosing two parts asks twice, each sample 6 times."""
    refs = (SliceRef(0, 3), SliceRef(0, 12))
    count = itertools.count()
    samples = sample_pixels(_annotated(sample, refs), _never, lambda: next(count) >= asked)
    assert len(samples) == complete
    assert next(count) == asked + 1, "nothing is done after the answer"


def test_parts_are_few_but_hold_all_slices_and_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large slices are sampled in parts; a class in a far corner must not be overlooked."""
    for name, value in (("_LARGEST_SIDE", 16), ("_SMALLEST_SIDE", 16), ("_AREA", 2000)):
        monkeypatch.setattr(pixel_samples, name, value)
    rng = np.random.default_rng(0)
    labels = np.zeros((8, 96, 96), np.uint8)
    labels[[1, 3]] = rng.integers(1, 3, (2, 96, 96))
    labels[3, 90:92, 1:3] = 3
    labels[6, 50, 50:53] = 2
    sampler = _of_labels(labels)
    samples = sample_pixels(sampler, _never)
    assert {s.ref.index for s in samples} == {1, 3, 6}
    assert _classes(samples) == {0, 1, 2}
    assert len(samples) < 12  # of 73
    asked = itertools.count()
    hurried = sample_pixels(sampler, lambda: next(asked) > 1)  # three parts
    assert _classes(hurried) == {0, 1, 2}


def _classes(samples: Sequence[PixelSample]) -> set[int]:
    return set(torch.cat([s.target for s in samples]).tolist())


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_one_voxel_is_not_lost_among_many(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_samples, "_LABELLED", 2000)
    labels = np.zeros((4, 96, 96), np.uint8)
    labels[1] = 1
    labels[1, 70, 7] = 2
    assert _classes(sample_pixels(_of_labels(labels, seed), _never)) == {0, 1}


def test_a_stroke_costs_no_more_than_its_bounding_box() -> None:
    labels = np.zeros((8, 96, 96), np.uint8)
    labels[4, 10:13, 20:40] = 1
    labels[4, 30, 20:30] = 2
    (found,) = sample_pixels(_of_labels(labels), _never)
    assert found.box == Box((4, 10, 20), (5, 31, 40))
    assert found.target.bincount().tolist() == [60, 10]


def test_labels_that_were_erased_meanwhile_are_left_out() -> None:
    labels = np.zeros((8, 96, 96), np.uint8)
    labels[2, 10:13, 20:40] = 1
    labels[6, 10:13, 20:40] = 2
    sampler = _of_labels(labels)
    order = [s.ref.index for s in sample_pixels(sampler, _never)]
    assert sorted(order) == [2, 6]

    def erase() -> bool:
        labels[order[1]] = 0
        return False

    samples = sample_pixels(sampler, erase)
    assert [s.ref.index for s in samples] == order[:1]
