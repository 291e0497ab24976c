"""The command line: train, predict, evaluate, info, demo.

This module holds the options and their help only; what takes seconds to import is imported by
the command that needs it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import typer

from napari_unet3d.cli import settings
from napari_unet3d.cli.signals import TerminatedError, terminating
from napari_unet3d.cli.terminal import LogHandler, check_told, errors, guarded, tell, tell_json
from napari_unet3d.config import PredictionConfig, Preset, TrainingConfig
from napari_unet3d.data.io.paths import user_path
from napari_unet3d.errors import BadInputError, RunFailedError

OpenWindow = Callable[..., None]


def _path(written: Path | None) -> Path | None:
    """A path of the command line; `BadInputError` when it can be none."""
    return None if written is None else user_path(written)


Labels = Literal["auto", "sparse", "dense"]
Truth = Literal["auto", "dense", "slices", "sparse"]
Precision = Literal["auto", "bf16", "fp16", "fp32"]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print results only: no progress, no notes.")
]
VoxelSize = Annotated[
    str | None,
    typer.Option(
        metavar="Z,Y,X", help="Size of a voxel along z,y,x in the file's unit, where that is wrong."
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        metavar="AXES", help="What the image's axes are, in their order, as in TZYX or CZYX."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what has the name of the output already.")
]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_TYPER_INTERRUPTED = 130
_BAD_PATH = frozenset(
    {
        errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS,
        errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL,
    }
)  # fmt: skip
"""Errors of the system that are about a path that was given, not about what happened later."""


def run(arguments: list[str], open_window: OpenWindow) -> int:
    """Carry out a command line; returns the exit code: 0, 1 it failed, 2 bad input."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # "—" and "µm" must not end a command
    errors.begin()
    _show_log()
    with guarded():
        return _run(arguments, open_window)


def _run(arguments: list[str], open_window: OpenWindow) -> int:
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
        return _complain(*_in_words(error))
    return 0


def _in_words(error: Exception) -> tuple[str, int]:
    """Text and exit code of an error that nobody foresaw."""
    how = "(NAPARI_UNET3D_DEBUG=1 shows where)"
    if isinstance(error, MemoryError):
        return (
            f"There is not enough memory ({error}). Close other programs, or use a smaller or "
            f"uncompressed stack, which is read piece by piece {how}",
            1,
        )
    if isinstance(error, OSError) and error.errno is not None:
        what = f"'{error.filename}'" if error.filename else "A file"
        if error.errno == errno.EFBIG:
            return f"{what} would be larger than a file may be here (ulimit -f).", 1
        if error.errno in _BAD_PATH:
            return f"{what} cannot be used: {error.strerror}. Check the path.", 2
        return f"{what} could not be read or written: {error.strerror} {how}", 1
    return f"{type(error).__name__}: {error} {how}", 1


def _show_log() -> None:
    """Show what reading a file noticed, such as a level of resolution that was chosen."""
    log = logging.getLogger("napari_unet3d")
    if not log.handlers:
        log.addHandler(LogHandler())
        log.setLevel(logging.INFO)


