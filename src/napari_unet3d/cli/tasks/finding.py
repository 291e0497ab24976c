"""Find the objects of a segmentation in a file, and write them and their table to files."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.cli.tasks.inputs import open_image, refuse_model
from napari_unet3d.cli.tasks.steps import Steps
from napari_unet3d.cli.terminal import errors
from napari_unet3d.config import ObjectsConfig
from napari_unet3d.data.io.atomic import Replacement
from napari_unet3d.data.io.outputs import OutputArray, check_output, check_paths, create_output
from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.data.io.targets import follow_link
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import ObjectsProgress, drain
from napari_unet3d.objects.finding import Objects, check_objects, find_objects
from napari_unet3d.objects.scratch import Scratch
from napari_unet3d.objects.table import ObjectTable

_USAGE = "objects takes a SEGMENTATION, which predict writes"


def find_in_files(
    segmentation: Path,
    output: Path,
    config: ObjectsConfig,
    *,
    table: Path | None = None,
    image: Path | None = None,
    overwrite: bool = False,
    reading: Mapping[str, Any] | None = None,
) -> ObjectTable:
    """Number and measure the objects of a segmentation.

    Parameters
    ----------
    segmentation, output
        Files or folders: the classes, and where the objects are written.
    config
        How objects are separated.
    table
        Where their properties are written as CSV; None for no table.
    image
        The image, whose gray values are measured; None for none.
    overwrite
        Whether files of these names may be replaced.
    reading
        Axes and voxel size, where those of the file are wrong.

    Returns
    -------
    ObjectTable
        The properties of the objects.

    Raises
    ------
    BadInputError
        The files or the settings do not fit, or there is no object. Nothing was written.
    """
    refuse_model(segmentation, _USAGE)
    inputs = [path for path in (segmentation, image) if path is not None]
    check_paths([path for path in (output, table) if path is not None], inputs)
    check_output(output, overwrite=overwrite)
    sheet = None if table is None else Replacement(_as_csv(table), overwrite=overwrite)
    labels = read_labels(segmentation, **(reading or {}))
    for note in labels.notes:
        errors.note(note)
    volume = None if image is None else open_image(image, _USAGE)
    if volume is not None and labels.unit == "pixel" != volume.unit:
        errors.note(f"'{segmentation}' names no voxel size: that of the image is used.")
        labels = replace(labels, voxel_size=volume.voxel_size, unit=volume.unit)
    check_objects(labels, config, volume)
    scratch = Scratch(follow_link(output).parent)
    with ExitStack() as files:
        files.callback(scratch.close)
        made: list[OutputArray] = []

        def make(shape: tuple[int, ...], dtype: np.dtype[Any]) -> OutputArray:
            made.append(
                files.enter_context(
                    create_output(
                        output,
                        shape,
                        dtype,
                        labels.axes,
                        labels.voxel_size,
                        labels.unit,
                        translation=labels.translation,
                        time_step=labels.time_step,
                        overwrite=overwrite,
                    )
                )
            )
            return made[0]

        found = _follow(find_objects(labels, config, make, image=volume, scratch=scratch))
        if not len(found.table):
            raise BadInputError(
                f"No object has {config.min_voxels} voxels or more"
                + (f" and {config.min_volume:g} {labels.unit}³" if config.min_volume else "")
                + ": nothing was written. Lower --min-voxels and --min-volume."
            )
        made[0].finish()
        if sheet is not None:
            sheet.write(found.table.csv().encode("utf-8"))
        return found.table


def _follow(events: Generator[ObjectsProgress, None, Objects]) -> Objects:
    """Iterate the search and show its steps."""
    with closing(events), Steps("finding objects") as bar:
        return drain(events, lambda event: bar.show(event.step, event.done / event.total))


def _as_csv(path: Path) -> Path:
    if path.suffix.lower() not in (".csv", ".txt"):
        raise BadInputError(f"'{path}': the table is text; choose a name that ends in .csv.")
    return path
