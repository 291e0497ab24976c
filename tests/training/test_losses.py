"""An unlabelled voxel never changes the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet3d.config import TrainingConfig
from napari_unet3d.training.losses import (
    DENSE,
    LOSSES,
    balanced_weights,
    masked_loss,
    mean_of_chosen,
    mean_without_waiting,
)

N, K, SHAPE = 2, 3, (4, 5, 6)
SHARES = (0.0, 0.5, 1.0)
every_share = pytest.mark.parametrize("dice_share", SHARES)


def example(seed: int = 0, labelled: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(N, K, *SHAPE, generator=generator)
    target = torch.randint(1, K + 1, (N, *SHAPE), generator=generator)
    target[torch.rand(target.shape, generator=generator) > labelled] = 0
    return logits.requires_grad_(), target.to(torch.uint8)


def loss_of(logits, target, dice_share=0.5, weights=None):
    return masked_loss(logits, target, TrainingConfig(dice_share=dice_share), weights)


def loss_and_gradient(logits, target, **options):
    logits = logits.detach().clone().requires_grad_()
    loss = loss_of(logits, target, **options)
    loss.backward()
    return loss.detach(), logits.grad


def reference(logits, target, dice_share, weights) -> float:
    """The same, voxel by voxel, in numpy."""
    z = logits.detach().double().numpy()
    t = target.numpy()
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    w = np.ones(K) if weights is None else weights.double().numpy()
    ce = weight_sum = 0.0
    both, total, present = np.zeros(K), np.zeros(K), np.zeros(K, bool)
    for n, *at in np.argwhere(t > 0):
        k = int(t[(n, *at)]) - 1
        q = p[(n, slice(None), *at)]
        ce -= w[k] * np.log(q[k])
        weight_sum += w[k]
        both[k] += q[k]
        total += q
        total[k] += 1
        present[k] = True
    dice = [2 * both[k] / total[k] for k in range(1, K) if present[k]]
    return (1 - dice_share) * ce / weight_sum + dice_share * (1 - np.mean(dice))


@every_share
@pytest.mark.parametrize("weights", [None, (0.2, 1.0, 3.0)])
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_a_plain_reference(dice_share, weights, seed):
    logits, target = example(seed)
    weights = None if weights is None else torch.tensor(weights)
    found = loss_of(logits, target, dice_share=dice_share, weights=weights)
    expected = reference(logits, target, dice_share, weights)
    assert found.item() == pytest.approx(expected, rel=1e-5)


@every_share
def test_perfect_prediction_with_2_of_40_slices_is_0(dice_share):
    """A Dice that is masked before the softmax gives 0.89 to 0.94 here."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(0, 2, (1, 40, 16, 16), generator=generator)
    target = torch.zeros_like(truth)
    for z in (10, 30):
        target[:, z] = truth[:, z] + 1
    logits = 40 * torch.stack([1 - truth, truth], 1).float() - 20

    assert loss_of(logits, target, dice_share=dice_share).item() < 1e-6

    # Precondition: masking the logits, as some do, is indeed that wrong.
    mask = (target > 0).float()[:, None]
    p = (logits * mask).softmax(1)[:, 1]
    t = (target == 2).float()
    assert 1 - 2 * (p * t).sum() / (p.sum() + t.sum()) > 0.8


@every_share
def test_unlabelled_voxels_get_a_gradient_of_exactly_0(dice_share):
    logits, target = example()
    _, gradient = loss_and_gradient(logits, target, dice_share=dice_share)
    outside = (target == 0)[:, None].expand_as(gradient)
    assert outside.any()
    assert torch.equal(gradient[outside], torch.zeros_like(gradient[outside]))
    assert (gradient[~outside] != 0).any()


@every_share
def test_nothing_outside_the_mask_changes_loss_or_gradient(dice_share):
    logits, target = example()
    loss, gradient = loss_and_gradient(logits, target, dice_share=dice_share)
    changed = logits.detach().clone()
    outside = (target == 0)[:, None].expand_as(changed)
    changed[outside] = 1e4 * torch.randn(int(outside.sum()))
    other_loss, other_gradient = loss_and_gradient(changed, target, dice_share=dice_share)
    assert torch.equal(loss, other_loss)
    assert torch.equal(gradient, other_gradient)

    # Precondition: inside of the mask it does change.
    changed = logits.detach().clone()
    changed[~outside] += torch.randn(int((~outside).sum()))
    assert not torch.equal(loss, loss_and_gradient(changed, target, dice_share=dice_share)[0])


