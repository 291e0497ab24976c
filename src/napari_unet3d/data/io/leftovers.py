"""Temporary names that tell who made them, and the leftovers of dead processes under such names.

An output has a temporary name until it is complete: ``.NAME.MAKER.partial``. A folder that is
replaced is ``.NAME.MAKER.old`` for a moment. MAKER names the computer and the process, so that
the next run that writes NAME can tell what nobody will finish any more.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import socket
import sys
import uuid
from functools import cache, lru_cache
from pathlib import Path

import psutil

_log = logging.getLogger(__name__)
PARTIAL, OLD = ".partial", ".old"
_MOST_BYTES = 255
"""Bytes of a file name that Linux, macOS and Windows allow (Windows counts characters)."""
_TAG_BYTES = 60
"""Bytes of a temporary name that do not stand for the output: dots, maker and ending."""
_FIRST_NAMESPACE = 0xEFFFFFFC
"""Linux's number of the process namespace outside of all containers."""
_MAKER = re.compile(r"(?P<host>[^.]+)-(?P<pid>\d+)-[0-9a-f]{8}")


def most_name_bytes(folder: Path) -> int:
    """Bytes that the name of a file in `folder` may have."""
    try:
        return min(_MOST_BYTES, os.pathconf(folder, "PC_NAME_MAX"))
    except (AttributeError, ValueError, OSError):  # Windows; a folder that is not there
        return _MOST_BYTES


def temporary_path(target: Path) -> Path:
    """A new temporary name for `target`, in the same folder."""
    maker = f"{host_name()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return target.with_name(f".{_key(target)}.{maker}{PARTIAL}")


def old_path(temporary: Path) -> Path:
    """The name of the older folder while the one at `temporary` takes its place."""
    return temporary.with_suffix(OLD)


def clear_leftovers(target: Path) -> None:
    """Remove the leftovers of dead processes of this computer that were writing `target`.

    A replacement that was interrupted between its two steps is completed first. What belongs
    to a living process or to another computer stays, and the log says so.
    """
    restore(target)
    for path, state in _leftovers(target):
        if state == "dead":
            remove(path)
        elif state == "alive":
            _warn_once(f"Another process is writing '{target}', too (into '{path.name}').")
        elif state == "elsewhere":
            _warn_once(
                f"'{path}' is being written by another computer, or was left by one. Remove it "
                f"if no run writes '{target.name}' any more."
            )


def restore(target: Path) -> None:
    """Give `target` its name back where a process died between the two steps of replacing it.

    The new folder was complete then. Where it is gone, the older one gets its name back.
    """
    if os.path.islink(target):
        target = Path(os.path.realpath(target))
    if os.path.lexists(target):
        return
    for old, state in _leftovers(target):
        if old.suffix != OLD or state != "dead":
            continue
        new = old.with_suffix(PARTIAL)
        source = new if new.is_dir() else old
        try:
            os.rename(source, target)
        except OSError as error:
            _log.warning(
                "'%s' was about to be replaced when its run ended. It is in '%s', which cannot "
                "be renamed (%s).",
                target,
                source,
                error.strerror or error,
            )
            return
        _log.warning(
            "An earlier run ended before '%s' had its name. %s.",
            target,
            "Its result was complete and is there now"
            if source == new
            else "The older one is there again",
        )
        remove(old)
        return


def remove(path: Path) -> None:
    """Remove a file or a folder; never raises. What cannot be removed is named in the log."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError:
        pass
    if os.path.lexists(path):
        _log.warning("'%s' cannot be removed. It is not needed any more: remove it.", path)


@lru_cache(maxsize=256)
def _warn_once(text: str) -> None:
    """Log `text`, unless it was logged already: an output is looked at twice before a run."""
    _log.warning("%s", text)


def _leftovers(target: Path) -> list[tuple[Path, str]]:
    """Temporary paths of `target`: "dead", "alive", "ours" or "elsewhere"."""
    start = f".{_key(target)}."
    try:
        with os.scandir(target.parent) as entries:
            names = sorted(e.name for e in entries if e.name.startswith(start))
    except OSError:
        return []
    leftovers = []
    for name in names:
        path = target.with_name(name)
        maker = _MAKER.fullmatch(name[len(start) : -len(path.suffix)])
        if path.suffix in (PARTIAL, OLD) and maker:
            leftovers.append((path, _state(maker["host"], int(maker["pid"]))))
    return leftovers


def _state(host: str, pid: int) -> str:
    if host != host_name():
        return "elsewhere"
    if pid == os.getpid():
        return "ours"
    return "alive" if is_alive(pid) else "dead"


def is_alive(pid: int) -> bool:
    """Whether a process of this computer, or of this container, is still running."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except (psutil.NoSuchProcess, ValueError):
        return False
    except psutil.Error:  # it is there, and may not be asked
        return True


def _key(target: Path) -> str:
    """The name, shortened where the temporary name would become too long."""
    name = target.name
    room = most_name_bytes(target.parent) - _TAG_BYTES
    data = os.fsencode(name)
    if len(data) <= room:
        return name
    digest = hashlib.sha256(data).hexdigest()[:12]
    return f"{data[: room - 13].decode('utf-8', 'ignore')}~{digest}"


@cache
def host_name() -> str:
    """Name the computer or container, within which process numbers mean something."""
    name = socket.gethostname()
    parts = [name]
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            namespace = os.stat("/proc/self/ns/pid").st_ino
            parts.append("" if namespace == _FIRST_NAMESPACE else str(namespace))
        with contextlib.suppress(OSError, ValueError):
            parts.append(Path("/etc/machine-id").read_text().strip())
    else:
        parts.append(str(uuid.getnode()))
    readable = re.sub(r"[^A-Za-z0-9]", "", name.partition(".")[0])[:12] or "host"
    return f"{readable}_{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:6]}"
