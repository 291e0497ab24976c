"""`napari-unet3d info`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_unet3d.cli.options import AsJson, Quiet, file_argument
from napari_unet3d.cli.terminal import check_told, errors, tell, tell_json


def info(
    path: Annotated[
        Path | None, file_argument(None, "A model, an image or a session's folder; or nothing.")
    ] = None,
    networks: Annotated[
        bool,
        typer.Option(
            "--networks", help="List the networks that can be trained, for PATH if it is an image."
        ),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """What is in a model, an image or a session; without a path, what this machine offers."""
    errors.set_quiet(quiet)
    if networks:
        from napari_unet3d.cli.tasks.describing_networks import describe_networks

        description = describe_networks(path, as_json=as_json)
    else:
        from napari_unet3d.cli.tasks.describing import describe_file, describe_machine

        description = (
            describe_machine(as_json=as_json)
            if path is None
            else describe_file(path, as_json=as_json)
        )
    if isinstance(description, str):
        tell(description)
    else:
        tell_json(description)
    check_told()
