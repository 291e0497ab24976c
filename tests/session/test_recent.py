"""The sessions that were opened last, and where a new one goes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from session_files import memory_session

from napari_unet3d.session import recent
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.recent import (
    data_folder,
    default_folder,
    forget_session,
    recent_sessions,
    remember_session,
)


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    monkeypatch.setattr(recent, "data_folder", lambda: folder)
    return folder


def made(path: Path) -> Path:
    SessionFolder.create(path, memory_session()).close()
    remember_session(path)
    return path


def test_the_newest_first_and_those_that_are_gone_never(tmp_path: Path) -> None:
    assert recent_sessions() == []
    first, second = made(tmp_path / "a.unet3d-session"), made(tmp_path / "b.unet3d-session")
    for entry, moment in zip(sorted(recent.data_folder().rglob("*.json")), (1, 2), strict=True):
        os.utime(entry, (moment, moment))
    remember_session(first)
    assert [s.path for s in recent_sessions()] == [first, second]
    assert recent_sessions()[0].image_name == "cells in memory"
    first.rename(tmp_path / "moved")
    assert [s.path for s in recent_sessions()] == [second]
    forget_session(second)
    assert recent_sessions() == []
    assert second.is_dir()


def test_crashed_and_open_ones_are_told_apart(tmp_path: Path) -> None:
    path = made(tmp_path / "a.unet3d-session")
    (found,) = recent_sessions()
    assert (found.crashed, found.holder) == (False, "")
    with SessionFolder.open(path, holder="a window") as folder:
        (found,) = recent_sessions()
        assert not found.crashed
        assert found.holder.startswith("a window (process")
        folder._lock.release()  # as if it was killed
        (found,) = recent_sessions()
        assert (found.crashed, found.holder) == (True, "")
        folder._lock = SessionFolder.open(path)._lock


def test_the_list_is_bounded_and_damage_is_left_out(tmp_path: Path) -> None:
    path = made(tmp_path / "a.unet3d-session")
    folder = recent.data_folder() / "recent"
    for n in range(40):
        remember_session(tmp_path / str(n))
    assert len(list(folder.iterdir())) == recent._MOST
    remember_session(path)
    (folder / "x.json").write_text("{")
    (path / "session.json").write_text("{")
    assert recent_sessions() == []


def test_where_a_new_session_goes(tmp_path: Path, own_data: Path) -> None:
    image = tmp_path / "cells.tif"
    first = default_folder(image)
    assert first == tmp_path / "cells.tif.unet3d-session"
    first.mkdir()
    assert default_folder(image) == first
    assert default_folder(image, new=True) == tmp_path / "cells.tif 2.unet3d-session"
    nowhere = default_folder(tmp_path / "missing" / "cells.tif")
    assert nowhere.parent == own_data / "sessions"
    assert nowhere.name.startswith("cells.tif ")
    assert nowhere != default_folder(tmp_path / "other" / "cells.tif")
    named = default_folder("kidney: [1] / left")
    assert named == own_data / "sessions" / "kidney- -1- - left.unet3d-session"
    assert named.parent.is_dir()
    assert len(os.fsencode(default_folder("ä" * 300).name)) < 256
    assert default_folder("///").name == "image.unet3d-session"


def test_the_folder_of_the_user_data() -> None:
    assert data_folder().name == "napari-unet3d"
