"""`train`: files in, a model out, and exit codes that scripts can rely on."""

from __future__ import annotations

import os

import numpy as np
import pytest
import zarr

from blobs import IMAGE, LABELS, QUICK, SHAPE, TRUTH, VOXEL, plain
from napari_unet3d.config import TrainingConfig
from napari_unet3d.model.bundle import ModelBundle


def test_train_saves_a_model_and_says_how_it_did(train, tmp_path):
    outcome = train("--iterations", "3", "--hold-out", "z=5", "--names", "2=nucleus")
    assert outcome.code == 0, outcome.err
    bundle = ModelBundle.load(tmp_path / "out.unet3d")
    assert [c.name for c in bundle.classes] == ["nucleus"]
    assert bundle.voxel_size == pytest.approx(VOXEL)
    assert bundle.unit == "µm"
    assert bundle.record.iterations == 3
    assert bundle.record.held_out_slices == ("z=5",)
    assert bundle.state
    assert "out.unet3d" in outcome.out
    assert "3 iterations" in outcome.out
    assert "z=5" in outcome.out + outcome.err
    assert "IoU" in outcome.out + outcome.err


def test_progress_goes_to_stderr(train):
    outcome = train("--iterations", "3")
    assert "100%" in outcome.err
    assert "loss" in outcome.err
    assert "100%" not in outcome.out


def test_fine_tune_and_resume(train, work, tmp_path):
    first = work / "model.unet3d"
    assert train("--iterations", "2", "--from", first).code == 0
    assert ModelBundle.load(tmp_path / "out.unet3d").record.iterations == 2
    more = ["--iterations", "27", "--resume", first, "--hold-out", "z=5"]
    outcome = train(*more, "--overwrite")
    assert outcome.code == 0, outcome.err
    assert ModelBundle.load(tmp_path / "out.unet3d").record.iterations == 27


def test_lean_model_is_smaller_and_cannot_be_resumed(train, work, tmp_path):
    assert train("--iterations", "1", "--lean").code == 0
    size = (tmp_path / "out.unet3d").stat().st_size
    assert size < 0.4 * (work / "model.unet3d").stat().st_size
    outcome = train("--iterations", "2", "--resume", tmp_path / "out.unet3d")
    assert outcome.code == 2
    assert "fine-tune" in outcome.err


def test_same_seed_same_model(train, tmp_path):
    paths = [tmp_path / f"{name}.unet3d" for name in "abc"]
    for path, seed in zip(paths, (3, 3, 4), strict=True):
        assert train("--iterations", "2", "--seed", seed, output=path).code == 0
    a, b, c = (ModelBundle.load(path).weights for path in paths)
    assert all((t == b[n]).all() for n, t in a.items())
    assert any((t != c[n]).any() for n, t in a.items())


def test_seconds_are_a_budget(train, tmp_path):
    assert train("--seconds", "0.3").code == 0
    assert ModelBundle.load(tmp_path / "out.unet3d").record.completed


def test_default_budget_is_that_of_the_settings(run):
    assert f"Default: {TrainingConfig().seconds:g}" in " ".join(run("train", "--help").out.split())


# --- bad input: exit code 2, value and cure -------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--seconds", "0"], ["seconds", "0"]),
        (["--seconds", "-5"], ["seconds", "-5"]),
        (["--seconds", "nan"], ["seconds"]),
        (["--iterations", "0"], ["iterations", "0"]),
        (["--iterations", "many"], ["iterations", "integer"]),
        (["--iterations", "5", "--seconds", "5"], ["--seconds", "--iterations"]),
        (["--seed", "-1"], ["seed", "-1"]),
        (["--device", "gpu"], ["device", "gpu"]),
        (["--device", "cuda:7"], ["cuda:7", "cpu"]),
        (["--preset", "best"], ["best", "fast", "balanced", "paper"]),
        (["--hold-out", "12"], ["12", "z=12"]),
        (["--hold-out", "z=99"], ["z=99"]),
        (["--hold-out", "z=4"], ["z=4", "no paint"]),
        (["--hold-out", "z=2,5,8"], ["nothing is left"]),
        (["--names", "3=wall"], ["3", "not painted"]),
        (["--names", "wall"], ["wall", "2=nucleus"]),
        (["--set", "learning"], ["learning", "name=value"]),
        (["--set", "nonsense=1"], ["nonsense", "learning_rate"]),
        (["--set", "learning_rate=fast"], ["learning_rate", "fast"]),
        (["--set", "patch_shape=[8,24,23]"], ["23"]),
        (["--from", "nowhere.unet3d"], ["nowhere.unet3d"]),
        (["--from", "a", "--resume", "b"], ["--from", "--resume"]),
        (["--frobnicate"], ["frobnicate"]),
    ],
    ids=lambda value: " ".join(value) if value and value[0].startswith("--") else "",
)
def test_bad_option(train, more, words):
    outcome = train(*more)
    assert outcome.code == 2, outcome.err
    text = " ".join(outcome.err.replace("│", " ").split())
    for word in words:
        assert word in text


