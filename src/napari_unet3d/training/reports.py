"""Events that tell how a training stands."""

from __future__ import annotations

from napari_unet3d.events import Forecast, TrainingProgress, TrainingStarted
from napari_unet3d.networks import device as devices
from napari_unet3d.training.learner import Learner


def describe_start(learner: Learner, forecast: Forecast | None) -> TrainingStarted:
    """The plan of a training, before its first iteration."""
    plan = learner.plan
    return TrainingStarted(
        parameters=sum(p.numel() for p in learner.network.parameters()),
        device=devices.describe(plan.device),
        precision=plan.precision,
        patch_shape=plan.main_patch(),
        labelled_voxels=int(plan.class_counts.sum()),
        notes=plan.notes,
        forecast=forecast,
    )


def describe_progress(learner: Learner, elapsed: float, loss: float) -> TrainingProgress:
    """What an iteration has come to, after so many seconds of training."""
    budget = learner.plan.budget
    fraction = budget.fraction(learner.iteration, elapsed)
    return TrainingProgress(
        iteration=learner.iteration,
        elapsed=elapsed,
        remaining=budget.remaining(learner.iteration, elapsed),
        fraction=min(fraction, 1.0),
        loss=loss,
        memory=devices.used_memory(learner.plan.device),
    )
