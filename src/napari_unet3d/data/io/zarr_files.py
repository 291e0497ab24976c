"""OME-Zarr (NGFF 0.1 to 0.6), with axes and voxel size; plain zarr arrays can be read too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zarr

from napari_unet3d.data.io.axes import MOST_CHANNELS, arrange_axes
from napari_unet3d.data.io.file_metadata import (
    Placement,
    Wishes,
    make_volume,
    settle_geometry,
)
from napari_unet3d.data.io.ngff import (
    Level,
    Multiscale,
    axis_letters,
    channel_labels,
    check_version,
    multiscales_of,
    parse_multiscale,
)
from napari_unet3d.data.io.ome import listed
from napari_unet3d.data.io.zarr_chunks import GuardedZarr, missing_chunks
from napari_unet3d.data.shapes import unnamed_axes
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError

_MARKS = ("zarr.json", ".zgroup", ".zarray")
_DEPTH = 3
"""Groups within groups that are searched for an image: a plate has row, well and field."""


def is_zarr(path: Path) -> bool:
    """Whether a folder holds a zarr group or array."""
    return any((path / mark).is_file() for mark in _MARKS)


def read_zarr(path: Path, wishes: Wishes | None = None) -> Volume:
    """Open an OME-Zarr image, or a plain zarr array; its voxels are read when they are needed.

    Parameters
    ----------
    path
        The folder of a group or an array.
    wishes
        Axes and sizes that the caller gives in place of those of the file.

    Raises
    ------
    BadInputError
        When it is damaged, empty, no image or no 3D stack, or of a version that is not known.
    """
    wishes = wishes or Wishes()
    try:
        node = zarr.open(store=str(path), mode="r")
    except Exception as error:  # whatever damaged metadata leads to
        raise BadInputError(_damaged(path, error)) from error
    try:
        if isinstance(node, zarr.Array):
            return _plain(node, path, wishes)
        return _image(node, path, wishes, [])
    except BadInputError:
        raise
    except Exception as error:  # metadata that breaks the specification, in whatever way
        raise BadInputError(_damaged(path, error)) from error


def _plain(array: Any, path: Path, wishes: Wishes) -> Volume:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    letters = axis_letters(names)
    if letters is None:
        shape = array.shape
        letters = "?" * max(0, len(shape) - 2) + "YX"
        # Labels have no channels, and given axes need no question.
        settled = wishes.axes or (len(shape) == 4 and (wishes.labels or shape[0] > MOST_CHANNELS))
        if not settled:
            letters = unnamed_axes(shape, path.name)
    return _volume(array, path, letters, Placement(), wishes, [])


def _image(group: Any, path: Path, wishes: Wishes, notes: list[str]) -> Volume:
    multiscales, version = multiscales_of(dict(group.attrs))
    if not multiscales:
        return _inner_image(group, path, wishes)
    what = f"'{path.name}'"
    check_version(version, f"'{path}'")
    if len(multiscales) > 1:
        notes.append(f"{what} holds {len(multiscales)} images: the first one is used.")
    arrays = {
        dataset["path"]: group[dataset["path"]]
        for dataset in multiscales[0]["datasets"]
        if dataset["path"] in group
    }
    if not arrays:
        missing = [repr(dataset["path"]) for dataset in multiscales[0]["datasets"]]
        raise BadInputError(_damaged(path, f"its arrays {listed(missing)} are missing"))
    multiscale = parse_multiscale(multiscales[0])
    level = _finest(multiscale, arrays, path, notes)
    array = arrays[level.path]
    if len(multiscale.names) != len(array.shape):
        raise BadInputError(
            f"'{path}' names {len(multiscale.names)} axes, but its array has {len(array.shape)}. "
            "Export it again."
        )
    if level.scale is None and wishes.voxel_size is None:
        raise BadInputError(
            f"'{path}' is placed by a transformation that cannot be used (it rotates or shears, "
            "or is stored in an array of its own). Give the voxel size, or export it as OME-Zarr "
            "0.4 or 0.5."
        )
    names = channel_labels(dict(group.attrs))
    return _volume(array, path, multiscale.names, (multiscale, level), wishes, notes, names)


def _inner_image(group: Any, path: Path, wishes: Wishes) -> Volume:
    """The image in a group that is none itself, where it is clear which one is meant."""
    members = sorted(name for name, _ in group.members())
    if not members:
        raise BadInputError(f"'{path}' is an empty zarr group. Export the stack again.")
    example = next(_images_in(group, path, _DEPTH), path / members[0])
    if example == path / "0":  # as bioformats2raw writes it
        n_images = sum(name.isdecimal() for name in members)
        note = f"'{path.name}' holds {n_images} images: the first one is used."
        return _image(group["0"], example, wishes, [note] if n_images > 1 else [])
    raise BadInputError(
        f"'{path}' is a zarr group without multiscales, so it is no OME-Zarr image. Give the "
        f"path of an array or image in it ({', '.join(members[:8])}), as in {example}"
    )


def _images_in(group: Any, path: Path, depth: int) -> Iterator[Path]:
    for name, member in sorted(group.members()):
        if isinstance(member, zarr.Group):
            if multiscales_of(dict(member.attrs))[0]:
                yield path / name
            elif depth > 1:
                yield from _images_in(member, path / name, depth - 1)


def _finest(multiscale: Multiscale, arrays: dict[str, Any], path: Path, notes: list[str]) -> Level:
    """The level with most voxels, where no finer one is missing."""
    there = [level for level in multiscale.levels if level.path in arrays]
    missing = [level for level in multiscale.levels if level.path not in arrays]
    finest = max(there, key=lambda level: math.prod(arrays[level.path].shape))
    for level in missing:
        if _voxel(level) <= _voxel(finest):
            raise BadInputError(_damaged(path, f"its finest level, '{level.path}', is missing"))
    if missing:
        names = listed([f"'{level.path}'" for level in missing])
        notes.append(f"'{path.name}' lacks its coarser level {names}, which is not needed.")
    if len(there) > 1:
        notes.append(f"'{path.name}' has {len(there)} resolutions: the finest is used.")
    return finest


def _voxel(level: Level) -> float:
    return 0.0 if level.scale is None else math.prod(abs(s) for s in level.scale)


def _volume(
    array: Any,
    path: Path,
    names: str,
    place: Placement | tuple[Multiscale, Level],
    wishes: Wishes,
    notes: list[str],
    channel_names: Sequence[str | None] = (),
) -> Volume:
    what = f"'{path.name}'"
    order, axes, noted = arrange_axes(names, array.shape, what, wishes)
    if isinstance(place, tuple):
        multiscale, level = place
        place = multiscale.placement(level, order[-3:])
    geometry, remarks = settle_geometry(
        axes, tuple(int(array.shape[i]) for i in order), place, wishes, what
    )
    chunks = () if wishes.labels else _chunk_notes(array, what)
    said = (*notes, *noted, *remarks, *chunks)
    data = GuardedZarr(array, path)
    return make_volume(data, order, names, geometry, path.name, said, channel_names)


def _chunk_notes(array: Any, what: str) -> tuple[str, ...]:
    """A note where chunks are not stored: empty ones need not be, lost ones cannot."""
    missing, total = missing_chunks(array)
    if not missing:
        return ()
    return (
        f"{missing} of the {total} chunks of {what} are not stored and are read as "
        f"{array.fill_value}. If the image is not empty there, they were lost: copy it again.",
    )


def _damaged(path: Path, error: object) -> str:
    return f"'{path}' cannot be read as OME-Zarr ({error}). Copy or export it again."
