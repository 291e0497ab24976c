"""Where things lie in a session folder, and how arrays are laid out there."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from napari_unet3d.config import BACKGROUND
from napari_unet3d.data.io.description import Description, rgb
from napari_unet3d.data.io.journal import read_commits
from napari_unet3d.data.io.leftovers import clear_leftovers
from napari_unet3d.data.io.paint_chunks import PaintChunks
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.io.zarr_output import ngff_metadata
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.session import SessionRecord

ANNOTATION = "annotation.zarr"
ARRAY = f"{ANNOTATION}/0"
MODEL = "model.unet3d"
CHECKPOINT = "checkpoint.unet3d"
RESULTS = "results"
IMAGE_COPY = "image.zarr"
OBJECTS = "objects"

_PLANES = 64
"""Planes along z that are copied at once: whole chunks of the OME-Zarr files that are written."""
_BACKGROUND_RGBA = (128, 128, 128, 255)
"""Color of background in programs that read colors from OME-Zarr."""


def labels_shape(volume: Volume) -> tuple[int, ...]:
    """Shape of the annotation of an image: ZYX, or TZYX for a series."""
    times = (volume.n_times,) if "T" in volume.axes else ()
    return (*times, *volume.shape)


def result_path(folder: Path, name: str) -> Path:
    """Folder of a result.

    Raises
    ------
    BadInputError
        The name cannot be that of a folder.
    """
    if not name or not all(c.isalnum() or c in "_- " for c in name) or len(name) > 100:
        raise BadInputError(
            f"A result cannot be called '{name}': use letters, digits, spaces, '-' and '_'."
        )
    return folder / RESULTS / f"{name}.zarr"


def table_path(folder: Path) -> Path:
    """File of the table of the objects, whose numbers are the result `OBJECTS`."""
    return folder / RESULTS / f"{OBJECTS}.csv"


def result_axes(record: SessionRecord, ndim: int) -> str:
    """Axes of a result with so many dimensions."""
    time = "T" if "T" in (record.axes or "") else ""
    channel = "C" if ndim > 3 + len(time) else ""
    return f"{time}{channel}ZYX"


def read_result(folder: Path, name: str) -> Volume:
    """Open a result; its voxels are read when they are needed.

    Raises
    ------
    BadInputError
        It is not there, or damaged.
    """
    return read_volume(result_path(folder, name))


def blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Parts of an array that are copied one by one; its last three axes are z, y, x."""
    for index in itertools.product(*(range(n) for n in shape[:-3])):
        for z in range(0, shape[-3], _PLANES):
            planes = slice(z, min(z + _PLANES, shape[-3]))
            yield (*(slice(i, i + 1) for i in index), planes, slice(None), slice(None))


def clear_unfinished(folder: Path) -> None:
    """Remove what killed programs left of files that they were writing."""
    for name in (MODEL, CHECKPOINT, IMAGE_COPY):
        clear_leftovers(folder / name)
    results = folder / RESULTS
    clear_leftovers(table_path(folder))
    for name in {entry.name.lstrip(".").partition(".zarr.")[0] for entry in results.glob(".*")}:
        clear_leftovers(results / f"{name}.zarr")


def checksum_of(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_chunks(folder: Path, shape: tuple[int, ...], after: int) -> PaintChunks:
    """Read the paint of a folder.

    Parameters
    ----------
    folder, shape
        The session folder, and the shape of its annotation.
    after
        Number of the last commit whose files are in their places; the paint of later ones is
        taken from the journal.

    Raises
    ------
    BadInputError
        A file cannot be read, or a commit is damaged.
    """
    chunks = PaintChunks.open(folder / ARRAY, shape)
    for commit in read_commits(folder):
        if commit.number <= after:
            continue
        for name, content in commit.files.items():
            inner = name.removeprefix(f"{ARRAY}/")
            if inner != name and inner[0].isdecimal():
                chunks.set_content(tuple(map(int, inner.split("/"))), content)
    return chunks


def group_files(record: SessionRecord, ndim: int) -> dict[str, bytes]:
    """What makes the annotation an OME-Zarr image: voxel size, position, names of the classes."""
    description = Description(
        "TZYX"[-ndim:], record.voxel_size, record.unit, record.translation, record.time_step
    )
    names = {0: "unlabelled", BACKGROUND: "background"} | {c.value: c.name for c in record.classes}
    colors: dict[int, tuple[int, ...]] = {0: (0, 0, 0, 0), BACKGROUND: _BACKGROUND_RGBA}
    colors |= {c.value: (*rgb(c.color), 255) for c in record.classes}
    attributes = ngff_metadata(description, record.image_name or "annotation") | {
        "image-label": {
            "version": "0.4",
            "colors": [{"label-value": v, "rgba": list(rgba)} for v, rgba in colors.items()],
            "properties": [{"label-value": v, "class": name} for v, name in names.items()],
        }
    }
    return {
        f"{ANNOTATION}/.zgroup": b'{"zarr_format": 2}',
        f"{ANNOTATION}/.zattrs": json.dumps(attributes, indent=1).encode(),
    }
