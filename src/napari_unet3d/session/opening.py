"""Opens a session for a window: everything that is read from disks, in one call for a thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.changed_chunks import Chunk, checksums
from napari_unet3d.data.slice_summary import StackSummary
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.session import layout
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.recent import remember_session
from napari_unet3d.session.room import annotation_fits
from napari_unet3d.session.session import NamedModel, SessionRecord
from napari_unet3d.session.session_image import FoundImage
from napari_unet3d.session.state import read_state
from napari_unet3d.session.stored_results import KnownObjects
from napari_unet3d.session.summary_file import read_summary

_UNREADABLE = (BadInputError, RunFailedError, OSError, MemoryError)
_OLD_OBJECTS = "The objects are those of an earlier segmentation: find them again."

Candidate = tuple[Volume, Path | None]
"""An image that may be the one of the session, and its file."""


@dataclass(frozen=True, eq=False)
class OpenedSession:
    """All that is in a session folder, and which image it belongs to.

    Attributes
    ----------
    folder
        The folder, which this program holds now; whoever gets this closes it.
    record
        Classes, marks, settings, scores.
    labels
        The annotation, ready to be painted on.
    saved
        Checksums of the chunks of the annotation.
    model
        The current model; None without one.
    checkpoint
        The model of a training that was cut off; None without one.
    results
        Arrays of the outputs by name.
    objects
        The numbered objects; None without any.
    summary
        What the last prediction says about each slice; None where that is not stored.
    match
        Which candidate is the image of the session; None when none is.
    differences
        Why the best candidate is not; () without candidates of this shape.
    found
        The image as the folder knows it, where no candidate matches; else None.
    saved_at
        When the session was saved last, before it was opened.
    notes
        Sentences on what could not be opened.
    """

    folder: SessionFolder
    record: SessionRecord
    labels: Any
    saved: Mapping[Chunk, int]
    model: NamedModel | None
    checkpoint: NamedModel | None
    results: Mapping[str, Any]
    objects: KnownObjects | None
    match: int | None
    differences: tuple[str, ...]
    found: FoundImage | None
    saved_at: datetime
    notes: tuple[str, ...] = field(default=())
    summary: StackSummary | None = None

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """The classes of the results: those of the model or, without one, of the annotation."""
        return tuple(self.record.classes if self.model is None else self.model.bundle.classes)

    @property
    def crashed(self) -> bool:
        """Whether the program that had the session before did not close it."""
        return self.folder.crashed


class Handover:
    """Hands open folders from a thread to its owner; those that nobody takes are closed.

    A window may close while a thread opens a folder. Whoever comes last closes it.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._folders: list[SessionFolder] = []
        self._over = False

    def give(self, folder: SessionFolder) -> None:
        """Called by the thread: this folder is open."""
        with self._guard:
            if not self._over:
                self._folders.append(folder)
                return
        folder.close()

    def take(self, folder: SessionFolder) -> None:
        """Called by the owner: it will close this folder."""
        with self._guard:
            if folder in self._folders:
                self._folders.remove(folder)

    def end(self) -> None:
        """Close the folders that were not taken, and all that are given later."""
        with self._guard:
            folders, self._folders, self._over = self._folders, [], True
        for folder in folders:
            folder.close()


def open_session(
    path: Path, candidates: Sequence[Candidate], *, look: bool, anyway: bool = False
) -> OpenedSession:
    """Open a session folder and read what is in it; takes seconds for a large one.

    Parameters
    ----------
    path
        The session folder.
    candidates
        Open images; the one that was annotated is chosen by its gray values.
    look
        Whether the image is looked for on the disk when no candidate is the one.
    anyway
        Take the first candidate if no other is the one and it has the shape of the annotation; the
        session takes note of it.

    Raises
    ------
    BadInputError
        The folder is held by another program, damaged, or no session; the text says what to do.
    RunFailedError
        The disk failed.
    """
    before = read_state(path).saved
    folder = SessionFolder.open(path)
    remember_session(folder.path)
    try:
        notes: list[str] = []
        match, differences = find_match(folder, candidates)
        found = folder.find_image() if look and match is None else None
        if match is None and anyway and candidates:
            match = _take(folder, *candidates[0])
        _note_place(folder, None if match is None else candidates[match], found)
        labels = folder.labels()
        saved = checksums(folder.annotation, folder.annotation.chunks)
        model = checkpoint = None
        try:
            model, checkpoint = folder.model(), folder.checkpoint()
        except (BadInputError, RunFailedError, OSError) as error:
            notes.append(str(error))
        results: dict[str, Any] = {}
        for name, volume in folder.results().items():
            try:
                results[name] = _in_memory(volume.data)
            except _UNREADABLE as error:
                notes.append(str(error))
        objects = None
        try:
            if (objects := folder.objects()) is not None:
                objects = replace(objects, numbers=_in_memory(objects.numbers))
                notes += [_OLD_OBJECTS] * folder.state.objects_are_old
        except _UNREADABLE as error:
            notes.append(str(error))
    except BaseException:
        folder.close()
        raise
    return OpenedSession(
        folder,
        folder.record(),
        labels,
        saved,
        model,
        checkpoint,
        results,
        objects,
        match,
        differences,
        found,
        before,
        tuple(notes),
        read_summary(path),
    )


def _in_memory(array: Any) -> Any:
    """A numpy array where that fits into the memory; else the array itself, which reads files."""
    return np.asarray(array) if annotation_fits(array.shape) else array


def _take(folder: SessionFolder, volume: Volume, path: Path | None) -> int | None:
    """Take note of an image with other gray values; None for one of another shape."""
    if layout.labels_shape(volume) != folder.annotation.shape:
        return None
    folder.note_image(volume, path)
    return 0


def _note_place(
    folder: SessionFolder, candidate: Candidate | None, found: FoundImage | None
) -> None:
    """Take note of where the image is now; its further channels are looked for beside it."""
    volume, path = candidate or (None, None)
    if found is not None and found.state == "found":
        volume, path = found.volume, found.path
    if volume is not None and path is not None and path.absolute() != folder.record().image_path:
        folder.note_image(volume, path)


def find_match(
    folder: SessionFolder, candidates: Sequence[Candidate]
) -> tuple[int | None, tuple[str, ...]]:
    """Find the annotated image among some; without it, say in what the last of them differs."""
    reasons: tuple[str, ...] = ()
    for index, (volume, path) in enumerate(candidates):
        try:
            reasons = folder.compare(volume, path)
        except (BadInputError, RunFailedError) as error:
            reasons = (str(error),)
        if not reasons:
            return index, ()
    return None, reasons
