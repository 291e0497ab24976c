"""A file or folder gets its name when it is complete, and takes nobody else's."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest

from napari_unet3d.data.io import atomic
from napari_unet3d.data.io.atomic import KeptElsewhereError, Replacement
from napari_unet3d.data.io.targets import check_target
from napari_unet3d.errors import BadInputError, RunFailedError

root_only = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may act as another user"
)


def folder_with(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "content").write_text(text)
    return path


def kept_by(place: Replacement) -> Path:
    """Where the result is after it could not get its name."""
    with pytest.raises(KeptElsewhereError) as caught:
        place.commit()
    assert str(caught.value.kept) in str(caught.value)
    place.discard()
    return caught.value.kept


@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_that_appears_is_not_replaced(tmp_path, overwrite):
    path = tmp_path / "a.ome.tif"
    place = Replacement(path, overwrite=overwrite)
    place.temporary.write_text("result")
    path.write_text("precious")
    kept = kept_by(place)
    assert path.read_text() == "precious"
    assert kept == tmp_path / "a-1.ome.tif"
    assert kept.read_text() == "result"
    assert sorted(os.listdir(tmp_path)) == ["a-1.ome.tif", "a.ome.tif"]


def test_a_file_that_takes_the_place_of_the_older_one_is_not_replaced(tmp_path):
    path = tmp_path / "a.tif"
    path.write_text("older")
    place = Replacement(path)
    place.temporary.write_text("result")
    path.write_text("another program's result")
    assert kept_by(place).read_text() == "result"
    assert path.read_text() == "another program's result"


def test_a_folder_that_appears_keeps_its_content(tmp_path):
    path = tmp_path / "a.ome.zarr"
    place = Replacement(path, folder=True)
    folder_with(place.temporary, "result")
    folder_with(path, "precious")
    kept = kept_by(place)
    assert (path / "content").read_text() == "precious"
    assert (kept / "content").read_text() == "result"
    assert sorted(os.listdir(tmp_path)) == ["a-1.ome.zarr", "a.ome.zarr"]


def test_the_other_name_is_free_and_fits(tmp_path):
    path = tmp_path / ("x" * 251 + ".tif")
    place = Replacement(path)
    place.temporary.write_text("result")
    path.write_text("precious")
    (tmp_path / ("x" * 249 + "-1.tif")).write_text("precious, too")
    kept = kept_by(place)
    assert kept.name == "x" * 249 + "-2.tif"
    assert kept.read_text() == "result"


@pytest.mark.parametrize("folder", [False, True])
def test_a_result_that_was_removed_is_not_claimed(tmp_path, folder):
    path = tmp_path / "a"
    place = Replacement(path, folder=folder)
    if folder:
        folder_with(place.temporary, "result")
        shutil.rmtree(place.temporary)
    else:
        place.temporary.write_text("result")
        place.temporary.unlink()
    with pytest.raises(RunFailedError, match="was removed while it was being written"):
        place.commit()
    assert os.listdir(tmp_path) == []


def test_an_interrupted_swap_gives_the_older_folder_back(tmp_path, monkeypatch):
    path = folder_with(tmp_path / "a", "older")
    place = Replacement(path, folder=True)
    folder_with(place.temporary, "result")

    def interrupt(*_):
        assert not path.exists(), "not between the two steps"
        raise KeyboardInterrupt

    monkeypatch.setattr(atomic, "_move", interrupt)
    with pytest.raises(KeyboardInterrupt):
        place.commit()
    place.discard()
    assert os.listdir(tmp_path) == ["a"]
    assert (path / "content").read_text() == "older"


@pytest.mark.parametrize("folder", [False, True])
def test_a_link_stays_and_its_target_is_replaced(tmp_path, folder):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "target", tmp_path / "link"
    link.symlink_to(Path("there") / "target")
    for text in ("first", "second"):  # the link dangles at first
        place = Replacement(link, folder=folder)
        assert place.temporary.parent == target.parent
        if folder:
            folder_with(place.temporary, text)
        else:
            place.temporary.write_text(text)
        place.commit()
        assert link.is_symlink()
        assert (target / "content" if folder else target).read_text() == text
        assert os.listdir(target.parent) == ["target"]


def test_cleaning_up_hides_no_error(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    place = Replacement(folder / "a")
    shutil.rmtree(folder)
    folder.write_text("a file in its place: removing in it fails with 'not a directory'")
    with pytest.raises(NotADirectoryError):
        place.temporary.unlink(missing_ok=True)
    with pytest.raises(RunFailedError, match="a could not be written"):
        place.write(b"result")


def test_everything_is_written_through_to_the_disk(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def record(file):
        synced.append(os.fstat(file).st_ino)
        fsync(file)

    monkeypatch.setattr(os, "fsync", record)
    place = Replacement(tmp_path / "a", folder=True)
    folder_with(place.temporary, "result")
    place.commit()
    inodes = [p.stat().st_ino for p in (tmp_path / "a" / "content", tmp_path / "a", tmp_path)]
    assert synced == inodes


@pytest.mark.parametrize(
    ("code", "words"), [(errno.EIO, "Input/output"), (errno.ENOSPC, "disk got full")]
)
def test_a_disk_that_fails_at_last_fails_the_run(tmp_path, monkeypatch, code, words):
    (tmp_path / "a").write_text("older")

    def failing(_file):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(RunFailedError, match=words):
        Replacement(tmp_path / "a").write(b"result")
    assert (tmp_path / "a").read_text() == "older"
    assert os.listdir(tmp_path) == ["a"]


def test_a_disk_that_cannot_write_through_is_no_failure(tmp_path, monkeypatch):
    def unknown(_file):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", unknown)
    Replacement(tmp_path / "a").write(b"result")
    assert (tmp_path / "a").read_bytes() == b"result"


def test_a_disk_without_links_will_do(tmp_path, monkeypatch):
    def impossible(*_args):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", impossible)
    Replacement(tmp_path / "a").write(b"result")
    place = Replacement(tmp_path / "b")
    place.temporary.write_text("result")
    (tmp_path / "b").write_text("precious")
    assert kept_by(place).name == "b-1"
    assert (tmp_path / "b").read_text() == "precious"


# --- what is known before a long run ---------------------------------------------------------


def refused(path: str | Path, words: str, **options) -> None:
    with pytest.raises(BadInputError, match=words):
        check_target(path, **options)


def test_names(tmp_path):
    check_target(tmp_path / ("x" * 255))
    check_target(tmp_path / ("ü" * 127))
    refused(tmp_path / ("x" * 256), "has 256 bytes")
    refused(tmp_path / ("ü" * 128), "has 256 bytes")
    refused(tmp_path / ("x" * 256) / "a", "has 256 bytes")
    refused("~nosuchuser/a", "no home folder")
    refused("a\0b", "no path")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="the current folder cannot be removed here")
def test_a_current_folder_that_is_gone(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    refused("a.tif", "current folder, which is gone")


def test_existing(tmp_path):
    (tmp_path / "file").write_text("precious")
    folder_with(tmp_path / "folder", "precious")
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    refused(tmp_path / "file", "allow it to be replaced", overwrite=False)
    refused(tmp_path / "folder", "allow it to be replaced", overwrite=False, folder=True)
    refused(tmp_path / "folder", "is a folder")
    refused(tmp_path / "file", "is no folder", folder=True)
    refused(tmp_path / "loop", "leads back to itself")
    check_target(tmp_path / "empty", overwrite=False, folder=True)
    check_target(tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "folder", "loop"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
def test_devices_and_pipes_are_not_replaced(tmp_path):
    (tmp_path / "null").symlink_to(os.devnull)
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "null", "no ordinary file")
    refused(tmp_path / "pipe", "no ordinary file")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_read_only_file_is_not_replaced(tmp_path):
    path = tmp_path / "a"
    path.write_text("precious")
    path.chmod(0o444)
    refused(path, "is read-only")
    path.chmod(0o644)


def test_an_immutable_file_is_known_before(tmp_path):
    path = tmp_path / "a"
    path.write_text("precious")
    if (
        not shutil.which("chattr")
        or subprocess.run(["chattr", "+i", str(path)], capture_output=True, check=False).returncode
    ):
        pytest.skip("files cannot be made immutable here")
    try:
        with pytest.raises(PermissionError):
            os.replace(path, tmp_path / "b")
        refused(path, "protected against changes")
    finally:
        subprocess.run(["chattr", "-i", str(path)], check=True)


@pytest.fixture
def as_nobody():
    """A folder that everybody may write to; within the test, the process is nobody."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o1777)
    (folder / "file").write_text("precious")
    (folder / "folder").mkdir()
    os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(0)
        shutil.rmtree(folder)


