"""The pixel classifier learns from labelled voxels, and cross-fitting judges it on unseen ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_unet3d.data.boxes import Box
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.pixels import fit
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.pixels.features import MORE_SCALES, SCALES, feature_count
from napari_unet3d.pixels.fit import (
    PixelSample,
    Schedule,
    assign_folds,
    fit_classifier,
    fit_pixels,
    mean_iou,
    scales_of_trees,
)

CPU = torch.device("cpu")
SCHEDULE = Schedule(900, 0.1)


@pytest.fixture
def all_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """All iterations; without this fixture, a test has a thirtieth of them."""
    monkeypatch.setattr(fit, "SCHEDULE", SCHEDULE)


@pytest.fixture
def a_tenth_of_the_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for what is easy to learn."""
    shorter = Schedule(SCHEDULE.iterations // 10, SCHEDULE.dropout, trees=20)
    monkeypatch.setattr(fit, "SCHEDULE", shorter)


def _never() -> bool:
    return False


def _endless() -> float:
    """Seconds that are left."""
    return math.inf


def _sample(ref: SliceRef, target: Tensor, features: Tensor) -> PixelSample:
    """A sample with these features; its box is not used."""
    box = Box((0, 0, 0), (1, 1, len(target)))
    return PixelSample(ref, box, torch.arange(len(target)), features, target.long())


def _random_sample(ref: SliceRef, target: list[int]) -> PixelSample:
    """A sample whose features say nothing about its classes."""
    generator = torch.Generator().manual_seed(ref.index)
    features = torch.randn(len(target), feature_count(1), generator=generator)
    return _sample(ref, torch.tensor(target), features)


# --- folds ----------------------------------------------------------------------------------


def test_neighboring_slices_are_in_the_same_fold() -> None:
    samples = [_random_sample(SliceRef(0, z), [0, 1]) for z in (3, 4, 9, 10)]
    assert [f.tolist() for f in assign_folds(samples)] == [[0, 0], [0, 0], [1, 1], [1, 1]]


@pytest.mark.parametrize(
    "samples",
    [
        [_random_sample(SliceRef(0, 3), [0, 1, 0, 1])],
        [_random_sample(SliceRef(0, 3), [0, 1, 0, 1]), _random_sample(SliceRef(0, 9), [0] * 4)],
    ],
    ids=["a single slice", "a class on one slice only"],
)
def test_samples_are_halved_where_slices_will_not_do(samples: list[PixelSample]) -> None:
    assert all(f.tolist() == [0, 0, 1, 1] for f in assign_folds(samples))


def test_classes_are_halved_where_a_half_would_hold_one_only() -> None:
    first, second = assign_folds([_random_sample(SliceRef(0, 3), [0, 0, 1, 1])] * 2)
    assert (first.tolist(), second.tolist()) == ([0, 0, 0, 0], [1, 1, 1, 1])
    (single,) = assign_folds([_random_sample(SliceRef(0, 3), [0, 0, 0, 0, 1, 1])])
    assert single.tolist() == [0, 0, 1, 1, 0, 1]


# --- fitting --------------------------------------------------------------------------------


def _bright_and_dark(device: torch.device = CPU) -> list[PixelSample]:
    """Two slices whose first feature tells the class of most voxels."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for z in (2, 9):
        target = torch.randint(2, (150,), generator=generator)
        features = torch.randn(150, feature_count(1), generator=generator)
        features[:, 0] += 5 * target
        samples.append(_sample(SliceRef(0, z), target.to(device), features.to(device)))
    return samples


@pytest.mark.usefixtures("a_tenth_of_the_iterations")
def test_it_learns_what_brightness_tells(device: torch.device) -> None:
    samples = _bright_and_dark(device)
    classifier, cross_fitted = fit_pixels(samples, 1, 2, 0, _endless)
    assert not classifier.training
    assert not any(p.requires_grad for p in classifier.parameters())
    for s, log_probabilities in zip(samples, cross_fitted, strict=True):
        assert (log_probabilities.argmax(1) == s.target).float().mean() > 0.95


@pytest.mark.usefixtures("all_iterations")
def test_each_voxel_is_classified_by_a_classifier_that_has_not_seen_it() -> None:
    # Labels are random: who has seen them remembers some, who has not can only guess.
    rng = np.random.default_rng(0)
    samples = [_random_sample(SliceRef(0, z), rng.integers(0, 2, 60).tolist()) for z in (0, 9)]
    classifier, cross_fitted = fit_pixels(samples, 1, 2, 0, _endless)
    seen = torch.cat([classifier(s.features).argmax(1) == s.target for s in samples])
    unseen = torch.cat(
        [c.argmax(1) == s.target for c, s in zip(cross_fitted, samples, strict=True)]
    )
    assert seen.float().mean() > 0.85
    assert unseen.float().mean() < 0.65


@pytest.mark.usefixtures("a_tenth_of_the_iterations")
def test_trees_of_several_slices_use_the_coarsest_scale_and_judges_of_one_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only the coarsest scale tells the class."""
    generator = torch.Generator().manual_seed(0)
    samples = []
    for z in (2, 9, 11):
        target = torch.randint(2, (150,), generator=generator)
        features = torch.randn(150, feature_count(1, MORE_SCALES), generator=generator)
        features[:, -1] += 5 * target
        samples.append(_sample(SliceRef(0, z), target, features))
    grown, widths = fit.fit_trees, []
    monkeypatch.setattr(
        fit, "fit_trees", lambda f, *rest: widths.append(f.shape[1]) or grown(f, *rest)
    )
    classifier, cross_fitted = fit_pixels(samples, 1, 2, 0, _endless)
    assert widths == [26, 21, 26], "all slices; one and two of them"
    assert classifier.scales == MORE_SCALES

    def right(found: list[Tensor]) -> list[float]:
        both = zip(found, samples, strict=True)
        return [float((f.argmax(1) == s.target).float().mean()) for f, s in both]

    assert min(right([classifier.voxel_log_probabilities(s.features) for s in samples])) > 0.95
    guessed, also_guessed, known = right(cross_fitted)
    assert max(guessed, also_guessed) < 0.65
    assert known > 0.95


def test_the_coarsest_scale_is_for_two_slices_and_more() -> None:
    assert [scales_of_trees(n) for n in (1, 2, 3, 9)] == [SCALES] + [MORE_SCALES] * 3


def _same(a: PixelClassifier, b: PixelClassifier) -> bool:
    states = a.state_dict(), b.state_dict()
    return all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_without_time_there_is_a_classifier_but_no_cross_fitting(device: torch.device) -> None:
    classifier, cross_fitted = fit_pixels(_bright_and_dark(device), 1, 2, 0, lambda: 0.0)
    assert cross_fitted == []
    assert not classifier.training


class _Clock:
    """A clock on which every question takes a second."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self.asked = seconds, 0

    def left(self) -> float:
        self.asked += 1
        return self._seconds - self.asked

    def now(self) -> float:
        return float(self.asked)


@pytest.mark.usefixtures("all_iterations")
@pytest.mark.parametrize(
    ("seconds", "crosses"), [(300, False), (1100, False), (1600, True), (9000, True)]
)
def test_time_decides_how_many_iterations_there_are(
    seconds: float, crosses: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question is asked before each tree and each iteration, and takes a second here."""
    clock = _Clock(seconds)
    monkeypatch.setattr(fit.time, "monotonic", clock.now)
    iterations: list[int] = []
    really_fit = fit.fit_classifier

    def noting(*given: Any, **named: Any) -> PixelClassifier:
        iterations.append(given[3].iterations)
        return really_fit(*given, **named)

    monkeypatch.setattr(fit, "fit_classifier", noting)
    samples = [_random_sample(SliceRef(0, z), [0, 1] * 30) for z in (0, 9)]
    classifier, cross_fitted = fit_pixels(samples, 1, 2, 0, clock.left)
    assert not classifier.training
    assert [len(c) for c in cross_fitted] == ([60, 60] if crosses else [])
    tried, *fitted = iterations
    assert tried < 50
    assert len(set(fitted)) == 1
    assert len(fitted) == (3 if crosses else 1)
    assert sum(fitted) <= seconds
    assert fitted[0] == SCHEDULE.iterations if seconds > 4000 else fitted[0] > seconds / 4


@pytest.mark.usefixtures("all_iterations")
def test_in_a_hurry_few_trees_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A perceptron of a few iterations knows nothing yet."""
    clock = _Clock(75)
    monkeypatch.setattr(fit.time, "monotonic", clock.now)
    samples = _bright_and_dark()
    classifier, cross_fitted = fit_pixels(samples, 1, 2, 0, clock.left)
    assert not cross_fitted
    assert classifier.trees is not None
    assert classifier.trees.share > 0.9
    for s in samples:
        found = classifier.voxel_log_probabilities(s.features).exp()
        assert (found.argmax(1) == s.target).float().mean() > 0.95
        assert found.amax(1).mean() > 0.85, "few trees must be as sure as many"


def test_trees_have_more_of_the_say_with_few_slices() -> None:
    samples = [_random_sample(SliceRef(0, z), [0, 1] * 30) for z in range(2)]
    one, two = (fit_pixels(samples[:n], 1, 2, 0, _endless)[0].trees for n in (1, 2))
    assert one is not None
    assert two is not None
    assert (float(one.share), float(two.share)) == pytest.approx((2 / 3, 0.5 + 1 / 12))


def test_the_same_seed_gives_the_same_classifier() -> None:
    samples = _bright_and_dark()
    first, second, other = (fit_pixels(samples, 1, 2, seed, _endless)[0] for seed in (7, 7, 8))
    assert _same(first, second)
    assert not _same(first, other)


# --- random numbers -------------------------------------------------------------------------

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.mps.is_available()


def _next_random_numbers(device: str) -> Tensor:
    return torch.cat([torch.rand(4), torch.rand(4, device=device).cpu()])


@pytest.mark.parametrize("device", DEVICES)
def test_the_random_numbers_of_others_stay_as_they_are(device: str) -> None:
    torch.manual_seed(0)
    expected = _next_random_numbers(device)
    samples = _bright_and_dark()
    features, target = samples[0].features.to(device), samples[0].target.to(device)
    torch.manual_seed(0)
    fit_classifier(1, 2, 7, Schedule(3, 0.3), _never, features, target)
    assert torch.equal(_next_random_numbers(device), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_its_own_random_numbers_depend_on_the_seed_alone(device: str) -> None:
    with fit._seeded(7, torch.device(device)):
        expected = _next_random_numbers(device)
    _next_random_numbers(device)
    with fit._seeded(7, torch.device(device)):
        again = _next_random_numbers(device)
    assert torch.equal(again, expected)
    torch.manual_seed(7)
    assert torch.equal(again, _next_random_numbers(device))


def test_the_random_numbers_of_others_stay_also_after_an_error() -> None:
    state = torch.random.get_rng_state()
    with pytest.raises(KeyError), fit._seeded(7, torch.device("cpu")):
        torch.rand(1)
        raise KeyError
    assert torch.equal(torch.random.get_rng_state(), state)


# --- scores ---------------------------------------------------------------------------------


def test_mean_iou_of_a_known_case() -> None:
    output, target = torch.tensor([0, 1, 1, 2, 2, 2]), torch.tensor([0, 1, 2, 2, 2, 0])
    # class 1: 1 of 2 voxels; class 2: 2 of 4
    assert mean_iou(output, target, [1, 2]) == pytest.approx(0.5)
    assert mean_iou(target, target, [1, 2]) == 1
    assert mean_iou(output, target, [0]) == pytest.approx(1 / 2)
