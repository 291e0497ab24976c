"""Files and folders that get their name when they are complete, or not at all.

Every output of the package is written through `Replacement`: under a temporary name beside its
place, then checked, written through to the disk and renamed. Whatever happens, nothing half
written has the final name, and a failure destroys no older file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from napari_unet3d.data.io.leftovers import (
    most_name_bytes,
    old_path,
    remove,
    temporary_path,
)
from napari_unet3d.data.io.paths import user_path
from napari_unet3d.data.io.targets import check_target
from napari_unet3d.errors import RunFailedError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_SUCH_CALL = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM)
"""What systems answer that cannot write a file or folder through to the disk."""
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
        Whether a file or folder that is there at the beginning may be replaced. One that appears at
        `path` later is never replaced.

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
        """Remove the incomplete result; does nothing after `commit`. Never raises."""
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


def failure(error: OSError, path: Path, needed: str = "") -> RunFailedError:
    """The error for a failure of the system while `path` was written."""
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


def _stamp(path: Path) -> Stamp:
    """What tells one file or folder from another that is put into its place."""
    try:
        status = path.lstat()
    except OSError:
        return None
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return stat.S_IFMT(status.st_mode), status.st_mtime_ns, size


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
