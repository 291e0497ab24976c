"""Train one network on the files of several kinds of stacks, and save it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_unet3d.cli.tasks.follow import TrainingRun
from napari_unet3d.cli.tasks.inputs import open_annotation, open_image, refuse_model
from napari_unet3d.cli.tasks.models import check_model_path, save_model
from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.io.atomic import Replacement
from napari_unet3d.data.io.outputs import check_paths
from napari_unet3d.data.io.paths import user_path
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.training.domains import DomainStack
from napari_unet3d.training.trainer import Trainer

_USAGE = "train-domains takes NAME=IMAGE,ANNOTATION; give a model to add a domain to with --from"


def train_domain_files(
    stacks: Sequence[str],
    output: Path,
    config: TrainingConfig,
    *,
    start_from: Path | None = None,
    overwrite: bool = False,
) -> ModelBundle:
    """Train a universal network on files and save the model.

    Parameters
    ----------
    stacks
        Each as NAME=IMAGE,ANNOTATION.
    output
        Where the model will be.
    config
        How it is trained.
    start_from
        A model of other domains, which gets a new one.
    overwrite
        Whether an older model may be replaced.

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
    written = [_split(stack) for stack in stacks]
    output = check_model_path(output, overwrite=overwrite)
    check_paths([output], [path for _, *paths in written for path in paths])
    place = Replacement(output)
    opened = [_open(*stack) for stack in written]
    model = None if start_from is None else ModelBundle.load(start_from)
    trainer = Trainer.of_domains(opened, config, start_from=model)

    def save(bundle: ModelBundle) -> ModelBundle:
        save_model(bundle, place)
        return bundle

    with TrainingRun() as run:
        return run.follow_trainer(trainer, save)


def _split(stack: str) -> tuple[str, Path, Path]:
    name, separator, paths = stack.partition("=")
    image, comma, annotation = paths.partition(",")
    if not (name and separator and image and comma and annotation):
        raise BadInputError(f"'{stack}': write NAME=IMAGE,ANNOTATION, such as cells=a.tif,b.tif")
    return name, user_path(Path(image)), user_path(Path(annotation))


def _open(name: str, image: Path, annotation: Path) -> DomainStack:
    refuse_model(annotation, _USAGE)
    volume = open_image(image, _USAGE)
    painted = open_annotation(annotation, volume, "auto", ())
    painted.say(painted.annotation.classes)
    return DomainStack(name, volume, painted.annotation)
