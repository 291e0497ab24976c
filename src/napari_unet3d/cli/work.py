"""What the commands do: files in, the core's generators, files out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.cli import settings
from napari_unet3d.cli.checkpoints import CheckpointFile
from napari_unet3d.cli.follow import TrainingRun, follow, say_how_to_go_on
from napari_unet3d.cli.inputs import SWAPPED, open_annotation, open_image, refuse_model
from napari_unet3d.cli.signals import held_back
from napari_unet3d.config import ClassInfo, PredictionConfig, TrainingConfig
from napari_unet3d.data.conventions import Labels
from napari_unet3d.data.io.atomic import KeptElsewhereError, Replacement, check_target
from napari_unet3d.data.io.leftovers import remove
from napari_unet3d.data.io.outputs import (
    OutputArray,
    check_output,
    check_paths,
    check_space,
    create_output,
    is_same_file,
)
from napari_unet3d.data.io.paths import user_path
from napari_unet3d.data.slices import parse_slices
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.model.bundle import SUFFIX, ModelBundle
from napari_unet3d.networks.geometry import parameter_count
from napari_unet3d.prediction.predictor import predict as segment
from napari_unet3d.training.trainer import Trainer, TrainingFailedError


def train(
    image: Path,
    annotation: Path,
    output: Path,
    config: TrainingConfig,
    *,
    held_out: str = "",
    names: Mapping[int, str] | None = None,
    labels: Labels = "auto",
    reading: Mapping[str, Any] | None = None,
    start_from: Path | None = None,
    resume: bool = False,
    lean: bool = False,
    overwrite: bool = False,
    checkpoint_seconds: float | None = settings.CHECKPOINT_SECONDS,
) -> ModelBundle:
    """Train on files and save the model; `lean` leaves out what only resuming needs.

    An older model is replaced with `overwrite` only, or where it is the one to be resumed. Every
    `checkpoint_seconds` a checkpoint is written beside the model; None for none.
    """
    goes_on = resume and start_from is not None and is_same_file(start_from, output)
    output = check_model_path(output, overwrite=overwrite or goes_on)
    check_paths([output], [image, annotation])
    place = Replacement(output)
    usage = "train takes IMAGE ANNOTATION; give a model to start from with --from"
    refuse_model(annotation, usage)
    volume = open_image(image, usage, reading)
    painted = open_annotation(annotation, volume, labels, parse_slices(held_out))
    bundle = None if start_from is None else ModelBundle.load(start_from)
    classes = _named(_known(painted.annotation.classes, bundle), names or {})
    painted.say(classes)
    sparse = replace(painted.annotation, classes=classes)
    checkpoint = CheckpointFile(output)
    checkpoint.announce(start_from)
    with TrainingRun(checkpoint, checkpoint_seconds) as run:
        trainer = Trainer(volume, sparse, config, start_from=bundle, resume=resume)
        n_bytes = (4 if lean else 16) * parameter_count(trainer.plan.network)
        check_space(output, n_bytes + 2**20)
        try:
            trained = run.train(trainer)
        except TrainingFailedError as failure:
            if failure.bundle is None:
                raise
            save_model(failure.bundle, place)
            raise RunFailedError(
                f"{str(failure).rstrip('.')}. What was learned in "
                f"{failure.bundle.record.iterations} iterations is kept: {output}"
            ) from failure
        trained = trained.without_state() if lean else trained
        save_model(trained, place)
    say_how_to_go_on(trained, output)
    return trained


def check_model_path(path: Path, *, overwrite: bool = False) -> Path:
    """The path of a model to be written; `BadInputError` when that cannot work."""
    path = user_path(path)
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
    with held_back():
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


def _known(classes: Sequence[ClassInfo], bundle: ModelBundle | None) -> list[ClassInfo]:
    """The classes, named and colored as those of a model with the same label values."""
    known = {c.value: c for c in bundle.classes} if bundle else {}
    return [known.get(c.value, c).model_copy(update={"output": c.output}) for c in classes]


def _named(classes: Sequence[ClassInfo], names: Mapping[int, str]) -> tuple[ClassInfo, ...]:
    painted = [c.output_value for c in classes]
    for value in names:
        if value not in painted:
            raise BadInputError(f"--names: class {value} is not painted; painted are {painted}")
    return tuple(
        settings.validated(
            ClassInfo, **c.model_dump() | {"name": names.get(c.output_value, c.name)}
        )
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
    reading: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Segment a file with a model; the paths of what was written."""
    wanted = [path for path in (output, probabilities, uncertainty) if path is not None]
    check_paths(wanted, [model, image])
    for path in wanted:
        check_output(path, overwrite=overwrite)
    bundle = ModelBundle.load(model)
    volume = open_image(image, SWAPPED, reading)
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
