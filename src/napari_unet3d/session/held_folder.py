"""Paint and state of a session folder, changed together."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, Self

import numpy as np

from napari_unet3d.data.io.folder_lock import FolderLock
from napari_unet3d.data.io.journal import Journal
from napari_unet3d.data.io.paint_chunks import Box, Chunk, PaintChunks
from napari_unet3d.session import layout
from napari_unet3d.session.names import STATE_FILE
from napari_unet3d.session.new_folder import now, program
from napari_unet3d.session.session import SessionRecord
from napari_unet3d.session.session_image import relative_path
from napari_unet3d.session.state import FolderState, read_state, settled_state

_END = 2.0
"""Seconds that closing spends on bringing commits to their places. Whoever opens the folder next
brings the others there."""


class HeldFolder:
    """Paint and state of a session folder that this program holds.

    Changes go into the memory first (`fold`, `set_record`), and `commit` makes all of them happen
    on the disk at once. All methods may be called from any thread.

    Parameters
    ----------
    path
        The folder.
    lock
        Its lock, which `close` releases.

    Attributes
    ----------
    path
        The folder.
    crashed
        Whether the program that had the session before this one did not close it.

    Raises
    ------
    BadInputError
        Something in it is damaged.
    OSError
        It cannot be written to.
    """

    def __init__(self, path: Path, lock: FolderLock) -> None:
        self.path = path
        self._lock = lock
        self._guard = threading.RLock()
        settled = settled_state(path)
        self._state = read_state(path)
        self._chunks = layout.open_chunks(path, settled.labels_shape, settled.commit)
        self._journal = Journal(path, STATE_FILE)
        self._journal.recover(settled.commit)
        self._group = layout.group_files(self._state.record, self._chunks.ndim)
        self._dirty: set[Chunk] = set()
        self._record: SessionRecord | None = None
        self.crashed = self._state.open
        self._commit_state(open=True)

    @property
    def state(self) -> FolderState:
        """The state as it is on the disk."""
        return self._state

    def record(self) -> SessionRecord:
        """The newest record, also where it is not on the disk yet."""
        return self._record or self._state.record

    @property
    def annotation(self) -> PaintChunks:
        """The paint; indexed as numpy is, and read-only."""
        return self._chunks

    # ---- changes of paint and record

    def fold(self, box: Box, labels: np.ndarray) -> None:
        """Take over labels of a box; `commit` brings them to the disk.

        Parameters
        ----------
        box
            First index, and one past the last, along each axis of the annotation.
        labels
            Shape of the box; values up to 255.
        """
        with self._guard:
            self._dirty |= self._chunks.fold(box, labels)

    def fold_all(self, labels: Any) -> None:
        """Take over a whole annotation; paint that it does not have is removed."""
        with self._guard:
            self._dirty |= self._chunks.replace_by(labels)

    def set_record(self, record: SessionRecord) -> None:
        """Take over a record; `commit` brings it to the disk."""
        with self._guard:
            self._record = record

    @property
    def changed(self) -> bool:
        """Whether something waits for `commit`."""
        return bool(self._dirty) or self._record is not None

    def commit(self, *, model_follows: bool = False) -> None:
        """Bring all changes to the disk, at once: all of them happen, or none.

        Parameters
        ----------
        model_follows
            A new model is about to be written. Until then name and scores of the older one stay,
            since they must not be told of another model.

        Raises
        ------
        OSError
            Nothing changed: the disk is full, gone or read-only. Try again.
        LockLostError
            Another program has opened the folder.
        """
        with self._guard:
            if not self.changed:
                return
            record = self._record or self._state.record
            kept = record
            if model_follows:
                old = self._state.record
                kept = record.model_copy(
                    update={
                        "model_name": old.model_name,
                        "model_path": old.model_path,
                        "scores": old.scores,
                    }
                )
            self._commit_state(paint=True, record=kept)
            self._record = record if kept != record else None

    def settle(self, seconds: float = float("inf")) -> bool:
        """Bring what was committed from the journal to its place; return whether all is there.

        Raises
        ------
        OSError
            The disk is full, gone or read-only. Nothing is lost.
        """
        with self._guard:
            return self._journal.settle(seconds)

    def close(self) -> None:
        """Bring everything to the disk, take note that nothing crashed, and let the folder go.

        Raises
        ------
        OSError, LockLostError
            Something could not be written; the folder is let go all the same.
        """
        try:
            self.commit()
            with self._guard:
                self._commit_state(open=False)
                self.settle(_END)
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- inside

    def _commit_state(self, *, paint: bool = False, **changes: Any) -> None:
        """Commit changes of the state; with `paint`, also all paint that waits.

        Paint without the record that came with it might lack the mark that belongs to it.
        """
        with self._guard:
            self._lock.check()
            number = self._state.commit + 1
            facts = {"commit": number, "saved": now(), "program": program()}
            state = self._state.model_copy(update={**changes, **facts})
            if (image := state.record.image_path) != self._state.record.image_path:
                where = {"relative_path": relative_path(image, self.path)}
                state = state.model_copy(update=where)
            names = {
                chunk: f"{layout.ARRAY}/{self._chunks.name(chunk)}"
                for chunk in self._dirty
                if paint
            }
            files = {name: self._chunks.content(chunk) for chunk, name in names.items()}
            group = layout.group_files(state.record, self._chunks.ndim)
            files |= {name: text for name, text in group.items() if self._group.get(name) != text}
            files[STATE_FILE] = state.as_bytes()
            self._journal.commit(number, files)
            self._state, self._group = state, group
            self._dirty -= set(names)
