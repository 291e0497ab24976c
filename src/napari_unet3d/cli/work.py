"""What the commands do: files in, the core's generators, files out."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.cli import settings
from napari_unet3d.cli.follow import follow
from napari_unet3d.cli.follow import train as follow_training
from napari_unet3d.cli.inputs import SWAPPED, open_annotation, open_image, refuse_model
from napari_unet3d.config import ClassInfo, PredictionConfig, TrainingConfig
from napari_unet3d.data.annotation import parse_slices
from napari_unet3d.data.conventions import Labels
from napari_unet3d.data.files import check_output, check_space, check_writable, create_output
from napari_unet3d.data.paths import check_file_limit
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.model.bundle import SUFFIX, ModelBundle
from napari_unet3d.model.geometry import parameter_count
from napari_unet3d.prediction.predictor import predict as segment
from napari_unet3d.training.trainer import Trainer


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
) -> ModelBundle:
    """Train on files and save the model; `lean` leaves out what only resuming needs."""
    output = check_model_path(output)
    usage = "train takes IMAGE ANNOTATION; give a model to start from with --from"
    refuse_model(annotation, usage)
    volume = open_image(image, usage, reading)
    painted = open_annotation(annotation, volume, labels, parse_slices(held_out))
    bundle = None if start_from is None else ModelBundle.load(start_from)
    classes = _named(_known(painted.annotation.classes, bundle), names or {})
    painted.say(classes)
    sparse = replace(painted.annotation, classes=classes)
    trainer = Trainer(volume, sparse, config, start_from=bundle, resume=resume)
    parameters = parameter_count(trainer.network_config)
    check_space(output, 16 * parameters + 2**20)
    check_file_limit(output, (4 if lean else 16) * parameters)
    trained = follow_training(trainer)
    save_model(trained.without_state() if lean else trained, output)
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
    reading: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Segment a file with a model; the paths of what was written."""
    bundle = ModelBundle.load(model)
    volume = open_image(image, SWAPPED, reading)
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
    for path, shape, dtype, _ in wanted:
        if path is not None and path.suffix != ".zarr":  # whose chunks are files
            check_file_limit(path, math.prod(shape) * np.dtype(dtype).itemsize)
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
