"""A session is found for its image, opened with all that is in it, and never left held."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.finding import sessions_of
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.opening import Handover, open_session
from napari_unet3d.session.recent import default_folder, remember_session
from napari_unet3d.session.session import Session

SHAPE = (4, 30, 34)


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def volume() -> Volume:
    voxels = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
    return Volume(voxels, axes="ZYX", voxel_size=(1, 1, 1), unit="µm", name="cells")


def make(volume: Volume, path: Path | None, folder: Path | None = None) -> Path:
    """Make a session with some paint, and close it; return its folder."""
    folder = default_folder(volume.name if path is None else path) if folder is None else folder
    with SessionFolder.create(folder, Session(volume=volume, image_path=path)) as session:
        session.fold(((1, 2), (3, 5), (3, 5)), np.full((1, 2, 2), 2, np.uint8))
        session.commit()
    return folder


def test_it_is_found_beside_the_image_among_the_recent_and_by_its_name(
    volume: Volume, tmp_path: Path
) -> None:
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, volume.data)
    beside = make(volume, path)
    assert sessions_of(volume, path) == [beside]
    elsewhere = make(volume, path, tmp_path / "kept.unet3d-session")
    assert sessions_of(volume, path) == [beside]
    remember_session(elsewhere)
    assert set(sessions_of(volume, path)) == {beside, elsewhere}
    moved = tmp_path / "data" / "cells.tif"
    assert sessions_of(volume, moved) == [elsewhere]  # only the gray values can tell
    assert sessions_of(replace(volume, name="others"), moved) == []
    assert sessions_of(replace(volume, data=volume.data[1:]), moved) == []


def test_an_image_in_no_file_finds_its_session(volume: Volume) -> None:
    folder = make(volume, None)
    assert sessions_of(volume, None) == [folder]


def test_all_is_opened_and_the_image_is_chosen_by_its_gray_values(volume: Volume) -> None:
    folder = make(volume, None)
    other = replace(volume, data=255 - volume.data)
    opened = open_session(folder, [(other, None), (volume, None)], look=True)
    try:
        assert opened.match == 1
        assert not opened.crashed
        assert opened.labels.sum() == 8
        assert list(opened.saved) == [(1, 0, 0)]
        assert opened.found is None
    finally:
        opened.folder.close()
    opened = open_session(folder, [(other, None)], look=False)
    opened.folder.close()
    assert opened.match is None
    assert "its gray values are others now" in opened.differences[0]


def test_a_session_that_is_held_is_refused_with_its_holder(volume: Volume) -> None:
    folder = make(volume, None)
    with (
        SessionFolder.open(folder, holder="the other window"),
        pytest.raises(BadInputError, match=r"is open in the other window \(process"),
    ):
        open_session(folder, [], look=False)


def test_a_folder_that_nobody_takes_is_closed(volume: Volume) -> None:
    path = make(volume, None)
    handover = Handover()
    handover.give(SessionFolder.open(path))
    handover.end()  # the window closes before it took the folder
    handover.give(SessionFolder.open(path))  # and the thread opens another one
    with SessionFolder.open(path) as mine:
        other = Handover()
        other.give(mine)
        other.take(mine)
        other.end()
        assert mine.path == path  # still held
        with pytest.raises(BadInputError, match="is open in"):
            SessionFolder.open(path)
