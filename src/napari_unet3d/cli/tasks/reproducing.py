"""Repeat the paper's experiments on files, and write the tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_unet3d.cli.tasks.inputs import open_image
from napari_unet3d.cli.terminal import errors
from napari_unet3d.config import FIRST_CLASS, TrainingConfig
from napari_unet3d.data.io.paths import user_path
from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.data.samples import tubules
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import Notice, drain
from napari_unet3d.reproduction import trials as protocol
from napari_unet3d.reproduction.running import (
    LabelledStack,
    TrialFailed,
    TrialFinished,
    TrialStarted,
    run_trials,
)
from napari_unet3d.reproduction.tables import write_report

_USAGE = "reproduce takes IMAGE LABELS"
_MOST_CLASSES = 20
"""Classes. More values in the labels are numbered objects, which are no classes."""


def reproduce_files(
    folder: Path,
    config: TrainingConfig,
    files: tuple[Path, Path] | None,
    more: Sequence[str],
    experiments: Sequence[str],
    seconds: float,
    seeds: int,
    scale: str,
) -> Path:
    """Run the experiments and write the tables; returns the path of the tables.

    Parameters
    ----------
    folder
        Where results go; those of an earlier run are kept and not repeated.
    config
        Settings that all trainings share, and the iterations of those that are no `family`.
    files
        Image and labels; None for the simulated tubules.
    more
        Further stacks as IMAGE,LABELS.
    experiments
        Names of `trials.EXPERIMENTS`.
    seconds
        Of each training of `family`.
    seeds
        Trainings of each kind.
    scale
        Words about the settings, for the tables.

    Raises
    ------
    BadInputError
        A file cannot be used, or an experiment does not exist or lacks stacks.
    RunFailedError
        Some trainings could not be carried out; the tables are written without them.
    """
    for name in experiments:
        if name not in protocol.EXPERIMENTS:
            listed = ", ".join(protocol.EXPERIMENTS)
            raise BadInputError(f"--experiments: {name!r} is none of {listed}")
    if files:
        given = [files, *(_split(text) for text in more)]
        stacks = _same_classes([_open(*each) for each in given])
    elif more:
        raise BadInputError("--stack: give IMAGE and LABELS of the first stack, too")
    else:
        stacks = [_sample(seed) for seed in ((0, 1, 2) if "full" in experiments else (0,))]
    if "full" in experiments and len(stacks) < 3:
        raise BadInputError("full: give at least three stacks, two of them with --stack")
    shape, plan = stacks[0].volume.shape, []
    for name in experiments:
        if name == "semi":
            plan += protocol.semi_automated(shape, protocol.PAPER_METHODS, seeds)
        elif name == "slices":
            plan += protocol.by_slices(shape, protocol.PAPER_METHODS[1], seeds)
        elif name == "full":
            plan += protocol.fully_automated(len(stacks), protocol.PAPER_METHODS, seeds)
        else:
            plan += protocol.compared(shape, seconds, seeds)
    budget = _budget(experiments, config, seconds)
    errors.print(f"{len(plan)} trainings: {budget}; the end of each takes some seconds more")
    teller = _Teller()
    results = drain(run_trials(stacks, plan, config, folder), teller.tell)
    failed = teller.failed
    path = write_report(
        folder,
        plan,
        results,
        stack=stacks[0].name,
        budget=f"{scale}: {budget}",
        version=f"PyTorch {torch.__version__}",
        failed=[f"{_name(f.trial)}: {f.reason}" for f in failed],
    )
    if failed and not any(trial.key in results for trial in plan):
        raise BadInputError(failed[0].reason)
    if failed:
        raise RunFailedError(f"{len(failed)} of {len(plan)} trainings failed: see {path}")
    return path


def _name(trial: protocol.Trial) -> str:
    return f"{trial.method.title}, {trial.experiment}, {trial.label}, seed {trial.seed}"


class _Teller:
    """Says which training begins, what one came to, and each note once.

    Attributes
    ----------
    failed
        The trials that could not be carried out.
    """

    def __init__(self) -> None:
        self.failed: list[TrialFailed] = []
        self._notes: set[str] = set()

    def tell(self, event: Any) -> None:
        """Say what has happened."""
        if isinstance(event, TrialStarted):
            errors.print(f"{event.number} of {event.total}: {_name(event.trial)}")
        elif isinstance(event, TrialFinished):
            result = event.result
            iou = "no class there" if result.iou is None else f"IoU {result.iou:.3f}"
            errors.print(f"  {iou}, {result.iterations} iterations in {result.seconds:.0f} s")
        elif isinstance(event, TrialFailed):
            self.failed.append(event)
            errors.print(f"  failed: {event.reason}")
        elif isinstance(event, Notice) and event.text not in self._notes:
            self._notes.add(event.text)
            errors.print(f"  {event.text}")


def _budget(experiments: Sequence[str], config: TrainingConfig, seconds: float) -> str:
    """How long each training is, in words."""
    words = [f"{config.iterations:,} iterations"] if set(experiments) != {"family"} else []
    words += [f"{seconds:g} s for each network of the family"] if "family" in experiments else []
    return ", ".join(words)


def _sample(seed: int) -> LabelledStack:
    sample = tubules(seed=seed)
    return LabelledStack(f"simulated kidney tubules, seed {seed}", sample.image, sample.truth)


def _split(text: str) -> tuple[Path, Path]:
    image, comma, labels = text.partition(",")
    if not (image and comma and labels):
        raise BadInputError(f"--stack {text}: write IMAGE,LABELS")
    return user_path(Path(image)), user_path(Path(labels))


def _open(image: Path, labels: Path) -> LabelledStack:
    volume = open_image(image, _USAGE)
    read = np.asarray(read_labels(labels).data)
    if volume.n_times > 1:
        raise BadInputError(f"{image} has {volume.n_times} time points: give one of them")
    if read.shape != tuple(volume.shape):
        raise BadInputError(
            f"{labels} has the shape {read.shape}, the image {tuple(volume.shape)}: give the "
            "labels of this image"
        )
    if len(np.unique(read)) > _MOST_CLASSES:
        raise BadInputError(
            f"{labels} has {len(np.unique(read))} different values, which look like numbered "
            "objects: give labels in which each value is a class"
        )
    return LabelledStack("/".join(image.absolute().parts[-2:]), volume, read)


def _same_classes(stacks: Sequence[LabelledStack]) -> list[LabelledStack]:
    """Stacks whose values are the classes 2…, the same value the same class in all of them.

    Raises
    ------
    BadInputError
        They have other classes, or other channels, than the first one.
    """
    found = [np.unique(stack.truth[stack.truth != 0]).tolist() for stack in stacks]
    first = found[0]
    for stack, values in zip(stacks, found, strict=True):
        if values != first and not len(values) == len(first) == 1:  # such as 1 and 255
            raise BadInputError(
                f"{stack.name} has the classes {values}, {stacks[0].name} has {first}: give "
                "stacks of the same classes, with the same values"
            )
        if stack.volume.n_channels != stacks[0].volume.n_channels:
            raise BadInputError(
                f"{stack.name} has {stack.volume.n_channels} channels, {stacks[0].name} has "
                f"{stacks[0].volume.n_channels}: give stacks of the same channels"
            )
    return [
        replace(stack, truth=_numbered(stack.truth, values))
        for stack, values in zip(stacks, found, strict=True)
    ]


def _numbered(labels: NDArray[Any], values: Sequence[int]) -> NDArray[np.uint8]:
    truth = np.zeros(labels.shape, np.uint8)
    for number, value in enumerate(values):
        truth[labels == value] = FIRST_CLASS + number
    return truth
