"""A session works under any name, moves to other machines, and survives disks it may not write."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from session_files import SHAPE, content, file_session, labels, memory_session, model

from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.errors import BadInputError
from napari_unet3d.session import room
from napari_unet3d.session.autosave import AutoSaver
from napari_unet3d.session.finding import sessions_of
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.recent import default_folder, recent_sessions, remember_session
from napari_unet3d.session.session import Session
from napari_unet3d.session.state import read_state

NAMES = [
    "with spaces  and (brackets) [1].tif",
    "Zellkörper Größe µm.tif",
    "核 🔬 细胞.tif",
    "quote's and #%& signs.tif",
    f"{'n' * 240}.tif",
    f"{'ü' * 120}.tif",
    ".hidden",
]


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.mark.parametrize("name", NAMES)
def test_names_of_images_and_folders(name: str, tmp_path: Path) -> None:
    session = file_session(tmp_path)
    assert session.image_path is not None
    image = tmp_path / (name if name.endswith(".tif") else f"{name}.tif")
    session.image_path.rename(image)
    volume = read_volume(image)
    path = default_folder(image, new=True)
    assert path.parent == tmp_path
    SessionFolder.create(path, replace(session, volume=volume, image_path=image)).close()
    remember_session(path)
    assert [r.path for r in recent_sessions()] == [path]
    assert sessions_of(volume, image) == [path]
    place = tmp_path / "anderer Ort ä 🔬"
    place.mkdir()
    image.rename(place / image.name)
    with SessionFolder.open(path.rename(place / path.name)) as folder:
        found = folder.load()
        folder.write_model(model())
    assert found.image_path == place / image.name
    assert found.annotation is not None
    np.testing.assert_array_equal(found.annotation.labels, labels())


def test_on_another_machine_the_image_is_asked_for_and_told_once(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    SessionFolder.create(here / "a.unet3d-session", file_session(here)).close()
    there = tmp_path / "there" / "sessions"
    shutil.copytree(here / "a.unet3d-session", there / "a.unet3d-session")
    images = tmp_path / "there" / "images"
    shutil.copytree(here, images, ignore=shutil.ignore_patterns("*-session"))
    shutil.rmtree(here)
    image = images / "cells.tif"
    with SessionFolder.open(there / "a.unet3d-session") as folder:
        found = folder.find_image()
        assert found.state == "missing"
        assert "'cells.tif' (6 × 40 × 50, uint16) is not at" in found.text
        assert folder.load(read_volume(image), image).image_path == image
    (tmp_path / "there").rename(tmp_path / "elsewhere")  # both, so the relative path holds
    with SessionFolder.open(tmp_path / "elsewhere" / "sessions" / "a.unet3d-session") as folder:
        assert folder.load().image_path == tmp_path / "elsewhere" / "images" / "cells.tif"


# --- disks that cannot be written to --------------------------------------------------------


@contextmanager
def an_ordinary_user() -> Iterator[None]:
    """Act as somebody who may not write everywhere, also where root runs the tests."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has other permissions")
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that an ordinary user can reach, with a session in it."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        SessionFolder.create(path / "a.unet3d-session", file_session(path)).close()
        allow(path, True)
        yield path
        allow(path, True)


def allow(path: Path, writing: bool) -> None:
    """Let everybody write into a folder and all that is in it, or nobody."""
    for entry in (path, *path.rglob("*")):
        with suppress(FileNotFoundError):  # a file that the session replaced meanwhile
            if entry.is_dir():
                entry.chmod(0o777 if writing else 0o555)
            else:
                entry.chmod(0o666 if writing else 0o444)


def until(condition: Callable[[], object], seconds: float = 15.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return bool(condition())


def test_a_read_only_session_is_refused_with_the_cure_and_can_be_looked_at(place: Path) -> None:
    path = place / "a.unet3d-session"
    allow(place, False)
    before = content(path)
    with an_ordinary_user():
        with pytest.raises(BadInputError, match=r"cannot be written to .* and open the copy\."):
            SessionFolder.open(path)
        assert read_state(path).record.image_name == "cells.tif"
    assert content(path) == before


def test_a_disk_that_becomes_read_only_is_said_and_work_goes_on(place: Path) -> None:
    path = place / "a.unet3d-session"
    with an_ordinary_user():
        saver = AutoSaver(SessionFolder.open(path), interval=0.05)
    try:
        assert saver.flush()
        allow(path, False)
        with an_ordinary_user():
            for value in (2, 3):  # one goes on painting
                saver.put_labels(((0, 1), (0, 4), (0, 4)), np.full((1, 4, 4), value, np.uint8))
                assert until(saver.problem)
            text = saver.problem()
        assert "cannot be written to" in text
        assert "Allow writing, or save the session in another folder." in text
        assert "kept in memory" in text
        allow(path, True)
        assert saver.flush(20)
        assert not saver.problem()
    finally:
        saver.close()
    with SessionFolder.open(path) as folder:
        assert (folder.labels()[0, :4, :4] == 3).all()


def test_an_image_in_a_read_only_folder_has_its_session_in_the_users_data(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, volume = place / "cells.tif", read_volume(place / "cells.tif")
    shutil.rmtree(place / "a.unet3d-session")
    allow(place, False)
    (place / "data").mkdir(mode=0o777)
    (place / "data").chmod(0o777)
    monkeypatch.setenv("XDG_DATA_HOME", str(place / "data"))
    with an_ordinary_user():
        path = default_folder(image)
    assert path.is_relative_to(place / "data")
    SessionFolder.create(path, Session(volume=volume, image_path=image)).close()
    remember_session(path)
    assert sessions_of(volume, image) == [path]
    with SessionFolder.open(path) as folder:
        assert folder.load().image_path == image


# --- large stacks and series ----------------------------------------------------------------


@pytest.mark.parametrize(("axes", "shape"), [("ZYX", SHAPE), ("TZYX", (2, *SHAPE))])
def test_an_annotation_in_chunks_survives_a_kill(
    axes: str, shape: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_main_memory", lambda: 1000)  # as if the stack were huge
    session = memory_session(shape, axes)
    assert session.annotation is not None
    sparse = SparseLabels.create(shape)
    sparse[...] = labels(shape)
    painted = SparseAnnotation(sparse, session.annotation.classes)
    killed = tmp_path / "killed.unet3d-session"
    folder = SessionFolder.create(
        tmp_path / "a.unet3d-session", replace(session, annotation=painted)
    )
    with folder:
        box = (*((n - 1, n) for n in shape[:-2]), (0, 3), (0, 3))
        folder.fold(box, np.full([b - a for a, b in box], 3, np.uint8))
        folder.commit()
        shutil.copytree(folder.path, killed)  # as a kill in this moment would leave it
    (killed / "lock").unlink()
    expected = labels(shape)
    expected[(*(-1 for _ in shape[:-2]), slice(3), slice(3))] = 3
    with SessionFolder.open(killed) as folder:
        assert folder.crashed
        found = folder.load().annotation
    assert found is not None
    assert isinstance(found.labels, SparseLabels)
    np.testing.assert_array_equal(found.labels[...], expected)
    assert found.labels[0].shape == shape[1:]
