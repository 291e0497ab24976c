"""What the commands do: files in, the core's generators, files out."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_unet3d.cli import settings
from napari_unet3d.cli.checkpoints import CheckpointFile
from napari_unet3d.cli.follow import TrainingRun, follow, say_how_to_go_on
from napari_unet3d.cli.terminal import errors
from napari_unet3d.config import ClassInfo, PredictionConfig, TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation, parse_slices
from napari_unet3d.data.files import (
    check_output,
    check_space,
    check_writable,
    create_output,
    read_labels,
    read_volume,
)
from napari_unet3d.data.slices import SliceRef, check_in_stack
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.model import device as devices
from napari_unet3d.model.bundle import SUFFIX, ModelBundle
from napari_unet3d.model.geometry import parameter_count
from napari_unet3d.prediction.predictor import predict as segment
from napari_unet3d.prediction.scores import ClassScore, Overlap, mean, show
from napari_unet3d.training.trainer import Trainer


def train(
    image: Path,
    annotation: Path,
    output: Path,
    config: TrainingConfig,
    *,
    held_out: str = "",
    names: Mapping[int, str] | None = None,
    start_from: Path | None = None,
    resume: bool = False,
    lean: bool = False,
    checkpoint_seconds: float | None = settings.CHECKPOINT_SECONDS,
) -> ModelBundle:
    """Train on files and save the model; `lean` leaves out what only resuming needs.

    Every `checkpoint_seconds` a checkpoint is written beside the model; None for none.
    """
    output = check_model_path(output)
    volume = read_volume(image)
    labels = read_labels(annotation).data
    found = SparseAnnotation.from_labels(labels, held_out=parse_slices(held_out))
    bundle = None if start_from is None else ModelBundle.load(start_from)
    known = {c.value: c for c in bundle.classes} if bundle else {}
    classes = _named([known.get(c.value, c) for c in found.classes], names or {})
    sparse = SparseAnnotation(labels, classes, found.held_out)
    checkpoint = CheckpointFile(output)
    checkpoint.announce(start_from)
    with TrainingRun(checkpoint, checkpoint_seconds) as run:
        trainer = Trainer(volume, sparse, config, start_from=bundle, resume=resume)
        check_space(output, 16 * parameter_count(trainer.network_config) + 2**20)
        trained = run.train(trainer)
        trained = trained.without_state() if lean else trained
        save_model(trained, output)
    say_how_to_go_on(trained, output)
    return trained


def check_model_path(path: Path) -> Path:
    """The path of a model to be written; `BadInputError` when that cannot work."""
    path = path.expanduser()
    if path.suffix != SUFFIX:
        raise BadInputError(f"{path}: the name of a model ends in {SUFFIX}")
    if path.is_dir():
        raise BadInputError(f"{path} is a folder: give the name of a file in it")
    check_writable(path)
    return path


def save_model(bundle: ModelBundle, path: Path) -> None:
    """Save a model; where that fails, in the folder for temporary files: it is not lost."""
    try:
        bundle.save(path)
    except (BadInputError, RunFailedError) as error:
        refuge = Path(tempfile.gettempdir()) / path.name
        bundle.save(refuge)
        raise RunFailedError(f"{error}. The model was saved as {refuge} instead.") from error


def _named(classes: Sequence[ClassInfo], names: Mapping[int, str]) -> tuple[ClassInfo, ...]:
    painted = [c.value for c in classes]
    for value in names:
        if value not in painted:
            raise BadInputError(f"--names: class {value} is not painted; painted are {painted}")
    return tuple(
        settings.validated(ClassInfo, **c.model_dump() | {"name": names.get(c.value, c.name)})
        for c in classes
    )


def predict(
    model: Path,
    image: Path,
    config: PredictionConfig,
    times: Sequence[int] | None,
    output: Path,
    probabilities: Path | None = None,
    uncertainty: Path | None = None,
) -> list[Path]:
    """Segment a file with a model; the paths of what was written."""
    bundle = ModelBundle.load(model)
    volume = read_volume(image)
    volume.check()
    series = (volume.n_times,) if "T" in volume.axes else ()
    axes = "TZYX" if series else "ZYX"
    wanted: list[tuple[Path | None, tuple[int, ...], Any, str]] = [
        (output, (*series, *volume.shape), np.uint8, axes),
        (
            probabilities,
            (*series, bundle.network.n_classes, *volume.shape),
            np.float32,
            axes.replace("Z", "CZ"),
        ),
        (uncertainty, (*series, *volume.shape), np.float32, axes),
    ]
    _check_outputs([path for path, *_ in wanted if path is not None], [model, image])
    with ExitStack() as files:
        arrays = [
            path
            and files.enter_context(
                create_output(path, shape, dtype, order, volume.voxel_size, volume.unit)
            )
            for path, shape, dtype, order in wanted
        ]
        steps = segment(
            bundle,
            volume,
            arrays[0],
            probabilities=arrays[1],
            uncertainty=arrays[2],
            times=times,
            config=config,
        )
        follow(steps, "predicting")
    return [path for path, *_ in wanted if path is not None]


def _check_outputs(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    taken = [path.expanduser().resolve() for path in inputs]
    for path in outputs:
        check_output(path)
        place = path.expanduser().resolve()
        if place in taken:
            raise BadInputError(f"{path} is an input or another output: choose another name")
        taken.append(place)


def evaluate(prediction: Path, truth: Path, skip: str, as_json: bool) -> str:
    """IoU and Dice of each class, as a table or as JSON."""
    slices = parse_slices(skip)
    found = compare(read_labels(prediction).data, read_labels(truth).data, slices)
    iou, dice = mean([s.iou for s in found]), mean([s.dice for s in found])
    if as_json:
        classes = {s.value: {"iou": s.iou, "dice": s.dice, "voxels": s.voxels} for s in found}
        return json.dumps({"classes": classes, "mean_iou": iou, "mean_dice": dice})
    lines = [f"{'class':>6} {'IoU':>6} {'Dice':>6} {'voxels':>12}"]
    lines += [f"{s.value:>6} {show(s.iou):>6} {show(s.dice):>6} {s.voxels:>12}" for s in found]
    return "\n".join([*lines, f"{'mean':>6} {show(iou):>6} {show(dice):>6}"])


def compare(predicted: Any, truth: Any, skip: Sequence[SliceRef] = ()) -> tuple[ClassScore, ...]:
    """Scores of every class that occurs in either, on the slices that are not skipped.

    Raises
    ------
    BadInputError
        The shapes differ, a skipped slice is not in the stack, or the two have no class in
        common.
    """
    if tuple(predicted.shape) != tuple(truth.shape):
        raise BadInputError(
            f"the prediction has shape {tuple(predicted.shape)}, the truth "
            f"{tuple(truth.shape)}: give two of the same stack"
        )
    for ref in skip:
        check_in_stack(truth, ref, f"--skip {ref}")
    predicted, truth = np.asarray(predicted), np.asarray(truth)
    keep = np.ones(truth.shape, bool)
    for ref in skip:
        stack = keep[ref.time] if truth.ndim == 4 else keep
        stack[(slice(None),) * ref.axis + (ref.index,)] = False
    have, want = ({int(v) for v in np.unique(a)} - {0} for a in (predicted, truth))
    if have and want and not have & want:
        raise BadInputError(
            f"the prediction holds the classes {sorted(have)}, the truth {sorted(want)}: number "
            "them alike (classes of a prediction keep the numbers of the annotation, 2…)"
        )
    if have != want:
        errors.print(
            f"The prediction holds the classes {sorted(have)}, the truth {sorted(want)}: are they "
            "numbered alike? In both, 0 is background; 1 is background in an annotation only.",
            markup=False,
        )
    overlap = Overlap(sorted(have | want))
    overlap.add(predicted, truth, keep)
    return overlap.scores()


def describe_file(path: Path) -> str:
    """What is in a model or an image."""
    if path.suffix == SUFFIX:
        bundle = ModelBundle.load(path)
        return bundle.model_dump_json(indent=2, exclude={"weights", "pixels", "state", "intensity"})
    return _describe_volume(path, read_volume(path))


def _describe_volume(path: Path, volume: Volume) -> str:
    size = " × ".join(f"{v:g}" for v in volume.voxel_size)
    return (
        f"{path}: {volume.axes} {tuple(volume.data.shape)} {volume.dtype}\n"
        f"voxel (z × y × x): {size} {volume.unit}"
    )


def describe_machine() -> str:
    """Device, precision and free memory, and why a GPU sits unused."""
    device = devices.pick_device()
    lines = [
        f"torch {torch.__version__}; device: {devices.describe(device)}",
        f"precision: {devices.pick_precision(device)}",
        f"free memory: {devices.free_memory(device) / 2**30:.1f} GiB",
        devices.unused_gpu(),
    ]
    return "\n".join(line for line in lines if line)
