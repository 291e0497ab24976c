"""`reproduce`: the paper's experiments on files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from blobs import IMAGE, TRUTH, write

TINY = ["--iterations", "1", "--device", "cpu", "--set", "patch_shape=[8,32,32]"]


@pytest.fixture
def files(tmp_path):
    write(tmp_path / "image.tif", IMAGE)
    write(tmp_path / "truth.tif", np.where(TRUTH > 0, TRUTH - 1, 0).astype(np.uint8))
    return tmp_path / "image.tif", tmp_path / "truth.tif"


def test_tables_are_written_and_completed(run, files, tmp_path):
    out = tmp_path / "out"
    outcome = run("reproduce", *files, "-o", out, "--experiments", "slices", *TINY)
    assert outcome.code == 0, outcome.err
    assert "4 trainings: 1 iterations;" in outcome.err
    assert "1 of 4: 3D, batch norm of the tile, slices, 1, 1, 1, seed 0" in outcome.err
    text = (out / "reproduction.md").read_text()
    assert "image.tif" in text
    assert "| 5, 5, 3 | 0." in text
    again = run("reproduce", *files, "-o", out, "--experiments", "slices", *TINY)
    assert again.code == 0
    assert "1 of 4" not in again.err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--experiments", "semi,best"], "'best' is none of semi, slices, full, family"),
        (["--experiments", "full"], "at least three stacks"),
        (["--stack", "a.tif"], "write IMAGE,LABELS"),
        (["--experiments", "full", "--stack", "OTHER"], "has the classes [1, 3], "),
        (["--experiments", "semi,family", "--seconds", "0"], "seconds"),
        (["--seconds", "5"], "--seconds is for the experiment 'family'"),
        (["--experiments", "family"], "--iterations is not for the experiment 'family'"),
        (["--set", "network.flop=1"], "no setting 'flop'"),
        (["--set", "seed=3"], "the experiments set seconds, iterations, seed"),
    ],
)
def test_bad_options(run, files, tmp_path, more, words):
    image, truth = files
    other = tifffile.imread(truth)
    other[0, 0, 0] = 3
    write(tmp_path / "other.tif", other)
    more = [f"{image},{tmp_path / 'other.tif'}" if o == "OTHER" else o for o in more]
    outcome = run("reproduce", *files, "-o", tmp_path / "out", *TINY, *more)
    assert outcome.code == 2, outcome.err
    assert words in outcome.err
    assert not (tmp_path / "out" / "results.json").exists()


def test_stacks_share_their_classes(run, files, tmp_path):
    """A value is the same class in all stacks; a single class may have any value."""
    image, _ = files
    mask = np.where(TRUTH > 0, 1, 0).astype(np.uint8)
    for number, value in enumerate((1, 255, 7)):
        write(tmp_path / f"mask{number}.tif", mask * value)
    first, *others = (tmp_path / f"mask{number}.tif" for number in range(3))
    more = [word for other in others for word in ("--stack", f"{image},{other}")]
    out = tmp_path / "out"
    outcome = run("reproduce", image, first, "-o", out, "--experiments", "full", *more, *TINY)
    assert outcome.code == 0, outcome.err
    results = json.loads((out / "results.json").read_text())
    assert len(results) == 9
    assert all(set(r["classes"]) == {"2"} for r in results)


def test_a_mask_of_255_is_a_class(run, files, tmp_path):
    write(tmp_path / "mask.tif", np.where(TRUTH > 0, 255, 0).astype(np.uint8))
    out = tmp_path / "out"
    outcome = run("reproduce", files[0], tmp_path / "mask.tif", "-o", out,
                  "--experiments", "slices", *TINY)  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "| 5, 5, 3 | 0." in (out / "reproduction.md").read_text()


def test_labels_of_objects_are_refused(run, files, tmp_path):
    write(tmp_path / "objects.tif", np.arange(TRUTH.size).reshape(TRUTH.shape).astype(np.uint16))
    outcome = run("reproduce", files[0], tmp_path / "objects.tif", "-o", tmp_path / "out", *TINY)
    assert outcome.code == 2
    assert "numbered objects" in outcome.err
    assert run("reproduce", files[0], "-o", tmp_path / "out").code == 2
