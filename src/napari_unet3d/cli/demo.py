"""`napari-unet3d demo`: its options."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from napari_unet3d.cli import settings
from napari_unet3d.cli.options import Device, Seed, file_option
from napari_unet3d.cli.signals import terminating


def demo(
    context: typer.Context,
    folder: Annotated[Path, file_option("--output", "-o", text="Where the results go.")] = Path(
        settings.DEMO_FOLDER
    ),
    seconds: Annotated[float, typer.Option(help="Wall-clock time of the training.")] = 60.0,
    seed: Seed = 0,
    device: Device = "auto",
    window: Annotated[bool, typer.Option(help="Open napari when there is a screen.")] = True,
) -> None:
    """The whole path on a built-in stack: annotated slices, training, dense segmentation."""
    config = settings.training([], seconds=seconds, seed=seed, device=device)
    from napari_unet3d.cli.tasks.demonstrating import run_demo

    with terminating():
        layers = run_demo(folder, config)
    if window and _has_screen():
        with contextlib.suppress(ImportError):  # a core-only installation has no napari
            context.obj(**layers)


def _has_screen() -> bool:
    return sys.platform in ("win32", "darwin") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
