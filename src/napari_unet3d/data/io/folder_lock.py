"""A lock on a folder, which one program holds at a time.

The system's own lock of a file decides, because it ends with its process, whatever ends that. Not
every share passes such locks on to other computers. So the file also tells who holds it, and the
holder renews its time every few seconds: another computer whose lock is fresh is believed.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import getpass
import json
import os
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from napari_unet3d.data.io.leftovers import host_name, is_alive
from napari_unet3d.errors import BadInputError, RunFailedError

NAME = "lock"
_RENEWED = 20.0
"""Seconds between two signs of life; often enough for `_STALE`, and no load on a share."""
_STALE = 90.0
"""Seconds without a sign of life after which the lock of another computer counts for nothing: four
signs were missed."""
_PATIENCE = 0.2
"""Seconds between two tries of a caller that waits."""
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)
_LOCKED_BYTE = 2**30
"""Windows locks bytes for readers, too, so one far behind the text is locked."""


class LockLostError(RunFailedError):
    """The folder is held by another program now."""


class FolderLock:
    """Holds a folder until `release`.

    Parameters
    ----------
    folder
        The folder, which exists and can be written to.
    holder
        Name of the program, for messages.
    wait
        Wait until the folder is free, instead of raising.

    Raises
    ------
    BadInputError
        Another program holds the folder; the text says which one, since when, and what to do.
    OSError
        The lock file cannot be written.
    """

    def __init__(self, folder: Path, holder: str = "napari", *, wait: bool = False) -> None:
        self._folder, self._path = folder, folder / NAME
        self._token = uuid.uuid4().hex
        self._holder = holder
        self._since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        self._file: int | None = None
        while True:
            try:
                self._acquire()
                break
            except BadInputError:
                if not wait:
                    raise
                time.sleep(_PATIENCE)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._stay, name="session lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Make sure that the folder is still held, also after its disk was away.

        Raises
        ------
        LockLostError
            Another program took the folder over.
        OSError
            The lock file cannot be reached.
        """
        if self._ended.is_set():
            raise LockLostError(f"'{self._folder}' was closed.")
        if self._folder.is_dir() and not self._path.exists():  # somebody tidied up
            self._let_go()
            self._acquire()
            return
        if read_holder(self._path, missing_ok=False).get("token") != self._token:
            raise LockLostError(
                f"'{self._folder}' was opened by another program meanwhile "
                f"({describe(read_holder(self._path))}), which goes on with it. Save your work in "
                "another folder."
            )
        if self._file is None or not _same_file(self._file, self._path):  # its disk was away
            fresh = _open(self._path)
            if _try_to_lock(fresh) is False:
                os.close(fresh)
                raise LockLostError(f"'{self._folder}' is held by another program now.")
            self._let_go()
            self._file = fresh

    def release(self) -> None:
        """Let the folder go. Never raises."""
        if self._ended.is_set():
            return
        self._ended.set()
        self._thread.join(_PATIENCE)
        with contextlib.suppress(OSError):
            if read_holder(self._path).get("token") == self._token:
                os.truncate(self._path, 0)
        self._let_go()

    def _let_go(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None

    def _acquire(self) -> None:
        file = _open(self._path)
        try:
            free = _try_to_lock(file)
            there = read_holder(self._path)
            if free is None:  # the system has no locks here
                free = not (there.get("host") == host_name() and is_alive(int(there.get("pid", 0))))
            elsewhere = there.get("host") not in (None, host_name())
            if not free or (elsewhere and _age(self._path) < _STALE):
                wait = f", or wait {_STALE:.0f} s if that computer is off" if elsewhere else ""
                raise BadInputError(
                    f"'{self._folder}' is open in {describe(there)}. Close it there first{wait}."
                )
            self._write(file)
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def _write(self, file: int) -> None:
        holder = {
            "token": self._token,
            "program": self._holder,
            "host": host_name(),
            "pid": os.getpid(),
            "user": _user(),
            "since": self._since,
        }
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        os.write(file, json.dumps(holder).encode())
        with contextlib.suppress(OSError):
            os.fsync(file)

    def _stay(self) -> None:
        """Renew the time of the lock file until it is released."""
        while not self._ended.wait(_RENEWED):
            with contextlib.suppress(OSError):
                if read_holder(self._path).get("token") == self._token:
                    os.utime(self._path)


def holder_of(folder: Path) -> str:
    """Say which program holds a folder, as in "napari (process 12, since 14:03)"; "" if none.

    Nothing is changed, and the answer may be wrong a moment later.
    """
    path = folder / NAME
    there = read_holder(path)
    if not there:
        return ""
    if there.get("host") == host_name():
        return describe(there) if is_alive(int(there.get("pid", 0))) else ""
    return describe(there) if _age(path) < _STALE else ""


def describe(holder: dict[str, Any]) -> str:
    """Words for what a lock file holds."""
    if not holder:
        return "another program"
    since = str(holder.get("since", ""))
    with contextlib.suppress(ValueError):
        moment = datetime.datetime.fromisoformat(since).astimezone()
        today = moment.date() == datetime.date.today()
        since = f"{moment:%H:%M}" if today else f"{moment:%Y-%m-%d %H:%M}"
    parts = [f"process {holder.get('pid')}"]
    if holder.get("host") != host_name():
        where = str(holder.get("host", "")).rpartition("_")[0] or "another computer"
        parts = [f"on the computer '{where}'", f"user {holder.get('user')}"]
    return f"{holder.get('program', 'another program')} ({', '.join(parts)}, since {since})"


def read_holder(path: Path, *, missing_ok: bool = True) -> dict[str, Any]:
    """What a lock file holds; empty when nobody holds it.

    Raises
    ------
    OSError
        It cannot be read, unless `missing_ok`.
    """
    try:
        holder = json.loads(path.read_bytes() or b"{}")
    except ValueError:
        return {}
    except OSError:
        if not missing_ok:
            raise
        return {}
    return holder if isinstance(holder, dict) else {}


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)


def _try_to_lock(file: int) -> bool | None:
    """Lock an open file; False when another one holds it, None where there are no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
            try:
                msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            except OSError:
                return False
            finally:
                os.lseek(file, 0, os.SEEK_SET)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _age(path: Path) -> float:
    """Seconds since a lock was renewed, by the clock of the disk: computers disagree."""
    probe = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        probe.touch()
        now = probe.stat().st_mtime
        return now - path.stat().st_mtime
    except OSError:
        with contextlib.suppress(OSError):
            return time.time() - path.stat().st_mtime
        return 0.0
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _same_file(file: int, path: Path) -> bool:
    try:
        there, held = path.stat(), os.fstat(file)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
