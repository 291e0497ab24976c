"""Carry out trials one by one; what is finished is kept in a file, and not repeated."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import BACKGROUND, PredictionConfig, TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.io.atomic import Replacement
from napari_unet3d.data.io.fingerprint import Fingerprint
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import Checkpoint, mean
from napari_unet3d.model.bundle import SUFFIX, ModelBundle
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.prediction.scores import Overlap
from napari_unet3d.reproduction.paper import COUNTS
from napari_unet3d.reproduction.trials import Trial, spread_slices
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.domains import plan_stacks
from napari_unet3d.training.trainer import Trainer, run_plan

RESULTS, ABOUT = "results.json", "about.json"
_CHECKPOINT_SECONDS = 600.0
"""Seconds between two checkpoints of a trial: one of the paper's length takes days on a CPU."""


@dataclass(frozen=True, eq=False)
class LabelledStack:
    """A stack with its dense truth.

    Attributes
    ----------
    name
        Name in tables.
    volume
        The stack.
    truth
        (Z, Y, X) uint8: 0 background, 2… classes.
    """

    name: str
    volume: Volume
    truth: NDArray[np.uint8]

    def annotated(
        self, trained: Sequence[SliceRef], measured: Sequence[SliceRef] = ()
    ) -> SparseAnnotation:
        """The truth on some slices, those that are measured held out."""
        labels = np.zeros_like(self.truth)
        for ref in (*trained, *measured):
            where = (slice(None),) * ref.axis + (ref.index,)
            labels[where] = np.maximum(self.truth[where], BACKGROUND)
        held_out = frozenset(measured)
        return SparseAnnotation.from_labels(labels, held_out=held_out, convention="sparse")


@dataclass(frozen=True)
class TrialResult:
    """What a trial came to.

    Attributes
    ----------
    key
        Name of the trial.
    iou
        Mean IoU of the classes on what was measured; None where no class is there.
    classes
        IoU of each class, by its label value.
    iterations, seconds
        Of the training.
    device, precision, patch
        What the training computed with, and the voxels (z, y, x) of its patches.
    """

    key: str
    iou: float | None
    classes: Mapping[str, float]
    iterations: int
    seconds: float
    device: str = ""
    precision: str = ""
    patch: tuple[int, ...] = ()


@dataclass(frozen=True)
class TrialStarted:
    """A trial begins.

    Attributes
    ----------
    number, total
        Which one it is, from 1, and how many there are.
    trial
        The trial.
    """

    number: int
    total: int
    trial: Trial


@dataclass(frozen=True)
class TrialFinished:
    """A trial is done, and its result is saved."""

    result: TrialResult


@dataclass(frozen=True)
class TrialFailed:
    """A trial could not be carried out; the next call tries it again.

    Attributes
    ----------
    trial
        The trial.
    reason
        Why not.
    """

    trial: Trial
    reason: str


def load_results(folder: Path) -> dict[str, TrialResult]:
    """The results in a folder by the keys of their trials; none where there is no file.

    Raises
    ------
    BadInputError
        The file is damaged.
    """
    path = folder / RESULTS
    if not path.exists():
        return {}
    try:
        found = (TrialResult(**r) for r in json.loads(path.read_text()))
        return {r.key: replace(r, patch=tuple(r.patch)) for r in found}
    except (ValueError, TypeError, KeyError) as error:
        raise BadInputError(f"{path} is damaged: remove it to begin anew") from error


def run_trials(
    stacks: Sequence[LabelledStack],
    trials: Sequence[Trial],
    config: TrainingConfig,
    folder: Path,
) -> Generator[Any, None, dict[str, TrialResult]]:
    """Carry out the trials that have no result yet; yields what happens, returns all results.

    A trial that fails does not end the others.

    Parameters
    ----------
    stacks
        The first one is annotated; all of them take part in `full`.
    trials
        What is done.
    config
        Settings that all methods share.
    folder
        Where results and checkpoints are kept.

    Yields
    ------
    TrialStarted, TrialFinished, TrialFailed, or an event of a training or a prediction
    """
    folder.mkdir(parents=True, exist_ok=True)
    _check_same(stacks, config, folder)
    results = load_results(folder)
    for number, trial in enumerate(trials, 1):
        if trial.key in results:
            continue
        yield TrialStarted(number, len(trials), trial)
        settings = trial.method.applied_to(config, trial.seed)
        failed: TrialFailed | None = None
        try:
            result = yield from _carry_out(stacks, trial, settings, folder)
        except (BadInputError, RunFailedError) as error:
            # The error itself holds a model, and its traceback more.
            failed = TrialFailed(trial, str(error))
        if failed is not None:
            yield failed
            continue
        results[trial.key] = result
        text = json.dumps([asdict(r) for r in results.values()], indent=1)
        Replacement(folder / RESULTS).write(text.encode())
        for path in (_checkpoint(trial, folder), _trained(trial, folder)):
            path.unlink(missing_ok=True)
        yield TrialFinished(result)
    return results


