"""`objects`, and `evaluate` of numbered objects."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from blobs import plain, write
from napari_unet3d.data.io.reading import read_labels

TRUTH = np.zeros((12, 20, 40), np.uint16)
TRUTH[2:9, 3:15, 2:14] = 1
TRUTH[2:9, 3:15, 20:34] = 2
CLASSES = np.where(TRUTH > 0, 2, 0).astype(np.uint8)


@pytest.fixture
def files(tmp_path):
    image = (TRUTH * 100 + 7).astype(np.uint16)
    return (
        write(tmp_path / "classes.ome.tif", CLASSES),
        write(tmp_path / "instances.ome.zarr", TRUTH),
        write(tmp_path / "image.tif", image),
    )


@pytest.mark.parametrize("name", ["objects.ome.tif", "objects.ome.zarr"])
def test_objects_and_their_table(run, files, tmp_path, name):
    classes, truth, image = files
    out, table = tmp_path / name, tmp_path / "objects.csv"
    outcome = run("objects", classes, "-o", out, "--table", table, "--image", image)
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith("2 objects, median volume 16.4 µm³.")
    objects = read_labels(out)
    np.testing.assert_array_equal(np.asarray(objects.data), TRUTH)
    assert objects.voxel_size == (0.5, 0.2, 0.15)
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["mean gray value"] for row in rows] == ["107", "207"]
    assert [row["voxels"] for row in rows] == ["1008", "1176"]
    perfect = json.loads(run("evaluate", out, truth, "--instances", "--json").out)
    assert perfect["by_iou"]["0.75"]["average_precision"] == 1
    assert perfect["variation_of_information"] == {"split": 0, "merge": 0}
    table_text = run("evaluate", classes, truth, "--instances")
    assert "Number the objects" in table_text.err
    assert "2 true objects, 1 predicted" in table_text.out


def test_json_and_the_wrong_name(run, files, tmp_path):
    out = tmp_path / "o.tif"
    found = json.loads(run("objects", files[0], "-o", out, "--min-voxels", 1100, "--json").out)
    assert found["count"] == 1
    assert found["median_volume"] == pytest.approx(1176 * 0.5 * 0.2 * 0.15)
    again = run("objects", files[0], "-o", out)
    assert again.code == 2
    assert "--overwrite" in again.err
    wrong = run("objects", files[0], "-o", tmp_path / "p.tif", "--table", tmp_path / "t.xlsx")
    assert wrong.code == 2
    assert ".csv" in wrong.err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--class", "3"], "Class 3 does not occur"),
        (["--min-voxels", "100000"], "No object has 100000 voxels"),
        (["--separation", "2"], "at most 1"),
        (["--boundary-class", "2"], "Only the boundary"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(run, files, tmp_path, options, text):
    out = tmp_path / "o.ome.zarr"
    before = sorted(tmp_path.iterdir())
    outcome = run("objects", files[0], "-o", out, *options)
    assert outcome.code == 2
    assert text in outcome.err
    assert sorted(tmp_path.iterdir()) == before


def test_a_smallest_volume_needs_a_voxel_size(run, files, tmp_path):
    bare = plain(tmp_path / "bare.tif", CLASSES)
    outcome = run("objects", bare, "-o", tmp_path / "o.tif", "--min-volume", 1)
    assert outcome.code == 2
    assert "voxel size" in outcome.err
    arguments = ["objects", bare, "-o", tmp_path / "o.tif", "--min-volume", 1, "--image", files[2]]
    assert "µm³" in run(*arguments).out  # the image has one


def test_numbered_objects_are_not_taken_for_classes(run, tmp_path):
    many = np.arange(12 * 20 * 40).reshape(12, 20, 40) // 100
    file = write(tmp_path / "many.tif", many.astype(np.uint16))
    outcome = run("evaluate", file, file)
    assert outcome.code == 2
    assert "--instances" in outcome.err
    assert run("evaluate", file, file, "--labels", "dense").code == 0
    both = run("evaluate", file, file, "--instances", "--labels", "dense")
    assert both.code == 2


def test_a_truth_on_one_crossing_slice_counts_that_slice_only(run, tmp_path):
    truth = np.zeros_like(CLASSES)
    truth[:, :, 25] = CLASSES[:, :, 25]
    prediction = write(tmp_path / "p.tif", CLASSES)
    outcome = run("evaluate", prediction, write(tmp_path / "t.tif", truth), "--json")
    assert json.loads(outcome.out)["mean_iou"] == 1
    assert "x=25" in outcome.err


def test_background_in_both_files_is_no_class_when_they_are_sparse(run, tmp_path):
    full = np.maximum(CLASSES, 1)
    prediction = write(tmp_path / "p.tif", full)
    truth = write(tmp_path / "t.tif", full)
    outcome = run("evaluate", prediction, truth)
    assert "--labels sparse" in outcome.err
    sparse = json.loads(run("evaluate", prediction, truth, "--labels", "sparse", "--json").out)
    assert list(sparse["classes"]) == ["2"]
