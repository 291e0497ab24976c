"""Calibrated probabilities of the two classifiers together."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from napari_unet3d.model.mixture import Calibration, Mixture
from napari_unet3d.model.mixture_fit import fit_calibration


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
    found = fit_calibration((4 * honest).log_softmax(1), None, target)
    assert 1 / 5.5 < found.network < 1 / 3
    assert found.pixels == 0


def test_a_class_that_is_found_too_often_is_shifted_down() -> None:
    honest, target = _voxels()
    wrong = (honest + torch.tensor([0.0, 2.5])).log_softmax(1)
    found = fit_calibration(wrong, None, target, shift=True)
    assert found.shift[0] == 0 and found.shift[1] < -1
    better = _probabilities(found, wrong, None)
    assert _iou(better, target) > _iou(wrong, target) + 0.02


def test_nothing_is_shifted_unless_asked_for() -> None:
    honest, target = _voxels()
    wrong = (honest + torch.tensor([0.0, 2.5])).log_softmax(1)
    assert any(fit_calibration(wrong, None, target, shift=True).shift)
    found = fit_calibration(wrong, None, target)
    assert not any(found.shift)
    assert found.network != 1, "the temperature is fitted all the same"


def test_nothing_to_gain_means_no_shift() -> None:
    target = torch.tensor([0, 1] * 50)
    sure = (torch.nn.functional.one_hot(target, 2).float() * 9).log_softmax(1)
    assert not any(fit_calibration(sure, None, target, shift=True).shift)


def test_one_class_alone_is_not_shifted() -> None:
    logits = torch.randn(30, 3).log_softmax(1)
    target = torch.ones(30, dtype=torch.long)
    assert not any(fit_calibration(logits, None, target, shift=True).shift)


def test_the_better_classifier_gets_the_say() -> None:
    honest, target = _voxels()
    noise = torch.randn(honest.shape, generator=torch.Generator().manual_seed(1))
    bad = noise.log_softmax(1)
    found = fit_calibration(honest, bad, target)
    assert found.network == pytest.approx(found.pixels)  # its weight is halved
    found = fit_calibration(bad, honest, target)
    assert found.pixels > 5 * found.network


def test_two_that_err_independently_are_better_together() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(2, (20_000,), generator=generator)
    noise = torch.randn(2, len(target), generator=generator)
    first, second = (
        torch.stack([torch.zeros(len(target)), 2.0 * target - 1 + n], 1).log_softmax(1)
        for n in noise
    )
    found = fit_calibration(first, second, target)
    assert 0.2 < found.network / found.pixels < 0.6
    together = _probabilities(found, first, second)
    assert _iou(together, target) > max(_iou(first, target), _iou(second, target)) + 0.02