@every_share
def test_nothing_labelled_is_0_with_gradient_0(dice_share):
    logits, target = example()
    loss, gradient = loss_and_gradient(logits, torch.zeros_like(target), dice_share=dice_share)
    assert loss.item() == 0
    assert torch.equal(gradient, torch.zeros_like(gradient))


@every_share
def test_half_precision_logits(dice_share):
    logits, target = example()
    exact = loss_of(logits, target, dice_share=dice_share)
    half = loss_of(logits.bfloat16(), target, dice_share=dice_share)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), rel=0.02)


@every_share
def test_absent_class_is_no_reason_for_nan(dice_share):
    logits, target = example()
    target[target == 3] = 0
    assert set(target.unique().tolist()) == {0, 1, 2}
    loss, gradient = loss_and_gradient(logits, target, dice_share=dice_share)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert loss.item() == pytest.approx(reference(logits, target, dice_share, None), rel=1e-5)


@every_share
def test_background_only(dice_share):
    logits, target = example()
    target = (target > 0).to(torch.uint8)
    loss, gradient = loss_and_gradient(logits, target, dice_share=dice_share)
    assert loss.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_leaves_unlabelled_voxels_alone(loss):
    """Whatever its name: nothing outside the mask gets a gradient, or changes the loss."""
    logits, target = example()
    config = TrainingConfig(loss=loss)
    outside = (target == 0)[:, None].expand_as(logits)
    results = []
    for value in (0.0, 1e4, torch.nan):
        changed = torch.where(outside, value, logits.detach()).requires_grad_()
        result = masked_loss(changed, target, config)
        result.backward()
        assert not changed.grad[outside].any()
        assert changed.grad[~outside].any()
        results.append((result.detach(), changed.grad))
    assert all(torch.equal(a, b) for r in results[1:] for a, b in zip(r, results[0], strict=True))


@pytest.mark.parametrize("loss", sorted(LOSSES))
@pytest.mark.parametrize("class_weights", [None, (0.2, 1.0, 3.0)])
def test_a_perfect_prediction_has_no_loss_with_5_percent_labelled(loss, class_weights):
    _, target = example(seed=2, labelled=0.05)
    assert 0.02 < (target > 0).float().mean() < 0.08
    truth = torch.where(target > 0, target.long() - 1, 0)
    logits = 40 * torch.nn.functional.one_hot(truth, K).movedim(-1, 1).float() - 20
    wrong = logits.roll(1, 1)
    logits = torch.where((target > 0)[:, None], logits, wrong)  # wrong where nothing is labelled
    weights = None if class_weights is None else torch.tensor(class_weights)
    config = TrainingConfig(loss=loss)
    assert masked_loss(logits, target, config, weights).item() < 1e-6
    assert masked_loss(wrong, target, config, weights).item() > 0.9


def test_focal_loss_without_exponent_is_the_cross_entropy():
    logits, target = example()
    weights = torch.tensor([0.2, 1.0, 3.0])
    plain = masked_loss(logits, target, TrainingConfig(dice_share=0), weights)
    focal = masked_loss(logits, target, TrainingConfig(loss="focal", focal_gamma=0), weights)
    assert focal.item() == pytest.approx(plain.item(), rel=1e-5)


def test_focal_loss_of_one_voxel():
    """p = 0.9: (1 − 0.9)² · (−log 0.9)."""
    logits = torch.tensor([0.1, 0.9]).log().view(1, 2, 1, 1, 1)
    loss = masked_loss(logits, torch.full((1, 1, 1, 1), 2), TrainingConfig(loss="focal"))
    assert loss.item() == pytest.approx(0.01 * -np.log(0.9), rel=1e-4)


def test_lovasz_softmax_of_hard_predictions_is_the_jaccard_loss():
    """On errors of 0 and 1, the extension equals the loss itself (Berman et al. 2018, sec. 2)."""
    _, target = example(labelled=1.0)
    predicted = torch.randint(0, K, target.shape, generator=torch.Generator().manual_seed(3))
    logits = 200 * torch.nn.functional.one_hot(predicted, K).movedim(-1, 1).float()
    truth = target.long() - 1
    ious = [
        ((predicted == c) & (truth == c)).sum() / ((predicted == c) | (truth == c)).sum()
        for c in range(K)
    ]
    found = masked_loss(logits, target, TrainingConfig(loss="lovasz"))
    assert found.item() == pytest.approx(1 - float(torch.stack(ious).mean()), abs=1e-5)


