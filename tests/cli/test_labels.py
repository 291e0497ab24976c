"""Dense labels on the command line: recognized, asked about, trained, predicted, compared."""

from __future__ import annotations

import json

import numpy as np
import pytest

from blobs import LABELS, TRUTH, write
from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.model.bundle import ModelBundle

MASK = (TRUTH == 2).astype(np.uint8)
TWO = MASK.copy()
TWO[:, :16] *= 2
"""Dense, 0 background and two classes."""


def test_what_each_value_is_taken_for_stands_before_the_training(train) -> None:
    outcome = train("--iterations", "1", "--names", "2=nucleus")
    n = [int((value == LABELS).sum()) for value in range(3)]
    text = (
        f"0 unlabelled ({n[0]:,} voxels, ignored); 1 background ({n[1]:,} voxels); 2 'nucleus' "
        f"({n[2]:,} voxels)"
    )
    assert text in outcome.err
    assert outcome.err.index(text) < outcome.err.index("loss")


@pytest.mark.parametrize("dense", [MASK, 255 * MASK, TWO, TRUTH], ids=["1", "255", "1 2", "2"])
def test_dense_labels_are_not_trained_unasked(train, tmp_path, dense) -> None:
    labels = write(tmp_path / "dense.tif", dense)
    outcome = train("--iterations", "1", labels=labels)
    assert outcome.code == 2
    for words in ("0 background", "Nothing was trained", "--labels dense"):
        assert words in outcome.err
    assert "loss" not in outcome.err


def test_sparse_is_believed(train, tmp_path) -> None:
    labels = write(tmp_path / "dense.tif", TWO)
    assert train("--iterations", "1", "--labels", "sparse", labels=labels).code == 0
    bundle = ModelBundle.load(tmp_path / "out.unet3d")
    assert [(c.value, c.output) for c in bundle.classes] == [(2, None)]


def test_dense_keeps_the_users_numbers_from_training_to_scores(run, train, work, tmp_path) -> None:
    labels = write(tmp_path / "dense.tif", np.where(TWO == 2, 255, TWO))
    outcome = train(
        "--labels", "dense", "--iterations", "25", "--names", "255=wall,1=cell", "--hold-out",
        "z=5", labels=labels,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    model = tmp_path / "out.unet3d"
    bundle = ModelBundle.load(model)
    assert [(c.value, c.name, c.output) for c in bundle.classes] == [
        (2, "cell", 1),
        (3, "wall", 255),
    ]
    for words in ("0 background (", "1 'cell' (", "255 'wall' ("):
        assert words in outcome.err
    assert "cell (1): IoU" in outcome.out
    assert "wall (255): IoU" in outcome.out
    assert run("predict", model, work / "image.tif", "-o", tmp_path / "s.tif").code == 0
    found = np.asarray(read_labels(tmp_path / "s.tif").data)
    assert set(np.unique(found)) <= {0, 1, 255}
    assert ((found > 0) == (TWO > 0)).mean() > 0.75
    scores = json.loads(run("evaluate", tmp_path / "s.tif", labels, "--json").out)
    assert scores["classes"].keys() == {"1", "255"}


def test_training_on_dense_slices_equals_training_on_ours(train, tmp_path) -> None:
    dense = np.where(LABELS > 1, LABELS - 1, 0).astype(np.uint8)
    labels = write(tmp_path / "dense.tif", dense)
    ours, theirs = tmp_path / "ours.unet3d", tmp_path / "theirs.unet3d"
    assert train("--iterations", "3", output=ours).code == 0
    outcome = train("--iterations", "3", "--labels", "dense", labels=labels, output=theirs)
    assert outcome.code == 0, outcome.err
    weights = ModelBundle.load(theirs).weights
    for name, tensor in ModelBundle.load(ours).weights.items():
        assert (tensor == weights[name]).all(), name


def test_fine_tuned_models_take_the_numbers_of_the_new_labels(train, work, tmp_path) -> None:
    labels = write(tmp_path / "dense.tif", MASK)
    outcome = train(
        "--labels", "dense", "--iterations", "1", "--from", work / "model.unet3d", labels=labels
    )
    assert outcome.code == 0, outcome.err
    (info,) = ModelBundle.load(tmp_path / "out.unet3d").classes
    assert (info.value, info.output_value) == (2, 1)


def test_names_are_checked_by_the_users_numbers(train, tmp_path) -> None:
    labels = write(tmp_path / "dense.tif", TWO)
    outcome = train("--labels", "dense", "--names", "3=wall", labels=labels)
    assert outcome.code == 2
    assert "Painted classes: 1, 2" in outcome.err


# --- the wrong way round --------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "labels.tif", "image.tif", "-o", "q.unet3d"],
        ["train", "truth.tif", "image.tif", "-o", "q.unet3d"],
        ["predict", "image.tif", "model.unet3d", "-o", "q.tif"],
        ["predict", "model.unet3d", "model.unet3d", "-o", "q.tif"],
        ["evaluate", "labels.tif", "truth.tif"],
    ],
    ids=" ".join,
)
def test_swapped_files_are_asked_about(run, work, arguments) -> None:
    there = {path.name for path in work.iterdir()}
    outcome = run(*(work / a if "." in a else a for a in arguments))
    assert outcome.code == 2
    assert "the two swapped?" in outcome.err
    assert {path.name for path in work.iterdir()} == there