@root_only
def test_a_file_of_somebody_else_in_a_sticky_folder_is_known_before(as_nobody):
    with pytest.raises(PermissionError):
        os.replace(as_nobody / "file", as_nobody / "b")
    refused(as_nobody / "file", "belongs to another user")
    refused(as_nobody / "folder", "belongs to another user", folder=True)
    check_target(as_nobody / "new")
    (as_nobody / "mine").write_text("")
    check_target(as_nobody / "mine")


@root_only
def test_a_folder_that_cannot_be_emptied_is_known_before(as_nobody):
    os.seteuid(0)
    as_nobody.chmod(0o777)
    folder_with(as_nobody / "full", "precious")
    os.seteuid(65534)
    os.rename(as_nobody / "full", as_nobody / "f")  # it may be renamed, but
    with pytest.raises(PermissionError):
        shutil.rmtree(as_nobody / "f")  # not removed: an old copy would stay
    refused(as_nobody / "f", "belongs to another user", folder=True)


@root_only
def test_what_cannot_be_removed_is_said(as_nobody, caplog):
    os.seteuid(0)
    (as_nobody / "mine").mkdir()
    os.chown(as_nobody / "mine", 65534, 65534)
    inner = folder_with(as_nobody / "mine" / "inner", "precious")
    os.seteuid(65534)
    place = Replacement(as_nobody / "mine", folder=True)
    folder_with(place.temporary, "result")
    place.commit()
    assert (as_nobody / "mine" / "content").read_text() == "result"
    (old,) = as_nobody.glob(".mine.*.old")
    assert (old / inner.name).exists()
    assert str(old) in caplog.text
    os.seteuid(0)
