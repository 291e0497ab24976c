"""Train a model on files, and save it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_unet3d.cli import settings
from napari_unet3d.cli.tasks.checkpoints import CheckpointFile
from napari_unet3d.cli.tasks.evidence import add_evidence, check_evidence
from napari_unet3d.cli.tasks.follow import TrainingRun
from napari_unet3d.cli.tasks.inputs import open_annotation, open_image, refuse_model
from napari_unet3d.cli.tasks.models import check_model_path, save_model
from napari_unet3d.cli.tasks.results import say_how_to_go_on
from napari_unet3d.config import ClassInfo, TrainingConfig
from napari_unet3d.data.conventions import Labels
from napari_unet3d.data.io.atomic import Replacement
from napari_unet3d.data.io.outputs import check_paths, check_space, is_same_file
from napari_unet3d.data.slices import parse_slices
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.session import NamedModel, RunSettings, Session

_USAGE = "train takes IMAGE ANNOTATION; give a model to start from with --from"
_WHOLE_BYTES, _LEAN_BYTES = 16, 4
"""Bytes of each parameter. A lean model holds the averaged weights in fp32; a whole one also holds
the weights themselves and the two moments of the optimizer, which resuming needs."""
_HEADER_BYTES = 2**20
"""Bytes. The settings and the pixel classifier take less in every model so far."""


def train_files(
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
    folds: int | None = None,
    learning_curve: bool = False,
) -> ModelBundle:
    """Train on files and save the model.

    Parameters
    ----------
    image, annotation
        What is trained on.
    output
        Where the model will be. An older model is replaced only with `overwrite`, or where it is
        the one that is resumed.
    config
        How the model is trained.
    held_out
        Slices to measure on, as `parse_slices` reads them.
    names
        Names of classes by their number in a segmentation.
    labels
        What the numbers of the annotation mean.
    reading
        Axes and voxel size that replace those of the image file; see `read_volume`.
    start_from, resume
        A model to fine-tune; or, with `resume`, to continue exactly where it stopped.
    lean
        Leave out what only resuming needs.
    checkpoint_seconds
        Seconds between two checkpoints beside the model; None for no checkpoints.
    folds, learning_curve
        A cross-validation, with so many trainings, and a learning curve that follow the training.
        The model is safe before they begin; their results are added to its record.

    Returns
    -------
    ModelBundle
        The model as it was saved.

    Raises
    ------
    BadInputError
        A file or a setting cannot be used. Nothing was trained.
    RunFailedError
        The training failed, or the model could not be saved.
    """
    continues = resume and start_from is not None and is_same_file(start_from, output)
    output = check_model_path(output, overwrite=overwrite or continues)
    check_paths([output], [image, annotation])
    place = Replacement(output)
    session = _open(image, annotation, config, held_out, names or {}, labels, reading, start_from)
    session = replace(session, resume=resume)
    check_evidence(session, folds, learning_curve=learning_curve)
    checkpoint = CheckpointFile.beside(output)
    checkpoint.announce(start_from)

    def save(bundle: ModelBundle) -> ModelBundle:
        kept = bundle.without_state() if lean else bundle
        save_model(kept, place)
        return kept

    with TrainingRun(checkpoint, checkpoint_seconds) as run:
        trained = run.follow_and_rescue(
            session,
            save,
            lambda failed: save_model(failed, place),
            output,
            lambda n: check_model_space(output, n, lean=lean),
        )
    say_how_to_go_on(trained, output)
    if folds is not None or learning_curve:
        trained = add_evidence(session, trained, folds, learning_curve=learning_curve)
        save_model(trained, Replacement(output))
    return trained


def check_model_space(path: Path, parameters: int, *, lean: bool = False) -> None:
    """Raise BadInputError unless the disk of `path` has room for a model of so many parameters."""
    check_space(path, (_LEAN_BYTES if lean else _WHOLE_BYTES) * parameters + _HEADER_BYTES)


def _open(
    image: Path,
    annotation: Path,
    config: TrainingConfig,
    held_out: str,
    names: Mapping[int, str],
    labels: Labels,
    reading: Mapping[str, Any] | None,
    start_from: Path | None,
) -> Session:
    """Open the files of a training, and tell what each label value is taken for."""
    refuse_model(annotation, _USAGE)
    volume = open_image(image, _USAGE, reading)
    painted = open_annotation(annotation, volume, labels, parse_slices(held_out))
    model = None if start_from is None else NamedModel.load(start_from)
    classes = _named(_known(painted.annotation.classes, model), names)
    painted.say(classes)
    return Session(
        volume=volume,
        image_path=image,
        annotation=replace(painted.annotation, classes=classes),
        annotation_path=annotation,
        settings=RunSettings(training=config),
        start_from=model,
    )


def _known(classes: Sequence[ClassInfo], model: NamedModel | None) -> list[ClassInfo]:
    """Name and color the classes as a model does that has classes of the same label values."""
    known = {} if model is None else {c.value: c for c in model.bundle.classes}
    return [known.get(c.value, c).model_copy(update={"output": c.output}) for c in classes]


def _named(classes: Sequence[ClassInfo], names: Mapping[int, str]) -> tuple[ClassInfo, ...]:
    """Give the classes their names; `BadInputError` when a name is for a class without paint."""
    painted = [c.output_value for c in classes]
    for value in names:
        if value not in painted:
            listed = ", ".join(map(str, painted))
            raise BadInputError(f"--names: class {value} is not painted. Painted classes: {listed}")
    return tuple(
        settings.validated(
            ClassInfo, **c.model_dump() | {"name": names.get(c.output_value, c.name)}
        )
        for c in classes
    )