BAD_IMAGES = {
    "2D": (IMAGE[0], ["2D"]),
    "RGB": (np.zeros((10, 32, 36, 3), np.uint8) + np.arange(3, dtype=np.uint8), ["RGB", "gray"]),
    "NaN": (np.where(TRUTH == 2, np.nan, 1.5).astype(np.float32), ["not a number", "nan_to_num"]),
    "infinite": (np.where(TRUTH == 2, np.inf, 1).astype(np.float32), ["infinite"]),
    "constant": (np.full(SHAPE, 7, np.uint8), ["same value", "7"]),
    "another shape": (IMAGE[1:], ["9 × 32 × 36", "10 × 32 × 36"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_image(train, tmp_path, name):
    data, words = BAD_IMAGES[name]
    rgb = {"photometric": "rgb"} if name == "RGB" else {"photometric": "minisblack"}
    outcome = train(image=plain(tmp_path / "bad.tif", data, **rgb))
    assert outcome.code == 2, outcome.err
    for word in words:
        assert word in outcome.err


BAD_LABELS = {
    "nothing painted": (np.zeros(SHAPE, np.uint8), ["othing is painted"]),
    "one class only": (np.where(LABELS == 2, 2, 0).astype(np.uint8), ["Only", "(2)", "background"]),
    "background only": (np.where(LABELS == 1, 1, 0).astype(np.uint8), ["background", "class"]),
    "floats": (LABELS.astype(np.float32), ["float32", "integers"]),
    "bool": (LABELS > 0, ["integers"]),
    "negative": (LABELS.astype(np.int16) - 1, ["-1"]),
    "too many": (LABELS.astype(np.uint16) * 400, ["255"]),
    "another shape": (LABELS[:, 1:], ["10 × 31 × 36", "10 × 32 × 36"]),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_bad_annotation(train, tmp_path, name):
    data, words = BAD_LABELS[name]
    outcome = train(labels=plain(tmp_path / "bad.tif", data, photometric="minisblack"))
    assert outcome.code in (1, 2)
    assert outcome.code == 2, outcome.err
    for word in words:
        assert word in outcome.err


@pytest.mark.parametrize("what", ["missing", "text", "empty", "truncated", "folder", "ending"])
def test_unreadable_file(train, work, tmp_path, what):
    path = tmp_path / ("image.png" if what == "ending" else "image.tif")
    if what == "folder":
        path.mkdir()
    elif what != "missing":
        data = (work / "image.tif").read_bytes()
        path.write_bytes(
            {"text": b"hello", "empty": b"", "truncated": data[:500], "ending": data}[what]
        )
    outcome = train(image=path)
    assert outcome.code == 2, outcome.err
    assert path.name in outcome.err


def test_empty_zarr(train, tmp_path):
    zarr.create_array(tmp_path / "empty.zarr", shape=(0, 32, 36), chunks=(1, 8, 8), dtype="uint8")
    outcome = train(image=tmp_path / "empty.zarr")
    assert outcome.code == 2, outcome.err
    assert "empty" in outcome.err


def test_missing_output_folder_is_told_before_training(train, tmp_path):
    outcome = train("--iterations", "1000000", output=tmp_path / "nowhere" / "a.unet3d")
    assert outcome.code == 2
    assert "nowhere" in outcome.err


def test_output_that_is_a_folder_is_told_before_training(train, tmp_path):
    (tmp_path / "a.unet3d").mkdir()
    outcome = train("--seconds", "3", output=tmp_path / "a.unet3d")
    assert outcome.code == 2
    assert "is a folder" in outcome.err
    assert "loss" not in outcome.err, "trained for nothing"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write all")
def test_read_only_output_folder(train, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    outcome = train(output=folder / "a.unet3d")
    assert outcome.code == 2
    assert "locked" in outcome.err


# --- failures: exit code 1 ------------------------------------------------------------------


def test_failure_while_running_is_1_and_says_why(train, monkeypatch):
    import torch

    from napari_unet3d.networks.unet import UNet3D

    def never(self, x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(UNet3D, "forward", never)
    outcome = train("--iterations", "2")
    assert outcome.code == 1
    assert "out of memory" in outcome.err
    assert "Traceback" not in outcome.err


def test_a_training_that_fails_on_the_way_leaves_its_model(run, work, tmp_path, monkeypatch):
    from napari_unet3d.training import learner as learner_module

    loss, steps = learner_module.masked_loss, []

    def broken(*args, **options):
        steps.append(1)
        if len(steps) > 2:
            raise RuntimeError("the device fell off the bus")
        return loss(*args, **options)

    monkeypatch.setattr(learner_module, "masked_loss", broken)
    path = tmp_path / "kept.unet3d"
    files = (work / "image.tif", work / "labels.tif")
    outcome = run("train", *files, "-o", path, *QUICK, "--iterations", "5")
    assert outcome.code == 1
    assert "fell off the bus" in outcome.err
    assert f"2 iterations is kept: {path}" in outcome.err
    assert ModelBundle.load(path).record.iterations == 2


def test_unexpected_error_is_1_and_says_how_to_see_more(train, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("by [bold]zero[/bold]")

    monkeypatch.setattr("napari_unet3d.session.job.Trainer", broken)
    outcome = train("--iterations", "2")
    assert outcome.code == 1
    assert "ZeroDivisionError: by [bold]zero[/bold]" in outcome.err
    assert "NAPARI_UNET3D_DEBUG" in outcome.err
    monkeypatch.setenv("NAPARI_UNET3D_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        train("--iterations", "2")


def test_interrupt_keeps_the_model(train, monkeypatch, tmp_path):
    """Ctrl-C after the second iteration."""
    import signal

    from napari_unet3d.training.learner import Learner

    step = Learner.step

    def interrupted(self, *arguments):
        if self.iteration == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, *arguments)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Learner, "step", interrupted)
    outcome = train("--iterations", "100000")
    assert outcome.code == 0, outcome.err
    assert "the model is kept" in outcome.err
    assert ModelBundle.load(tmp_path / "out.unet3d").record.iterations == 2
    assert signal.getsignal(signal.SIGINT) is before
