"""What is put is on the disk soon, whatever happens to the disk meanwhile."""

from __future__ import annotations

import errno
import json
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from session_files import CLASSES, SHAPE, content, file_session, labels, model, scores

from limits import largest_file
from napari_unet3d.data.io.folder_lock import NAME as LOCK
from napari_unet3d.data.io.journal import read_commits
from napari_unet3d.session import file_writer
from napari_unet3d.session.autosave import AutoSaver
from napari_unet3d.session.disk_problems import explain
from napari_unet3d.session.folder import SessionFolder

NOT_YET = 3600.0
"""Seconds: no commit comes by itself."""


@pytest.fixture
def saver(tmp_path: Path) -> Iterator[AutoSaver]:
    folder = SessionFolder.create(tmp_path / "a.unet3d-session", file_session(tmp_path))
    saver = AutoSaver(folder, interval=0.05)
    yield saver
    saver.close(0.2)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[AutoSaver]:
    folder = SessionFolder.create(tmp_path / "a.unet3d-session", file_session(tmp_path))
    saver = AutoSaver(folder, interval=NOT_YET)
    assert saver.flush()
    yield saver
    saver.close(0.2)


def stroke(saver: AutoSaver, z: int = 0, value: int = 3) -> None:
    saver.put_labels(((z, z + 1), (2, 6), (3, 8)), np.full((1, 4, 5), value, np.uint8))


