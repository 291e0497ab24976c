"""Several files change together, or not at all, wherever a commit is cut off."""

from __future__ import annotations

from pathlib import Path

import pytest

from limits import largest_file
from napari_unet3d.data.io.journal import FOLDER, Journal, read_commits
from napari_unet3d.errors import BadInputError

STATE = "state.json"
FIRST = {STATE: b"one", "a/0": b"old", "a/1": b"goes"}
SECOND = {STATE: b"two", "a/0": b"new", "a/1": None, "b/2": b"more"}


def files(root: Path) -> dict[str, bytes]:
    """All files of a folder but those of the journal."""
    paths = [p for p in root.rglob("*") if p.is_file() and FOLDER not in p.parts]
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in paths}


def recovered(root: Path, newest: int = 0) -> dict[str, bytes]:
    """The files after a new program has carried out what the journal holds."""
    journal = Journal(root, STATE)
    journal.recover(newest)
    assert journal.settle()
    return files(root)


def test_what_was_committed_is_carried_out_by_the_next_program(tmp_path: Path) -> None:
    journal = Journal(tmp_path, STATE)
    journal.commit(1, FIRST)
    journal.commit(2, SECOND)
    assert files(tmp_path) == {}
    assert Journal(tmp_path, STATE).recover(0) == 2
    assert recovered(tmp_path) == {STATE: b"two", "a/0": b"new", "b/2": b"more"}
    assert read_commits(tmp_path) == []


def test_settling_can_be_cut_off_anywhere_and_repeated(tmp_path: Path) -> None:
    journal = Journal(tmp_path, STATE)
    journal.commit(1, FIRST)
    assert journal.settle()
    journal.commit(2, SECOND)
    (tmp_path / "b").write_bytes(b"in the way of a folder")
    with pytest.raises(OSError):
        journal.settle()
    assert files(tmp_path)[STATE] == b"one"  # the state is written last
    (tmp_path / "b").unlink()
    expected = {STATE: b"two", "a/0": b"new", "b/2": b"more"}
    assert recovered(tmp_path, 1) == expected
    assert recovered(tmp_path, 2) == expected


def test_an_old_journal_that_came_back_changes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, STATE)
    journal.commit(1, FIRST)
    (old,) = (tmp_path / FOLDER).iterdir()
    kept = old.read_bytes()
    journal.commit(2, SECOND)
    assert journal.settle()
    old.write_bytes(kept)  # its removal did not reach the disk
    assert recovered(tmp_path, 2)["a/0"] == b"new"
    assert not old.exists()


def test_a_commit_that_is_cut_short_is_never_read(tmp_path: Path) -> None:
    Journal(tmp_path, STATE).commit(1, SECOND)
    (path,) = (tmp_path / FOLDER).iterdir()
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(BadInputError, match=r"00000001\.commit' is damaged"):
            read_commits(tmp_path)
    path.rename(path.with_name(f".{path.name}.partial"))  # as before the end of writing
    assert read_commits(tmp_path) == []


def test_a_commit_cannot_reach_out_of_its_folder(tmp_path: Path) -> None:
    for name in ("../x", "/x", "a/../../x", "C:x"):
        root = tmp_path / str(len(name))
        root.mkdir()
        Journal(root, STATE).commit(1, {STATE: b"", name: b"evil"})
        with pytest.raises(BadInputError, match="damaged"):
            read_commits(root)


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, STATE)
    journal.commit(1, FIRST)
    with largest_file(4096), pytest.raises(OSError):
        journal.commit(2, {STATE: b"two", "a/0": bytes(100_000)})
    assert [c.number for c in read_commits(tmp_path)] == [1]
    journal.commit(2, SECOND)
    assert recovered(tmp_path)["a/0"] == b"new"


def test_a_full_disk_while_settling_loses_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, STATE)
    journal.commit(1, FIRST | {"large": bytes(50_000)})
    with largest_file(4096), pytest.raises(OSError):
        journal.settle()
    assert not journal.settled
    assert journal.settle()
    assert len(files(tmp_path)["large"]) == 50_000
