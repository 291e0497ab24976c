"""The pixel classifier learns from painted voxels only, and is judged honestly."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.boxes import Box
from napari_unet3d.data.samples import Sample, tubules
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.training import pixel_fitting
from napari_unet3d.training.pixel_fitting import (
    PixelSample,
    fit_pixels,
    folds,
    sample_pixels,
)
from napari_unet3d.training.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def all_iterations():
    """The other tests have a tenth."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixel_fitting, "_CAREFUL", (300, 0.3))
        patch.setattr(pixel_fitting, "_THOROUGH", (900, 0.1))
        yield


@pytest.fixture(scope="module")
def sample() -> Sample:
    return tubules((16, 48, 48))


def _never() -> bool:
    return False


def _always() -> float:
    """Seconds that are left."""
    return math.inf


def _samples(sample: Sample, refs: tuple[SliceRef, ...], **held_out: frozenset[SliceRef]):
    annotation = SparseAnnotation(sample.annotate(refs), sample.classes, **held_out)
    trainer = Trainer(sample.image, annotation, TrainingConfig(iterations=1))
    return sample_pixels(trainer.sampler, CPU, _never)


def test_every_painted_voxel_is_taken_once(sample: Sample) -> None:
    refs = (SliceRef(0, 3), SliceRef(1, 20))
    found = _samples(sample, refs)
    assert {s.ref for s in found} == set(refs)
    truth = np.maximum(sample.truth, 1) - 1
    for s in found:
        box = tuple(slice(a, b) for a, b in zip(s.box.start, s.box.stop, strict=True))
        assert np.array_equal(truth[box].ravel()[s.chosen], s.target)
    assert sum(len(s.target) for s in found) >= 48 * 48 + 16 * 48 - 48


def test_held_out_slices_are_not_looked_at(sample: Sample) -> None:
    refs = (SliceRef(0, 3), SliceRef(0, 12))
    found = _samples(sample, refs, held_out=frozenset(refs[1:]))
    assert {s.ref for s in found} == {refs[0]}


def _made_up(ref: SliceRef, target: list[int]) -> PixelSample:
    """A sample with random features; its box is not looked at."""
    generator = torch.Generator().manual_seed(ref.index)
    features = torch.randn(len(target), 21, generator=generator)
    box = Box((0, 0, 0), (1, 1, len(target)))
    return PixelSample(ref, box, torch.arange(len(target)), features, torch.tensor(target))


def test_neighboring_slices_are_in_the_same_fold() -> None:
    samples = [_made_up(SliceRef(0, z), [0, 1]) for z in (3, 4, 9, 10)]
    assert [f.tolist() for f in folds(samples)] == [[0, 0], [0, 0], [1, 1], [1, 1]]


@pytest.mark.parametrize(
    "samples",
    [
        [_made_up(SliceRef(0, 3), [0, 1, 0, 1])],
        [_made_up(SliceRef(0, 3), [0, 1, 0, 1]), _made_up(SliceRef(0, 9), [0, 0, 0, 0])],
    ],
    ids=["a single slice", "a class on one slice only"],
)
def test_parts_are_halved_where_slices_will_not_do(samples: list[PixelSample]) -> None:
    assert all(f.tolist() == [0, 0, 1, 1] for f in folds(samples))


def test_it_learns_what_brightness_tells() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((12, 48, 48), np.uint8)
    truth[:, 10:30, 12:40] = 2
    image = (truth * 2 + rng.normal(size=truth.shape)).astype(np.float32)
    labels = np.zeros_like(truth)
    labels[[2, 9]] = np.maximum(truth[[2, 9]], 1)
    trainer = Trainer(Volume(image), SparseAnnotation.from_labels(labels))
    samples = sample_pixels(trainer.sampler, CPU, _never)
    classifier, judged = fit_pixels(samples, 1, 2, 0, _always)
    assert not classifier.training
    for s, found in zip(samples, judged, strict=True):
        assert (found.argmax(1) == s.target).float().mean() > 0.95


def test_the_judge_of_a_sample_has_not_seen_it() -> None:
    # Labels are random: who has seen them remembers some, who has not can only guess.
    rng = np.random.default_rng(0)
    samples = [_made_up(SliceRef(0, z), rng.integers(0, 2, 60).tolist()) for z in (0, 9)]
    classifier, judged = fit_pixels(samples, 1, 2, 0, _always)
    seen = torch.cat([classifier(s.features).argmax(1) == s.target for s in samples])
    unseen = torch.cat([j.argmax(1) == s.target for j, s in zip(judged, samples, strict=True)])
    assert seen.float().mean() > 0.85
    assert unseen.float().mean() < 0.65


