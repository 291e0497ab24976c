"""Checks, before a long run, that a path can be written and replaced."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from napari_unet3d.data.io.leftovers import clear_leftovers, most_name_bytes, remove, temporary_path
from napari_unet3d.data.io.paths import user_path
from napari_unet3d.errors import BadInputError

_GET_FLAGS = 0x80086601
"""Linux's request for the flags that `chattr` sets (FS_IOC_GETFLAGS)."""
_IMMUTABLE_OR_APPEND = 0x10 | 0x20


def check_target(
    path: str | os.PathLike[str], *, folder: bool = False, overwrite: bool = True
) -> Path:
    """Find out whether `path` can be written and replaced, by trying all that can be tried.

    Leftovers of dead processes are removed first.

    Returns
    -------
    Path
        The true path, with links followed.

    Raises
    ------
    BadInputError
        Its folder is missing or cannot be written to; its name is too long; there is
        something that may not or cannot be replaced.
    """
    try:
        target = follow_link(path)
        _check_name(target)
        _check_folder(target, folder)
        clear_leftovers(target)
        _check_existing(Path(path), target, folder, overwrite)
    except OSError as error:
        raise BadInputError(
            f"'{path}' cannot be written ({error.strerror or error}). Choose another name."
        ) from error
    return target


def follow_link(path: str | os.PathLike[str]) -> Path:
    """The place that `path` stands for, with ``~`` and symbolic links followed.

    Raises
    ------
    BadInputError
        There is no such user, or the link leads to itself.
    """
    target = user_path(path)
    if not os.path.islink(target):
        try:
            return target.absolute()
        except OSError as error:
            raise BadInputError(
                f"'{path}' lies in the current folder, which is gone. Write the whole path."
            ) from error
    try:
        return target.resolve()
    except (OSError, RuntimeError) as error:
        raise BadInputError(
            f"'{path}' is a link that leads back to itself. Choose another name."
        ) from error


def _check_name(target: Path) -> None:
    length, most = len(os.fsencode(target.name)), most_name_bytes(target.parent)
    if length > most:
        raise BadInputError(
            f"The name '{target.name[:40]}…' has {length} bytes; {most} are possible here. Choose "
            "a shorter one."
        )


def _check_folder(target: Path, folder: bool) -> None:
    parent = target.parent
    if not parent.is_dir():
        raise BadInputError(f"There is no folder '{parent}'. Make it, or choose another one.")
    probe, renamed = temporary_path(target), temporary_path(target)
    try:
        if folder:
            probe.mkdir()
        else:
            probe.touch()
        os.rename(probe, renamed)
        if folder:
            renamed.rmdir()
        else:
            renamed.unlink()
    except OSError as error:
        remove(probe)
        remove(renamed)
        raise BadInputError(
            f"The folder '{parent}' cannot be written to ({error.strerror or error}). Choose "
            "another one, or change its permissions."
        ) from error


def _check_existing(path: Path, target: Path, folder: bool, overwrite: bool) -> None:
    try:
        there = target.lstat()
    except FileNotFoundError:
        return
    if folder and not stat.S_ISDIR(there.st_mode):
        raise BadInputError(f"'{path}' is there and is no folder. Choose another name.")
    if not folder and stat.S_ISDIR(there.st_mode):
        raise BadInputError(f"'{path}' is a folder. Choose the name of a file.")
    if not folder and not stat.S_ISREG(there.st_mode):
        raise BadInputError(f"'{path}' is no ordinary file. Choose another name.")
    if not overwrite and not (folder and not any(target.iterdir())):
        raise BadInputError(
            f"There is a '{path}' already. Choose another name, or allow it to be replaced "
            "(--overwrite on the command line, overwrite=True in Python)."
        )
    if reason := _why_not_replaceable(target, there):
        raise BadInputError(f"'{path}' is there and {reason}. Choose another name.")


def _why_not_replaceable(target: Path, there: os.stat_result) -> str:
    """Why the system will refuse to replace or remove `target`; "" when it will not."""
    if not there.st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        return "is read-only"
    if _is_immutable(target, there):
        return "is protected against changes (chattr +i, chflags uchg)"
    if hasattr(os, "geteuid") and (user := os.geteuid()) != 0:
        parent = target.parent.stat()
        if parent.st_mode & stat.S_ISVTX and user not in (parent.st_uid, there.st_uid):
            return "belongs to another user, in a folder where only its owner may replace it"
    # The user that counts is the effective one, where the system can be asked about that one.
    effective = os.access in os.supports_effective_ids
    if stat.S_ISDIR(there.st_mode) and not os.access(
        target, os.W_OK | os.X_OK, effective_ids=effective
    ):
        return "belongs to another user, who alone may remove what is in it"
    return ""


def _is_immutable(target: Path, there: os.stat_result) -> bool:
    flags = getattr(there, "st_flags", 0)  # macOS and BSD
    unchangeable = stat.UF_IMMUTABLE | stat.UF_APPEND | stat.SF_IMMUTABLE | stat.SF_APPEND
    if flags & unchangeable:
        return True
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        file = os.open(target, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        answer = fcntl.ioctl(file, _GET_FLAGS, bytes(8))
    except OSError:  # not every file system has them
        return False
    finally:
        os.close(file)
    return bool(int.from_bytes(answer, sys.byteorder) & _IMMUTABLE_OR_APPEND)
