"""The command line: train, predict, evaluate, info, demo.

This module holds the options and their help only; what takes seconds to import is imported by
the command that needs it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.logging import RichHandler

from napari_unet3d.cli import settings
from napari_unet3d.cli.signals import TerminatedError, terminating
from napari_unet3d.cli.terminal import errors
from napari_unet3d.config import Preset, TrainingConfig
from napari_unet3d.errors import BadInputError, RunFailedError

OpenWindow = Callable[..., None]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_TYPER_INTERRUPTED = 130


def run(arguments: list[str], open_window: OpenWindow) -> int:
    """Carry out a command line; returns the exit code: 0, 1 it failed, 2 bad input."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # "—" and "µm" must not end a command
    _show_log()
    try:
        app(arguments, prog_name="napari-unet3d", obj=open_window)
    except SystemExit as end:  # how typer ends: 0, or 2 with the usage explained
        code = end.code if isinstance(end.code, int) else 0
        return _complain("interrupted", 1) if code == _TYPER_INTERRUPTED else code
    except TerminatedError as end:
        return _complain(f"{end}; no result was written", end.exit_code)
    except BadInputError as error:
        return _complain(error, 2)
    except RunFailedError as error:
        return _complain(error, 1)
    except Exception as error:
        if os.environ.get("NAPARI_UNET3D_DEBUG"):
            raise
        return _complain(f"{type(error).__name__}: {error} (NAPARI_UNET3D_DEBUG=1 shows where)", 1)
    return 0


def _show_log() -> None:
    """Show what reading a file noticed, such as a level of resolution that was chosen."""
    log = logging.getLogger("napari_unet3d")
    if not log.handlers:
        log.addHandler(RichHandler(console=errors, show_time=False, show_path=False))
        log.setLevel(logging.INFO)


def _complain(what: object, code: int) -> int:
    errors.print("[bold red]error:[/bold red]", end=" ")
    errors.print(str(what), markup=False)
    return code


@app.callback(invoke_without_command=True)
def start(context: typer.Context) -> None:
    """Segment 3D stacks from a few painted slices with a 3D U-Net.

    Without a command, napari opens with the plugin docked. A first session without it:

        napari-unet3d train stack.tif painted.tif -o model.unet3d --seconds 120

        napari-unet3d predict model.unet3d stack.tif -o segmented.tif

    In *painted.tif*, of the stack's shape, 0 is unlabelled (counts for nothing), 1 is
    background and 2… are your classes. In *segmented.tif*, 0 is background and the classes
    keep their numbers.
    """
    if context.invoked_subcommand is None:
        context.obj()


@app.command()
def train(
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="TIFF, OME-TIFF, ImageJ TIFF or OME-Zarr.")
    ],
    annotation: Annotated[
        Path,
        typer.Argument(
            metavar="ANNOTATION", help="Integers: 0 unlabelled, 1 background, 2… classes."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="MODEL", help="The model, *.unet3d.")
    ],
    seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Wall-clock seconds of training. Default: 60.")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(metavar="N", help="Iterations, in place of --seconds: repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Device = "auto",
    start_from: Annotated[
        Path | None, typer.Option("--from", help="Fine-tune this model.", metavar="MODEL")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on exactly where this model stopped, up to the whole budget given here.",
            metavar="MODEL",
        ),
    ] = None,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SLICES",
            help="Slices to measure on, never trained on: z=12,30 (also y=, x=, t=).",
        ),
    ] = None,
    preset: Annotated[Preset, typer.Option(help="fast, balanced or paper.")] = "balanced",
    names: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Class names: 2=nucleus,3=membrane.")
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting."),
    ] = None,
    lean: Annotated[
        bool, typer.Option("--lean", help="A file a quarter of the size, which cannot be resumed.")
    ] = False,
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
    if seconds is not None and iterations is not None:
        raise BadInputError("give --seconds or --iterations, not both")
    if start_from is not None and resume is not None:
        raise BadInputError("give --from (fine-tune) or --resume (go on), not both")
    if iterations is None and seconds is None:
        seconds = TrainingConfig().seconds
    config = settings.training(
        others or [],
        preset=preset,
        seconds=seconds,
        iterations=iterations,
        seed=seed,
        device=device,
    )
    from napari_unet3d.cli import work
    from napari_unet3d.cli.follow import print_scores

    with terminating():
        bundle = work.train(
            image,
            annotation,
            output,
            config,
            held_out=" ".join(hold_out or []),
            names=settings.class_names(names),
            start_from=start_from or resume,
            resume=resume is not None,
            lean=lean,
            checkpoint_seconds=checkpoint_every or None,
        )
    print(f"Model: {output} ({bundle.record.iterations} iterations)")
    print_scores(bundle)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model, *.unet3d.")],
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="TIFF or OME-Zarr; may exceed the memory.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="OUT", help="*.tif or *.ome.zarr.")
    ],
    probabilities: Annotated[
        Path | None,
        typer.Option(
            help="Also write probabilities here: one channel per class, background first."
        ),
    ] = None,
    uncertainty: Annotated[
        Path | None, typer.Option(help="Also write an uncertainty image (0…1) here.")
    ] = None,
    times: Annotated[
        str | None, typer.Option(help="Time points of a series, as in 0,3. Default: all.")
    ] = None,
    device: Device = "auto",
    memory: Annotated[
        float | None, typer.Option(help="GiB that may be used. Default: from what is free.")
    ] = None,
) -> None:
    """Segment a whole stack with a model. 0 is background, classes keep their numbers."""
    config = settings.prediction(device=device, memory=settings.gibibytes(memory))
    chosen = None if times is None else [settings.number(part) for part in times.split(",")]
    from napari_unet3d.cli import work

    with terminating():
        written = work.predict(model, image, config, chosen, output, probabilities, uncertainty)
    for path in written:
        print(f"Written: {path}")


@app.command()
def evaluate(
    prediction: Annotated[
        Path, typer.Argument(metavar="PREDICTION", help="Integers, 0 background.")
    ],
    truth: Annotated[
        Path, typer.Argument(metavar="TRUTH", help="Integers, same classes, 0 background.")
    ],
    skip: Annotated[
        list[str] | None,
        typer.Option(help="Slices to leave out, as those trained on: z=3,10,20."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare a segmentation with a dense truth: IoU and Dice of each class."""
    from napari_unet3d.cli import work

    print(work.evaluate(prediction, truth, " ".join(skip or []), as_json))


@app.command()
def info(
    path: Annotated[Path | None, typer.Argument(help="A model or an image; or nothing.")] = None,
) -> None:
    """What is in a model or an image; without a path, what this machine offers."""
    from napari_unet3d.cli import work

    print(work.describe_machine() if path is None else work.describe_file(path))


@app.command()
def demo(
    context: typer.Context,
    folder: Annotated[Path, typer.Option("--output", "-o", help="Where the results go.")] = Path(
        "napari-unet3d-demo"
    ),
    seconds: Annotated[float, typer.Option(help="Wall-clock time of the training.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    device: Device = "auto",
    window: Annotated[bool, typer.Option(help="Open napari when there is a screen.")] = True,
) -> None:
    """The whole path on a built-in stack: annotated slices, training, dense segmentation."""
    config = settings.training([], seconds=seconds, seed=seed, device=device)
    from napari_unet3d.cli.demo import run_demo

    with terminating():
        layers = run_demo(folder, config)
    if window and _has_screen():
        with contextlib.suppress(ImportError):  # a core-only installation has no napari
            context.obj(**layers)


def _has_screen() -> bool:
    return sys.platform in ("win32", "darwin") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