def test_lovasz_softmax_lies_between_hard_predictions():
    """A worked example: two voxels of two classes, p(true) = 0.7 and 0.6.

    Errors of class 0 are 0.4 outside and 0.3 inside; sorted, they weigh 1/2 and 1/2. Those of class
    1 are 0.4 inside and 0.3 outside, and weigh 1 and 0.
    """
    logits = torch.tensor([[0.7, 0.3], [0.4, 0.6]]).log().T.reshape(1, 2, 1, 1, 2)
    loss = masked_loss(logits, torch.tensor([[[[1, 2]]]]), TrainingConfig(loss="lovasz"))
    assert loss.item() == pytest.approx((0.35 + 0.4) / 2, rel=1e-5)


@every_share
@pytest.mark.parametrize("weights", [None, (0.2, 1.0, 3.0), (1.0, 1.0, 0.0)])
@pytest.mark.parametrize("classes", [(1, 2, 3), (1, 2), (3,), ()])
@pytest.mark.parametrize("loss", sorted(DENSE))
def test_every_dense_loss_is_the_same_loss(loss, classes, weights, dice_share):
    logits, target = example(labelled=0.2)
    target = torch.where(torch.isin(target, torch.tensor(classes, dtype=target.dtype)), target, 0)
    config = TrainingConfig(loss=loss, dice_share=dice_share)
    weights = None if weights is None else torch.tensor(weights)
    expected = masked_loss(logits, target, config, weights)
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    found = DENSE[loss](logits, target, weights, config)
    (gradient,) = torch.autograd.grad(found, logits)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("loss", sorted(DENSE))
def test_every_dense_loss_leaves_unlabelled_voxels_alone(loss):
    logits, target = example()
    outside = (target == 0)[:, None].expand_as(logits)
    results = []
    for value in (0.0, 1e4, torch.nan):
        changed = torch.where(outside, value, logits.detach()).requires_grad_()
        result = DENSE[loss](changed, target, None, TrainingConfig(loss=loss))
        result.backward()
        assert not changed.grad[outside].any()
        assert changed.grad[~outside].any()
        results.append((result.detach(), changed.grad))
    assert all(torch.equal(a, b) for r in results[1:] for a, b in zip(r, results[0], strict=True))


def test_a_mean_that_waits_for_no_gpu_is_the_same_mean():
    values, chosen = torch.rand(5, requires_grad=True), torch.tensor([1, 0, 1, 1, 0]).bool()
    for mask in (chosen, torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)):
        means = [kind(values, mask) for kind in (mean_of_chosen, mean_without_waiting)]
        assert means[0].item() == pytest.approx(means[1].item(), rel=1e-6)
        if mask.any():
            gradients = [torch.autograd.grad(m, values)[0] for m in means]
            assert torch.allclose(*gradients)


def test_class_with_weight_0_alone_is_not_nan():
    """`balanced_weights` gives 0 to a class that is absent; it may be painted later."""
    logits, target = example()
    target[target > 0] = 3
    loss, gradient = loss_and_gradient(logits, target, weights=torch.tensor([1.0, 1.0, 0.0]))
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_weights_raise_the_share_of_their_class():
    logits, target = example()
    _, even = loss_and_gradient(logits, target, dice_share=0)
    _, heavy = loss_and_gradient(
        logits, target, dice_share=0, weights=torch.tensor([1.0, 1.0, 10.0])
    )

    def share(gradient: torch.Tensor) -> float:
        size = gradient.abs().sum(1)
        return (size[target == 3].sum() / size.sum()).item()

    assert share(heavy) > 2 * share(even)


def test_balanced_weights():
    found = balanced_weights(torch.tensor([60.0, 30.0, 10.0]))
    assert found.tolist() == pytest.approx([0.2, 0.35, 0.45])
    assert found.sum().item() == pytest.approx(1)
    assert balanced_weights(torch.tensor([3.0, 0.0, 1.0])).tolist() == pytest.approx(
        [0.125, 0, 0.375]
    )
