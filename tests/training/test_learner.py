"""One step of a training: what each setting does to it, and what happens where it fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_stack import (
    IMAGE,
    SMALL,
    TRAINED,
    annotate,
    make_learner,
    make_plan,
    make_trainer,
    progress,
    run,
    same_tensors,
)

from bundles import random_bundle
from napari_unet3d.errors import RunFailedError
from napari_unet3d.events import Notice
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.unet import UNet3D
from napari_unet3d.sampling.source import GIVEN_UP, ResidentSource, resident_bytes
from napari_unet3d.training import losses as losses_module
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.learner import Learner
from napari_unet3d.training.listening import Listener
from napari_unet3d.training.losses import balanced_weights, masked_loss

NO_CHANGES = {
    "flips": False, "spatial_share": 0, "contrast": 0, "brightness": 0, "gamma": 0, "noise": 0,
}  # fmt: skip


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {n: t.detach().clone() for n, t in learner.network.named_parameters()}


def stepped(n: int = 1, **settings) -> Learner:
    """A learner after n steps at the full learning rate, each on the same batch."""
    learner = make_learner(**settings)
    batch = learner.draw(0.0)
    for _ in range(n):
        learner.step(batch, 0.0)
    return learner


# --- what each setting does -----------------------------------------------------------------


@pytest.mark.parametrize("dice_share", [0.0, 0.8, 1.0])
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_the_loss_has_the_shares_and_weights_of_the_settings(dice_share, class_weights):
    learner = make_learner(dice_share=dice_share, class_weights=class_weights, precision="fp32")
    image, target = learner.draw(0.0)
    with torch.no_grad():
        logits = learner.network(image)
    given = None
    if class_weights == "balanced":
        given = balanced_weights(torch.tensor(learner.plan.class_counts, dtype=torch.float32))
        assert given[0] != given[1]
    expected = masked_loss(logits, target, learner.plan.config, given)
    assert learner.step((image, target), 0.0) == pytest.approx(expected.item(), rel=1e-5)


def test_shares_and_weights_give_different_losses():
    """The precondition of the test above."""
    losses = {
        make_learner(dice_share=share, class_weights=weights).advance(0.0)
        for share in (0.0, 0.8)
        for weights in ("none", "balanced")
    }
    assert len(losses) == 4


@pytest.mark.parametrize(
    ("schedule", "middle"), [("cosine", 0.5), ("polynomial", 0.5**0.9)], ids=str
)
def test_the_learning_rate_falls_as_scheduled(schedule, middle):
    learner = make_learner(schedule=schedule, iterations=10**6)
    warm = [learner.learning_rate(0.0)]
    batch = learner.draw(0.0)
    for _ in range(10):
        learner.step(batch, 0.0)
        warm.append(learner.learning_rate(0.0))
    assert warm == pytest.approx([5e-4 * min(i, 10) for i in range(1, 12)])
    assert learner.learning_rate(0.5) == pytest.approx(5e-3 * middle)
    assert learner.learning_rate(1.0) == pytest.approx(0)
    assert 0 <= learner.learning_rate(1.2) < 1e-3  # a slow step may begin late


def test_a_step_at_the_end_of_the_budget_changes_nothing():
    """So the schedule does reach the optimizer."""
    learner = make_learner(weight_averaging=0)
    before = weights(learner)
    learner.step(learner.draw(0.0), 1.0)
    assert all(torch.equal(t, before[n]) for n, t in weights(learner).items())
    learner.step(learner.draw(0.0), 0.0)
    assert not torch.equal(weights(learner)["head.weight"], before["head.weight"])


def test_weight_decay_shrinks_the_weights():
    def size(decay: float) -> float:
        learner = stepped(20, weight_decay=decay)
        return sum(float(t.square().sum()) for n, t in weights(learner).items() if t.dim() == 5)

    assert size(1.0) < 0.99 * size(0.0)


def test_without_averaging_the_model_is_the_last_iteration_s():
    last, averaged = stepped(5, weight_averaging=0), stepped(5)
    assert all(
        torch.allclose(t, last.network.get_parameter(n), atol=1e-6)
        for n, t in last.average.named_parameters()
    )
    # The network is the same either way; its average lags behind.
    assert same_tensors(weights(last), weights(averaged))
    assert not torch.allclose(averaged.average.head.weight, averaged.network.head.weight)


def test_a_batch_has_as_many_patches_as_set():
    image, target = make_learner(batch_size=3).draw(0.0)
    assert image.shape == (3, 1, 8, 24, 24)
    assert target.shape == (3, 8, 24, 24)


def test_augmentation_changes_gray_values_only_as_far_as_set():

    def is_plain_crop(**changes) -> bool:
        learner = make_learner(augmentation=NO_CHANGES | changes)
        values = learner.draw(0.0)[0].numpy().ravel()
        there = np.unique(learner.plan.intensity.apply(IMAGE[None]))
        next_above = np.searchsorted(there, values).clip(1, len(there) - 1)
        away = np.minimum(abs(values - there[next_above]), abs(values - there[next_above - 1]))
        return bool((away < 1e-5).all())  # rounding

    assert is_plain_crop()
    assert is_plain_crop(flips=True)
    for change in ({"noise": 0.5}, {"brightness": 0.5}, {"gamma": 0.5}, {"spatial_share": 1}):
        assert not is_plain_crop(**change), change


def test_the_first_part_of_the_budget_takes_small_patches():
    image = np.random.default_rng(0).normal(size=(24, 120, 120)).astype(np.float32)
    labels = np.zeros(image.shape, np.uint8)
    labels[10] = np.arange(120) % 2 + 1
    settings = {"start": None, "patch_shape": None, "small_patch_share": 0.3}
    learner = make_learner(labels, image, **settings)
    small, large = (learner.draw(f)[0][0, 0].numel() for f in (0.29, 0.3))
    assert small < 0.6 * large


def test_a_loss_is_one_function_and_one_line(monkeypatch):
    """A stranger's loss, a plain mean of errors, is named in the settings and learned from."""
    seen = []

    def mean_error(logits, target, weights, config):
        seen.append((logits.shape, target.shape))
        return 1 - logits.softmax(1).gather(1, target[:, None]).mean()

    monkeypatch.setitem(losses_module.LOSSES, "mean_error", mean_error)
    learner = make_learner(loss="mean_error", precision="fp32")
    batch = learner.draw(0.0)
    labelled = int((batch[1] > 0).sum())
    losses = [learner.step(batch, 0.0) for _ in range(30)]
    assert seen[0] == ((labelled, 2), (labelled,))
    assert losses[-1] < 0.7 * losses[0]