@pytest.mark.parametrize(
    "arguments", [["image.tif", "model.unet3d"], ["model.unet3d", "image.tif"]]
)
def test_train_says_how_to_give_a_model(run, work, arguments) -> None:
    outcome = run("train", *(work / a for a in arguments), "-o", work / "q.unet3d")
    assert outcome.code == 2
    assert "is a model" in outcome.err
    assert "--from" in outcome.err


def test_a_bad_annotation_of_a_true_image_is_not_called_swapped(train, tmp_path) -> None:
    labels = write(tmp_path / "bad.tif", LABELS.astype(np.float32))
    outcome = train(labels=labels)
    assert outcome.code == 2
    assert "integers" in outcome.err
    assert "swapped" not in outcome.err


# --- evaluate -------------------------------------------------------------------------------


def test_an_annotation_as_truth_counts_its_labelled_voxels_only(run, work) -> None:
    outcome = run("evaluate", work / "truth.tif", work / "labels.tif", "--json")
    found = json.loads(outcome.out)
    assert found["labels"] == "sparse"
    assert found["classes"] == {"2": {"iou": 1, "dice": 1, "voxels": int((LABELS == 2).sum())}}
    assert "--labels dense" in outcome.err
    dense = run("evaluate", work / "truth.tif", work / "labels.tif", "--labels", "dense", "--json")
    assert json.loads(dense.out)["classes"].keys() == {"1", "2"}


def test_a_truth_of_one_slice_is_not_diluted_by_empty_ones(run, work, tmp_path) -> None:
    one = np.zeros_like(TRUTH)
    one[4] = TRUTH[4]
    truth = write(tmp_path / "one.tif", one)
    outcome = run("evaluate", work / "truth.tif", truth, "--json")
    assert json.loads(outcome.out)["mean_iou"] == 1
    assert "1 of 10 slices" in outcome.err
    assert "--labels dense" in outcome.err
    quiet = run("evaluate", work / "truth.tif", truth, "--json", "--quiet")
    assert quiet.err == ""
    assert "1 of 10 slices" in json.loads(quiet.out)["notes"][0]
    all_slices = run("evaluate", work / "truth.tif", truth, "--json", "--labels", "dense")
    expected = (one == 2).sum() / (TRUTH == 2).sum()
    assert json.loads(all_slices.out)["mean_iou"] == pytest.approx(expected)