def _checkpoint(trial: Trial, folder: Path) -> Path:
    """Where the model of a training that goes on is saved."""
    return folder / f"{trial.key}{SUFFIX}"


def _trained(trial: Trial, folder: Path) -> Path:
    """Where the model of a training that is over is saved, until it is measured."""
    return folder / f"{trial.key}-trained{SUFFIX}"


def _check_same(stacks: Sequence[LabelledStack], config: TrainingConfig, folder: Path) -> None:
    """Write what the results of a folder are about, or refuse a folder that is about others.

    Raises
    ------
    BadInputError
        The folder holds results of other stacks or settings.
    """
    about = {
        "settings": config.model_dump(mode="json", exclude={"device"}),
        "stacks": [
            {
                "image": Fingerprint.of(s.volume).model_dump(mode="json"),
                "voxel size": list(s.volume.voxel_size),
                "truth": zlib.crc32(s.truth.tobytes()),
            }
            for s in stacks
        ],
    }
    path = folder / ABOUT
    try:
        before = json.loads(path.read_text()) if path.exists() else None
    except ValueError:
        before = {}
    begun = (folder / RESULTS).exists() or any(folder.glob(f"*{SUFFIX}"))
    if begun and before != about:
        raise BadInputError(
            f"{folder} holds results of other stacks or settings (see {ABOUT} in it): give another "
            "folder"
        )
    Replacement(path).write(json.dumps(about, indent=1).encode())


def _carry_out(
    stacks: Sequence[LabelledStack], trial: Trial, config: TrainingConfig, folder: Path
) -> Generator[Any, None, TrialResult]:
    """Train, unless that is done, and measure."""
    path, is_full = _trained(trial, folder), trial.experiment == "full"
    if path.exists():
        bundle = ModelBundle.load(path)
    else:
        train = (
            _on_others(stacks, trial, config)
            if is_full
            else _on_slices(stacks[0], trial, config, _checkpoint(trial, folder))
        )
        bundle = yield from train
        bundle.save(path)
    stack = stacks[trial.left_out] if is_full else stacks[0]
    return (yield from _measured(trial, bundle, stack, config))


def _on_slices(
    stack: LabelledStack, trial: Trial, config: TrainingConfig, checkpoint: Path
) -> Generator[Any, None, ModelBundle]:
    """Train on slices of a stack; where there is a checkpoint, go on with it."""
    before = ModelBundle.load(checkpoint) if checkpoint.exists() else None
    if before is not None and _is_used_up(config, before):
        before = None  # it was ended between its last iteration and its last statistics
    trainer = Trainer(
        stack.volume,
        stack.annotated(trial.trained, trial.measured),
        config,
        start_from=before,
        resume=before is not None,
    )
    control = TrainingControl()
    control.checkpoint_every(_CHECKPOINT_SECONDS)
    return (yield from _saving(trainer.run(control), checkpoint))


def _is_used_up(config: TrainingConfig, bundle: ModelBundle) -> bool:
    """Whether a model has had its budget."""
    if config.iterations is not None:
        return bundle.record.iterations >= config.iterations
    return bundle.record.seconds >= (config.seconds or math.inf)


def _on_others(
    stacks: Sequence[LabelledStack], trial: Trial, config: TrainingConfig
) -> Generator[Any, None, ModelBundle]:
    """Train on slices of all stacks but one."""
    trained = [s for i, s in enumerate(stacks) if i != trial.left_out]
    annotations = [
        (s.volume, s.annotated(spread_slices(s.volume.shape, COUNTS[-1]))) for s in trained
    ]
    plan = plan_stacks(annotations, config)
    return (yield from _saving(run_plan(plan, TrainingControl()), None))


def _saving(
    events: Generator[Any, None, ModelBundle | None], checkpoint: Path | None
) -> Generator[Any, None, ModelBundle]:
    """The events of a training, whose checkpoints are saved."""
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            assert end.value is not None  # None is for a cancelled training, and nothing cancels
            bundle: ModelBundle = end.value
            return bundle
        if isinstance(event, Checkpoint) and checkpoint is not None:
            event.bundle.save(checkpoint)
        yield event


def _measured(
    trial: Trial, bundle: ModelBundle, stack: LabelledStack, config: TrainingConfig
) -> Generator[Any, None, TrialResult]:
    """Segment a stack, and compare the slices that are measured, or all, with its truth."""
    found = np.zeros(stack.volume.shape, np.uint8)
    settings = PredictionConfig(device=config.device, precision=config.precision)
    yield from predict(bundle, stack.volume, found, config=settings)
    overlap = Overlap([c.value for c in bundle.classes])
    for ref in trial.measured or [SliceRef(0, z) for z in range(len(found))]:
        where = (slice(None),) * ref.axis + (ref.index,)
        overlap.add(found[where], stack.truth[where])
    ious = {str(s.value): s.iou for s in overlap.scores() if s.iou is not None}
    record = bundle.record
    return TrialResult(
        trial.key,
        mean(list(ious.values())),
        ious,
        record.iterations,
        record.seconds,
        record.device,
        record.precision,
        record.patch_shape,
    )