@pytest.mark.parametrize("noisy", [False, True])
def test_it_learns_more_where_that_helps_on_what_it_has_not_seen(
    noisy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkerboard of two features needs many iterations; noise to remember forbids them."""
    ran = []
    fit = pixel_fitting._fit
    monkeypatch.setattr(pixel_fitting, "_fit", lambda *a: ran.append(a[3]) or fit(*a))
    generator = torch.Generator().manual_seed(0)
    samples = []
    for z in (0, 9):
        features = torch.rand((1500, 21), generator=generator)
        features[:, 2:] *= noisy
        target = ((features[:, 0] * 4).int() + (features[:, 1] * 4).int()) % 2
        if noisy:
            target = (features[:, 0] + torch.randn(1500, generator=generator) > 0.5).int()
        box = Box((0, 0, 0), (1, 1, 1500))
        index = torch.arange(1500)
        samples.append(PixelSample(SliceRef(0, z), box, index, features, target.long()))
    fit_pixels(samples, 1, 2, 0, _always)
    assert ran == [300] * 3 + [900] * (2 if noisy else 3)


def test_an_interruption_ends_it_with_what_there_is(sample: Sample) -> None:
    refs = (SliceRef(0, 3), SliceRef(0, 12))
    annotation = SparseAnnotation(sample.annotate(refs), sample.classes)
    trainer = Trainer(sample.image, annotation, TrainingConfig(iterations=1))
    samples = sample_pixels(trainer.sampler, CPU, lambda: True)
    assert len(samples) == 1
    classifier, judged = fit_pixels(samples, 1, 3, 0, lambda: 0.0)
    assert judged == []
    assert not classifier.training


@pytest.mark.parametrize("last", [1, 301, 901, 1300])
def test_short_time_ends_it_with_what_is_complete(
    last: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time runs out while asking for the n-th time: 3 careful fits ask 900 times, then 2 more."""
    monkeypatch.setattr(pixel_fitting.time, "monotonic", lambda: 0.0)  # learning more fits in
    samples = [_made_up(SliceRef(0, z), [0, 1] * 30) for z in (0, 9)]
    asked = itertools.count(1)
    classifier, judged = fit_pixels(samples, 1, 2, 0, lambda: float(next(asked) < last))
    assert not classifier.training
    assert [len(j) for j in judged] == ([] if last <= 901 else [60, 60])
    features, target = (torch.cat([getattr(s, n) for s in samples]) for n in ("features", "target"))
    careful = pixel_fitting._fit(1, 2, 0, 300, 0.3, _never, features, target)
    same = torch.equal(classifier.layers[0].weight, careful.layers[0].weight)
    assert same == (last > 300)


def test_the_same_seed_gives_the_same_classifier(sample: Sample) -> None:
    samples = _samples(sample, (SliceRef(0, 3), SliceRef(0, 12)))
    before = torch.random.get_rng_state()
    a, b = (fit_pixels(samples, 1, 3, 7, _always)[0].state_dict() for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert torch.equal(before, torch.random.get_rng_state())


def test_parts_are_few_but_hold_all_slices_and_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large slices are learned from in parts; a class in a far corner must not be overlooked."""
    for name, value in (("_PART", 16), ("_SMALLEST_PART", 16), ("_AREA", 2000)):
        monkeypatch.setattr(pixel_fitting, name, value)
    rng = np.random.default_rng(0)
    labels = np.zeros((8, 96, 96), np.uint8)
    labels[[1, 3]] = rng.integers(1, 3, (2, 96, 96))
    labels[3, 90:92, 1:3] = 3
    labels[6, 50, 50:53] = 2
    volume = Volume(rng.normal(size=labels.shape).astype(np.float32))
    trainer = Trainer(volume, SparseAnnotation.from_labels(labels), TrainingConfig(iterations=1))
    found = sample_pixels(trainer.sampler, CPU, _never)
    assert {s.ref.index for s in found} == {1, 3, 6}
    assert set(torch.cat([s.target for s in found]).tolist()) == {0, 1, 2}
    assert len(found) < 12  # of 73
    asked = itertools.count()
    hurried = sample_pixels(trainer.sampler, CPU, lambda: next(asked) > 1)  # three parts
    assert set(torch.cat([s.target for s in hurried]).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_one_voxel_is_not_lost_among_many(seed: int, monkeypatch) -> None:
    monkeypatch.setattr(pixel_fitting, "_VOXELS", 2000)
    labels = np.zeros((4, 96, 96), np.uint8)
    labels[1] = 1
    labels[1, 70, 7] = 2
    volume = Volume(np.random.default_rng(0).normal(size=labels.shape).astype(np.float32))
    config = TrainingConfig(iterations=1, seed=seed)
    trainer = Trainer(volume, SparseAnnotation.from_labels(labels), config)
    found = sample_pixels(trainer.sampler, CPU, _never)
    assert 1 in torch.cat([s.target for s in found])


def test_strokes_cost_no_more_than_what_surrounds_them() -> None:
    labels = np.zeros((8, 96, 96), np.uint8)
    labels[4, 10:13, 20:40] = 1
    labels[4, 30, 20:30] = 2
    volume = Volume(np.random.default_rng(0).normal(size=labels.shape).astype(np.float32))
    trainer = Trainer(volume, SparseAnnotation.from_labels(labels), TrainingConfig(iterations=1))
    (found,) = sample_pixels(trainer.sampler, CPU, _never)
    assert found.box == Box((4, 10, 20), (5, 31, 40))
    assert found.target.bincount().tolist() == [60, 10]


def test_classes_are_halved_where_a_half_would_hold_one_only() -> None:
    first, second = folds([_made_up(SliceRef(0, 3), [0, 0, 1, 1])] * 2)
    assert (first.tolist(), second.tolist()) == ([0, 0, 0, 0], [1, 1, 1, 1])
    (found,) = folds([_made_up(SliceRef(0, 3), [0, 0, 0, 0, 1, 1])])
    assert found.tolist() == [0, 0, 1, 1, 0, 1]
