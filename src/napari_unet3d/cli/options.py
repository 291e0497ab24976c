"""The types of the options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_unet3d.config import SeparationMethod
from napari_unet3d.data.io.paths import user_path


def file_argument(metavar: str | None, text: str) -> Any:
    """Describe an argument that is a file or a folder; `text` is its help."""
    return typer.Argument(callback=read_path, readable=False, metavar=metavar, help=text)


def file_option(*names: str, text: str, metavar: str | None = None) -> Any:
    """Describe an option that is a file or a folder; `text` is its help."""
    return typer.Option(*names, callback=read_path, readable=False, metavar=metavar, help=text)


def read_path(written: Path | None) -> Path | None:
    """Read a path of the command line; `BadInputError` when it can be none."""
    return None if written is None else user_path(written)


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
    typer.Option(metavar="AXES", help="Axes of the image in their order, such as TZYX or CZYX."),
]
Domain = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The kind of stack, for a model of train-domains."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Seconds = Annotated[
    float | None, typer.Option(metavar="S", help="Wall-clock seconds of training. Default: 60.")
]
Iterations = Annotated[
    int | None, typer.Option(metavar="N", help="Iterations, in place of --seconds: repeatable.")
]
OtherSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Any other setting; network.NAME=VALUE for one of the network.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace a file or folder that has the name of the output."),
]
CrossValidate = Annotated[
    int | None,
    typer.Option(
        min=2,
        metavar="K",
        help="Then train K short-lived models, each on other slices than it is measured on.",
    ),
]
LearningCurve = Annotated[
    bool,
    typer.Option("--learning-curve", help="Then measure how the IoU grows with the slices."),
]
ObjectClasses = Annotated[
    list[int] | None,
    typer.Option("--class", help="Class that becomes objects; may be repeated. Default: all."),
]
Method = Annotated[
    SeparationMethod | None,
    typer.Option(
        help="connected: every connected piece is an object. necks: pieces are also cut where "
        "they are narrow. boundary: as necks, and a class between the objects is shared out "
        "among them."
    ),
]
Boundary = Annotated[
    int | None, typer.Option("--boundary-class", help="The class between the objects.")
]
Separation = Annotated[
    float | None,
    typer.Option(
        help="Cut where a neck is narrower than this share of the smaller part: 0 never, 1 at "
        "every unevenness."
    ),
]
MinVolume = Annotated[
    float | None,
    typer.Option(help="Smallest volume of an object, in µm³ (the file's unit, cubed)."),
]
MinVoxels = Annotated[int | None, typer.Option(help="Smallest size of an object, voxels.")]
FillHoles = Annotated[
    bool | None, typer.Option(help="Fill cavities that a class encloses on all sides.")
]
Smoothing = Annotated[
    float | None, typer.Option(help="Smooth outlines by so many shortest voxel edges.")
]
