"""The thread that writes the large files of a session: model, checkpoint, results, image."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from napari_unet3d.data.io.folder_lock import LockLostError
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.session.disk_problems import explain
from napari_unet3d.session.writer_thread import WriterThread

_RETRY = 5.0
"""Seconds between two tries while the disk is full or gone: a try may write a gigabyte."""

Work = Callable[[], None]


class FileWriter(WriterThread):
    """Carries out pieces of work one by one, in a thread of its own; of each kind the newest.

    Parameters
    ----------
    path
        The session folder, for messages.
    done
        Called in the thread after a piece of work.
    """

    def __init__(self, path: Path, done: Work) -> None:
        super().__init__()
        self._path, self._done = path, done
        self._works: dict[str, tuple[float, Work]] = {}
        self._retry_at = 0.0
        self._problems: dict[str, str] = {}
        self._lost = False
        self._start("session files")

    def put(self, kind: str, work: Work) -> None:
        """Carry out a piece of work; it takes the place of one of its kind that waits."""
        with self._changed:
            since, _ = self._works.get(kind, (time.monotonic(), work))
            self._works[kind] = since, work
            self._changed.notify_all()

    def drop(self, kind: str) -> None:
        """Forget a piece of work that waits."""
        with self._changed:
            self._works.pop(kind, None)
            self._problems.pop(kind, None)
            self._changed.notify_all()

    def waits(self, kind: str) -> bool:
        """Whether a piece of work of this kind is not done yet."""
        with self._changed:
            return kind in self._works

    def waiting_since(self) -> float | None:
        """When the oldest piece of work came that is not done (`time.monotonic`)."""
        with self._changed:
            return min((since for since, _ in self._works.values()), default=None)

    def problem(self) -> str:
        """What keeps files from being written; "" when nothing does."""
        with self._changed:
            return " ".join(dict.fromkeys(self._problems.values()))

    def flush(self, timeout: float) -> bool:
        """Return whether all is done after at most `timeout` seconds."""
        with self._changed:
            self._retry_at = 0.0
            self._changed.notify_all()
            return (
                self._changed.wait_for(lambda: not self._works or self._lost, timeout)
                and not self._lost
            )

    def _turn(self) -> bool:
        entry = self._next()
        if entry is None:
            return False
        kind, work = entry
        try:
            work()
        except Exception as error:
            self._note_failure(kind, work, error)
            return True
        with self._changed:
            self._problems.pop(kind, None)
            current = self._works.get(kind)
            if current is not None and current[1] is work:
                del self._works[kind]
            self._changed.notify_all()
        self._done()
        return True

    def _note_failure(self, kind: str, work: Work, error: Exception) -> None:
        """Try work again, after the other work, if the disk was at fault; else drop it."""
        with self._changed:
            self._retry_at = time.monotonic() + _RETRY
            self._lost = isinstance(error, LockLostError)
            self._problems[kind] = explain(error, self._path)
            entry = self._works.pop(kind, None)
            again = isinstance(error, OSError | BadInputError | RunFailedError)
            if entry is not None and (again or entry[1] is not work):
                self._works[kind] = entry
            self._changed.notify_all()

    def _next(self) -> tuple[str, Work] | None:
        """Wait for a piece of work; None at the end."""
        with self._changed:
            while not self._ending:
                moment = time.monotonic()
                if self._works and not self._lost and self._retry_at <= moment:
                    kind, (_, work) = next(iter(self._works.items()))
                    return kind, work
                waits = self._works and not self._lost
                self._changed.wait(self._retry_at - moment if waits else None)
            return None
