"""`train`, `predict`, `objects`, `info` with a session folder in place of files: their options."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from napari_unet3d.cli import settings
from napari_unet3d.cli.options import (
    AsJson,
    Boundary,
    CrossValidate,
    FillHoles,
    Iterations,
    LearningCurve,
    Method,
    MinVolume,
    MinVoxels,
    ObjectClasses,
    Quiet,
    Separation,
    Smoothing,
    file_option,
    read_path,
)
from napari_unet3d.cli.predict import Precision
from napari_unet3d.cli.signals import terminating
from napari_unet3d.cli.terminal import check_told, errors, tell, tell_json
from napari_unet3d.config import Preset
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.names import is_session

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PLACEHOLDER = "SESSION"
"""Stands for any session folder, so that `train SESSION --help` can be typed as it is written."""


_COMMANDS = ("train", "predict", "objects", "info")


def _read_session(written: Path | None) -> Path | None:
    if written is not None and str(written) == PLACEHOLDER and not written.exists():
        raise BadInputError(f"{PLACEHOLDER} stands for the folder of a session: give its path.")
    return read_path(written)


_Session = Annotated[
    Path,
    typer.Argument(
        callback=_read_session,
        readable=False,
        metavar=PLACEHOLDER,
        help="Folder of a session, *.unet3d-session, as the window writes it.",
    ),
]
_Device = Annotated[
    str | None,
    typer.Option(help="auto, cpu, cuda, cuda:N or mps. Default: as in the session."),
]
_Image = Annotated[
    Path | None,
    file_option(
        "--image",
        metavar="FILE",
        text="Where the image is now, if it was moved. Also says that an image that has changed "
        "still fits.",
    ),
]


def to_show(arguments: list[str]) -> Path | None:
    """Find the session folder that the window opens: the only word. None for commands.

    Raises
    ------
    BadInputError
        There is no such folder.
    """
    if len(arguments) != 1 or not arguments[0] or "\0" in arguments[0]:
        return None
    path = Path(arguments[0]).expanduser()
    if not is_session(path):
        return None
    if not path.is_dir():
        raise BadInputError(f"There is no session '{path}'. Check the path.")
    return path.absolute()


def concerns_session(arguments: list[str]) -> bool:
    """Whether a command line is one of this module's: it names a session folder."""
    if not arguments or arguments[0] not in _COMMANDS:
        return False
    words = [word for word in arguments[1:] if word and "\0" not in word]
    try:
        return any(word == PLACEHOLDER or is_session(Path(word).expanduser()) for word in words)
    except (OSError, RuntimeError):  # no path at all: the command itself says what is wrong
        return False


@app.callback()
def _start() -> None:
    """Go on with a session that the window has begun."""


@app.command()
def train(
    session: _Session,
    seconds: Annotated[
        float | None,
        typer.Option(metavar="S", help="Wall-clock seconds of training. Default: as in SESSION."),
    ] = None,
    iterations: Iterations = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything random. Default: as in SESSION.")
    ] = None,
    device: _Device = None,
    start_from: Annotated[
        Path | None, file_option("--from", metavar="MODEL", text="Fine-tune this model.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the session's model, up to the whole budget given here.",
        ),
    ] = False,
    new: Annotated[
        bool,
        typer.Option("--new", help="Start a new network, even where a training was cut off."),
    ] = False,
    preset: Annotated[
        Preset | None, typer.Option(help="fast, balanced or paper. Default: as in SESSION.")
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other setting."),
    ] = None,
    image: _Image = None,
    cross_validate: CrossValidate = None,
    learning_curve: LearningCurve = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    checkpoint_every: Annotated[
        float,
        typer.Option(min=0, metavar="S", help="Seconds between checkpoints in SESSION; 0: none."),
    ] = settings.CHECKPOINT_SECONDS,
) -> None:
    """Train a model in a session, with the image, annotation and settings that it holds.

    A training that was cut off goes on from its last checkpoint. The model is written into the
    session, and the window finds it there. Ctrl-C stops early and keeps the model.
    """
    settings.check_budget(seconds, iterations)
    if (start_from is not None) + resume + new > 1:
        raise BadInputError("give --from (fine-tune), --resume (go on) or --new, not two of them")
    given = {
        "seconds": seconds,
        "iterations": iterations,
        "seed": seed,
        "device": device,
        "preset": preset,
    }
    errors.set_quiet(quiet)
    from napari_unet3d.cli.tasks.results import tell_training
    from napari_unet3d.cli.tasks.session_work import train_session

    with terminating():
        path, bundle = train_session(
            session,
            {name: value for name, value in given.items() if value is not None},
            others or [],
            start_from=start_from,
            resume=resume,
            new=new,
            checkpoint_seconds=checkpoint_every or None,
            image=image,
            folds=cross_validate,
            learning_curve=learning_curve,
        )
    tell_training(path, bundle, as_json=as_json)