# --- memory ---------------------------------------------------------------------------------


def test_an_image_that_is_kept_on_the_device_makes_way_before_the_patch_is_halved():
    learner = make_learner()
    source = learner.sampler.source
    resident = ResidentSource(
        source.volume, source.intensity, source.device, resident_bytes(source.volume)
    )
    learner.sampler.source = resident
    before, images = learner.patch_shape, learner.draw(0.0)[0]
    assert learner.shrink("no room") == Notice(GIVEN_UP)
    assert learner.patch_shape == before
    assert torch.equal(learner.draw(0.0)[0], images)
    assert learner.shrink("no room").text.startswith("Out of memory: patch halved")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_out_of_memory_halves_the_patch_and_goes_on(monkeypatch, error):
    forward = UNet3D.forward

    def limited(self, x):
        if self.training and x[0, 0].numel() > 2500:
            raise error
        return forward(self, x)

    monkeypatch.setattr(UNet3D, "forward", limited)
    events, bundle = run(make_trainer(iterations=4))
    notices = [e for e in events if isinstance(e, Notice)]
    assert notices
    assert "8 × 24 × 24" in notices[0].text
    assert "halved" in notices[0].text
    assert [e.iteration for e in progress(events)] == [1, 2, 3, 4]
    assert np.prod(bundle.record.patch_shape) <= 2500


def test_halving_leaves_the_plan_as_it_was():
    learner = make_learner()
    learner.draw(0.0)
    assert learner.shrink("no room").text.startswith("Out of memory: patch halved from 8 × 24")
    assert np.prod(learner.patch_shape) < 8 * 24 * 24
    assert learner.draw(0.0)[0].shape[2:] == learner.patch_shape
    assert learner.plan.main_patch() == (8, 24, 24)