def until(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def on_disk(saver: AutoSaver, key: str = "held_out") -> object:
    """A field of the record, as another program reads it."""
    from napari_unet3d.session.state import read_state

    return getattr(read_state(saver.folder.path).record, key)


def held_out(saver: AutoSaver, *slices: str) -> None:
    saver.put_record(saver.folder.record().model_copy(update={"held_out": slices}))


def test_paint_comes_to_the_disk_by_itself(saver: AutoSaver) -> None:
    before = saver.saved_at
    stroke(saver)
    assert saver.saved_at <= time.monotonic()
    chunk = saver.folder.path / "annotation.zarr" / "0" / "0" / "0" / "0"
    assert until(chunk.exists)
    assert until(lambda: saver.saved_at > before and saver.flush())
    assert saver.problem() == ""
    assert saver.close()
    with SessionFolder.open(saver.folder.path) as folder:
        expected = labels()
        expected[0, 2:6, 3:8] = 3
        np.testing.assert_array_equal(folder.labels(), expected)


def test_paint_that_is_erased_is_erased_on_the_disk(saver: AutoSaver) -> None:
    path = saver.folder.path / "annotation.zarr" / "0" / "1" / "0" / "0"
    assert path.exists()
    saver.put_labels(((1, 2), (0, 40), (0, 50)), np.zeros((1, 40, 50), np.uint8))
    assert until(lambda: not path.exists())


def test_many_strokes_make_one_commit_and_the_newest_counts(slow: AutoSaver) -> None:
    before = slow.folder.state.commit
    for value in range(1, 4):
        for _ in range(50):
            stroke(slow, value=value)
    assert slow.flush()
    assert slow.folder.state.commit == before + 1
    assert (slow.folder.labels()[0, 2:6, 3:8] == 3).all()


def test_marks_are_written_at_once_and_settings_later(slow: AutoSaver) -> None:
    stroke(slow)
    record = slow.folder.record()
    slow.put_record(record.model_copy(update={"more": {"a": 1}}))
    held_out(slow, "z=0")
    assert until(lambda: on_disk(slow) == ("z=0",))
    assert slow.folder.labels()[0, 3, 4] == 3  # in the same commit


def test_nothing_of_a_group_is_written_before_its_end(saver: AutoSaver) -> None:
    with saver.together():
        stroke(saver)
        assert not saver.flush(0.3)
        held_out(saver, "z=0")
        assert not saver.flush(0.1)
    assert saver.flush()
    commits = [saver.folder.state.commit]
    assert on_disk(saver) == ("z=0",)
    assert saver.folder.state.commit == commits[0]


def test_putting_never_waits_for_the_disk(slow: AutoSaver) -> None:
    folder = slow.folder
    with folder._guard:  # the disk hangs in a commit
        done = threading.Event()

        def put() -> None:
            stroke(slow)
            held_out(slow, "z=1")
            slow.put_model(model(1), scores(1))
            slow.put_result("labels", labels(), classes=CLASSES)
            assert slow.problem() == ""
            assert slow.saved_at <= time.monotonic()
            done.set()

        thread = threading.Thread(target=put)
        thread.start()
        assert done.wait(5)
        thread.join()
    assert slow.flush(30)


def test_much_paint_that_waits_is_compressed(slow: AutoSaver) -> None:
    with slow.together():  # as if the disk hung
        for z in range(6):
            slow.put_labels(
                ((z, z + 1), (0, 40), (0, 50)),
                np.broadcast_to(np.uint8(z + 1), (1, 40, 50)),
            )
        slow._paint._queued = 2**26
        slow.put_labels(((0, 1), (0, 40), (0, 50)), np.full((1, 40, 50), 9, np.uint8))
        assert isinstance(slow._paint._parts[-1][1], bytes)
    assert slow.flush()
    assert [int(p.max()) for p in slow.folder.labels()] == [9, 2, 3, 4, 5, 6]


def test_a_whole_annotation_takes_the_place(saver: AutoSaver) -> None:
    other = np.zeros(SHAPE, np.uint8)
    other[3, 4:9, 5:6] = 2
    stroke(saver)
    saver.put_all_labels(other)
    stroke(saver, 5)
    assert saver.flush()
    other[5, 2:6, 3:8] = 3
    np.testing.assert_array_equal(saver.folder.labels(), other)


# --- large files ----------------------------------------------------------------------------


def test_model_checkpoint_and_results(saver: AutoSaver) -> None:
    saver.put_checkpoint(model(1).bundle)
    assert until(lambda: saver.flush(0.1))
    assert (saver.folder.path / "checkpoint.unet3d").exists()
    saver.put_model(model(2), scores(2))
    record = saver.folder.record()
    facts = {"model_name": "number 2", "scores": scores(2), "more": {"curve": [1, 2]}}
    saver.put_record(record.model_copy(update=facts))
    saver.put_result("labels", labels(), classes=CLASSES)
    assert saver.close()
    assert not (saver.folder.path / "checkpoint.unet3d").exists()
    with SessionFolder.open(saver.folder.path) as folder:
        found = folder.load()
    assert found.model is not None
    assert (found.model.name, found.scores) == ("number 2", scores(2))
    assert found.more == {"curve": [1, 2]}
    np.testing.assert_array_equal(found.segmentation, labels())


def test_a_result_that_is_written_is_let_go(saver: AutoSaver) -> None:
    result = labels()
    kept = weakref.ref(result)
    saver.put_result("labels", result, classes=CLASSES)
    assert saver.flush(20)
    del result
    assert until(lambda: kept() is None)


def test_scores_wait_for_the_model_that_they_are_of(saver: AutoSaver) -> None:
    saver.put_model(model(1), scores(1))
    assert saver.flush(20)
    place = saver.folder.path / "model.unet3d"
    kept = place.rename(place.with_name("kept"))
    place.mkdir()  # nothing can be written there
    saver.put_model(model(2), scores(2))
    facts = {"model_name": "number 2", "scores": scores(2), "held_out": ("z=3",)}
    saver.put_record(saver.folder.record().model_copy(update=facts))
    assert until(saver.problem)
    assert "is a folder" in saver.problem()
    assert until(lambda: on_disk(saver) == ("z=3",))  # marks do not wait
    assert on_disk(saver, "scores") == scores(1)
    place.rmdir()
    kept.rename(place)
    assert saver.flush(20)
    assert on_disk(saver, "scores") == scores(2)
    assert saver.problem() == ""


def test_a_file_that_cannot_be_written_holds_up_no_other(
    saver: AutoSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_writer, "_RETRY", 0.1)
    (saver.folder.path / "checkpoint.unet3d").mkdir()
    saver.put_checkpoint(model(1).bundle)
    saver.put_result("labels", labels()[0], classes=CLASSES)  # two axes: never a result
    saver.put_result("second", labels(), classes=CLASSES)
    assert until(lambda: "second" in saver.folder.state.results, 30)
    assert "is a folder" in saver.problem()
    assert not saver.flush(0.1)
    (saver.folder.path / "checkpoint.unet3d").rmdir()
    assert saver.flush(20)


# --- the disk -------------------------------------------------------------------------------


def test_a_folder_that_vanishes_and_comes_back(saver: AutoSaver) -> None:
    path = saver.folder.path
    away = path.rename(path.with_name("away"))
    stroke(saver)
    held_out(saver, "z=5")
    assert until(saver.problem)
    assert f"'{path}' cannot be reached" in saver.problem()
    assert "kept in memory" in saver.problem()
    before = saver.saved_at
    stroke(saver, 2)
    assert not saver.flush(0.2)
    assert saver.saved_at == before
    assert not path.exists()  # a new one there would hide the true one
    away.rename(path)
    assert saver.flush(10)
    assert saver.problem() == ""
    assert on_disk(saver) == ("z=5",)
    assert saver.close()
    with SessionFolder.open(path) as folder:
        assert (folder.labels()[[0, 2], 3, 4] == 3).all()


def test_a_full_disk_is_told_and_survived(slow: AutoSaver) -> None:
    noise = np.random.default_rng(0).integers(0, 4, (1, *SHAPE[1:]), np.uint8)
    with largest_file(200):
        slow.put_labels(((0, 1), (0, 40), (0, 50)), noise)
        held_out(slow, "z=5")
        assert not slow.flush(0.5)
        problem = slow.problem()
    assert "larger than files may be here" in problem
    assert on_disk(slow) == ("z=4", "x=7")
    assert slow.flush(10)
    assert slow.problem() == ""
    assert on_disk(slow) == ("z=5",)
    np.testing.assert_array_equal(slow.folder.labels()[0], noise[0])


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "is full. Free some space"),
        (errno.EROFS, "cannot be written to .* Allow writing"),
        (errno.EACCES, "cannot be written to .* Allow writing"),
        (errno.EIO, "its disk is gone, or the folder was moved or deleted. Bring it back"),
        (errno.EMFILE, "could not be written .* another folder"),
    ],
)
def test_failures_in_words(number: int, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(explain(OSError(number, "so it is"), Path("s")))


def test_a_session_that_another_program_took_is_left_alone(saver: AutoSaver) -> None:
    path = saver.folder.path
    assert until(lambda: saver.flush(1) and not read_commits(path))
    other = {"token": "x", "host": "else_1", "pid": 1, "user": "ada", "program": "napari"}
    (path / LOCK).write_text(json.dumps(other))
    before = content(path)
    stroke(saver)
    assert until(saver.problem)
    assert "opened by another program meanwhile" in saver.problem()
    assert "another folder" in saver.problem()
    assert not saver.flush(0.5)
    assert not saver.close(0.2)
    assert content(path) == before


def test_a_damaged_chunk_stops_only_its_own_paint(saver: AutoSaver) -> None:
    saver.folder._chunks.set_content((4, 0, 0), b"damaged")
    stroke(saver, 4)
    stroke(saver, 0)
    assert until(lambda: "damaged" in saver.problem())
    with pytest.raises(AssertionError):
        assert saver.flush(0.2)
    assert until((saver.folder.path / "annotation.zarr" / "0" / "0" / "0" / "0").exists)


def test_the_end_is_the_end(saver: AutoSaver) -> None:
    stroke(saver)
    assert saver.close()
    assert saver.close()
    names = {t.name for t in threading.enumerate()}
    assert not {n for n in names if n.startswith("session")}
    with SessionFolder.open(saver.folder.path) as folder:
        assert not folder.crashed


def test_a_reader_sees_what_is_settled_while_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread moves a commit from the journal to its place between two readings."""
    from napari_unet3d.session import state

    with SessionFolder.create(tmp_path / "b.unet3d-session", file_session(tmp_path)) as folder:
        folder.set_record(folder.record().model_copy(update={"held_out": ("z=5",)}))
        folder.commit(model_follows=False)

        def settling(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
            def then_settled(path: Path) -> Any:
                found = read(path)
                found = found if isinstance(found, state.FolderState) else list(found)
                assert folder.settle(10.0)
                return found

            return then_settled

        for name in ("settled_state", "read_commits"):
            monkeypatch.setattr(state, name, settling(getattr(state, name)))
        assert state.read_state(folder.path).record.held_out == ("z=5",)
