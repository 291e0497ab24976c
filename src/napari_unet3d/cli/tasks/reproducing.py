"""Repeat the paper's experiments on files, and write the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_unet3d.cli.tasks.inputs import open_image
from napari_unet3d.cli.terminal import errors
from napari_unet3d.config import FIRST_CLASS, TrainingConfig
from napari_unet3d.data.io.paths import user_path
from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.data.samples import tubules
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import drain
from napari_unet3d.networks import device as devices
from napari_unet3d.reproduction import trials as protocol
from napari_unet3d.reproduction.running import (
    LabelledStack,
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

    Raises
    ------
    BadInputError
        A file cannot be used, or an experiment does not exist or lacks stacks.
    """
    for name in experiments:
        if name not in protocol.EXPERIMENTS:
            listed = ", ".join(protocol.EXPERIMENTS)
            raise BadInputError(f"--experiments: {name!r} is none of {listed}")
    stacks = [_open(*files) if files else _sample(0)]
    stacks += [_open(*_split(text)) for text in more]
    if "full" in experiments and len(stacks) == 1 and files is None:
        stacks += [_sample(seed) for seed in (1, 2)]
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
    results = drain(run_trials(stacks, plan, config, folder), _tell)
    device = devices.pick_device(config.device)
    machine = f"{devices.describe(device)}, PyTorch {torch.__version__}"
    name = stacks[0].name
    return write_report(folder, plan, results, stack=name, budget=budget, machine=machine)


def _tell(event: Any) -> None:
    """Say which training begins, and what one came to."""
    if isinstance(event, TrialStarted):
        trial = event.trial
        what = f"{trial.method.title}, {trial.experiment}, {trial.label}, seed {trial.seed}"
        errors.print(f"{event.number} of {event.total}: {what}")
    elif isinstance(event, TrialFinished):
        result = event.result
        iou = "no class there" if result.iou is None else f"IoU {result.iou:.3f}"
        errors.print(f"  {iou}, {result.iterations} iterations in {result.seconds:.0f} s")


def _budget(experiments: Sequence[str], config: TrainingConfig, seconds: float) -> str:
    """How long each training is, in words."""
    words = [f"{config.iterations:,} iterations"] if set(experiments) != {"family"} else []
    words += [f"{seconds:g} s each of the family"] if "family" in experiments else []
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
    if read.shape != tuple(volume.shape):
        raise BadInputError(
            f"{labels} has the shape {read.shape}, the image {tuple(volume.shape)}: give the "
            "labels of this image"
        )
    values = np.unique(read)
    if len(values) > _MOST_CLASSES:
        raise BadInputError(
            f"{labels} has {len(values)} different values, which look like numbered objects: give "
            "labels in which each value is a class"
        )
    truth = np.zeros(read.shape, np.uint8)
    for number, value in enumerate(v for v in values if v != 0):
        truth[read == value] = FIRST_CLASS + number
    return LabelledStack(image.name, volume, truth)
