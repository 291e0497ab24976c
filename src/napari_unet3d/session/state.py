"""The text file of a session folder, session.json: written, read, checked, migrated."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from napari_unet3d.data.io.fingerprint import Fingerprint
from napari_unet3d.data.io.journal import read_commits
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.settings import read_settings
from napari_unet3d.session.names import STATE_FILE, SUFFIX
from napari_unet3d.session.session import RunSettings, SessionRecord

FORMAT = "napari-unet3d session"

Text = dict[str, Any]
"""What session.json holds, as `json.loads` gives it; nothing in it is checked yet."""

MIGRATIONS: tuple[Callable[[Text], Text], ...] = ()
"""The first one takes a text of version 1 to version 2, and so on."""
VERSION = len(MIGRATIONS) + 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoredModel(_Frozen):
    """The model in a folder, and what belongs to it alone.

    `checksum` is that of its file: where another file has taken its name, name and scores are
    not those of this model.
    """

    name: str
    checksum: str


class StoredResult(_Frozen):
    """One result in a folder: an OME-Zarr image in "results"."""

    saved: datetime
    model: str | None = None


class StoredObjects(StoredResult):
    """The objects in a folder: "results/objects.zarr", and their table "results/objects.csv".

    `table` is the checksum of the table: another one does not belong to these numbers. `settings`
    are those of the `ObjectsConfig` by which the objects were found.
    """

    table: str
    settings: dict[str, JsonValue] = Field(default_factory=dict)


class FolderState(_Frozen):
    """All that session.json holds."""

    id: str = Field(description="Tells one session from another, wherever its folder lies.")
    commit: int = Field(0, ge=0, description="Number of the last change.")
    program: str = Field("", description="Version of the program that wrote it.")
    created: datetime
    saved: datetime
    open: bool = Field(False, description="Whether a program had it open; if none has, it crashed.")
    labels_shape: tuple[int, ...] = Field(description="Shape of the annotation, ZYX or TZYX.")
    record: SessionRecord
    relative_path: str | None = Field(
        None, description="Image, seen from the folder of the session; found first."
    )
    image_copy: bool = Field(False, description="Whether the folder holds a copy of the image.")
    fingerprint: Fingerprint | None = None
    model: StoredModel | None = None
    results: dict[str, StoredResult] = Field(default_factory=dict)
    objects: StoredObjects | None = None

    @property
    def objects_are_old(self) -> bool:
        """Whether the stack was segmented again since the objects were found."""
        labels = self.results.get("labels")
        return self.objects is not None and labels is not None and self.objects.saved < labels.saved

    def as_bytes(self) -> bytes:
        """The text of session.json."""
        text = {"format": FORMAT, "version": VERSION, **self.model_dump(mode="json")}
        return json.dumps(text, indent=1, ensure_ascii=False).encode()


def settled_state(folder: Path) -> FolderState:
    """Read session.json, which is older than the commits in the journal.

    Raises
    ------
    BadInputError
        As `read_state`.
    """
    path = folder / STATE_FILE
    try:
        return parse_state(path.read_bytes(), path)
    except (FileNotFoundError, NotADirectoryError) as error:
        where = "there is no such folder" if not folder.exists() else f"it holds no {STATE_FILE}"
        raise BadInputError(
            f"'{folder}' is no session: {where}. Give a folder whose name ends in {SUFFIX}."
        ) from error
    except OSError as error:
        raise BadInputError(
            f"'{path}' cannot be read ({error.strerror or error}). Check the disk, and whether "
            "you may read it."
        ) from error


def read_state(folder: Path) -> FolderState:
    """Read the newest state of a session folder; nothing is changed.

    Raises
    ------
    BadInputError
        It is no session, damaged, or of a newer version.
    """
    # Commits first: one that another thread or program settles meanwhile is in the settled state.
    commits = [(c.number, c.files.get(STATE_FILE), c.path) for c in read_commits(folder)]
    state = settled_state(folder)
    for number, content, path in commits:
        if number > state.commit and content is not None:
            state = parse_state(content, path)
    return state


def parse_state(content: bytes, path: Path) -> FolderState:
    """Read what session.json holds; messages name `path`.

    Raises
    ------
    BadInputError
        It is damaged, or of a newer version.
    """
    try:
        text = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "it is no JSON text") from error
    if not isinstance(text, dict) or text.pop("format", None) != FORMAT:
        raise _damaged(path, "it describes no session")
    version = text.pop("version", None)
    if not isinstance(version, int) or version < 1:
        raise _damaged(path, f"its version is {str(version)[:20]!r}")
    if version > VERSION:
        raise BadInputError(
            f"'{path}' has format version {version}, this program knows up to {VERSION}: update "
            "napari-unet3d."
        )
    try:
        for migration in MIGRATIONS[version - 1 :]:
            text = migration(text)
        record = text.get("record")
        if isinstance(record, dict):
            text = text | {"record": _readable(record)}
        return FolderState.model_validate(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _damaged(path, f"{where[:100]}: {first['msg'][:200]}") from error


def _readable(record: Text) -> Text:
    """Leave out of a record what this version cannot read: that keeps no session from opening.

    Settings that are not known are left out; scores that cannot be read are measured again.
    """
    record = dict(record)
    if isinstance(record.get("settings"), dict):
        settings, _ = read_settings(RunSettings, record["settings"])
        record["settings"] = settings.model_dump(mode="json")
    try:
        SessionRecord.model_validate({"scores": record.get("scores")})
    except ValidationError:
        record["scores"] = None
    return record


def _damaged(path: Path, reason: str) -> BadInputError:
    return BadInputError(
        f"'{path}' is damaged: {reason}. Nothing was changed. Restore the file from a backup; the "
        "annotation itself is in annotation.zarr beside it, which can be opened as labels."
    )
