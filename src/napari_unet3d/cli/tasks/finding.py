"""Find the objects of a segmentation in a file, and write them and their table to files."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.cli.tasks.inputs import open_image, refuse_model
from napari_unet3d.cli.tasks.steps import Steps
from napari_unet3d.cli.terminal import errors, tell, tell_json
from napari_unet3d.config import ObjectsConfig
from napari_unet3d.data.io.atomic import Replacement
from napari_unet3d.data.io.outputs import OutputArray, check_output, check_paths, create_output
from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.data.io.targets import follow_link
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import ObjectsProgress, drain
from napari_unet3d.objects.finding import Objects, check_objects, find_objects
from napari_unet3d.objects.scratch import Scratch
from napari_unet3d.objects.table import ObjectTable

Place = AbstractContextManager[OutputArray]
"""A file that takes the numbers. It has its name at the end of the context."""

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
    with closing(Scratch(follow_link(output).parent)) as scratch:

        def make(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Place:
            return create_output(
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

        found = find_into(make, labels, config, volume, scratch)
        if sheet is not None:
            sheet.write(found.csv().encode("utf-8"))
        return found


def find_into(
    make: Callable[[tuple[int, ...], np.dtype[Any]], Place],
    labels: Volume,
    config: ObjectsConfig,
    image: Volume | None,
    scratch: Scratch,
    names: Mapping[int, str] | None = None,
) -> ObjectTable:
    """Find objects, show the steps, and write the numbers into a file.

    Parameters
    ----------
    make
        Makes the file for numbers of this shape and type.
    labels, config, image, scratch, names
        As in `find_objects`.

    Raises
    ------
    BadInputError
        As `find_objects`, and where there is no object. Nothing was written.
    """
    with ExitStack() as files:

        def open_output(shape: tuple[int, ...], dtype: np.dtype[Any]) -> OutputArray:
            return files.enter_context(make(shape, dtype))

        found = _follow(
            find_objects(labels, config, open_output, image=image, scratch=scratch, names=names)
        )
        if not len(found.table):
            raise BadInputError(
                f"No object has {config.min_voxels} voxels or more"
                + (f" and {config.min_volume:g} {labels.unit}³" if config.min_volume else "")
                + ": nothing was written. Lower --min-voxels and --min-volume."
            )
        return found.table


def tell_objects(
    found: ObjectTable, output: Path, table: Path | None, seconds: float, *, as_json: bool
) -> None:
    """Tell how many objects there are, and where they were written.

    Parameters
    ----------
    found, output, table
        The properties, and the files; None where no table was written.
    seconds
        How long it took.
    as_json
        Whether one JSON object is printed, for programs.
    """
    if as_json:
        tell_json(
            {
                "objects": output,
                "table": table,
                "count": len(found),
                "median_volume": found.median_volume,
                "unit": found.unit,
                "seconds": round(seconds, 3),
                "notes": errors.notes,
            }
        )
        return
    tell(found.sentence() + ".")
    for path in filter(None, (output, table)):
        tell(f"Written: {path}")


def _follow(events: Generator[ObjectsProgress, None, Objects]) -> Objects:
    """Iterate the search and show its steps."""
    with closing(events), Steps("finding objects") as bar:
        return drain(events, lambda event: bar.show(event.step, event.done / event.total))


def _as_csv(path: Path) -> Path:
    if path.suffix.lower() not in (".csv", ".txt"):
        raise BadInputError(f"'{path}': the table is text; choose a name that ends in .csv.")
    return path
