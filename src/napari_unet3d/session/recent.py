"""The sessions that were opened last, and where a new one goes.

Each session has a small file of its own in the user's data folder, so that two windows never write
the same one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import platformdirs

from napari_unet3d.data.io.folder_lock import holder_of
from napari_unet3d.data.io.journal import write_synced
from napari_unet3d.data.io.leftovers import most_name_bytes
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.names import SUFFIX
from napari_unet3d.session.state import read_state

_MOST = 20
"""Sessions that are remembered; a menu of more is not read."""
_NAMED = 80
"""Characters of an image's name in the name of its session folder."""


@dataclass(frozen=True)
class RecentSession:
    """A session that was opened before.

    Attributes
    ----------
    path
        Its folder.
    image_name
        What messages call its image.
    saved
        When it was written last.
    crashed
        Whether the program that had it open ended without closing it.
    holder
        The program that has it open now, in words; "" when none has.
    """

    path: Path
    image_name: str
    saved: datetime
    crashed: bool
    holder: str = ""


def data_folder() -> Path:
    """The folder of this program among the user's data."""
    return platformdirs.user_data_path("napari-unet3d", appauthor=False)


def recent_sessions() -> list[RecentSession]:
    """Sessions that were opened before and can be opened now, the newest first.

    Sessions whose folders are not there any more are forgotten; those on a disk that is away, too.
    Reading them takes milliseconds, unless a disk hangs.
    """
    sessions = []
    for file in _entries():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, BadInputError):
            path = Path(json.loads(file.read_text(encoding="utf-8"))["path"])
            if not path.is_dir():
                file.unlink(missing_ok=True)
                continue
            sessions.append(look_at(path))
    return sessions


def look_at(path: Path) -> RecentSession:
    """Describe a session folder without opening it.

    Raises
    ------
    BadInputError
        It is no session, or damaged.
    """
    state = read_state(path)
    holder = holder_of(path)
    name = state.record.image_name or path.name
    return RecentSession(path, name, state.saved, state.open and not holder, holder)


def remember_session(path: Path) -> None:
    """Put a session on top of the recent ones. Never raises: the list is a convenience."""
    folder = data_folder() / "recent"
    path = path.absolute()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_synced(_entry(folder, path), json.dumps({"path": str(path)}).encode())
        for old in _entries()[_MOST:]:
            old.unlink(missing_ok=True)


def forget_session(path: Path) -> None:
    """Take a session off the recent ones; its folder stays."""
    with contextlib.suppress(OSError):
        _entry(data_folder() / "recent", path.absolute()).unlink(missing_ok=True)


def default_folder(image: Path | str, *, new: bool = False) -> Path:
    """Where the session of an image lies, unless the user says otherwise.

    Parameters
    ----------
    image
        File or folder of the image; or, as a text, the name of an image that is in no file.
    new
        Return a folder that is not there yet: "stack 2.tif.unet3d-session" and so on.

    Returns
    -------
    Path
        Beside the image, if that folder can be written to; else among the user's data, in
        "sessions".
    """
    if isinstance(image, Path):
        image = image.absolute()
        parent, name = image.parent, image.name
        if not _is_writable(parent):
            # Images of one name in different folders are different images.
            name += f" {hashlib.sha256(os.fsencode(parent)).hexdigest()[:6]}"
            parent = data_folder() / "sessions"
    else:
        parent, name = data_folder() / "sessions", image
        name = re.sub(r"[^\w. -]+", "-", name)[:_NAMED].strip("-. ") or "image"
    with contextlib.suppress(OSError):
        if parent.parent == data_folder():
            parent.mkdir(parents=True, exist_ok=True)
    room = most_name_bytes(parent) - len(SUFFIX) - 4
    name = os.fsencode(name)[:room].decode("utf-8", "ignore")
    number = 1
    while True:
        folder = parent / f"{name}{f' {number}' if number > 1 else ''}{SUFFIX}"
        if not new or not os.path.lexists(folder):
            return folder
        number += 1


def _is_writable(folder: Path) -> bool:
    """Try whether a file can be made in a folder: permissions tell of no read-only disk."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _entries() -> list[Path]:
    """Files of the recent sessions, the newest first."""
    found = []
    with contextlib.suppress(OSError), os.scandir(data_folder() / "recent") as entries:
        for entry in entries:
            if entry.name.endswith(".json") and not entry.name.startswith("."):
                with contextlib.suppress(OSError):
                    found.append((entry.stat().st_mtime_ns, Path(entry.path)))
    return [path for _, path in sorted(found, reverse=True)]


def _entry(folder: Path, path: Path) -> Path:
    return folder / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:24]}.json"
