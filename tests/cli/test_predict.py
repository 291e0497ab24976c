"""`predict`: a model and an image in, a segmentation out."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from blobs import IMAGE, SHAPE, TRUTH, VOXEL, plain, write
from napari_unet3d.data.io.outputs import create_output
from napari_unet3d.data.io.reading import read_labels, read_volume


@pytest.mark.parametrize("name", ["out.tif", "out.ome.tif", "out.ome.zarr"])
def test_predict_keeps_shape_voxel_size_and_class_numbers(run, work, tmp_path, name):
    outcome = run(
        "predict", work / "model.unet3d", work / "image.tif", "-o", tmp_path / name,
        "--device", "cpu",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert str(tmp_path / name) in outcome.out
    found = read_labels(tmp_path / name)
    assert found.shape == SHAPE
    assert found.voxel_size == pytest.approx(VOXEL)
    assert found.unit == "µm"
    labels = np.asarray(found.data[...])
    assert set(np.unique(labels)) == {0, 2}
    assert (labels == TRUTH).mean() > 0.75
    assert os.listdir(tmp_path) == [name]


def test_predict_from_zarr_with_probabilities_and_uncertainty(run, work, tmp_path):
    write(tmp_path / "image.ome.zarr", IMAGE)
    outcome = run(
        "predict", work / "model.unet3d", tmp_path / "image.ome.zarr", "-o", tmp_path / "a.tif",
        "--probabilities", tmp_path / "p.ome.zarr", "--uncertainty", tmp_path / "u.tif",
        "--device", "cpu", "--memory", "0.5",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    labels = np.asarray(read_labels(tmp_path / "a.tif").data[...])
    p, u = read_volume(tmp_path / "p.ome.zarr"), read_volume(tmp_path / "u.tif")
    assert p.axes == "CZYX"
    assert p.n_channels == 2
    assert p.voxel_size == pytest.approx(VOXEL)
    np.testing.assert_allclose(np.asarray(p.data[...]).sum(0), 1, atol=1e-4)
    np.testing.assert_array_equal(labels == 2, np.asarray(p.data[...])[1] > 0.5)
    assert 0 <= np.asarray(u.data[...]).min() <= np.asarray(u.data[...]).max() <= 1


def test_what_to_expect_is_told_where_nothing_is_held_out(train, run, work, tmp_path):
    assert train("--iterations", "3").code == 0
    model, image, out = tmp_path / "out.unet3d", work / "image.tif", tmp_path / "seg.tif"
    outcome = run("predict", model, image, "-o", out, "--device", "cpu")
    assert "Expected IoU: " in outcome.err
    assert "annotated slices." in outcome.err
    outcome = run(
        "predict", model, image, "-o", out, "--device", "cpu", "--overwrite", "--json", "--quiet"
    )
    notes = json.loads(outcome.out)["notes"]
    assert any(note.startswith("Expected IoU: ") for note in notes)
    outcome = run("predict", work / "model.unet3d", image, "-o", tmp_path / "measured.tif")
    assert "Expected IoU" not in outcome.err


def test_chosen_time_points(run, work, tmp_path):
    write(tmp_path / "series.tif", np.stack([IMAGE, IMAGE[::-1]]), "TZYX")
    outcome = run(
        "predict", work / "model.unet3d", tmp_path / "series.tif", "-o", tmp_path / "a.tif",
        "--times", "1", "--device", "cpu",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    found = np.asarray(read_labels(tmp_path / "a.tif").data[...])
    assert found.shape == (2, *SHAPE)
    assert not found[0].any()
    assert found[1].any()


@pytest.mark.parametrize("name", ["out.png", "out", "nowhere/out.tif"])
def test_predict_into_a_name_that_does_not_go(run, work, tmp_path, name):
    output = tmp_path / name
    outcome = run("predict", work / "model.unet3d", work / "image.tif", "-o", output)
    assert outcome.code == 2
    assert not list(tmp_path.iterdir())


def test_predict_bad_input_leaves_no_file(run, work, tmp_path):
    output = tmp_path / "out.tif"
    two = np.stack([IMAGE, IMAGE])
    with create_output(tmp_path / "two.tif", two.shape, two.dtype, "CZYX", VOXEL, "µm") as out:
        out[...] = two
    model, image = work / "model.unet3d", work / "image.tif"
    for arguments, word in (
        ([model, tmp_path / "two.tif"], "2 channel"),
        ([model, plain(tmp_path / "flat.tif", np.full(SHAPE, 3, np.uint8))], "same value"),
        ([image, image], "image.tif"),
        ([tmp_path / "no.unet3d", image], "no.unet3d"),
        ([model, image, "--times", "3"], "time point 3"),
        ([model, image, "--times", "a"], "--times a"),
        ([model, image, "--memory", "0"], "memory"),
        ([model, image, "--device", "tpu"], "tpu"),
        ([model, image, "--probabilities", tmp_path / "p.png"], "p.png"),
    ):
        outcome = run("predict", *arguments, "-o", output)
        assert outcome.code == 2, (arguments, outcome.err)
        assert word in outcome.err
        assert {p.name for p in tmp_path.iterdir()} <= {"two.tif", "flat.tif"}


def test_existing_result_survives_bad_input(run, work, tmp_path):
    output = tmp_path / "out.tif"
    output.write_bytes(b"precious")
    bad = plain(tmp_path / "flat.tif", np.full(SHAPE, 3, np.uint8))
    assert run("predict", work / "model.unet3d", bad, "-o", output).code == 2
    assert output.read_bytes() == b"precious"


def test_all_stacks_of_a_folder(run, work, tmp_path):
    folder, out = tmp_path / "stacks", tmp_path / "out"
    folder.mkdir()
    write(folder / "one.tif", IMAGE)
    write(folder / "flat.tif", np.zeros_like(IMAGE))
    outcome = run("predict", work / "model.unet3d", folder, "-o", out, "--device", "cpu")
    assert outcome.code == 1  # one of them failed
    assert "1 of 2 stacks segmented, 1 failed" in outcome.out
    assert "flat.tif" in outcome.err
    assert [p.name for p in out.iterdir()] == ["one segmented.ome.tif"]
    (folder / "flat.tif").unlink()
    again = run(
        "predict", work / "model.unet3d", folder, "-o", out, "--device", "cpu", "--overwrite",
        "--json",
    )  # fmt: skip
    assert again.code == 0
    assert str(folder / "one.tif") in again.out
    refused = run(
        "predict", work / "model.unet3d", folder, "-o", out, "--uncertainty", tmp_path / "u.tif"
    )
    assert refused.code == 2
    assert "folder of stacks" in refused.err
