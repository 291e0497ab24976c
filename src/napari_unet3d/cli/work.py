"""What the commands do: files in, the core's generators, files out."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_unet3d.cli import settings
from napari_unet3d.cli.follow import follow
from napari_unet3d.cli.follow import train as follow_training
from napari_unet3d.cli.interruption import held_back
from napari_unet3d.cli.terminal import errors
from napari_unet3d.config import ClassInfo, PredictionConfig, TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation, parse_slices
from napari_unet3d.data.atomic import KeptElsewhereError, Replacement, check_target, expanded
from napari_unet3d.data.files import read_labels, read_volume
from napari_unet3d.data.leftovers import remove
from napari_unet3d.data.outputs import (
    OutputArray,
    check_output,
    check_paths,
    check_space,
    create_output,
    is_same_file,
)
from napari_unet3d.data.slices import SliceRef, check_in_stack
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.model import device as devices
from napari_unet3d.model.bundle import SUFFIX, ModelBundle
from napari_unet3d.model.geometry import parameter_count
from napari_unet3d.prediction.predictor import predict as segment
from napari_unet3d.prediction.scores import ClassScore, Overlap, mean, show
from napari_unet3d.training.trainer import Trainer, TrainingFailedError


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
    overwrite: bool = False,
) -> ModelBundle:
    """Train on files and save the model; `lean` leaves out what only resuming needs.

    An older model is replaced with `overwrite` only, or where it is the one to be resumed.
    """
    goes_on = resume and start_from is not None and is_same_file(start_from, output)
    output = check_model_path(output, overwrite=overwrite or goes_on)
    check_paths([output], [image, annotation])
    place = Replacement(output)
    volume = read_volume(image)
    labels = read_labels(annotation).data
    found = SparseAnnotation.from_labels(labels, held_out=parse_slices(held_out))
    bundle = None if start_from is None else ModelBundle.load(start_from)
    known = {c.value: c for c in bundle.classes} if bundle else {}
    classes = _named([known.get(c.value, c) for c in found.classes], names or {})
    sparse = SparseAnnotation(labels, classes, found.held_out)
    trainer = Trainer(volume, sparse, config, start_from=bundle, resume=resume)
    bytes_each = 4 if lean else 16
    check_space(output, bytes_each * parameter_count(trainer.network_config) + 2**20)
    try:
        trained = follow_training(trainer)
    except TrainingFailedError as failure:
        if failure.bundle is None:
            raise
        save_model(failure.bundle, place)
        raise RunFailedError(
            f"{str(failure).rstrip('.')}. What was learned in {failure.bundle.record.iterations} "
            f"iterations is kept: {output}"
        ) from failure
    save_model(trained.without_state() if lean else trained, place)
    return trained


def check_model_path(path: Path, *, overwrite: bool = False) -> Path:
    """The path of a model to be written; `BadInputError` when that cannot work."""
    path = expanded(path)
    if path.suffix != SUFFIX:
        raise BadInputError(f"{path}: the name of a model ends in {SUFFIX}")
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise BadInputError(
            f"{str(path)!a} is not valid Unicode: a model of that name could be written, but "
            "not opened. Choose another name."
        ) from error
    check_target(path, overwrite=overwrite)
    return path


def save_model(bundle: ModelBundle, place: Path | Replacement) -> None:
    """Save a model; where that fails, under another name: it is not lost.

    Ctrl-C is held back until it is saved; a second one interrupts.

    Raises
    ------
    RunFailedError
        It could not be saved there. The text says where it is, if it is anywhere.
    """
    with held_back("The model is being saved (Ctrl-C again drops it)"):
        try:
            bundle.save(place)
        except KeptElsewhereError:
            raise
        except Exception as error:
            path = place.path if isinstance(place, Replacement) else place
            if isinstance(error, BadInputError | RunFailedError):
                reason = str(error)
            else:
                reason = f"{path} could not be saved ({type(error).__name__})."
            kept = _rescue(bundle, path.name)
            where = f"The model was saved as '{kept}' instead." if kept else _NOT_RESCUED
            raise RunFailedError(f"{reason} {where}") from error


_NOT_RESCUED = "It could not be saved in the folder for temporary files either: it is lost."


def _rescue(bundle: ModelBundle, name: str) -> Path | None:
    """Save a model in the folder for temporary files, under a name of its own."""
    stem = os.fsencode(Path(name).stem)[:100].decode(errors="ignore")
    try:
        file, kept = tempfile.mkstemp(SUFFIX, f"{stem}-")
    except OSError:
        return None
    os.close(file)
    try:
        return bundle.save(kept)
    except Exception:
        remove(Path(kept))
        return None


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
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Segment a file with a model; the paths of what was written."""
    wanted = [path for path in (output, probabilities, uncertainty) if path is not None]
    check_paths(wanted, [model, image])
    for path in wanted:
        check_output(path, overwrite=overwrite)
    bundle = ModelBundle.load(model)
    volume = read_volume(image)
    volume.check()
    series = (volume.n_times,) if "T" in volume.axes else ()
    axes = "TZYX" if series else "ZYX"
    whole = (*series, *volume.shape)
    channels = (*series, bundle.network.n_classes, *volume.shape)
    about: dict[str, Any] = {
        "voxel_size": volume.voxel_size,
        "unit": volume.unit,
        "translation": volume.translation,
        "time_step": volume.time_step,
        "overwrite": overwrite,
    }
    classes = {"classes": bundle.classes}
    with ExitStack() as files:

        def create(
            path: Path | None, shape: tuple[int, ...], dtype: Any, axes: str, **more: Any
        ) -> OutputArray | None:
            if path is None:
                return None
            return files.enter_context(create_output(path, shape, dtype, axes, **about, **more))

        labels = create(output, whole, np.uint8, axes, **classes)
        likely = create(probabilities, channels, np.float32, axes.replace("Z", "CZ"), **classes)
        unsure = create(uncertainty, whole, np.float32, axes, channel_names=("uncertainty",))
        steps = segment(
            bundle,
            volume,
            labels,
            probabilities=likely,
            uncertainty=unsure,
            times=times,
            config=config,
        )
        follow(steps, "predicting")
        _finish([array for array in (labels, likely, unsure) if array is not None])
    return wanted


def _finish(arrays: Sequence[OutputArray]) -> None:
    """Give every output its name, also where one of them fails."""
    failed: list[RunFailedError] = []
    for array in arrays:
        try:
            array.finish()
        except RunFailedError as error:
            failed.append(error)
    if failed:
        raise RunFailedError(" ".join(map(str, failed))) from failed[0]


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
