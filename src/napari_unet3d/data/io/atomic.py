"""Files and folders that get their name when they are complete, or not at all.

Every output of the package is written through `Replacement`: under a temporary name beside its
place, then checked, written through to the disk and renamed. Whatever happens, nothing half
written has the final name, and what was there before is not destroyed by a failure.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from napari_unet3d.data.io.leftovers import (
    clear_leftovers,
    most_name_bytes,
    old_path,
    remove,
    temporary_path,
)
from napari_unet3d.data.io.paths import user_path
from napari_unet3d.errors import BadInputError, RunFailedError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_SUCH_CALL = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM)
"""What systems answer that cannot write a file or folder through to the disk."""
_GET_FLAGS = 0x80086601
"""Linux's request for the flags that `chattr` sets (FS_IOC_GETFLAGS)."""
_IMMUTABLE_OR_APPEND = 0x10 | 0x20
_ENDINGS = (".ome.tif", ".ome.tiff", ".ome.zarr")

Stamp = tuple[int, int, int] | None


class KeptElsewhereError(RunFailedError):
    """The result is complete but could not get its name; `kept` is where it is."""

    def __init__(self, text: str, kept: Path) -> None:
        super().__init__(text)
        self.kept = kept


class Replacement:
    """A file or folder that gets the name `path` once it is complete.

    Parameters
    ----------
    path
        The final name. A symbolic link is followed: its target is replaced, the link stays.
    folder
        Whether it is a folder.
    overwrite
        Whether what is there at the beginning may be replaced. What appears at `path` later is
        never replaced.

    Attributes
    ----------
    temporary
        Where to write until `commit`.

    Raises
    ------
    BadInputError
        As `check_target`.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, folder: bool = False, overwrite: bool = True
    ) -> None:
        self.path = user_path(path)
        self._target = check_target(path, folder=folder, overwrite=overwrite)
        self._before = _stamp(self._target)
        self.temporary = temporary_path(self._target)
        self._done = False

    def write(self, data: bytes) -> None:
        """Write all of a file and give it its name.

        Raises
        ------
        RunFailedError, KeptElsewhereError
            As `commit`.
        """
        try:
            self.temporary.write_bytes(data)
            self.commit()
        except OSError as error:
            raise failure(error, self.path) from error
        finally:
            self.discard()

    def commit(self) -> None:
        """Give it its name.

        Raises
        ------
        RunFailedError
            It was removed meanwhile, or the disk is full.
        KeptElsewhereError
            Something has appeared at `path`, or what was there cannot be replaced: the
            result has another name.
        """
        try:
            _sync_all(self.temporary)
        except FileNotFoundError as error:
            raise self._gone() from error
        except OSError as error:
            raise failure(error, self.path) from error
        now = _stamp(self._target)
        if now is not None and now != self._before:
            raise self._keep(
                f"Something else has appeared as '{self.path}' meanwhile; it was not touched"
            )
        try:
            if now is None:
                _move(self.temporary, self._target)
            elif stat.S_ISDIR(now[0]):
                self._swap(now)
            else:
                os.replace(self.temporary, self._target)
        except FileExistsError as error:
            raise self._keep(
                f"Something else has appeared as '{self.path}' meanwhile; it was not touched"
            ) from error
        except OSError as error:
            if not os.path.lexists(self.temporary):
                raise self._gone() from error
            raise self._keep(
                f"'{self.path}' cannot be replaced ({error.strerror or error})"
            ) from error
        self._done = True
        _sync_folder(self._target.parent)

    def discard(self) -> None:
        """Remove what is not complete; does nothing after `commit`. Never raises."""
        if not self._done:
            self._done = True
            remove(self.temporary)

    def _swap(self, expected: Stamp) -> None:
        """Put the new folder in the place of the older one: no system does that in one step."""
        old = old_path(self.temporary)
        os.rename(self._target, old)
        try:
            if _stamp(old) != expected:  # replaced by another program in this very moment
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            _move(self.temporary, self._target)
        except BaseException:
            if not os.path.lexists(self._target):
                os.rename(old, self._target)
            raise
        self._done = True
        _sync_folder(self._target.parent)
        remove(old)

    def _keep(self, reason: str) -> KeptElsewhereError:
        """Give the complete result another name, and say so."""
        self._done = True
        for name in _other_names(self._target):
            kept = self._target.with_name(name)
            try:
                _move(self.temporary, kept)
            except FileExistsError:
                continue
            except OSError:
                return KeptElsewhereError(
                    f"{reason}. The complete result is in '{self.temporary}': rename it before "
                    "you write it again.",
                    self.temporary,
                )
            _sync_folder(kept.parent)
            return KeptElsewhereError(
                f"{reason}. The complete result has another name: '{kept}'.", kept
            )
        raise AssertionError("there is always another name")

    def _gone(self) -> RunFailedError:
        return RunFailedError(
            f"'{self.path}' was not written: its temporary '{self.temporary.name}' was removed "
            "while it was being written. Leave such names alone, and write it again."
        )


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


def failure(error: OSError, path: Path, needed: str = "") -> RunFailedError:
    """What the system said while `path` was written, in words."""
    needs = f": it needs {needed}" if needed else ""
    if error.errno in _FULL:
        return RunFailedError(
            f"{path} could not be written, since the disk got full{needs}. Free some space, or "
            "write to another disk."
        )
    if error.errno == errno.EFBIG:
        return RunFailedError(
            f"{path} could not be written, since files may not become that large here{needs}. "
            "Raise the limit of this session (ulimit -f), or write to another disk."
        )
    return RunFailedError(f"{path} could not be written ({error.strerror or error}).")


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


def _stamp(path: Path) -> Stamp:
    """What tells one file or folder from another that is put into its place."""
    try:
        found = path.lstat()
    except OSError:
        return None
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return stat.S_IFMT(found.st_mode), found.st_mtime_ns, size


def _move(source: Path, target: Path) -> None:
    """Rename; FileExistsError, not a replacement, when there is something."""
    if os.name != "nt" and not source.is_dir():
        try:
            os.link(source, target)  # the only such renaming that cannot be raced
        except FileExistsError:
            raise
        except OSError:  # not every file system has links
            pass
        else:
            remove(source)
            return
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)


def _other_names(target: Path) -> Iterator[str]:
    """Names like that of `target`: ``a-1.ome.tif``, ``a-2.ome.tif`` and so on."""
    name = target.name
    ending = next((e for e in _ENDINGS if name.lower().endswith(e)), target.suffix)
    ending = name[len(name) - len(ending) :]
    stem = os.fsencode(name[: len(name) - len(ending)])
    number = 0
    while True:
        number += 1
        tail = f"-{number}{ending}"
        room = most_name_bytes(target.parent) - len(os.fsencode(tail))
        yield stem[:room].decode("utf-8", "ignore") + tail


def _sync_all(path: Path) -> None:
    """Write a file, or all that is in a folder, through to the disk."""
    if path.is_dir():
        for folder, _, names in os.walk(path):
            for name in names:
                _sync(Path(folder, name))
            _sync(Path(folder))
    else:
        _sync(path)


def _sync_folder(path: Path) -> None:
    """Write the new name through; the file has it already, whatever the system answers."""
    with contextlib.suppress(OSError):
        _sync(path)


def _sync(path: Path) -> None:
    try:
        # Windows can do it for files that are open for writing only, and for no folder.
        mode = os.O_RDWR if os.name == "nt" else os.O_RDONLY
        file = os.open(path, mode)
        try:
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        if error.errno not in _NO_SUCH_CALL:
            raise
