"""Several files of a folder that change together, or not at all.

A commit is one file in the folder `journal`: the new content of every file that changes, and a
checksum. It is written under a temporary name, through to the disk, and renamed. From that moment
on the change has happened: whoever opens the folder later carries out what the journal says.
Carrying out ("settling") may be interrupted anywhere and is simply repeated.

The state file is part of every commit and is settled last. It holds the number of its commit, so
that a journal whose removal did not reach the disk is known to be an old one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from napari_unet3d.errors import BadInputError

FOLDER = "journal"
_MAGIC = b"napari-unet3d journal 1\n"
_NAME = re.compile(r"(\d{8,})\.commit")
_LONGEST_HEADER = 2**28
"""Bytes. A commit of a million files has a header of 60 MB."""
_NO_SYNC = frozenset(
    getattr(__import__("errno"), name)
    for name in ("EINVAL", "ENOSYS", "ENOTSUP", "EBADF", "EACCES", "EPERM")
)
"""What systems answer that cannot write a folder through to the disk."""

Files = Mapping[str, bytes | None]
"""New contents by path within the folder, as in "a/b"; None for a file that is removed."""


@dataclass(frozen=True)
class Commit:
    """One commit as it was read from a journal."""

    number: int
    files: Files
    path: Path


class Journal:
    """Writes commits into a folder, and carries them out.

    Not safe for threads: its owner calls it from one at a time, and holds the lock of the folder.

    Parameters
    ----------
    root
        The folder.
    state
        Path of the state file within it, which is part of every commit.
    """

    def __init__(self, root: Path, state: str) -> None:
        self.root = root
        self._state = state
        self._unsettled: dict[str, bytes | None] = {}
        self._folders: set[Path] = set()
        self._journals: list[Path] = []
        self._made: set[Path] = set()

    @property
    def settled(self) -> bool:
        """Whether every commit was carried out."""
        return not self._journals

    def recover(self, newest: int) -> int:
        """Take up the commits that an earlier process did not carry out.

        Parameters
        ----------
        newest
            Number of the commit whose state file was settled.

        Returns
        -------
        int
            Number of the newest commit.

        Raises
        ------
        BadInputError
            A commit is damaged.
        """
        for commit in read_commits(self.root):
            if commit.number > newest:
                newest = commit.number
                self._unsettled.update(commit.files)
            self._journals.append(commit.path)
        return newest

    def commit(self, number: int, files: Files) -> None:
        """Make a change happen, whole or not at all.

        Parameters
        ----------
        number
            Larger than that of every earlier commit.
        files
            What changes; the state file is among it.

        Raises
        ------
        OSError
            Nothing changed: the disk is full, gone or read-only.
        """
        if self._state not in files:
            raise ValueError(f"a commit needs the state file, '{self._state}'")
        folder = self.root / FOLDER
        if not folder.is_dir():
            os.mkdir(folder)
            sync_folder(self.root)
        path = folder / f"{number:08d}.commit"
        write_synced(path, _pack(number, files))
        sync_folder(folder)
        self._journals.append(path)
        for name, content in files.items():
            self._unsettled.pop(name, None)  # the newest one is written last
            self._unsettled[name] = content

    def settle(self, seconds: float = float("inf")) -> bool:
        """Carry out what was committed, for so many seconds; return whether all is done.

        Raises
        ------
        OSError
            The disk is full, gone or read-only. Nothing is lost: the journal is still there.
        """
        end = time.monotonic() + seconds
        while not self.settled:
            name = next((n for n in self._unsettled if n != self._state), None)
            if name is None:
                self._finish()
                return True
            if time.monotonic() > end:
                return False
            self._carry_out(name, self._unsettled[name])
            del self._unsettled[name]
        return True

    def _carry_out(self, name: str, content: bytes | None) -> None:
        path = self.root / name
        if content is None:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
        else:
            if path.parent not in self._made:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._made.add(path.parent)
            try:
                write_synced(path, content)
            except FileNotFoundError:  # somebody removed a folder that was there before
                self._made.clear()
                raise
        for parent in PurePosixPath(name).parents:
            self._folders.add(self.root / parent)

    def _finish(self) -> None:
        """Write the state file last, then forget the journals."""
        for folder in sorted(self._folders, reverse=True):
            if folder.is_dir():
                sync_folder(folder)
        self._folders.clear()
        if self._state in self._unsettled:
            content = self._unsettled[self._state]
            assert content is not None
            write_synced(self.root / self._state, content)
            sync_folder(self.root)
            del self._unsettled[self._state]
        while self._journals:
            self._journals[0].unlink(missing_ok=True)
            del self._journals[0]


def read_commits(root: Path) -> list[Commit]:
    """Read the commits in the journal of a folder, the oldest first.

    Raises
    ------
    BadInputError
        A commit is damaged.
    """
    commits = []
    for path in _commit_files(root / FOLDER):
        try:
            data = path.read_bytes()
        except FileNotFoundError:  # it was carried out in this moment, by who has the folder open
            continue
        try:
            commits.append(_unpack(data, path))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise BadInputError(
                f"'{path}' is damaged. It holds the last seconds of work. Restore it from a "
                "backup, or move this file elsewhere to open the session without it."
            ) from error
    return commits


def write_synced(path: Path, content: bytes) -> None:
    """Write a file through to the disk under a temporary name, then give it its name."""
    temporary = path.with_name(f".{path.name}.partial")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def sync_folder(path: Path) -> None:
    """Write the names in a folder through to the disk, where the system can do that."""
    if os.name == "nt":
        return
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(file)


def _commit_files(folder: Path) -> Iterator[Path]:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in sorted((n for n in names if _NAME.fullmatch(n)), key=lambda n: (len(n), n)):
        yield folder / name


def _pack(number: int, files: Files) -> bytes:
    entries = [[name, None if data is None else len(data)] for name, data in files.items()]
    header = json.dumps({"commit": number, "files": entries}).encode()
    parts = [_MAGIC, len(header).to_bytes(8, "little"), header]
    parts += [data for data in files.values() if data is not None]
    body = b"".join(parts)
    return body + hashlib.sha256(body).digest()


def _unpack(data: bytes, path: Path) -> Commit:
    """The commit in the bytes of a file; ValueError when they are something else."""
    body, digest = data[:-32], data[-32:]
    if not body.startswith(_MAGIC) or hashlib.sha256(body).digest() != digest:
        raise ValueError("wrong checksum")
    start = len(_MAGIC) + 8
    size = int.from_bytes(body[len(_MAGIC) : start], "little")
    if size > _LONGEST_HEADER:
        raise ValueError("wrong header")
    header = json.loads(body[start : start + size])
    at = start + size
    files: dict[str, bytes | None] = {}
    for name, length in header["files"]:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or ":" in name:
            raise ValueError("a path outside of the folder")
        files[name] = None if length is None else body[at : at + length]
        at += length or 0
    return Commit(int(header["commit"]), files, path)
