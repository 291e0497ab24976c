"""`napari-unet3d reproduce`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from napari_unet3d.cli import settings
from napari_unet3d.cli.options import Device, Quiet, file_argument, file_option
from napari_unet3d.cli.signals import terminating
from napari_unet3d.cli.terminal import errors, tell
from napari_unet3d.errors import BadInputError

Scale = Literal["laptop", "paper"]


def reproduce(
    output: Annotated[
        Path, file_option("--output", "-o", text="Folder of the results. What is there is kept.")
    ],
    image: Annotated[
        Path | None, file_argument("IMAGE", "The stack. Default: simulated kidney tubules.")
    ] = None,
    labels: Annotated[
        Path | None, file_argument("LABELS", "Its dense truth: 0 background, 1, 2… classes.")
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option(
            "--stack",
            metavar="IMAGE,LABELS",
            help="One more stack of the same classes, for 'full'; may be repeated.",
        ),
    ] = None,
    experiments: Annotated[
        str,
        typer.Option(
            help="semi: cross-validation over slices. slices: more and more annotated slices. "
            "full: all stacks but one are trained on. family: every network."
        ),
    ] = "semi,slices",
    scale: Annotated[
        Scale,
        typer.Option(
            help="laptop: 200 iterations a training. paper: the paper's network and optimizer, "
            "70,000 iterations."
        ),
    ] = "laptop",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each kind.")] = 1,
    iterations: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Iterations of each training but 'family'."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(metavar="S", min=1, help="Seconds of each training of 'family'. Default: 60."),
    ] = None,
    device: Device = "auto",
    others: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting of all trainings."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Repeat the experiments of Çiçek et al. 2016 on a stack with labels, or compare all networks.

    Ctrl-C ends it, and the same command goes on. A training of 'full' that was ended begins again.
    """
    if (image is None) != (labels is None):
        raise BadInputError("give IMAGE and LABELS, or neither for the simulated tubules")
    chosen = experiments.split(",")
    if seconds is not None and "family" not in chosen:
        raise BadInputError("--seconds is for the experiment 'family': give --iterations")
    if iterations is not None and chosen == ["family"]:
        raise BadInputError("--iterations is not for the experiment 'family': give --seconds")
    errors.set_quiet(quiet)
    from napari_unet3d.cli.tasks.reproducing import reproduce_files
    from napari_unet3d.reproduction.trials import OWN_SETTINGS, SCALES

    for name in (item.partition("=")[0] for item in others or []):
        if name in OWN_SETTINGS:
            raise BadInputError(
                f"--set {name}: the experiments set {', '.join(OWN_SETTINGS)}; there are the "
                "options --seconds, --iterations and --seeds"
            )
    given: dict[str, Any] = {"device": device}
    given |= {} if iterations is None else {"iterations": iterations}
    config = settings.changed(SCALES[scale], given, others or [])
    with terminating():
        path = reproduce_files(
            output,
            config,
            None if image is None or labels is None else (image, labels),
            more or [],
            chosen,
            seconds or 60.0,
            seeds,
            ", ".join([f"Scale {scale}", *(others or [])]),
        )
    tell(f"Written: {path}")