def _complain(what: object, code: int) -> int:
    errors.complain(what)
    return code


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            tell(f"napari-unet3d {version('napari-unet3d')}")
        except PackageNotFoundError:
            tell("napari-unet3d (version not known: it is not installed)")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
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
        Path,
        typer.Argument(
            callback=_path,
            readable=False,
            metavar="IMAGE",
            help="TIFF, OME-TIFF, ImageJ TIFF or OME-Zarr.",
        ),
    ],
    annotation: Annotated[
        Path,
        typer.Argument(
            callback=_path,
            readable=False,
            metavar="ANNOTATION",
            help="Integers: 0 unlabelled, 1 background, 2… classes.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            callback=_path,
            readable=False,
            metavar="MODEL",
            help="The model, *.unet3d.",
        ),
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
        Path | None,
        typer.Option(
            "--from", callback=_path, readable=False, help="Fine-tune this model.", metavar="MODEL"
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            callback=_path,
            readable=False,
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
    others: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting."),
    ] = None,
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
    errors.quiet = quiet
    from napari_unet3d.cli import work
    from napari_unet3d.cli.follow import print_scores, training_as_dict

    with terminating():
        bundle = work.train(
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
        )
    if as_json:
        tell_json({"model": output, **training_as_dict(bundle), "notes": errors.notes})
        return
    tell(f"Model: {output} ({bundle.record.iterations} iterations)")
    print_scores(bundle)


@app.command()
def predict(
    model: Annotated[
        Path,
        typer.Argument(callback=_path, readable=False, metavar="MODEL", help="A model, *.unet3d."),
    ],
    image: Annotated[
        Path,
        typer.Argument(
            callback=_path,
            readable=False,
            metavar="IMAGE",
            help="TIFF or OME-Zarr; may exceed the memory.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            callback=_path,
            readable=False,
            metavar="OUT",
            help="*.tif or *.ome.zarr.",
        ),
    ],
    probabilities: Annotated[
        Path | None,
        typer.Option(
            callback=_path,
            readable=False,
            help="Also write probabilities here: one channel per class, background first.",
        ),
    ] = None,
    uncertainty: Annotated[
        Path | None,
        typer.Option(
            callback=_path, readable=False, help="Also write an uncertainty image (0…1) here."
        ),
    ] = None,
    times: Annotated[
        str | None, typer.Option(help="Time points of a series, as in 0,3. Default: all.")
    ] = None,
    device: Device = "auto",
    memory: Annotated[
        float | None, typer.Option(help="GiB that may be used. Default: from what is free.")
    ] = None,
    overwrite: Overwrite = False,
    overlap: Annotated[
        float,
        typer.Option(help="Smallest share of a tile in common with the next, 0 to 0.75."),
    ] = PredictionConfig().overlap,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="Z,Y,X", help="Voxels (z,y,x) the network sees at once. Default: planned."
        ),
    ] = None,
    precision: Annotated[
        Precision, typer.Option(help="Number format; auto picks what is fast here.")
    ] = "auto",
    axes: Axes = None,
    voxel_size: VoxelSize = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Segment a whole stack with a model. 0 is background, classes keep their numbers."""
    config = settings.prediction(
        device=device,
        memory=settings.gibibytes(memory),
        overlap=overlap,
        tile_shape=settings.three("--tile", tile, int),
        precision=precision,
    )
    chosen = None if times is None else [settings.number(part) for part in times.split(",")]
    reading = settings.reading(axes, voxel_size)
    errors.quiet = quiet
    from napari_unet3d.cli import inputs, work

    if model.suffix != ".unet3d":
        inputs.refuse_model(image, inputs.SWAPPED)
    began = time.monotonic()
    with terminating():
        paths = work.predict(
            model,
            image,
            config,
            chosen,
            output,
            probabilities,
            uncertainty,
            overwrite=overwrite,
            reading=reading,
        )
    if as_json:
        tell_json(
            {
                "segmentation": output,
                "probabilities": probabilities,
                "uncertainty": uncertainty,
                "seconds": round(time.monotonic() - began, 3),
                "notes": errors.notes,
            }
        )
        return
    for path in paths:
        tell(f"Written: {path}")


@app.command()
def evaluate(
    prediction: Annotated[
        Path,
        typer.Argument(
            callback=_path, readable=False, metavar="PREDICTION", help="Integers, 0 background."
        ),
    ],
    truth: Annotated[
        Path,
        typer.Argument(
            callback=_path,
            readable=False,
            metavar="TRUTH",
            help="Integers, same classes, 0 background; or an annotation.",
        ),
    ],
    skip: Annotated[
        list[str] | None,
        typer.Option(help="Slices to leave out, as those trained on: z=3,10,20."),
    ] = None,
    labels: Annotated[
        Truth,
        typer.Option(
            help="What 0 is in the truth. dense: background. slices: background on slices with "
            "paint; the others do not count. sparse: unlabelled, does not count; 1 is "
            "background. auto: as it looks, which is said."
        ),
    ] = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare a segmentation with its truth: IoU and Dice of each class."""
    errors.quiet = quiet
    from napari_unet3d.cli.evaluate import compare_files, scores_as_dict, scores_as_table

    found = compare_files(
        prediction, truth, " ".join(skip or []), None if labels == "auto" else labels
    )
    if as_json:
        tell_json(scores_as_dict(found))
    else:
        tell(scores_as_table(found))
    check_told()


@app.command()
def info(
    path: Annotated[
        Path | None,
        typer.Argument(callback=_path, readable=False, help="A model or an image; or nothing."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """What is in a model or an image; without a path, what this machine offers."""
    errors.quiet = quiet
    from napari_unet3d.cli.info import describe_file, describe_machine

    found = (
        describe_machine(as_json=as_json) if path is None else describe_file(path, as_json=as_json)
    )
    if isinstance(found, str):
        tell(found)
    else:
        tell_json(found)
    check_told()


@app.command()
def demo(
    context: typer.Context,
    folder: Annotated[
        Path,
        typer.Option(
            "--output", "-o", callback=_path, readable=False, help="Where the results go."
        ),
    ] = Path(settings.DEMO_FOLDER),
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
