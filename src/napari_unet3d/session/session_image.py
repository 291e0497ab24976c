"""The image of a session: found again, compared with what was annotated, copied into the folder."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from napari_unet3d.data.channels import one_channel
from napari_unet3d.data.io.fingerprint import Fingerprint
from napari_unet3d.data.io.outputs import create_output
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.session.layout import IMAGE_COPY, blocks
from napari_unet3d.session.session import SessionRecord
from napari_unet3d.session.state import FolderState

_LARGEST_COPY = 2**31
"""Bytes. A larger image that is in no file is asked for when the session is opened: copying it
would take more than half a minute and fill disks."""
_SHARE_OF_DISK = 0.5
"""Share of the free disk space that the copy of an image may take."""


@dataclass(frozen=True, eq=False)
class FoundImage:
    """What became of the image of a session.

    Attributes
    ----------
    state
        "found": it is there and the same; "missing": none of the places that are known holds it;
        "changed": there is an image, but with another shape or other gray values.
    volume
        The image, with name and voxel size of the session; None where it is missing.
    path
        Its file or folder; None where it is missing, and for the copy in the session folder.
    text
        For "missing" and "changed": sentences with what differs and what to do.
    """

    state: Literal["found", "missing", "changed"]
    volume: Volume | None = None
    path: Path | None = None
    text: str = ""


def find_image(folder: Path, state: FolderState) -> FoundImage:
    """Look for the image of a session, first by its path relative to the folder."""
    changed: FoundImage | None = None
    unreadable = ""
    for path in _places(folder, state):
        if not path.exists():
            continue
        try:
            volume, differences = read_image(path, state)
        except (BadInputError, RunFailedError) as error:
            unreadable = unreadable or str(error)
            continue
        own = path.name == IMAGE_COPY and path.parent == folder
        if not differences:
            return FoundImage("found", volume, None if own else path)
        changed = changed or FoundImage("changed", volume, path, _changed_text(path, differences))
    return changed or FoundImage("missing", text=_missing_text(state, unreadable))


def read_image(path: Path, state: FolderState) -> tuple[Volume, tuple[str, ...]]:
    """Open a file as the image of a session, and say in what it differs from the annotated one.

    Raises
    ------
    BadInputError
        It cannot be opened.
    """
    return _closest(state, _read(path, state.record), path)


def compare(state: FolderState, volume: Volume, path: Path | None = None) -> tuple[str, ...]:
    """Say in what an image differs from the annotated one; () when it is the same.

    Raises
    ------
    RunFailedError
        Its voxels cannot be read.
    """
    if state.fingerprint is None:
        shape, now = state.record.shape, tuple(int(n) for n in volume.data.shape)
        if shape is None or shape == now:
            return ()
        return (f"it had {describe_shape(shape)} voxels and has {describe_shape(now)} now",)
    return state.fingerprint.differences(Fingerprint.of(volume, path))


def dressed(volume: Volume, record: SessionRecord) -> Volume:
    """An image with the name, voxel size and place that it had in the session."""
    return replace(
        volume,
        name=record.image_name or volume.name,
        voxel_size=record.voxel_size,
        unit=record.unit,
        translation=record.translation,
        time_step=record.time_step,
    )


def relative_path(image: Path | None, folder: Path) -> str | None:
    """The path of an image seen from a session folder; None on another drive."""
    if image is None:
        return None
    try:
        return Path(os.path.relpath(image.absolute(), folder.absolute())).as_posix()
    except (ValueError, OSError):
        return None


def may_copy(volume: Volume, folder: Path) -> bool:
    """Whether an image that is in no file is small enough to be copied into the folder."""
    n_bytes = math.prod(volume.data.shape) * volume.dtype.itemsize
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return False
    return bool(n_bytes <= min(_LARGEST_COPY, _SHARE_OF_DISK * free))


def copy_image(volume: Volume, folder: Path) -> None:
    """Write an image into the session folder.

    Raises
    ------
    BadInputError, RunFailedError
        The image cannot be read, or the copy not be written.
    """
    shape = tuple(int(n) for n in volume.data.shape)
    with create_output(
        folder / IMAGE_COPY,
        shape,
        volume.dtype.newbyteorder("="),
        volume.axes,
        volume.voxel_size,
        volume.unit,
        translation=volume.translation,
        time_step=volume.time_step,
        channel_names=() if "C" in volume.axes else (volume.name,),
    ) as copy:
        for where in blocks(shape):
            copy[where] = volume.data[where]


def _places(folder: Path, state: FolderState) -> list[Path]:
    places = []
    if state.relative_path is not None:
        places.append(Path(os.path.normpath(folder.absolute() / state.relative_path)))
    if state.record.image_path is not None and state.record.image_path not in places:
        places.append(state.record.image_path)
    if state.image_copy:
        places.append(folder / IMAGE_COPY)
    return places


def _read(path: Path, record: SessionRecord) -> Volume:
    """Open an image with the axes that the file names or, where these do not fit, the user chose.

    The other order would take an ImageJ file, whose channels lie within z, for another image.
    """
    volume: Volume | None = None
    failure: BadInputError | None = None
    try:
        volume = read_volume(path)
    except BadInputError as error:  # such as axes that the file leaves open
        failure = error
    if volume is None or (volume.axes, tuple(volume.data.shape)) != (record.axes, record.shape):
        with contextlib.suppress(BadInputError):
            chosen = read_volume(path, axes=record.axes)
            if volume is None or tuple(chosen.data.shape) == record.shape:
                return chosen
    if volume is None:
        assert failure is not None
        raise failure
    return volume


def _closest(state: FolderState, volume: Volume, path: Path) -> tuple[Volume, tuple[str, ...]]:
    """Return the image of a file, or its annotated channel, and in what it differs."""
    record = state.record
    if "C" in volume.axes and "C" not in (record.axes or ""):
        for index in range(volume.n_channels):
            channel = dressed(one_channel(volume, index), record)
            if not compare(state, channel, path):
                return channel, ()
    volume = dressed(volume, record)
    return volume, compare(state, volume, path)


def _changed_text(path: Path, differences: tuple[str, ...]) -> str:
    return (
        f"'{path}' is not the image that was annotated: {'; '.join(differences)}. Open the image "
        "that was annotated, or go on with this one if you know that it fits."
    )


def _missing_text(state: FolderState, unreadable: str) -> str:
    record = state.record
    name = f"'{record.image_name}'" if record.image_name else "The image of the session"
    facts = "" if record.shape is None else f" ({describe_shape(record.shape)}, {record.dtype})"
    if unreadable:
        return f"{name}{facts} cannot be opened: {unreadable}"
    if record.image_path is None:
        return f"{name}{facts} was in no file. Open it again, then open the session."
    return (
        f"{name}{facts} is not at '{record.image_path}', and not beside the session. Say where it "
        "is now, or put it back."
    )
