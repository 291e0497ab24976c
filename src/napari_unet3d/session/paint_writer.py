"""The thread that brings paint and record of a session to its folder."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numcodecs  # type: ignore[import-untyped]
import numpy as np

from napari_unet3d.data.io.folder_lock import LockLostError
from napari_unet3d.data.io.paint_chunks import Box
from napari_unet3d.session.disk_problems import explain
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.session import SessionRecord
from napari_unet3d.session.writer_thread import WriterThread

_QUIET = 0.15
"""Seconds without a change before a commit: what one action puts one after the other, such as
paint and its mark, comes into the same commit."""
_RETRY = 2.0
"""Seconds between two tries while the disk is full or gone."""
_SETTLING = 0.5
"""Seconds in which commits are brought to their places before new changes are looked at."""
_MOST_QUEUED = 2**26
"""Bytes of paint that wait uncompressed. So many add up only while the disk hangs."""

Part = tuple[Box | None, Any]
"""A box and its labels, maybe compressed; or None and a whole annotation."""


class PaintWriter(WriterThread):
    """Collects paint and records, and commits them in a thread of its own.

    Parameters
    ----------
    folder
        The folder.
    interval
        Seconds from a change to its commit.
    model_follows
        Tells whether a model waits to be written: its name and scores wait for it then.
    """

    def __init__(
        self, folder: SessionFolder, interval: float, model_follows: Callable[[], bool]
    ) -> None:
        super().__init__()
        self._folder, self._interval, self._model_follows = folder, interval, model_follows
        self._parts: list[Part] = []
        self._queued = 0
        self._record: SessionRecord | None = None
        self._known = folder.record()
        self._oldest: float | None = None
        self._newest = 0.0
        self._urgent = False
        self._held = 0
        self._flushes = 0
        self._retry_at = 0.0
        self._busy_since: float | None = None
        self._settled = False
        self._lost = False
        self._problem = ""
        self._codec = numcodecs.Zstd(level=1)
        self._start("session paint")

    def put_labels(self, box: Box, labels: np.ndarray) -> None:
        """Take over the labels of a box."""
        with self._changed:
            content: Any = labels
            if self._queued + labels.nbytes > _MOST_QUEUED:
                content = self._codec.encode(np.ascontiguousarray(labels, np.uint8))
            else:
                self._queued += labels.nbytes
            self._parts.append((box, content))
            self.touch()

    def put_all_labels(self, labels: Any) -> None:
        """Take over a whole annotation."""
        with self._changed:
            self._parts = [(None, labels)]
            self._queued = 0
            self.touch()

    def put_record(self, record: SessionRecord) -> None:
        """Take over a record; changes of marks and classes are committed at once."""
        with self._changed:
            old, self._known = self._known, record
            if record == old:
                return
            self._urgent |= _marks(record) != _marks(old)
            self._record = record
            self.touch()

    def change_record(self, **facts: Any) -> None:
        """Change fields of the newest record, without a commit of their own."""
        with self._changed:
            self._known = self._known.model_copy(update=facts)
            if self._record is not None:
                self._record = self._record.model_copy(update=facts)

    def touch(self) -> None:
        """Ask for a commit."""
        with self._changed:
            self._newest = time.monotonic()
            if self._oldest is None:
                self._oldest = self._newest
            self._changed.notify_all()

    def hold(self, n: int) -> None:
        """Put off commits (1), or take that back (-1)."""
        with self._changed:
            self._held += n
            self._changed.notify_all()

    def waiting_since(self) -> float | None:
        """When the oldest change came that is not on the disk (`time.monotonic`)."""
        with self._changed:
            return self._oldest

    def busy_since(self) -> float | None:
        """When the thread began to wait for the disk; None while it does not."""
        return self._busy_since

    def problem(self) -> str:
        """What keeps changes from being written; "" when nothing does."""
        return self._problem

    def flush(self, timeout: float) -> bool:
        """Commit now; return whether all is on the disk after at most `timeout` seconds."""
        with self._changed:
            self._flushes += 1
            self._retry_at = 0.0
            self._changed.notify_all()
            try:
                return (
                    self._changed.wait_for(lambda: self._oldest is None or self._lost, timeout)
                    and not self._lost
                )
            finally:
                self._flushes -= 1

    # ---- inside

    def _turn(self) -> bool:
        turn = self._next_turn()
        if turn is None:
            return False
        failed: list[Part] = []
        try:
            self._carry_out(turn, failed)
        except Exception as error:
            self._note_failure(error, failed)
        else:
            self._note_success(turn)
        return True

    def _next_turn(self) -> _Turn | None:
        """Wait until something is to be done; None at the end."""
        with self._changed:
            self._busy_since = None
            while not self._ending:
                moment = time.monotonic()
                due = self._due()
                if due is not None and due <= moment:
                    turn = _Turn(self._parts, self._record, moment)
                    self._parts, self._record, self._queued = [], None, 0
                    self._urgent = False
                    self._busy_since = moment
                    return turn
                settle_at = None if self._settled or self._lost else self._retry_at
                if settle_at is not None and settle_at <= moment:
                    self._busy_since = moment
                    return _Turn([], None, None)
                moments = [m for m in (due, settle_at) if m is not None]
                self._changed.wait(min(moments) - moment if moments else None)
            return None

    def _due(self) -> float | None:
        """When the next commit is due; None while nothing changed."""
        if self._oldest is None or self._held or self._lost:
            return None
        if self._flushes:
            return self._retry_at
        quiet = self._newest + _QUIET
        latest = self._oldest + self._interval
        due = min(quiet, latest) if self._urgent else max(latest, min(quiet, latest + _QUIET))
        return max(due, self._retry_at)

    def _carry_out(self, turn: _Turn, failed: list[Part]) -> None:
        if turn.moment is None:
            settled = self._folder.settle(_SETTLING)
            with self._changed:
                self._settled = settled
            return
        first: Exception | None = None
        for box, content in turn.parts:
            try:
                self._fold(box, content)
            except Exception as error:
                first = first or error
                failed.append((box, content))
        if turn.record is not None:
            self._folder.set_record(turn.record)
        self._folder.commit(model_follows=self._model_follows())
        with self._changed:
            self._settled = False
        if first is not None:
            raise first

    def _fold(self, box: Box | None, content: Any) -> None:
        if box is None:
            self._folder.fold_all(content)
            return
        if isinstance(content, bytes):
            content = np.frombuffer(self._codec.decode(content), np.uint8)
        self._folder.fold(box, content)

    def _note_success(self, turn: _Turn) -> None:
        with self._changed:
            self._problem = ""
            self._retry_at = 0.0
            if turn.moment is not None:
                waits = bool(self._parts) or self._record is not None
                self._oldest = turn.moment if waits else None
            self._changed.notify_all()

    def _note_failure(self, error: Exception, failed: list[Part]) -> None:
        with self._changed:
            self._parts[:0] = failed
            self._retry_at = time.monotonic() + _RETRY
            self._lost = isinstance(error, LockLostError)
            self._problem = explain(error, self._folder.path)
            if not self._lost:
                self._problem += (
                    " What you paint is kept in memory, and saved as soon as that is possible."
                )
            self._changed.notify_all()


class _Turn:
    """What the thread does next: commit parts and record; without a moment, settle."""

    def __init__(
        self, parts: list[Part], record: SessionRecord | None, moment: float | None
    ) -> None:
        self.parts, self.record, self.moment = parts, record, moment


def _marks(record: SessionRecord) -> tuple[Any, ...]:
    return record.held_out, record.accepted, record.classes
