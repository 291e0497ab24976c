"""Finds the sessions that an image may belong to."""

from __future__ import annotations

import contextlib
from pathlib import Path

from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.names import is_session
from napari_unet3d.session.recent import default_folder, recent_sessions
from napari_unet3d.session.state import FolderState, read_state


def sessions_of(volume: Volume, path: Path | None) -> list[Path]:
    """Session folders that may belong to an image, the likeliest and newest first.

    They are looked for beside the image, in the user's data folder, and among the sessions that
    were opened last. Whether one belongs to the image is only known when it is opened and the
    gray values are compared. This reads some small files.

    Parameters
    ----------
    volume
        The image.
    path
        Its file; None for an image that is in no file.
    """
    places = [default_folder(volume.name if path is None else path)]
    places += [session.path for session in recent_sessions()]
    found: dict[Path, tuple[bool, float]] = {}
    for place in places:
        if place in found or not is_session(place):
            continue
        with contextlib.suppress(BadInputError):
            state = read_state(place)
            same_file = path is not None and _files(place, state) & {_real(path)} != set()
            if same_file or _resembles(state, volume):
                found[place] = not same_file, -state.saved.timestamp()
    return sorted(found, key=lambda place: found[place])


def _files(folder: Path, state: FolderState) -> set[Path]:
    """Where the image of a session was."""
    files = set() if state.record.image_path is None else {_real(state.record.image_path)}
    if state.relative_path is not None:
        files.add(_real(folder / state.relative_path))
    return files


def _real(path: Path) -> Path:
    with contextlib.suppress(OSError):
        return path.resolve()
    return path.absolute()


def _resembles(state: FolderState, volume: Volume) -> bool:
    record = state.record
    return (
        record.image_name == volume.name
        and record.shape == tuple(int(n) for n in volume.data.shape)
        and record.axes == volume.axes
    )
