"""The command line: files in, files out, and exit codes that scripts can rely on."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import zarr
from scipy.ndimage import gaussian_filter

from napari_unet3d import cli
from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.io.outputs import create_output
from napari_unet3d.data.io.reading import read_labels, read_volume
from napari_unet3d.data.samples import tubules
from napari_unet3d.model.bundle import ModelBundle

SHAPE = (10, 32, 36)
VOXEL = (0.5, 0.2, 0.15)
QUICK = [
    "--device", "cpu", "--preset", "fast", "--set", "patch_shape=[8,24,24]",
    "--set", "learning_rate=0.01",
]  # fmt: skip


def blobs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, truth and sparse annotation of bright blobs, class 2."""
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.standard_normal(SHAPE), 2.5)
    truth = np.where(smooth > np.quantile(smooth, 0.7), 2, 0).astype(np.uint8)
    image = (20 * truth + rng.normal(100, 12, SHAPE)).astype(np.uint16)
    labels = np.zeros_like(truth)
    for z in (2, 5, 8):
        labels[z] = np.maximum(truth[z], 1)
    return image, truth, labels


IMAGE, TRUTH, LABELS = blobs()


def write(path, data, axes: str = "ZYX"):
    with create_output(path, data.shape, data.dtype, axes, VOXEL, "µm") as out:
        out[...] = data
    return path


class Outcome:
    """Exit code and what was written to the screen."""

    def __init__(self, code: int, out: str, err: str, opened: list) -> None:
        self.code, self.out, self.err, self.opened = code, out, err, opened


pytestmark = pytest.mark.usefixtures("quick_garbage_collection")


