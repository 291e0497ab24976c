"""Calibrated probabilities of the two classifiers together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from napari_unet3d.model.mixture import Calibration, Mixture
from napari_unet3d.model.mixture_fit import fit_calibration, usual_calibration, weight_on_unseen

MANY = 10**6
"""Iterations and slices with which everything that is fitted counts in full."""


def _fit(
    network: Tensor,
    pixels: Tensor | None,
    target: Tensor,
    iterations: int = MANY,
    slices: int = MANY,
    *,
    shift: bool = False,
) -> Calibration:
    return fit_calibration(
        network, pixels, target, iterations=iterations, slices=slices, shift=shift
    )


def _voxels(n: int = 20_000) -> tuple[Tensor, Tensor]:
    """Honest log-probabilities of two classes, and labels drawn from them."""
    generator = torch.Generator().manual_seed(0)
    score = 2 * torch.randn(n, generator=generator) - 1
    target = (torch.rand(n, generator=generator) < score.sigmoid()).long()
    return torch.stack([torch.zeros(n), score], 1).log_softmax(1), target


def _probabilities(calibration: Calibration, network: Tensor, pixels: Tensor | None) -> Tensor:
    mixture = Mixture(torch.nn.Identity(), calibration=calibration)
    return mixture.combine(network.exp().T, None if pixels is None else pixels.T).T


def _iou(found: Tensor, target: Tensor) -> float:
    a, b = found.argmax(1) == 1, target == 1
    return float((a & b).sum() / (a | b).sum())


def test_an_overconfident_network_is_cooled() -> None:
    honest, target = _voxels()
    found = _fit((4 * honest).log_softmax(1), None, target)
    assert 1 / 5.5 < found.network < 1 / 3
    assert found.pixels == 0


def test_a_class_that_is_found_too_often_is_shifted_down() -> None:
    honest, target = _voxels()
    wrong = (honest + torch.tensor([0.0, 2.5])).log_softmax(1)
    found = _fit(wrong, None, target, shift=True)
    assert found.shift[0] == 0 and found.shift[1] < -1
    better = _probabilities(found, wrong, None)
    assert _iou(better, target) > _iou(wrong, target) + 0.02


def test_nothing_is_shifted_unless_asked_for() -> None:
    honest, target = _voxels()
    wrong = (honest + torch.tensor([0.0, 2.5])).log_softmax(1)
    assert any(_fit(wrong, None, target, shift=True).shift)
    found = _fit(wrong, None, target)
    assert not any(found.shift)
    assert found.network != 1, "the temperature is fitted all the same"


def test_nothing_to_gain_means_no_shift() -> None:
    target = torch.tensor([0, 1] * 50)
    sure = (torch.nn.functional.one_hot(target, 2).float() * 9).log_softmax(1)
    assert not any(_fit(sure, None, target, shift=True).shift)


def test_one_class_alone_is_not_shifted() -> None:
    logits = torch.randn(30, 3).log_softmax(1)
    target = torch.ones(30, dtype=torch.long)
    assert not any(_fit(logits, None, target, shift=True).shift)


def test_the_better_classifier_gets_the_say() -> None:
    honest, target = _voxels()
    noise = torch.randn(honest.shape, generator=torch.Generator().manual_seed(1))
    bad = noise.log_softmax(1)
    found = _fit(honest, bad, target)
    assert found.network == pytest.approx(found.pixels, rel=1e-3)  # its weight is halved
    found = _fit(bad, honest, target)
    assert found.pixels > 5 * found.network


def test_two_that_err_independently_are_better_together() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(2, (20_000,), generator=generator)
    noise = torch.randn(2, len(target), generator=generator)
    first, second = (
        torch.stack([torch.zeros(len(target)), 2.0 * target - 1 + n], 1).log_softmax(1)
        for n in noise
    )
    found = _fit(first, second, target)
    assert 0.2 < found.network / found.pixels < 0.6
    together = _probabilities(found, first, second)
    assert _iou(together, target) > max(_iou(first, target), _iou(second, target)) + 0.02


def test_the_temperature_of_few_slices_stays_close_to_1() -> None:
    honest, target = _voxels()
    sure = (4 * honest).log_softmax(1)
    found = [_fit(sure, None, target, slices=n).network for n in (1, 3, 9, MANY)]
    assert found[0] == 1
    assert found == sorted(found, reverse=True)
    assert found[2] == pytest.approx(found[3] ** (8 / 12), rel=1e-3)


def test_a_shift_from_few_slices_is_small() -> None:
    honest, target = _voxels()
    wrong = (honest + torch.tensor([0.0, 2.5])).log_softmax(1)
    one, five, many = (_fit(wrong, None, target, slices=n, shift=True) for n in (1, 5, MANY))
    assert one.shift[1] == 0
    assert many.shift[1] < five.shift[1] < 0


def test_what_few_slices_tell_of_the_weight_is_mixed_with_what_is_usual() -> None:
    """With one slice nothing is believed of it; with five, half."""
    honest, target = _voxels()
    usual = usual_calibration(MANY).network
    noise = torch.randn(honest.shape, generator=torch.Generator().manual_seed(1)).log_softmax(1)
    for network, pixels in ((honest, noise), (noise, honest)):
        weights = []
        for slices in (1, 5, MANY):
            found = _fit(network, pixels, target, slices=slices)
            weights.append(found.network / (found.network + found.pixels))
        assert weights[0] == pytest.approx(usual)
        assert weights[1] == pytest.approx((usual + weights[2]) / 2, rel=1e-3)
        assert abs(weights[2] - usual) > 0.2
    assert usual_calibration(0) == Calibration(network=0, pixels=1)


def test_a_network_that_has_hardly_learned_has_little_to_say() -> None:
    honest, target = _voxels()
    found = [_fit(honest, honest, target, iterations=n, slices=1).network for n in (0, 5, 20, MANY)]
    assert found[0] == 0
    assert found == sorted(found)
    assert found[2] == pytest.approx(found[3] / 2, rel=1e-3)


def test_a_network_that_hardly_helps_on_seen_voxels_has_less_to_say() -> None:
    """There it looks better than it is; a gain of a tenth of the loss is convincing."""
    honest, target = _voxels()
    generator = torch.Generator().manual_seed(1)

    def weight(noise: float) -> float:
        """Of a network whose log-odds have an error of their own, beside a blurred classifier."""
        error = noise * torch.randn(len(target), generator=generator)
        odds = honest[:, 1] - honest[:, 0]
        network = torch.stack([torch.zeros_like(odds), odds + error], 1).log_softmax(1)
        pixels = torch.stack([torch.zeros_like(odds), 0.8 * odds], 1).log_softmax(1)
        found = _fit(network, pixels, target)
        return found.network / (found.network + found.pixels)

    assert weight(1.0) < 0.1, "the classifier knows almost all"
    usual = usual_calibration(MANY).network
    rest = 4 / MANY  # what so many slices leave to the usual weight
    assert weight(8.0) == pytest.approx(usual * rest, rel=1e-3), "nothing but the usual weight"


def _noise(honest: Tensor) -> Tensor:
    """Log-probabilities that have nothing to do with the labels."""
    return honest[torch.randperm(len(honest), generator=torch.Generator().manual_seed(1))]


def test_the_weight_on_unseen_slices_follows_the_better_learner() -> None:
    honest, target = _voxels()
    few = slice(0, 100)
    doubtful = weight_on_unseen(honest[few], honest[few], target[few], 1)
    assert doubtful == pytest.approx(0.4, abs=0.05)  # both are as good, and little was seen
    better = weight_on_unseen(honest, _noise(honest), target, 1)
    worse = weight_on_unseen(_noise(honest), honest, target, 1)
    assert worse < 0.25 < 0.6 < better


def test_more_unseen_slices_count_more_and_few_voxels_hardly() -> None:
    honest, target = _voxels()
    noise = _noise(honest)
    one, four = (weight_on_unseen(noise, honest, target, n) for n in (1, 4))
    assert four < one - 0.02
    few = slice(0, 100)
    assert weight_on_unseen(noise[few], honest[few], target[few], 1) > one + 0.05


def test_the_weight_on_unseen_slices_takes_the_place_of_the_fitted_one() -> None:
    honest, target = _voxels()
    for unseen in (0.0, 0.7):
        found = fit_calibration(honest, honest, target, iterations=MANY, slices=3, unseen=unseen)
        assert found.network / (found.network + found.pixels) == pytest.approx(unseen, abs=1e-3)
