"""A session folder gives back what was put into it, and says what is wrong with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from session_files import (
    CLASSES,
    HELD_OUT,
    SHAPE,
    VOXEL,
    content,
    file_session,
    image_file,
    labels,
    memory_session,
    model,
    scores,
)

from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.io.leftovers import temporary_path
from napari_unet3d.data.io.reading import read_labels, read_volume
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.session import room
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.session import NamedModel, Session

NAME = "cells.tif.unet3d-session"


def reopened(path: Path) -> Session:
    with SessionFolder.open(path) as folder:
        return folder.load()


def made(path: Path, session: Session) -> Path:
    SessionFolder.create(path, session).close()
    return path


# --- round trips ----------------------------------------------------------------------------


def test_all_of_a_session_comes_back(tmp_path: Path) -> None:
    session = file_session(tmp_path)
    found = reopened(made(tmp_path / NAME, session))
    assert session.volume is not None
    assert found.volume is not None
    assert found.annotation is not None
    np.testing.assert_array_equal(found.volume.data, session.volume.data)
    assert (found.volume.voxel_size, found.volume.name) == (VOXEL, session.volume.name)
    np.testing.assert_array_equal(found.annotation.labels, labels())
    found.annotation.labels[0, 0, 0] = 2  # it can be painted on
    assert found.annotation.held_out == HELD_OUT
    assert found.annotation.classes == CLASSES
    for name in ("settings", "accepted", "more", "image_path"):
        assert getattr(found, name) == getattr(session, name), name
    assert found.model is found.scores is found.segmentation is None


def test_changes_come_back(tmp_path: Path) -> None:
    path = made(tmp_path / NAME, file_session(tmp_path))
    painted = labels()
    painted[2, 3:9, 4:8] = 3
    painted[1] = 0
    with SessionFolder.open(path) as folder:
        folder.fold(((2, 3), (3, 9), (4, 8)), painted[2:3, 3:9, 4:8])
        folder.fold(((1, 2), (0, 40), (0, 50)), painted[1:2])
        folder.set_record(folder.record().model_copy(update={"held_out": ("z=2",)}))
        folder.commit()
        folder.write_model(model(3), scores(3))
        folder.write_checkpoint(model(4).bundle)
        result = np.where(labels() > 1, labels(), 0)
        folder.write_result("labels", result, classes=CLASSES)
        folder.write_result("uncertainty", result.astype(np.float32) / 3)
    with SessionFolder.open(path) as folder:
        assert not folder.crashed
        found = folder.load()
        checkpoint = folder.checkpoint()
        results = folder.results()
    assert found.annotation is not None
    assert found.model is not None
    assert checkpoint is not None
    np.testing.assert_array_equal(found.annotation.labels, painted)
    assert [str(ref) for ref in found.annotation.held_out] == ["z=2"]
    assert (found.model.name, found.model.bundle.record.iterations) == ("number 3", 3)
    assert found.scores == scores(3)
    assert checkpoint.bundle.record.iterations == 4
    np.testing.assert_array_equal(found.segmentation, result)
    assert results["uncertainty"].voxel_size == pytest.approx(VOXEL)


def test_model_and_result_of_the_beginning_are_kept(tmp_path: Path) -> None:
    session = replace(
        file_session(tmp_path), model=model(5), scores=scores(5), segmentation=labels()
    )
    found = reopened(made(tmp_path / NAME, session))
    assert found.model is not None
    assert (found.model.name, found.scores) == ("number 5", scores(5))
    np.testing.assert_array_equal(found.segmentation, labels())


@pytest.mark.parametrize(("axes", "shape"), [("TZYX", (2, *SHAPE)), ("ZYX", SHAPE)])
def test_an_image_that_is_in_no_file_is_copied(
    axes: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    session = memory_session(shape, axes)
    found = reopened(made(tmp_path / "a.unet3d-session", session))
    assert found.volume is not None
    assert session.volume is not None
    np.testing.assert_array_equal(np.asarray(found.volume.data), session.volume.data)
    assert found.volume == replace(session.volume, data=found.volume.data, file_axes=axes)
    assert found.image_path is None


def test_channels_and_time(tmp_path: Path) -> None:
    shape = (2, 3, *SHAPE)
    image = np.random.default_rng(0).integers(0, 999, shape, np.uint16)
    painted = labels((2, *SHAPE))
    session = Session(
        volume=Volume(image, "TCZYX", name="c"), annotation=SparseAnnotation(painted, CLASSES)
    )
    path = made(tmp_path / "a.unet3d-session", session)
    with SessionFolder.open(path) as folder:
        probabilities = np.zeros(shape, np.float32)
        folder.write_result("probabilities", probabilities, classes=CLASSES)
        found = folder.load()
        assert folder.results()["probabilities"].axes == "TCZYX"
    assert found.volume is not None
    assert found.annotation is not None
    assert found.volume.axes == "TCZYX"
    np.testing.assert_array_equal(found.annotation.labels, painted)


def test_an_annotation_that_does_not_fit_into_the_memory_stays_sparse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = file_session(tmp_path)
    assert session.annotation is not None
    sparse = SparseLabels.create(SHAPE)
    sparse[...] = labels()
    given = replace(session, annotation=replace(session.annotation, labels=sparse))
    path = made(tmp_path / NAME, given)
    monkeypatch.setattr(room, "free_main_memory", lambda: 1000)
    found = reopened(path)
    assert found.annotation is not None
    assert isinstance(found.annotation.labels, SparseLabels)
    np.testing.assert_array_equal(found.annotation.labels[...], labels())
    found.annotation.labels[0, 0, 0] = 2


def test_the_annotation_opens_in_other_programs_with_its_voxel_size(tmp_path: Path) -> None:
    path = made(tmp_path / "a.unet3d-session", memory_session())
    found = read_labels(path / "annotation.zarr")
    np.testing.assert_array_equal(np.asarray(found.data), labels())
    assert (found.voxel_size, found.unit, found.translation) == (VOXEL, "µm", (1.0, 2.0, 3.0))
    text = json.loads((path / "annotation.zarr" / ".zattrs").read_text())
    names = [p["class"] for p in text["image-label"]["properties"]]
    assert names == ["unlabelled", "background", "nucleus", "membrane"]


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    path = made(tmp_path / NAME, file_session(tmp_path))
    with SessionFolder.open(path) as folder:
        folder.settle()
        chunk = path / "annotation.zarr" / "0" / "4" / "0" / "0"
        before = chunk.stat().st_mtime_ns, chunk.stat().st_ino
        folder.fold(((0, 1), (0, 2), (0, 2)), np.full((1, 2, 2), 2, np.uint8))
        folder.commit()
        (commit,) = (path / "journal").iterdir()
        assert commit.stat().st_size < 20_000
        folder.settle()
    assert (chunk.stat().st_mtime_ns, chunk.stat().st_ino) == before
    assert not list((path / "journal").iterdir())


# --- crashes --------------------------------------------------------------------------------


def test_what_a_killed_program_committed_is_there(tmp_path: Path) -> None:
    path = made(tmp_path / NAME, file_session(tmp_path))
    killed = tmp_path / "killed.unet3d-session"
    with SessionFolder.open(path) as folder:
        folder.settle()
        folder.fold(((0, 1), (0, 2), (0, 2)), np.full((1, 2, 2), 2, np.uint8))
        folder.set_record(folder.record().model_copy(update={"held_out": ("z=0",)}))
        folder.commit()
        shutil.copytree(path, killed)  # as a kill in this moment would leave it
    (killed / "lock").unlink()
    with SessionFolder.open(killed) as folder:
        assert folder.crashed
        assert folder.labels()[0, :2, :2].all()
        assert folder.record().held_out == ("z=0",)


def test_name_and_scores_of_another_model_are_not_believed(tmp_path: Path) -> None:
    path = made(tmp_path / NAME, file_session(tmp_path))
    with SessionFolder.open(path) as folder:
        folder.write_model(model(1), scores(1))
    model(2).bundle.save(path / "model.unet3d")  # killed before the next commit
    found = reopened(path)
    assert found.model is not None
    assert found.model.bundle.record.iterations == 2
    assert "number" not in found.model.name
    assert found.scores is None


def test_paint_waits_for_the_record_that_came_with_it(tmp_path: Path) -> None:
    path = made(tmp_path / NAME, file_session(tmp_path))
    with SessionFolder.open(path) as folder:
        folder.fold(((0, 1), (0, 2), (0, 2)), np.full((1, 2, 2), 2, np.uint8))
        folder.write_model(model(1))  # another thread, before the mark of z=0 was set
        names = {name for c in (path / "journal").iterdir() for name in _names(c)}
        assert not any(name.startswith("annotation.zarr/0/0/") for name in names)


def _names(commit: Path) -> list[str]:
    from napari_unet3d.data.io.journal import read_commits

    (found,) = [c for c in read_commits(commit.parents[1]) if c.path == commit]
    return list(found.files)


# --- the image ------------------------------------------------------------------------------


def test_image_and_session_move_together(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    made(there / NAME, file_session(there))
    there.rename(here)
    found = reopened(here / NAME)
    assert found.image_path == here / "cells.tif"
    assert reopened(here / NAME).image_path == here / "cells.tif"


def test_the_session_alone_moves(tmp_path: Path) -> None:
    path = made(tmp_path / NAME, file_session(tmp_path))
    elsewhere = tmp_path / "far" / "away"
    elsewhere.mkdir(parents=True)
    path.rename(elsewhere / NAME)
    assert reopened(elsewhere / NAME).image_path == tmp_path / "cells.tif"


def test_an_image_that_is_gone_is_asked_for(tmp_path: Path) -> None:
    path = made(tmp_path / NAME, file_session(tmp_path))
    image = (tmp_path / "cells.tif").rename(tmp_path / "renamed.tif")
    with SessionFolder.open(path) as folder:
        found = folder.find_image()
        assert (found.state, found.volume) == ("missing", None)
        assert "'cells.tif' (6 × 40 × 50, uint16) is not at" in found.text
        with pytest.raises(BadInputError, match="Say where it is now"):
            folder.load()
        volume = read_volume(image)
        assert folder.compare(volume, image) == ()
        assert folder.load(volume, image).image_path == image
    assert reopened(path).image_path == image


def test_an_image_that_was_changed_is_noticed(tmp_path: Path) -> None:
    path = made(tmp_path / NAME, file_session(tmp_path))
    image = image_file(tmp_path, seed=1)
    with SessionFolder.open(path) as folder:
        found = folder.find_image()
        assert found.state == "changed"
        assert "gray values are others now (the file was written on" in found.text
        with pytest.raises(BadInputError, match="not the image that was annotated"):
            folder.load()
        assert folder.load(found.volume, found.path).image_path == image  # the user says: go on
    assert reopened(path).image_path == image
    image_file(tmp_path, (7, 40, 50))
    with SessionFolder.open(path) as folder:
        found = folder.find_image()
        assert "it had 6 × 40 × 50 voxels and has 7 × 40 × 50 now" in found.text
        with pytest.raises(BadInputError, match="does not fit the session"):
            folder.load(found.volume, found.path)
    (tmp_path / "cells.tif").write_bytes(b"II*\0")
    with SessionFolder.open(path) as folder:
        found = folder.find_image()
        assert found.state == "missing"
        assert "cannot be opened" in found.text


def test_an_image_whose_file_has_another_order_of_axes(tmp_path: Path) -> None:
    path = tmp_path / "ij.tif"
    image = np.random.default_rng(0).integers(0, 999, (2, 4, 3, 20, 30), np.uint16)
    tifffile.imwrite(path, image, imagej=True, metadata={"axes": "TZCYX"})
    volume = read_volume(path)
    painted = labels((2, 5, 20, 30))[:, :4]
    session = Session(volume=volume, image_path=path, annotation=SparseAnnotation(painted, CLASSES))
    found = reopened(made(tmp_path / "ij.unet3d-session", session))
    assert found.volume is not None
    assert (found.volume.axes, found.volume.data.shape) == ("TCZYX", (2, 3, 4, 20, 30))


def test_an_image_whose_axes_the_user_chose(tmp_path: Path) -> None:
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, np.zeros((3, 5, 20, 30), np.uint8))
    session = Session(volume=read_volume(path, axes="TZYX"), image_path=path)
    found = reopened(made(tmp_path / "plain.unet3d-session", session))
    assert found.volume is not None
    assert found.volume.axes == "TZYX"


def test_what_a_killed_program_was_writing_is_removed(tmp_path: Path) -> None:
    path = made(tmp_path / NAME, file_session(tmp_path))
    (path / "results").mkdir()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    for target in (path / "model.unet3d", path / "results" / "labels.zarr"):
        place = temporary_path(target)
        dead = place.with_name(place.name.replace(f"-{os.getpid()}-", f"-{child.pid}-"))
        dead.write_bytes(b"half of it")
    SessionFolder.open(path).close()
    assert [p.name for p in path.rglob("*.partial")] == []


# --- what is refused ------------------------------------------------------------------------


def test_two_openers(tmp_path: Path) -> None:
    path = made(tmp_path / NAME, file_session(tmp_path))
    with SessionFolder.open(path, holder="this window"):
        before = content(path)
        with pytest.raises(BadInputError, match=r"open in this window .*Close it there first"):
            SessionFolder.open(path)
        assert content(path) == before
    SessionFolder.open(path).close()


def _wrong_version(path: Path) -> None:
    text = json.loads((path / "session.json").read_text())
    (path / "session.json").write_text(json.dumps(text | {"version": 99}))


def _cut(path: Path) -> None:
    text = (path / "session.json").read_bytes()
    (path / "session.json").write_bytes(text[: len(text) // 2])


def _other_format(path: Path) -> None:
    (path / "session.json").write_text('{"format": "x", "version": 1}')


def _wrong_field(path: Path) -> None:
    text = json.loads((path / "session.json").read_text())
    text["record"]["classes"] = 7
    (path / "session.json").write_text(json.dumps(text))


def _lost(path: Path) -> None:
    (path / "session.json").unlink()


def _journal(path: Path) -> None:
    (path / "journal").mkdir(exist_ok=True)
    (path / "journal" / "00000099.commit").write_bytes(b"napari-unet3d journal 1\nhalf")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_wrong_version, "format version 99, this program knows up to 1: update"),
        (_cut, r"session\.json' is damaged: it is no JSON text.*backup"),
        (_other_format, "it describes no session"),
        (_wrong_field, r"record\.classes"),
        (_lost, r"is no session: it holds no session\.json"),
        (_journal, r"00000099\.commit' is damaged"),
    ],
)
def test_damage_is_told_and_nothing_changed(damage, words: str, tmp_path: Path) -> None:
    path = made(tmp_path / NAME, file_session(tmp_path))
    damage(path)
    before = content(path)
    with pytest.raises(BadInputError, match=words):
        SessionFolder.open(path)
    assert content(path) == before


def test_a_damaged_chunk_is_told_and_kept(tmp_path: Path) -> None:
    path = made(tmp_path / NAME, file_session(tmp_path))
    chunk = path / "annotation.zarr" / "0" / "4" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-5])
    damaged = chunk.read_bytes()
    with SessionFolder.open(path) as folder:
        with pytest.raises(BadInputError, match=r"4/0/0' is damaged .* slice z=4"):
            folder.load()
        with pytest.raises(BadInputError, match="damaged"):
            folder.fold(((4, 5), (0, 1), (0, 1)), np.full((1, 1, 1), 2, np.uint8))
    assert chunk.read_bytes() == damaged
    chunk.rename(tmp_path / "moved away")
    found = reopened(path)
    assert found.annotation is not None
    assert not found.annotation.labels[4].any()
    assert found.annotation.labels[1].any()


def test_settings_of_another_version_close_no_session(tmp_path: Path) -> None:
    path = made(tmp_path / NAME, file_session(tmp_path))
    text = json.loads((path / "session.json").read_text())
    text["record"]["settings"]["training"] |= {"unknown": 1, "seconds": 1e12, "loss": 5}
    text["record"]["settings"]["removed"] = True
    text["record"]["scores"] = {"of": "another version"}
    (path / "session.json").write_text(json.dumps(text))
    found = reopened(path)
    assert found.settings.training.device == "cpu"
    assert found.settings.outputs == ("uncertainty",)
    assert found.scores is None


def test_what_cannot_become_a_session(tmp_path: Path) -> None:
    session = file_session(tmp_path)
    path = made(tmp_path / NAME, session)
    before = content(path)
    with pytest.raises(BadInputError, match="There is a "):
        SessionFolder.create(path, session)
    assert content(path) == before
    with pytest.raises(BadInputError, match="needs an image"):
        SessionFolder.create(tmp_path / "b", Session())
    with pytest.raises(BadInputError, match="There is no folder"):
        SessionFolder.create(tmp_path / "nowhere" / "b", session)
    assert session.annotation is not None
    wrong = replace(session, annotation=replace(session.annotation, labels=labels()[:3]))
    with pytest.raises(BadInputError, match=r"3 × 40 × 50.*6 × 40 × 50"):
        SessionFolder.create(tmp_path / "b", wrong)
    with pytest.raises(BadInputError, match="no such folder"):
        SessionFolder.open(tmp_path / "b")
    with SessionFolder.open(path) as folder, pytest.raises(BadInputError, match=r"'\.\./x'"):
        folder.write_result("../x", labels())
    assert {p.name for p in tmp_path.iterdir()} == {NAME, "cells.tif"}


def test_a_model_is_kept_when_a_new_one_cannot_be_written(tmp_path: Path) -> None:
    path = made(tmp_path / NAME, file_session(tmp_path))
    with SessionFolder.open(path) as folder:
        folder.write_model(model(1), scores(1))
        bad = NamedModel(model(2).bundle.model_copy(update={"weights": {"a": 1}}), "bad")
        with pytest.raises(AttributeError):
            folder.write_model(bad)
    found = reopened(path)
    assert found.model is not None
    assert (found.model.name, found.scores) == ("number 1", scores(1))
