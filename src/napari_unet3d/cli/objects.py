"""`napari-unet3d objects`: its options."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from napari_unet3d.cli import settings
from napari_unet3d.cli.options import (
    AsJson,
    Axes,
    Overwrite,
    Quiet,
    VoxelSize,
    file_argument,
    file_option,
)
from napari_unet3d.cli.signals import terminating
from napari_unet3d.cli.terminal import errors, tell, tell_json
from napari_unet3d.config import ObjectsConfig, SeparationMethod

_DEFAULT = ObjectsConfig()


def objects(
    segmentation: Annotated[
        Path, file_argument("SEGMENTATION", "Integers, 0 background; may exceed the memory.")
    ],
    output: Annotated[
        Path, file_option("--output", "-o", metavar="OUT", text="*.tif or *.ome.zarr.")
    ],
    table: Annotated[
        Path | None, file_option(text="Also write one row for each object here, *.csv.")
    ] = None,
    image: Annotated[
        Path | None, file_option(text="The image: its mean gray values go into the table.")
    ] = None,
    classes: Annotated[
        list[int] | None,
        typer.Option("--class", help="Class that becomes objects; may be repeated. Default: all."),
    ] = None,
    method: Annotated[
        SeparationMethod,
        typer.Option(
            help="connected: every connected piece is an object. necks: pieces are also cut where "
            "they are narrow. boundary: as necks, and a class between the objects is shared out "
            "among them."
        ),
    ] = _DEFAULT.method,
    boundary: Annotated[
        int | None, typer.Option("--boundary-class", help="The class between the objects.")
    ] = None,
    separation: Annotated[
        float,
        typer.Option(
            help="Cut where a neck is narrower than this share of the smaller part: 0 never, 1 at "
            "every unevenness."
        ),
    ] = _DEFAULT.separation,
    min_volume: Annotated[
        float | None,
        typer.Option(help="Smallest volume of an object, in µm³ (the file's unit, cubed)."),
    ] = None,
    min_voxels: Annotated[
        int, typer.Option(help="Smallest size of an object, voxels.")
    ] = _DEFAULT.min_voxels,
    fill_holes: Annotated[
        bool, typer.Option(help="Fill cavities that a class encloses on all sides.")
    ] = _DEFAULT.fill_holes,
    smoothing: Annotated[
        float, typer.Option(help="Smooth outlines by so many shortest voxel edges.")
    ] = _DEFAULT.smoothing,
    overwrite: Overwrite = False,
    axes: Axes = None,
    voxel_size: VoxelSize = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Number the objects of a segmentation, separate those that touch, and measure them.

    0 is background, objects are 1, 2, ….
    """
    config = settings.validated(
        ObjectsConfig,
        method="boundary" if boundary is not None and method == _DEFAULT.method else method,
        classes=tuple(classes or ()),
        boundary=boundary,
        separation=separation,
        min_volume=min_volume,
        min_voxels=min_voxels,
        fill_holes=fill_holes,
        smoothing=smoothing,
    )
    reading = settings.reading(axes, voxel_size)
    errors.set_quiet(quiet)
    from napari_unet3d.cli.tasks.finding import find_in_files

    began = time.monotonic()
    with terminating():
        found = find_in_files(
            segmentation,
            output,
            config,
            table=table,
            image=image,
            overwrite=overwrite,
            reading=reading,
        )
    if as_json:
        seconds = round(time.monotonic() - began, 3)
        tell_json(
            {
                "objects": output,
                "table": table,
                "count": len(found),
                "median_volume": found.median_volume,
                "unit": found.unit,
                "seconds": seconds,
                "notes": errors.notes,
            }
        )
        return
    tell(found.sentence() + ".")
    for path in filter(None, (output, table)):
        tell(f"Written: {path}")
