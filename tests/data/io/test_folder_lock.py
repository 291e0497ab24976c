"""One program at a time holds a folder; a dead one holds nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from napari_unet3d.data.io.folder_lock import NAME, FolderLock, LockLostError, holder_of
from napari_unet3d.errors import BadInputError

HOLD = """
import sys, time
from pathlib import Path
from napari_unet3d.data.io.folder_lock import FolderLock
FolderLock(Path(sys.argv[1]), "another window")
print("held", flush=True)
time.sleep(60)
"""
ELSEWHERE = {"token": "x", "host": "microscope_123abc", "pid": 7, "user": "ada",
             "program": "napari", "since": "2026-01-02T03:04:05+00:00"}  # fmt: skip


def test_a_second_program_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    words = rf"open in napari \(process {os.getpid()}, since \d\d:\d\d\)\. Close it there first"
    with pytest.raises(BadInputError, match=words):
        FolderLock(tmp_path)
    assert holder_of(tmp_path).startswith("napari (")
    lock.check()
    lock.release()
    lock.release()
    assert holder_of(tmp_path) == ""
    FolderLock(tmp_path).release()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BadInputError, match=rf"another window \(process {holder.pid},"):
            FolderLock(tmp_path)
        holder.kill()
    assert holder_of(tmp_path) == ""
    FolderLock(tmp_path).release()


def test_another_computer_is_believed_while_its_lock_is_fresh(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text(json.dumps(ELSEWHERE))
    words = re.escape("the computer 'microscope', user ada, since 2026-01-02 ")
    with pytest.raises(BadInputError, match=words):
        FolderLock(tmp_path)
    assert "microscope" in holder_of(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [NAME]
    assert json.loads(path.read_text()) == ELSEWHERE
    os.utime(path, (1, 1))  # it was switched off
    assert holder_of(tmp_path) == ""
    FolderLock(tmp_path).release()


def test_a_lock_that_was_taken_over_is_lost(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    (tmp_path / NAME).write_text(json.dumps(ELSEWHERE))  # it took the folder while this one slept
    with pytest.raises(LockLostError, match=r"microscope.*another folder"):
        lock.check()
    lock.release()
    assert json.loads((tmp_path / NAME).read_text()) == ELSEWHERE


def test_a_folder_that_was_away_is_still_held(tmp_path: Path) -> None:
    folder, away = tmp_path / "a", tmp_path / "b"
    folder.mkdir()
    lock = FolderLock(folder)
    folder.rename(away)
    with pytest.raises(FileNotFoundError):
        lock.check()
    away.rename(folder)
    lock.check()
    (folder / NAME).unlink()  # somebody tidied up
    lock.check()
    with pytest.raises(BadInputError, match="is open in"):
        FolderLock(folder)
    lock.release()
    with pytest.raises(LockLostError, match="closed"):
        lock.check()
