"""`napari-unet3d train`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from napari_unet3d.cli import settings
from napari_unet3d.cli.options import (
    AsJson,
    Axes,
    CrossValidate,
    Device,
    Iterations,
    LearningCurve,
    OtherSettings,
    Overwrite,
    Quiet,
    Seconds,
    Seed,
    VoxelSize,
    file_argument,
    file_option,
)
from napari_unet3d.cli.signals import terminating
from napari_unet3d.cli.terminal import errors
from napari_unet3d.config import Preset, TrainingConfig
from napari_unet3d.errors import BadInputError

Labels = Literal["auto", "sparse", "dense"]


def train(
    image: Annotated[Path, file_argument("IMAGE", "TIFF, OME-TIFF, ImageJ TIFF or OME-Zarr.")],
    annotation: Annotated[
        Path, file_argument("ANNOTATION", "Integers: 0 unlabelled, 1 background, 2… classes.")
    ],
    output: Annotated[
        Path, file_option("--output", "-o", metavar="MODEL", text="The model, *.unet3d.")
    ],
    seconds: Seconds = None,
    iterations: Iterations = None,
    seed: Seed = 0,
    device: Device = "auto",
    start_from: Annotated[
        Path | None, file_option("--from", metavar="MODEL", text="Fine-tune this model.")
    ] = None,
    resume: Annotated[
        Path | None,
        file_option(
            metavar="MODEL",
            text="Go on exactly where this model stopped, up to the whole budget given here.",
        ),
    ] = None,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SLICES",
            help="Slices to measure on, never trained on: z=12,30 (also y=, x=, t=).",
        ),
    ] = None,
    network: Annotated[
        str, typer.Option(metavar="KIND", help="The network; see info --networks.")
    ] = TrainingConfig().network,
    preset: Annotated[Preset, typer.Option(help="fast, balanced or paper.")] = "balanced",
    names: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Class names: 2=nucleus,3=membrane.")
    ] = None,
    labels: Annotated[
        Labels,
        typer.Option(
            help="What ANNOTATION's numbers are. sparse: 0 unlabelled, 1 background, 2… classes. "
            "dense: 0 background, 1, 2… classes, as in most programs; segmentations get the same "
            "numbers. auto: sparse, but labels that look dense are refused."
        ),
    ] = "auto",
    axes: Axes = None,
    voxel_size: VoxelSize = None,
    others: OtherSettings = None,
    cross_validate: CrossValidate = None,
    learning_curve: LearningCurve = False,
    lean: Annotated[
        bool, typer.Option("--lean", help="A file a quarter of the size, which cannot be resumed.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    checkpoint_every: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="S",
            help="Seconds between checkpoints, NAME.checkpoint.unet3d beside the model; 0: none.",
        ),
    ] = settings.CHECKPOINT_SECONDS,
) -> None:
    """Train a model on the painted slices of a stack. Ctrl-C stops early and keeps the model."""
    settings.check_budget(seconds, iterations)
    if start_from is not None and resume is not None:
        raise BadInputError("give --from (fine-tune) or --resume (go on), not both")
    if iterations is None and seconds is None:
        seconds = TrainingConfig().seconds
    config = settings.training(
        others or [],
        preset=preset,
        network=network,
        seconds=seconds,
        iterations=iterations,
        seed=seed,
        device=device,
    )
    errors.set_quiet(quiet)
    from napari_unet3d.cli.tasks.results import tell_training
    from napari_unet3d.cli.tasks.training import train_files

    with terminating():
        bundle = train_files(
            image,
            annotation,
            output,
            config,
            held_out=" ".join(hold_out or []),
            names=settings.class_names(names),
            labels=labels,
            reading=settings.reading(axes, voxel_size),
            start_from=start_from or resume,
            resume=resume is not None,
            lean=lean,
            overwrite=overwrite,
            checkpoint_seconds=checkpoint_every or None,
            folds=cross_validate,
            learning_curve=learning_curve,
        )
    tell_training(output, bundle, as_json=as_json)
