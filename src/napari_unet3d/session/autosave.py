"""Writes a session while the user works: in threads, and never more than seconds behind."""

from __future__ import annotations

import atexit
import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.io.paint_chunks import Box
from napari_unet3d.data.slice_summary import StackSummary
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import HeldOutScores
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.file_writer import FileWriter
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.paint_writer import PaintWriter
from napari_unet3d.session.session import NamedModel, SessionRecord
from napari_unet3d.session.stored_results import KnownObjects
from napari_unet3d.session.summary_file import write_summary

INTERVAL = 2.0
"""Seconds between two commits: a fifth of what may be lost, and few writes while painting."""
_HANGS = 10.0
"""Seconds of waiting for one answer of the disk after which the user is told."""
_END = 5.0
"""Seconds that a thread gets to end; one that hangs in the system ends with the program."""


class AutoSaver:
    """Brings the changes of a session to its folder, in the background.

    What is put is taken over at once, and written within `interval` seconds. The newest state of a
    voxel, of the record, of a file counts; older ones that were not written yet are skipped. While
    the disk is full or gone, everything stays in memory: of the paint one compressed state of each
    chunk, of model, checkpoint and each result the newest. Writing goes on by itself.

    There are two threads: paint and record must not wait for a result of a gigabyte. No method
    but `flush` and `close` waits for the disk.

    Parameters
    ----------
    folder
        The folder, which belongs to the saver from now on: `close` closes it.
    interval
        Seconds from a change to its commit.
    """

    def __init__(self, folder: SessionFolder, *, interval: float = INTERVAL) -> None:
        self.folder = folder
        self._files = FileWriter(folder.path, self._file_written)
        self._paint = PaintWriter(folder, interval, lambda: self._files.waits("model"))
        self._closed: bool | None = None
        atexit.register(self.close)

    def put_labels(self, box: Box, labels: np.ndarray) -> None:
        """Take over labels that changed.

        Parameters
        ----------
        box
            First index, and one past the last, along each axis of the annotation (ZYX or TZYX).
        labels
            A copy of the labels in the box, in its shape, which nobody changes any more.
        """
        self._paint.put_labels(box, labels)

    def put_all_labels(self, labels: Any) -> None:
        """Take over a whole annotation, which a plugin or program changed in unknown places.

        It is read in the background. What is painted meanwhile must be put as well.
        """
        self._paint.put_all_labels(labels)

    def put_record(self, record: SessionRecord) -> None:
        """Take over a record; changes of marks and classes are written at once."""
        self._paint.put_record(record)

    def put_model(self, model: NamedModel, scores: HeldOutScores | None = None) -> None:
        """Take over the current model and its scores, and drop the checkpoint.

        Records that are put later tell of this model, earlier ones of the older model.
        """
        self._paint.change_record(model_name=model.name, model_path=None, scores=scores)
        self._files.drop("checkpoint")

        def write() -> None:
            self.folder.write_model(model, scores)
            self.folder.drop_checkpoint()

        self._files.put("model", write)

    def put_checkpoint(self, bundle: ModelBundle) -> None:
        """Take over the model of a running training."""
        self._files.put("checkpoint", lambda: self.folder.write_checkpoint(bundle))

    def drop_checkpoint(self) -> None:
        """Remove the checkpoint: its training was cancelled."""
        self._files.put("checkpoint", self.folder.drop_checkpoint)

    def put_result(
        self,
        name: str,
        array: Any,
        *,
        classes: Sequence[ClassInfo] = (),
        channel_names: Sequence[str] = (),
    ) -> None:
        """Take over a result, as `SessionFolder.write_result`; it must not change any more."""

        def write() -> None:
            self.folder.write_result(name, array, classes=classes, channel_names=channel_names)

        self._files.put(f"result {name}", write)

    def put_objects(self, objects: KnownObjects) -> None:
        """Take over numbered objects and their table; the numbers must not change any more."""
        self._files.put("objects", lambda: self.folder.write_objects(objects))

    def put_summary(self, summary: StackSummary) -> None:
        """Take over what a prediction says about each slice."""
        self._files.put("summary", lambda: write_summary(self.folder.path, summary))

    def put_image(self, volume: Volume) -> bool:
        """Copy an image that is in no file; return whether it is small enough for that."""
        if not self.folder.wants_image(volume):
            return False
        self._files.put("image", lambda: self.folder.write_image(volume))
        return True

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Let all paint and records that are put within the block come into one commit."""
        self._paint.hold(1)
        try:
            yield
        finally:
            self._paint.hold(-1)

    @property
    def saved_at(self) -> float:
        """Last moment (`time.monotonic`) at which all that had been put was on the disk."""
        waiting = (self._paint.waiting_since(), self._files.waiting_since())
        return min((since for since in waiting if since is not None), default=time.monotonic())

    def problem(self) -> str:
        """Say what keeps the session from being saved, and the cure; "" when all is well."""
        paint, files = self._paint.problem(), self._files.problem()
        if files in paint:  # the disk is full for both
            files = ""
        if text := " ".join(filter(None, (paint, files))):
            return text
        since = self._paint.busy_since()
        if since is not None and (seconds := time.monotonic() - since) > _HANGS:
            return (
                f"The disk of '{self.folder.path}' has not answered for {seconds:.0f} s. Your work "
                "is kept in memory, and saved as soon as the disk answers."
            )
        return ""

    def flush(self, timeout: float = 10.0) -> bool:
        """Write all that was put; return whether it is on the disk after at most `timeout` s."""
        end = time.monotonic() + timeout
        paint = self._paint.flush(timeout)
        files = self._files.flush(max(0.0, end - time.monotonic()))
        # A model that was written now lets its name and scores be written.
        return paint and files and self._paint.flush(max(0.0, end - time.monotonic()))

    def close(self, timeout: float = 30.0) -> bool:
        """Write all that was put, and close the folder; return whether everything is on the disk.

        A second call does nothing but answer.
        """
        if self._closed is None:
            atexit.unregister(self.close)
            saved = self.flush(timeout)
            self._files.stop(_END)
            self._paint.stop(_END)
            try:
                self.folder.close()
            except Exception:  # `problem` tells; the folder can be opened again all the same
                saved = False
            self._closed = saved
        return self._closed

    def _file_written(self) -> None:
        self._paint.touch()
