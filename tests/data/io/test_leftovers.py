"""What a killed process leaves behind, and what the next one makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_unet3d.data.io.leftovers import OLD, PARTIAL, old_path, temporary_path
from napari_unet3d.data.io.outputs import create_output
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.errors import BadInputError

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")

SHAPE = (5, 8, 6)
VICTIM = """
import os, signal, sys
from napari_unet3d.data.io import atomic
from napari_unet3d.data.io.outputs import create_output

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

path, when = sys.argv[1:]
if when == "swapping":
    atomic._move = die
with create_output(path, (5, 8, 6), "uint16") as out:
    out[:] = 7
    if when == "writing":
        die()
"""


def write(path: Path, value: int, **options) -> None:
    with create_output(path, SHAPE, "uint16", **options) as out:
        out[:] = value


def killed(path: Path, when: str = "writing") -> list[str]:
    """What lies beside `path` after a process was killed while it wrote it."""
    done = subprocess.run([sys.executable, "-c", VICTIM, str(path), when], check=False)
    assert done.returncode == -signal.SIGKILL
    return sorted(p.name for p in path.parent.iterdir() if p != path)


def values(path: Path) -> set[int]:
    return set(np.unique(np.asarray(read_volume(path).data[...])).tolist())


@pytest.mark.parametrize("name", ["a.tif", "ü" * 123 + ".ome.zarr"])
def test_the_next_run_removes_what_a_killed_one_left(tmp_path, name):
    path = tmp_path / name
    assert len(os.fsencode(name)) <= 255
    write(path, 1)
    (left,) = killed(path)
    assert left.endswith(PARTIAL)
    assert values(path) == {1}, "the older result was lost"
    write(path, 2)
    assert os.listdir(tmp_path) == [name]
    assert values(path) == {2}


def test_a_replacement_that_was_interrupted_is_completed_by_reading(tmp_path):
    path = tmp_path / "a.ome.zarr"
    write(path, 1)
    left = killed(path, "swapping")
    assert [os.path.splitext(name)[1] for name in left] == [OLD, PARTIAL]
    assert not path.exists()
    assert values(path) == {7}, "the result was complete"
    assert os.listdir(tmp_path) == ["a.ome.zarr"]


def test_a_replacement_that_was_interrupted_is_completed_before_writing(tmp_path):
    path = tmp_path / "a.ome.zarr"
    write(path, 1)
    assert len(killed(path, "swapping")) == 2
    with pytest.raises(BadInputError, match="already"):
        write(path, 2, overwrite=False)
    assert values(path) == {7}
    assert os.listdir(tmp_path) == ["a.ome.zarr"]


def test_the_older_result_comes_back_where_the_newer_is_gone(tmp_path):
    path = tmp_path / "a.ome.zarr"
    write(path, 1)
    old, new = (tmp_path / name for name in killed(path, "swapping"))
    assert new.suffix == PARTIAL
    new.rename(tmp_path / "elsewhere")
    assert values(path) == {1}
    assert not old.exists()


@pytest.mark.parametrize("who", ["another process", "another computer", "this process"])
def test_what_may_still_be_written_stays(tmp_path, who, caplog):
    path = tmp_path / "a.ome.zarr"
    mine = temporary_path(path)
    maker = f"-{os.getpid()}-"
    assert maker in mine.name
    if who == "another process":
        name = mine.name.replace(maker, f"-{os.getppid()}-")
    elif who == "another computer":
        name = mine.name.replace(maker, f"x-{os.getpid()}-")
    else:
        name = mine.name
    partial = tmp_path / name
    partial.mkdir()
    old_path(partial).mkdir()
    write(path, 1)
    assert {partial.name, old_path(partial).name} < set(os.listdir(tmp_path))
    assert (partial.name in caplog.text) == (who != "this process")


def test_other_files_are_no_leftovers(tmp_path):
    others = [".a.tif.partial", ".a.tif.b.partial", "a.tif.partial", ".b.tif.x-1-0123abcd.partial"]
    for name in others:
        (tmp_path / name).write_text("precious")
    write(tmp_path / "a.tif", 1)
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "a.tif"])


def test_temporary_names_fit_into_the_file_system(tmp_path):
    names = ["a.tif", "x" * 251 + ".tif", "y" * 251 + ".tif", "画" * 83 + ".zarr"]
    keys = set()
    for name in names:
        temporary = temporary_path(tmp_path / name)
        temporary.touch()
        keys.add(temporary.name.split("-")[0])
    assert len(keys) == len(names), "two outputs share a name"