# --- fp16 -----------------------------------------------------------------------------------


def fp16_learner(**settings) -> Learner:
    """A learner in fp16, which `pick_precision` refuses on a CPU, where it is slow."""
    plan = replace(make_plan(**settings), precision="fp16")
    return Learner(plan, Listener(TrainingControl()))


def with_scale(scale: float | None) -> ModelBundle:
    """A model after two iterations, as if they had been in fp16."""
    _, bundle = run(make_trainer(iterations=2, pixel_classifier=False))
    given = {} if scale is None else {"scaler/scale": torch.tensor(scale)}
    return bundle.model_copy(update={"state": dict(bundle.state) | given})


def scale_of(learner: Learner) -> float:
    return float(learner.state()["scaler/scale"])


def test_a_shortage_after_unscaling_does_not_end_an_fp16_training(monkeypatch):
    """The scaler of fp16 gradients takes each step once: a step that breaks off confuses it."""
    learner = fp16_learner(start=with_scale(256.0), resume=True, iterations=9)
    clip, calls = torch.nn.utils.clip_grad_norm_, []

    def short_of_memory_once(*args):
        calls.append(args)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return clip(*args)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", short_of_memory_once)
    assert isinstance(learner.advance(0.0), Notice)
    assert scale_of(learner) == 256.0, "the scale that was found stays"
    assert isinstance(learner.advance(0.0), float)
    assert learner.iteration == 3


def test_a_resumed_fp16_training_keeps_its_scale():
    settings = {"resume": True, "iterations": 9}
    assert scale_of(fp16_learner(start=with_scale(256.0), **settings)) == 256.0
    # Models of older versions have none: the search begins anew.
    assert scale_of(fp16_learner(start=with_scale(None), **settings)) == 2.0**16


def test_other_precisions_store_no_scale():
    assert "scaler/scale" not in stepped().state()


# --- without waiting for the device ---------------------------------------------------------


class SkippingOnDevice(Learner):
    """Learns as on an NVIDIA GPU, where AdamW itself skips steps that are not finite."""

    @property
    def skips_on_device(self) -> bool:
        return True


def test_adamw_skips_a_step_that_is_not_finite_itself():
    """The same on the CPU, by asking, and on a GPU, without."""
    plan = make_plan(precision="fp32", weight_averaging=0)
    for kind in (Learner, SkippingOnDevice):
        learner = kind(plan, Listener(TrainingControl()))
        image, target = learner.draw(0.0)
        first = learner.step((image, target), 0.0)
        assert np.isfinite(first)
        before = weights(learner)
        assert np.isnan(learner.step((image * torch.nan, target), 0.0))
        assert all(torch.equal(t, before[n]) for n, t in weights(learner).items())
        assert np.isfinite(learner.step((image, target), 0.0))
        assert not torch.equal(weights(learner)["head.weight"], before["head.weight"])
        assert learner.finite_steps == 2


def test_skipping_on_the_device_learns_the_same():
    plan = make_plan(precision="fp32")
    learners = [kind(plan, Listener(TrainingControl())) for kind in (Learner, SkippingOnDevice)]
    batch = learners[0].draw(0.0)
    losses = [[learner.step(batch, 0.0) for _ in range(10)] for learner in learners]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


# --- losses that are no numbers -------------------------------------------------------------


def test_twenty_bad_losses_in_a_row_end_a_training():
    learner = make_learner(start=random_bundle(SMALL), iterations=1000)
    image, target = learner.draw(0.0)
    bad = image * torch.nan, target
    for _ in range(19):
        learner.step(bad, 0.0)
    learner.step((image, target), 0.0)  # the count begins anew
    for _ in range(19):
        learner.step(bad, 0.0)
    with pytest.raises(RunFailedError, match=r"not finite 20 times.*lower the learning rate"):
        learner.step(bad, 0.0)


def test_labelled_voxels_are_counted():
    labels = annotate(*TRAINED)
    learner = make_learner(labels)
    seen = 0
    for _ in range(3):
        batch = learner.draw(0.0)
        learner.step(batch, 0.0)
        seen += int((batch[1] > 0).sum())
    assert learner.voxels_seen == seen > 0
