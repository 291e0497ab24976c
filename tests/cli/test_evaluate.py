"""`evaluate`: scores of a segmentation against its truth."""

from __future__ import annotations

import json

import numpy as np
import pytest

from blobs import TRUTH, write


@pytest.fixture
def pair(tmp_path):
    """A prediction and a truth; class 3 is on slice 4 only."""
    truth = TRUTH.copy()
    truth[4, :3, :3] = 3
    prediction = truth.copy()
    prediction[0] = 0
    return write(tmp_path / "p.tif", prediction), write(tmp_path / "t.ome.zarr", truth), truth


def test_evaluate_json(run, pair):
    prediction, truth, values = pair
    found = json.loads(run("evaluate", prediction, truth, "--json").out)
    expected = 1 - (values[0] == 2).sum() / (values == 2).sum()
    assert found["classes"]["2"]["iou"] == pytest.approx(expected)
    assert found["classes"]["3"] == {"iou": 1.0, "dice": 1.0, "voxels": 9}
    assert found["mean_iou"] == pytest.approx((expected + 1) / 2)


def test_evaluate_skips_slices(run, pair):
    prediction, truth, _ = pair
    found = json.loads(run("evaluate", prediction, truth, "--skip", "z=0,9", "--json").out)
    assert found["mean_iou"] == 1
    found = json.loads(
        run("evaluate", prediction, truth, "--skip", "z=0", "--skip", "x=3", "--json").out
    )
    assert (
        found["classes"]["2"]["voxels"]
        == (np.delete(TRUTH[1:], 3, 2) == 2).sum()
        - (np.delete(TRUTH[4, :3], 3, 1)[:, :3] == 2).sum()
    )


def test_absent_class_is_a_dash_and_null(run, pair):
    prediction, truth, _ = pair
    outcome = run("evaluate", prediction, truth, "--skip", "z=0,4", "--json")
    found = json.loads(outcome.out)
    assert found["classes"]["3"] == {"iou": None, "dice": None, "voxels": 0}
    assert found["mean_iou"] == 1
    table = run("evaluate", prediction, truth, "--skip", "z=0,4")
    assert table.code == 0
    (line,) = [row for row in table.out.splitlines() if row.strip().startswith("3 ")]
    assert line.count("—") == 2
    assert "nan" not in (table.out + outcome.out).lower()


@pytest.mark.parametrize("skip", ["z=10", "q=3", "z", "z=-1", "t=4 z=1"])
def test_evaluate_refuses_slices_that_are_not_there(run, pair, skip):
    outcome = run("evaluate", pair[0], pair[1], "--skip", skip)
    assert outcome.code == 2
    assert skip.split("=")[0] in outcome.err


def test_evaluate_refuses_what_does_not_go_together(run, pair, work, tmp_path):
    cut = write(tmp_path / "cut.tif", TRUTH[1:])
    outcome = run("evaluate", pair[0], cut)
    assert outcome.code == 2
    assert "(9, 32, 36)" in outcome.err
    other = write(tmp_path / "other.tif", np.where(TRUTH == 2, 1, 0).astype(np.uint8))
    outcome = run("evaluate", work / "truth.tif", other)
    assert outcome.code == 2
    assert "[2]" in outcome.err
    assert "[1]" in outcome.err
