"""The results in a session folder: written as OME-Zarr images; objects with their table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.config import ClassInfo, ObjectsConfig
from napari_unet3d.data.io.atomic import Replacement
from napari_unet3d.data.io.outputs import OutputArray, create_output
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.settings import read_settings
from napari_unet3d.objects.table import ObjectTable
from napari_unet3d.session import layout
from napari_unet3d.session.session import SessionRecord
from napari_unet3d.session.state import FolderState


@dataclass(frozen=True, eq=False)
class KnownObjects:
    """The objects of a session.

    Parameters
    ----------
    numbers
        ZYX or TZYX: 0 outside, objects 1…n.
    table
        Their properties.
    config
        The settings by which they were found.
    """

    numbers: Any
    table: ObjectTable
    config: ObjectsConfig


def new_result(
    folder: Path,
    record: SessionRecord,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    classes: Sequence[ClassInfo] = (),
    channel_names: Sequence[str] = (),
) -> AbstractContextManager[OutputArray]:
    """Make the array of a result, in a context; it replaces an older one when it is complete.

    Parameters
    ----------
    folder, record
        The session folder, and the facts of the image.
    name, classes, channel_names
        As in `SessionFolder.write_result`.
    shape, dtype
        Of the array.

    Raises
    ------
    BadInputError, RunFailedError, OSError
        It cannot be written.
    """
    (folder / layout.RESULTS).mkdir(exist_ok=True)
    return create_output(
        layout.result_path(folder, name),
        shape,
        dtype.newbyteorder("="),
        layout.result_axes(record, len(shape)),
        record.voxel_size,
        record.unit,
        translation=record.translation,
        time_step=record.time_step,
        classes=classes,
        channel_names=channel_names,
    )


@contextmanager
def new_objects(
    folder: Path, record: SessionRecord, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Iterator[OutputArray]:
    """Make the array of the numbers of objects; as `new_result`.

    The table of the older objects is removed when all numbers are written, just before they take
    the place of the older ones: a table never stands beside other objects, and a failure loses
    none.
    """
    with new_result(folder, record, layout.OBJECTS, shape, dtype) as output:
        yield output
        layout.table_path(folder).unlink(missing_ok=True)


MakeOutput = Callable[[tuple[int, ...], np.dtype[Any]], AbstractContextManager[OutputArray]]
"""Makes an array of a shape and a number format, as `new_result` does."""


def copy_into(make: MakeOutput, array: Any) -> None:
    """Copy an array into a new result, piece by piece."""
    shape = tuple(int(n) for n in array.shape)
    with make(shape, np.dtype(array.dtype)) as output:
        for where in layout.blocks(shape):
            output[where] = array[where]


def write_table(folder: Path, table: ObjectTable) -> str:
    """Write the table of the objects; return its checksum."""
    Replacement(layout.table_path(folder)).write(table.csv().encode())
    return layout.checksum_of(layout.table_path(folder))


def read_objects(folder: Path, state: FolderState) -> KnownObjects | None:
    """Open the objects of a session, whose voxels are read when they are needed; None without any.

    Raises
    ------
    BadInputError
        They are damaged, or were just being written when the program ended.
    """
    stored = state.objects
    if stored is None:
        return None
    path, record = layout.table_path(folder), state.record
    try:
        text = path.read_bytes()
        intact = layout.checksum_of(path) == stored.table
    except OSError:
        intact = False
    if not intact:
        raise BadInputError(
            f"The objects of '{folder}' are not complete: '{path.name}' is missing or was changed. "
            "Find the objects again."
        )
    numbers: Volume = layout.read_result(folder, layout.OBJECTS)
    table = ObjectTable.from_csv(text.decode(errors="replace"), record.voxel_size, record.unit)
    return KnownObjects(numbers.data, table, read_settings(ObjectsConfig, stored.settings)[0])
