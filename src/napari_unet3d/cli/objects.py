"""`napari-unet3d objects`: its options."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from napari_unet3d.cli import settings
from napari_unet3d.cli.options import (
    AsJson,
    Axes,
    Boundary,
    FillHoles,
    Method,
    MinVolume,
    MinVoxels,
    ObjectClasses,
    Overwrite,
    Quiet,
    Separation,
    Smoothing,
    VoxelSize,
    file_argument,
    file_option,
)
from napari_unet3d.cli.signals import terminating
from napari_unet3d.cli.terminal import errors
from napari_unet3d.config import ObjectsConfig

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
    classes: ObjectClasses = None,
    method: Method = _DEFAULT.method,
    boundary: Boundary = None,
    separation: Separation = _DEFAULT.separation,
    min_volume: MinVolume = None,
    min_voxels: MinVoxels = _DEFAULT.min_voxels,
    fill_holes: FillHoles = _DEFAULT.fill_holes,
    smoothing: Smoothing = _DEFAULT.smoothing,
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
    from napari_unet3d.cli.tasks.finding import find_in_files, tell_objects

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
    tell_objects(found, output, table, time.monotonic() - began, as_json=as_json)
