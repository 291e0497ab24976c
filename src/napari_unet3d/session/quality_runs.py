"""Further trainings that tell how good a segmentation is: cross-validation, learning curve.

Both train several short-lived models from scratch on some of the annotated slices, and measure
each on slices that it did not see. The budget of a training is shared between them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.slices import SliceRef, at_time, plane_index, read_slice
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.data.volume import Volume
from napari_unet3d.data.wording import either
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import HeldOutScores, Notice, TrainingProgress
from napari_unet3d.model.evidence import CrossValidation, Fold, LearningCurve, LearningRun
from napari_unet3d.networks import device as devices
from napari_unet3d.session.session import Session
from napari_unet3d.session.texts import show_duration
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.trainer import Trainer

_MOST_FOLDS = 5
"""Trainings of a cross-validation, unless another number is asked for: with up to 5 slices each is
held out alone."""
_LEAST_SECONDS = 10.0
"""Seconds of each training, however small the budget: less is not even enough for the pixel
classifier."""
_LEAST_ITERATIONS = 20
"""Iterations of each training, however small the budget: fewer leave the network at its random
start."""
_REPEATS = 3
"""Trainings of a learning curve with the same number of slices, where held-out slices are measured.
Which slices are taken matters as much as how many, so one would tell nothing."""
_EVERY_NUMBER = 4
"""Slices up to which a learning curve tries every number of them; beyond, it halves the number."""
_EXTRA_SECONDS = 5.0
"""Seconds that the end of a short training takes on two cores: statistics, calibration, scores."""

_IN_MEMORY = 2**27
"""Bytes of an annotation up to which a copy is an array; larger ones are kept in chunks, which
are slower to read."""


@dataclass(frozen=True)
class QualityProgress:
    """How far a cross-validation or a learning curve is.

    Attributes
    ----------
    task, step
        What is done, such as "Cross-validation" and "model 2 of 4, iteration 31".
    fraction
        Share that is done.
    remaining
        Seconds that are left; None while unknown.
    """

    task: str
    step: str
    fraction: float
    remaining: float | None


def quality_line(progress: QualityProgress) -> str:
    """Write the step and the time that is left."""
    if progress.remaining is None:
        return progress.step
    return f"{progress.step} · {show_duration(progress.remaining)} left"


@dataclass(frozen=True)
class Split:
    """The slices of one training, and those that it is measured on."""

    trained: tuple[SliceRef, ...]
    measured: tuple[SliceRef, ...]
    repeat: int
    seed: int


@dataclass(frozen=True)
class QualityPlan:
    """What a cross-validation or a learning curve will do.

    Attributes
    ----------
    splits
        The trainings.
    config
        Settings of each of them; the seed is that of the split.
    slices
        The annotated slices that are divided; without held-out ones.
    """

    splits: tuple[Split, ...]
    config: TrainingConfig
    slices: tuple[SliceRef, ...]

    @property
    def budget(self) -> str:
        """The budget of each training in words."""
        if self.config.iterations is not None:
            return f"{self.config.iterations} iterations"
        return f"{self.config.seconds:.0f} s"

    @property
    def seconds(self) -> float | None:
        """Seconds that everything will take; None for a number of iterations."""
        if self.config.iterations is not None or self.config.seconds is None:
            return None
        return len(self.splits) * (self.config.seconds + _EXTRA_SECONDS)


# --- plans ----------------------------------------------------------------------------------


def plan_cross_validation(session: Session, folds: int | None = None) -> QualityPlan:
    """Divide the annotated slices into folds; held-out slices take no part.

    Neighboring slices come into different folds, as in the final model, whose nearest trained
    slice is as near as the annotation is dense.

    Parameters
    ----------
    session
        Image, annotation and settings. Each training has an equal share of the budget, but at
        least 10 s or 20 iterations. A model to start from is not used: it has seen the slices.
    folds
        Number of trainings; at most 5 when None.

    Raises
    ------
    BadInputError
        Fewer than two slices are annotated, or too little is left in a fold to train on.
    """
    annotation, _ = _checked(session)
    slices = _trainable(annotation)
    if len(slices) < 2:
        raise BadInputError(
            "Cross-validation leaves out each annotated slice in turn, so it needs two slices or "
            f"more besides the held-out ones; there {either(len(slices), 'is', 'are')} "
            f"{len(slices)}. Paint and complete another slice."
        )
    number = min(folds or _MOST_FOLDS, len(slices))
    if number < 2:
        raise BadInputError(f"{folds} is not a number of folds: give 2 or more.")
    seed = session.settings.training.seed
    splits = tuple(
        Split(
            tuple(ref for i, ref in enumerate(slices) if i % number != fold),
            slices[fold::number],
            fold,
            seed,
        )
        for fold in range(number)
    )
    for split in splits:
        if (problem := _problem(annotation, split)) is not None:
            left_out = ", ".join(map(str, split.measured))
            raise BadInputError(f"Cross-validation cannot leave out {left_out}: {problem}")
    return QualityPlan(splits, _shared(session.settings.training, len(splits)), slices)


def plan_learning_curve(session: Session) -> QualityPlan:
    """Choose 1, 2, … k of the annotated slices, several times at random.

    With held-out slices, all are measured on them. Without, the slices are left out in turn, as in
    a cross-validation, and the rest is learned from. Subsets that hold one kind of voxel only
    are left out.

    Raises
    ------
    BadInputError
        There are too few slices for two different numbers.
    """
    annotation, _ = _checked(session)
    slices = _trainable(annotation)
    held_out = tuple(sorted(annotation.held_out))
    if held_out:
        measured = [held_out] * _REPEATS
    else:
        folds = min(_MOST_FOLDS, len(slices))
        measured = [slices[fold::folds] for fold in range(folds)]
    pools = [tuple(ref for ref in slices if ref not in left_out) for left_out in measured]
    sizes = _sizes(min((len(pool) for pool in pools), default=0))
    if len(sizes) < 2:
        raise BadInputError(
            "Not enough slices to say: a learning curve compares trainings on 1, 2, … slices, so "
            f"it needs {'two' if held_out else 'three'} annotated slices besides the held-out "
            f"ones; there {either(len(slices), 'is', 'are')} {len(slices)}."
        )
    seed = session.settings.training.seed
    splits = []
    for repeat, (pool, left_out) in enumerate(zip(pools, measured, strict=True)):
        order = np.random.default_rng((seed, repeat)).permutation(len(pool)).tolist()
        for size in sizes:
            split = Split(
                tuple(sorted(pool[i] for i in order[:size])), left_out, repeat, seed + repeat
            )
            if _problem(annotation, split) is None:
                splits.append(split)
    if len({len(split.trained) for split in splits}) < 2:
        raise BadInputError(
            "Not enough slices to say: most slices hold one kind of voxel only, so a network "
            "cannot be trained on fewer of them. Complete the slices that hold a class."
        )
    return QualityPlan(tuple(splits), _shared(session.settings.training, len(splits)), slices)


def _checked(session: Session) -> tuple[SparseAnnotation, Volume]:
    if session.volume is None:
        raise BadInputError("No image is open. Open one, then start again.")
    if session.annotation is None:
        raise BadInputError("There is no annotation to measure. Paint one, or open one.")
    session.annotation.check(session.volume)
    return session.annotation, session.volume


def _trainable(annotation: SparseAnnotation) -> tuple[SliceRef, ...]:
    refs = (s.ref for s in annotation.slices() if s.ref not in annotation.held_out)
    return tuple(sorted(refs, key=lambda ref: (ref.time, ref.axis, ref.index)))


def _sizes(most: int) -> list[int]:
    """Numbers of slices that a learning curve tries, the largest one last."""
    if most <= _EVERY_NUMBER:
        return list(range(1, most + 1))
    return sorted({1, math.ceil(most / 4), math.ceil(most / 2), most})


def _shared(config: TrainingConfig, runs: int) -> TrainingConfig:
    if config.iterations is not None:
        each = max(_LEAST_ITERATIONS, math.ceil(config.iterations / runs))
        return config.model_copy(update={"iterations": min(each, config.iterations)})
    assert config.seconds is not None
    return config.model_copy(update={"seconds": max(_LEAST_SECONDS, config.seconds / runs)})


def _problem(annotation: SparseAnnotation, split: Split) -> str | None:
    """Why a network cannot be trained on these slices; None when it can."""
    kinds: set[int] = set()
    for ref in split.trained:
        kinds |= set(np.unique(annotation.held_out_target(ref)).tolist()) - {0}
    if len(kinds) >= 2:
        return None
    names = ["background", *(c.name for c in annotation.classes)]
    only = names[kinds.pop() - 1] if kinds else "nothing"
    return f"the other slices hold {only} only."


# --- runs -----------------------------------------------------------------------------------


def cross_validate(
    session: Session, control: TrainingControl | None = None, folds: int | None = None
) -> Generator[QualityProgress | Notice, None, CrossValidation | None]:
    """Hold out each annotated slice once, and train on the others.

    The models are trained on fewer slices, and for a shorter time, than the final one. So the
    scores are slightly pessimistic.

    Parameters
    ----------
    session
        Image, annotation and settings.
    control
        Cancels.
    folds
        See `plan_cross_validation`.

    Returns
    -------
    CrossValidation or None
        None when it was cancelled.
    """
    plan = plan_cross_validation(session, folds)
    runs = yield from _run(session, plan, control or TrainingControl(), "Cross-validation")
    if runs is None:
        return None
    order = {str(ref): i for i, ref in enumerate(plan.slices)}
    measured = [score for run in runs for score in run.scores.by_slice]
    return CrossValidation(
        folds=tuple(
            Fold(tuple(map(str, split.measured)), len(split.trained), run.iterations, run.seconds)
            for split, run in zip(plan.splits, runs, strict=True)
        ),
        by_slice=tuple(sorted(measured, key=lambda score: order[score.ref])),
        slices=len(plan.slices),
    )


def learning_curve(
    session: Session, control: TrainingControl | None = None
) -> Generator[QualityProgress | Notice, None, LearningCurve | None]:
    """Train on 1, 2, … of the annotated slices; parameters as those of `cross_validate`."""
    plan = plan_learning_curve(session)
    runs = yield from _run(session, plan, control or TrainingControl(), "Learning curve")
    if runs is None:
        return None
    assert session.annotation is not None
    return LearningCurve(
        tuple(
            LearningRun(
                tuple(map(str, split.trained)),
                split.repeat,
                run.scores.mean_iou,
                tuple(map(str, split.measured)),
                run.iterations,
                run.seconds,
            )
            for split, run in zip(plan.splits, runs, strict=True)
        ),
        on_held_out=bool(session.annotation.held_out),
    )


@dataclass(frozen=True)
class _Measured:
    scores: HeldOutScores
    iterations: int
    seconds: float


def _run(
    session: Session, plan: QualityPlan, control: TrainingControl, name: str
) -> Generator[QualityProgress | Notice, None, list[_Measured] | None]:
    annotation, volume = session.annotation, session.volume
    assert annotation is not None and volume is not None
    volume = volume.in_memory(devices.room_for_images())  # once, not for each training
    begin, runs = time.monotonic(), list[_Measured]()
    number = len(plan.splits)
    took = "" if plan.seconds is None else f", about {show_duration(plan.seconds)} in all"
    yield Notice(
        f"{name}: {number} new models are trained, {plan.budget} each{took}. "
        "The current model stays as it is."
    )
    for i, split in enumerate(plan.splits):
        trainer = Trainer(
            volume,
            _only(annotation, split),
            plan.config.model_copy(update={"seed": split.seed}),
        )
        scores: HeldOutScores | None = None
        training = trainer.run(control)
        while True:
            try:
                event = next(training)
            except StopIteration as end:
                bundle = end.value
                break
            if isinstance(event, HeldOutScores) and event.final:
                scores = event
            elif isinstance(event, TrainingProgress):
                fraction = (i + event.fraction) / number
                spent = time.monotonic() - begin
                step = f"model {i + 1} of {number}, iteration {event.iteration}"
                yield QualityProgress(
                    name, step, fraction, spent * (1 - fraction) / max(fraction, 0.01)
                )
            elif isinstance(event, Notice):
                yield event
        if bundle is None or control.stopped:
            return None
        if scores is None:
            left_out = ", ".join(map(str, split.measured))
            raise RunFailedError(f"{name}: {left_out} could not be measured. Free some memory.")
        runs.append(_Measured(scores, bundle.record.iterations, bundle.record.seconds))
    return runs


def _only(annotation: SparseAnnotation, split: Split) -> SparseAnnotation:
    """The annotation with the paint of these slices only."""
    source: Any = annotation.labels
    shape = tuple(int(n) for n in source.shape)
    small = math.prod(shape) <= _IN_MEMORY
    labels: Any = np.zeros(shape, np.uint8) if small else SparseLabels.create(shape)
    hidden = annotation.held_out.difference(split.measured)
    for ref in (*split.trained, *split.measured):
        plane = np.expand_dims(np.array(read_slice(source, ref)), ref.axis)
        for other in hidden:
            if other.time == ref.time and other.axis != ref.axis:
                plane[plane_index(other.axis, other.index)] = 0
        where: list[slice] = [slice(None)] * 3
        where[ref.axis] = slice(ref.index, ref.index + 1)
        labels[at_time(labels, ref.time, tuple(where))] = plane
    return replace(annotation, labels=labels, held_out=frozenset(split.measured))