@app.command()
def predict(
    session: _Session,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="An output beside the labels, such as probabilities or uncertainty. Default: "
            "those that are chosen in SESSION.",
        ),
    ] = None,
    times: Annotated[
        str | None,
        typer.Option(help="Time points of a series, as in 0,3. Default: as in SESSION."),
    ] = None,
    device: _Device = None,
    memory: Annotated[
        float | None, typer.Option(help="GiB that may be used. Default: from what is free.")
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(help="What tiles have in common, 0 to 0.75 of what the network sees."),
    ] = None,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="Z,Y,X", help="Voxels (z,y,x) the network sees at once. Default: planned."
        ),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option(help="Number format; auto picks what is fast here.")
    ] = None,
    image: _Image = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Segment the image of a session with its model; the results go into the session.

    The window finds them there. They are OME-Zarr images in the folder "results".
    """
    given = {
        "device": device,
        "memory": settings.gibibytes(memory),
        "overlap": overlap,
        "tile_shape": settings.three("--tile", tile, int),
        "precision": precision,
    }
    chosen = settings.time_points(times)
    errors.set_quiet(quiet)
    from napari_unet3d.cli.tasks.session_work import predict_session

    began = time.monotonic()
    with terminating():
        paths = predict_session(
            session,
            {name: value for name, value in given.items() if value is not None},
            times=chosen,
            outputs=also,
            image=image,
        )
    if as_json:
        seconds = round(time.monotonic() - began, 3)
        tell_json({"results": paths, "seconds": seconds, "notes": errors.notes})
        return
    for path in paths.values():
        tell(f"Written: {path}")


@app.command()
def objects(
    session: _Session,
    classes: ObjectClasses = None,
    method: Method = None,
    boundary: Boundary = None,
    separation: Separation = None,
    min_volume: MinVolume = None,
    min_voxels: MinVoxels = None,
    fill_holes: FillHoles = None,
    smoothing: Smoothing = None,
    image: _Image = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Number and measure the objects of a session's segmentation; they go into the session.

    The window finds them there. They are an OME-Zarr image and a table in the folder "results".
    Settings that are not given are those by which the session's objects were found last.
    """
    if boundary is not None and method is None:
        method = "boundary"
    given = {
        "method": method,
        "classes": tuple(classes) if classes else None,
        "boundary": boundary,
        "separation": separation,
        "min_volume": min_volume,
        "min_voxels": min_voxels,
        "fill_holes": fill_holes,
        "smoothing": smoothing,
    }
    errors.set_quiet(quiet)
    from napari_unet3d.cli.tasks.finding import tell_objects
    from napari_unet3d.cli.tasks.session_objects import find_in_session
    from napari_unet3d.session.layout import OBJECTS, result_path, table_path

    began = time.monotonic()
    with terminating():
        found = find_in_session(
            session, {name: value for name, value in given.items() if value is not None}, image
        )
    seconds = time.monotonic() - began
    files = result_path(session, OBJECTS), table_path(session)
    tell_objects(found, *files, seconds, as_json=as_json)


@app.command()
def info(session: _Session, as_json: AsJson = False, quiet: Quiet = False) -> None:
    """What is in a session: image, classes, slices, model, scores, results."""
    errors.set_quiet(quiet)
    from napari_unet3d.cli.tasks.describing_sessions import describe_session

    description = describe_session(session, as_json=as_json)
    if isinstance(description, str):
        tell(description)
    else:
        tell_json(description)
    check_told()