@pytest.fixture
def run(capsys):
    def call(*arguments) -> Outcome:
        opened = []
        code = cli.run([str(a) for a in arguments], lambda **layers: opened.append(layers))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err, opened)

    return call


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with a stack, its annotation and truth, and a model trained on them."""
    folder = tmp_path_factory.mktemp("work")
    write(folder / "image.tif", IMAGE)
    write(folder / "labels.tif", LABELS)
    write(folder / "truth.tif", TRUTH)
    arguments = ["train", folder / "image.tif", folder / "labels.tif", *QUICK]
    arguments += ["-o", folder / "model.unet3d", "--iterations", "25", "--hold-out", "z=5"]
    assert cli.run([str(a) for a in arguments], lambda **_: None) == 0
    return folder


@pytest.fixture
def train(run, work, tmp_path):
    """`train` with the usual files; what is given takes their place."""

    def call(*more, image=None, labels=None, output=None) -> Outcome:
        output = output or tmp_path / "out.unet3d"
        image, labels = image or work / "image.tif", labels or work / "labels.tif"
        before = set(tmp_path.iterdir())
        outcome = run("train", image, labels, "-o", output, *QUICK, *more)
        if outcome.code:
            assert set(tmp_path.iterdir()) == before, "an output was left"
        return outcome

    return call


# --- the whole path -------------------------------------------------------------------------


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


def test_fixed_options_of_the_issue_are_there(run):
    """Scripts rely on them."""
    text = run("train", "--help").out
    for option in ("-o", "--seconds", "--iterations", "--seed", "--device", "--from", "--hold-out"):
        assert option in text
    for option in ("-o", "--probabilities", "--device"):
        assert option in run("predict", "--help").out
    for option in ("--skip", "--json"):
        assert option in run("evaluate", "--help").out


# --- evaluate -------------------------------------------------------------------------------


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


# --- info, help, no command -----------------------------------------------------------------


def test_info(run, work):
    model = run("info", work / "model.unet3d")
    assert model.code == 0
    described = json.loads(model.out)
    assert described["record"]["iterations"] == 25
    assert "weights" not in described
    image = run("info", work / "image.tif")
    assert image.code == 0
    assert "ZYX (10, 32, 36) uint16" in image.out
    assert "0.5 × 0.2 × 0.15 µm" in image.out
    machine = run("info")
    assert machine.code == 0
    assert "torch" in machine.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["train", "predict", "evaluate", "info", "demo", "unlabelled", "background"]),
        (["train"], ["unlabelled", "background", "conds", "auto, cpu, cuda", "z=12,30"]),
        (["predict"], ["*.tif", ".ome.zarr", "GiB", "background", "0…1"]),
        (["evaluate"], ["IoU", "Dice", "background", "z=3,10,20"]),
        (["info"], ["model", "image"]),
        (["demo"], ["conds", "stack"]),
    ],
)
def test_help_teaches(run, arguments, words):
    outcome = run(*arguments, "--help")
    assert outcome.code == 0
    text = " ".join(outcome.out.replace("│", " ").split())
    for word in words:
        assert word in text, word
    assert run(*arguments, "-h").out == outcome.out


def test_without_a_command_napari_opens(run):
    outcome = run()
    assert outcome.code == 0
    assert outcome.opened == [{}]


def test_module_runs_in_a_process_of_its_own():
    done = subprocess.run(
        [sys.executable, "-m", "napari_unet3d", "--help"],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        env=os.environ | {"PYTHONUTF8": "1", "COLUMNS": "100"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout


def test_command_line_imports_neither_qt_nor_napari():
    code = (
        "import sys, napari_unet3d.cli.tasks.training, napari_unet3d.cli.tasks.demonstrating, napari_unet3d.__main__;"
        "print([m for m in sys.modules if m.split('.')[0] in "
        "('napari', 'qtpy', 'PyQt6', 'PySide6', 'magicgui', 'superqt', 'pyqtgraph')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


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


def plain(path, data, **more):
    tifffile.imwrite(path, data, **more)
    return path


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
        ([model, image, "--times", "a"], "'a'"),
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


def test_unknown_command(run):
    outcome = run("segment")
    assert outcome.code == 2
    assert "segment" in outcome.err


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
    from napari_unet3d.training import trainer as trainer_module

    loss, steps = trainer_module.masked_loss, []

    def broken(*args, **options):
        steps.append(1)
        if len(steps) > 2:
            raise RuntimeError("the device fell off the bus")
        return loss(*args, **options)

    monkeypatch.setattr(trainer_module, "masked_loss", broken)
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

    from napari_unet3d.training.trainer import Trainer

    step = Trainer._step

    def interrupted(self, learning_rate):
        if self.iteration == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, learning_rate)

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Trainer, "_step", interrupted)
    outcome = train("--iterations", "100000")
    assert outcome.code == 0, outcome.err
    assert "the model is kept" in outcome.err
    assert ModelBundle.load(tmp_path / "out.unet3d").record.iterations == 2
    assert signal.getsignal(signal.SIGINT) is before


# --- demo -----------------------------------------------------------------------------------


def test_demo_writes_its_three_files(run, tmp_path, monkeypatch):
    # The sample of the demo, but smaller.
    module = importlib.import_module("napari_unet3d.cli.tasks.demonstrating")
    monkeypatch.setattr(module, "tubules", lambda: tubules((16, 48, 48)))
    outcome = run("demo", "-o", tmp_path / "a" / "b", "--seconds", "0.2", "--device", "cpu",
                  "--no-window")  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert not outcome.opened
    names = {"segmentation.ome.tif", "model.unet3d", "overlay.png"}
    assert {p.name for p in (tmp_path / "a" / "b").iterdir()} == names
    assert all(name in outcome.out for name in names)
    assert "IoU" in outcome.out
    found = read_labels(tmp_path / "a" / "b" / "segmentation.ome.tif")
    assert found.voxel_size == pytest.approx((1.0, 0.5, 0.5))
    assert set(np.unique(found.data[...])) <= {0, 2, 3}


def test_demo_replaces_its_own_files_only(run, tmp_path, monkeypatch):
    module = importlib.import_module("napari_unet3d.cli.tasks.demonstrating")
    monkeypatch.setattr(module, "tubules", lambda: tubules((16, 48, 48)))
    demo = ["demo", "--seconds", "0.2", "--device", "cpu", "--no-window", "-o"]
    for name in ("model.unet3d", "overlay.png"):
        mine = tmp_path / f"of mine {name}" / name
        mine.parent.mkdir()
        mine.write_text("precious")
        outcome = run(*demo, mine.parent)
        assert outcome.code == 2
        assert name in outcome.err
        assert mine.read_text() == "precious"
    for _ in range(2):
        assert run(*demo, tmp_path / "demo").code == 0


def test_demo_into_a_file(run, tmp_path):
    (tmp_path / "file").write_text("")
    outcome = run("demo", "-o", tmp_path / "file" / "demo", "--seconds", "1")
    assert outcome.code == 2
    assert "demo" in outcome.err


def test_default_budget_is_that_of_the_settings(run):
    assert f"Default: {TrainingConfig().seconds:g}" in " ".join(run("train", "--help").out.split())
