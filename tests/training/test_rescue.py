"""What fails on the way does not cost the training; what ends it does not cost the model."""

from __future__ import annotations

import math

import pytest
import torch
from toy_stack import (
    HELD_OUT,
    SMALL,
    failing,
    looks_at_once,
    make_trainer,
    run,
    with_checkpoints,
)

from bundles import random_bundle
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import Notice
from napari_unet3d.model.mixture import Calibration
from napari_unet3d.model.mixture_fit import usual_calibration
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.unet import UNet3D
from napari_unet3d.training import learner as learner_module
from napari_unet3d.training import looks as looks_module
from napari_unet3d.training import record as record_module
from napari_unet3d.training.learner import Learner
from napari_unet3d.training.trainer import TrainingFailedError


@pytest.mark.parametrize(
    "error",
    [MemoryError("3 GiB"), RuntimeError("could not create a primitive"), RunFailedError("gone.")],
    ids=["memory", "oneDNN", "file"],
)
@pytest.mark.parametrize(
    ("owner", "name", "text"),
    [
        (looks_module.Looks, "measure", "held-out slices"),
        (looks_module.Looks, "preview", "slice on the screen"),
        (learner_module, "training_state", "No checkpoint"),
        (looks_module.Looks, "calibrate", "not be calibrated"),
    ],
)
def test_a_look_that_fails_does_not_end_the_training(monkeypatch, owner, name, text, error):
    looks_at_once(monkeypatch)
    control = with_checkpoints()
    control.watch(SliceRef(0, 1))
    failures = failing(monkeypatch, owner, name, error, times=2 if name != "calibrate" else 1)
    events, bundle = run(make_trainer(held_out=[HELD_OUT], iterations=4), control)
    assert failures
    notices = [e.text for e in events if isinstance(e, Notice)]
    assert len(notices) == 1  # two alike would be no news
    assert text in notices[0]
    assert not notices[0].endswith("..")
    assert bundle.record.iterations == 4
    assert bundle.record.completed
    assert bundle.state


def test_final_scores_that_fail_do_not_cost_the_model(monkeypatch):
    failures = failing(monkeypatch, looks_module.Looks, "measure", MemoryError("3 GiB"), math.inf)
    events, bundle = run(make_trainer(held_out=[HELD_OUT], iterations=3))
    assert failures
    assert [e.text for e in events if isinstance(e, Notice)]
    assert bundle.record.completed
    assert bundle.record.held_out == ()


def test_whatever_ends_a_training_its_weights_are_kept(monkeypatch):
    steps = []
    loss = learner_module.masked_loss

    def broken(*args, **options):
        steps.append(1)
        if len(steps) > 3:
            raise KeyError("no such thing")
        return loss(*args, **options)

    monkeypatch.setattr(learner_module, "masked_loss", broken)
    with pytest.raises(TrainingFailedError, match=r"training failed.*no such thing") as failure:
        run(make_trainer(iterations=9))
    bundle = failure.value.bundle
    assert bundle.record.iterations == 3
    assert not bundle.record.completed
    monkeypatch.setattr(learner_module, "masked_loss", loss)
    _, resumed = run(make_trainer(start=bundle, resume=True, iterations=4))
    assert resumed.record.iterations == 4


def test_what_failed_before_the_first_step_leaves_no_model(monkeypatch):
    monkeypatch.setattr(learner_module, "masked_loss", lambda *a, **k: 1 / 0)
    with pytest.raises(TrainingFailedError, match="division") as failure:
        run(make_trainer())
    assert failure.value.bundle is None


def test_weights_are_kept_even_when_the_memory_does_not_suffice_to_finish(monkeypatch):
    def never(self, final):
        raise MemoryError

    monkeypatch.setattr(looks_module.Looks, "prepare", never)
    with pytest.raises(TrainingFailedError) as failure:
        run(make_trainer(iterations=2))
    bundle = failure.value.bundle
    assert bundle.record.iterations == 2
    assert bundle.calibration == Calibration(network=0.0, pixels=1.0)


def test_a_failed_training_is_kept_without_its_optimizer_where_memory_is_short(monkeypatch):
    failing(monkeypatch, learner_module, "training_state", MemoryError(), math.inf)
    with pytest.raises(TrainingFailedError) as failure:
        run(make_trainer(iterations=3))
    assert failure.value.bundle.record.iterations == 3
    assert not failure.value.bundle.state


def test_a_failed_training_keeps_both_classifiers_where_it_cannot_be_calibrated(monkeypatch):
    failing(monkeypatch, looks_module.Looks, "calibrate", MemoryError(), math.inf)
    failing(monkeypatch, learner_module, "training_state", MemoryError())
    with pytest.raises(TrainingFailedError) as failure:
        run(make_trainer(iterations=3))
    assert failure.value.bundle.calibration == usual_calibration(3)


def test_a_lost_device_does_not_hide_why_the_training_failed(monkeypatch):
    """After some errors of CUDA, all that is asked of the device fails, too."""
    step = Learner.step

    def lost(*args, **kwargs):
        raise RuntimeError("CUDA error: unspecified launch failure")

    def second_step_is_lost(self, *args):
        if self.iteration == 1:
            for owner, name in (
                (looks_module.Looks, "prepare"),
                (devices, "make_room"),
                (record_module, "on_cpu"),
            ):
                monkeypatch.setattr(owner, name, lost)
            lost()
        return step(self, *args)

    monkeypatch.setattr(Learner, "step", second_step_is_lost)
    with pytest.raises(TrainingFailedError, match="unspecified launch") as failure:
        run(make_trainer(iterations=3))
    assert failure.value.bundle is None


def test_an_input_that_turns_bad_does_not_cost_the_model(monkeypatch):
    step = Learner.step

    def until_the_third(self, *args):
        if self.iteration == 2:
            raise BadInputError("the labels have changed")
        return step(self, *args)

    monkeypatch.setattr(Learner, "step", until_the_third)
    with pytest.raises(TrainingFailedError, match=r"^the labels have changed$") as failure:
        run(make_trainer(iterations=5))
    assert failure.value.bundle.record.iterations == 2


def test_runtime_errors_do_not_leave_as_such(monkeypatch):
    """superqt's workers swallow RuntimeErrors: the user would wait for ever."""

    def broken(self, x):
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(UNet3D, "forward", broken)
    with pytest.raises(RunFailedError, match="could not create a primitive"):
        run(make_trainer())


def test_memory_that_never_suffices_is_a_clear_failure(monkeypatch):
    def never(self, x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(UNet3D, "forward", never)
    with pytest.raises(RunFailedError, match=r"out of memory.*close"):
        run(make_trainer())


def test_loss_that_is_no_number_ends_the_training():
    """Weights so large that the activations overflow."""
    small = random_bundle(SMALL.model_copy(update={"normalization": "none"}))
    huge = {n: t * 1e30 if t.dim() == 5 else t for n, t in small.weights.items()}
    start = small.model_copy(update={"weights": huge})
    with pytest.raises(RunFailedError, match=r"not finite.*lower the learning rate"):
        run(make_trainer(start=start, iterations=1000))
    # Before that many: the training would end well, though nothing was learned.
    with pytest.raises(TrainingFailedError, match=r"never a finite number.*fp32") as failure:
        run(make_trainer(start=start, iterations=3))
    assert failure.value.bundle is None
