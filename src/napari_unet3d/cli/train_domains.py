"""`napari-unet3d train-domains`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_unet3d.cli import settings
from napari_unet3d.cli.options import (
    AsJson,
    Device,
    Iterations,
    OtherSettings,
    Overwrite,
    Quiet,
    Seconds,
    Seed,
    file_option,
)
from napari_unet3d.cli.signals import terminating
from napari_unet3d.cli.terminal import errors
from napari_unet3d.config import TrainingConfig


def train_domains(
    stacks: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=IMAGE,ANNOTATION...",
            help="A name, an image and its annotation for each kind of stacks.",
        ),
    ],
    output: Annotated[
        Path, file_option("--output", "-o", metavar="MODEL", text="The model, *.unet3d.")
    ],
    seconds: Seconds = None,
    iterations: Iterations = None,
    seed: Seed = 0,
    device: Device = "auto",
    start_from: Annotated[
        Path | None,
        file_option(
            "--from", metavar="MODEL", text="Add one domain to this model; the others stay."
        ),
    ] = None,
    others: OtherSettings = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train one universal network on stacks of several kinds, which take turns.

    Segment with `predict --domain NAME`.
    """
    settings.check_budget(seconds, iterations)
    if iterations is None and seconds is None:
        seconds = TrainingConfig().seconds
    config = settings.training(
        others or [],
        network="universal_unet",
        seconds=seconds,
        iterations=iterations,
        seed=seed,
        device=device,
    )
    errors.set_quiet(quiet)
    from napari_unet3d.cli.tasks.domains import train_domain_files
    from napari_unet3d.cli.tasks.results import tell_training

    with terminating():
        bundle = train_domain_files(
            stacks, output, config, start_from=start_from, overwrite=overwrite
        )
    tell_training(output, bundle, as_json=as_json)
