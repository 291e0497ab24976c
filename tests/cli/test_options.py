"""--json, --quiet, --version, and options that reach the settings."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import tifffile

from blobs import IMAGE, SHAPE, TRUTH, VOXEL
from napari_unet3d import cli
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.model.bundle import ModelBundle


def one_object(text: str) -> dict:
    """What stands on stdout, which must be one JSON object and nothing else."""
    assert text.count("\n") == 1
    return json.loads(text)


def test_version(run) -> None:
    outcome = run("--version")
    assert (outcome.code, outcome.out) == (0, f"napari-unet3d {version('napari-unet3d')}\n")
    assert not outcome.opened


def test_train_json(train, tmp_path) -> None:
    outcome = train("--iterations", "2", "--hold-out", "z=5", "--json")
    found = one_object(outcome.out)
    assert found["model"] == str(tmp_path / "out.unet3d")
    assert found["iterations"] == 2
    assert found["completed"] is True
    assert found["seconds"] > 0
    assert found["held_out_slices"] == ["z=5"]
    score = found["classes"]["2"]
    assert score["name"] == "class 2"
    assert score["voxels"] == (TRUTH[5] == 2).sum()
    assert found["mean_iou"] == score["iou"] is not None
    assert any("0 unlabelled" in note for note in found["notes"])
    assert "100%" in outcome.err


def test_train_json_without_a_measurement(train) -> None:
    found = one_object(train("--iterations", "1", "--json", "--quiet").out)
    assert found["mean_iou"] is None
    assert found["classes"]["2"]["iou"] is None
    assert found["held_out_slices"] == []


def test_quiet_prints_results_only(run, train, work, tmp_path) -> None:
    outcome = train("--iterations", "1", "--quiet")
    assert "Model: " in outcome.out
    assert outcome.err == ""
    outcome = run(
        "predict", work / "model.unet3d", work / "image.tif", "-o", tmp_path / "s.tif", "--quiet",
        "--device", "cpu",
    )  # fmt: skip
    assert (outcome.out, outcome.err) == (f"Written: {tmp_path / 's.tif'}\n", "")


def test_quiet_errors_are_said_and_the_next_command_speaks_again(train, tmp_path) -> None:
    outcome = train("--quiet", "--hold-out", "z=99")
    assert outcome.code == 2
    assert "z=99" in outcome.err
    assert "100%" in train("--iterations", "1").err


def test_predict_json_and_its_settings(run, work, tmp_path, monkeypatch) -> None:
    from napari_unet3d.session import job

    given = []
    segment = job.predict
    monkeypatch.setattr(
        job, "predict", lambda *a, **k: given.append(k["config"]) or segment(*a, **k)
    )
    outcome = run(
        "predict", work / "model.unet3d", work / "image.tif", "-o", tmp_path / "s.tif",
        "--uncertainty", tmp_path / "u.tif", "--json", "--device", "cpu", "--overlap", "0.25",
        "--tile", "8,32,32", "--precision", "fp32",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    found = one_object(outcome.out)
    assert found["segmentation"] == str(tmp_path / "s.tif")
    assert found["uncertainty"] == str(tmp_path / "u.tif")
    assert found["probabilities"] is None
    assert found["seconds"] > 0
    (config,) = given
    assert (config.overlap, config.tile_shape, config.precision) == (0.25, (8, 32, 32), "fp32")


def test_info_json(run, work) -> None:
    image = one_object(run("info", work / "image.tif", "--json").out)
    assert (image["axes"], image["shape"], image["unit"]) == ("ZYX", list(SHAPE), "µm")
    assert image["voxel_size"] == pytest.approx(VOXEL)
    assert one_object(run("info", work / "model.unet3d", "--json").out)["record"]["iterations"]
    assert one_object(run("info", "--json").out)["free_memory"] > 0


def test_voxel_size_and_axes_take_the_place_of_the_files(run, train, work, tmp_path) -> None:
    assert train("--iterations", "1", "--voxel-size", "2,0.5,0.5").code == 0
    assert ModelBundle.load(tmp_path / "out.unet3d").voxel_size == (2, 0.5, 0.5)
    series = tmp_path / "series.tif"
    tifffile.imwrite(series, np.stack([IMAGE, IMAGE]), imagej=True, metadata={"axes": "TZYX"})
    outcome = run(
        "predict", work / "model.unet3d", series, "-o", tmp_path / "s.tif", "--axes", "czyx",
        "--device", "cpu",
    )  # fmt: skip
    assert outcome.code == 2
    assert "2 channel" in outcome.err
    outcome = run(
        "predict", work / "model.unet3d", work / "image.tif", "-o", tmp_path / "s.tif",
        "--voxel-size", "3,1,1", "--device", "cpu",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert read_volume(tmp_path / "s.tif").voxel_size == pytest.approx((3, 1, 1))
    assert "The voxels are 3 × 1 × 1" in outcome.err


def test_notes_of_an_image_are_printed_once(run, train, work, monkeypatch, tmp_path) -> None:
    from dataclasses import replace

    from napari_unet3d.cli.tasks import describing, inputs

    note = "The file lacks a voxel size: 1 is taken."

    def noted(path, **more):
        return replace(read_volume(path, **more), notes=(note,))

    monkeypatch.setattr(inputs, "read_volume", noted)
    monkeypatch.setattr(describing, "read_volume", noted)
    outcomes = [
        train("--iterations", "1", "--json"),
        run("info", work / "image.tif", "--json"),
        run("predict", work / "model.unet3d", work / "image.tif", "-o", tmp_path / "s.tif",
            "--json", "--device", "cpu"),
    ]  # fmt: skip
    for outcome in outcomes:
        assert outcome.err.count(note) == 1
        assert one_object(outcome.out)["notes"].count(note) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="knows no such limit")
def test_a_limit_of_files_is_told_before_anything_runs(work, tmp_path) -> None:
    import resource

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    image, model = work / "image.tif", work / "model.unet3d"
    for arguments in (
        ["train", image, work / "labels.tif", "-o", tmp_path / "a.unet3d", "--device", "cpu"],
        ["predict", model, image, "-o", tmp_path / "a.tif", "--device", "cpu"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "napari_unet3d", *map(str, arguments)],
            capture_output=True, encoding="utf-8", timeout=100, preexec_fn=limited, check=False,
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert "ulimit -f" in done.stderr
        assert "%" not in done.stderr, "it ran"
    assert not list(tmp_path.iterdir())


# --- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--tile", "8,8"], "--tile 8,8"),
        (["--tile", "8,8,x"], "z, y and x"),
        (["--tile", "8,8,0"], "above 0"),
        (["--overlap", "0.8"], "at most 0.75"),
        (["--overlap", "nan"], "overlap"),
        (["--precision", "fp8"], "fp8"),
        (["--voxel-size", "1,1,nan"], "--voxel-size"),
        (["--voxel-size", "1,-1,1"], "above 0"),
        (["--axes", "QQ"], "QQ"),
        (["--memory", "1e300"], "--memory"),
        (["--device", "cuda:999999999999999999999"], "cuda:N (the number of a GPU"),
        (["--times", "9" * 5000], "whole number"),
        (["--times", "first"], "--times first: write whole numbers, counted from 0, as in 0,3"),
        (["-o", "~nosuchuser/s.tif"], "nosuchuser"),
        (["-o", "a" * 300 + ".tif"], "304 bytes"),
        (["--probabilities", "~nosuchuser/s.tif"], "nosuchuser"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_bad_options_of_predict(run, work, tmp_path, more, words) -> None:
    outcome = run(
        "predict", work / "model.unet3d", work / "image.tif", "-o", tmp_path / "s.tif", *more
    )
    assert outcome.code == 2, outcome.err
    assert words in " ".join(outcome.err.replace("│", " ").split())
    assert "NAPARI_UNET3D_DEBUG" not in outcome.err, "nobody foresaw it"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("seed=" + "9" * 5000, "seed"),
        ("patch_shape=" + "[" * 100_000, "patch_shape"),
        ("patch_shape=[8,8]", "three"),
        ("learning_rate=0", "it must be above 0\n"),
        ("weight_decay=2", "at most 1"),
        ("dice_share=x", "a number"),
        ("pixel_classifier=5", "true or false"),
        ("schedule=step", "'cosine' or 'polynomial'"),
        ('augmentation={"flop":1}', "no such setting"),
        ("network.flop=1", "'unet' has no setting 'flop'"),
        ("network.widths=[1,2]", "it must be at least 2"),
        ("network.padding=circular", "use one of 'same' or 'valid'"),
    ],
    ids=lambda value: value[:20],
)
def test_bad_settings_are_told_in_our_words(train, setting, words) -> None:
    outcome = train("--set", setting)
    assert outcome.code == 2, outcome.err
    assert words in outcome.err
    assert "Input should" not in outcome.err
    assert len(outcome.err) < 400


@pytest.mark.parametrize("command", [["info"], ["evaluate", "truth.tif"], ["predict", "m.unet3d"]])
@pytest.mark.parametrize("kind", ["loop", "home", "long"])
def test_odd_paths(run, tmp_path, command, kind) -> None:
    (tmp_path / "loop.tif").symlink_to(tmp_path / "loop.tif")
    path = {
        "loop": tmp_path / "loop.tif",
        "home": "~nosuchuser/x.tif",
        "long": tmp_path / ("a" * 300),
    }[kind]
    output = ["-o", tmp_path / "s.tif"] if command[0] == "predict" else []
    outcome = run(*command, path, *output)
    assert outcome.code == 2
    assert outcome.err.startswith("error: '")
    assert "DEBUG" not in outcome.err


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.ENOENT, "No such file", "a.tif"), 2, "'a.tif'"),
        (OSError(errno.EIO, "Input/output error", "a.tif"), 1, "Input/output error"),
        (OSError(errno.EFBIG, "File too large", "a.tif"), 1, "ulimit -f"),
        (MemoryError("Unable to allocate 3 TiB"), 1, "not enough memory"),
        (RecursionError("deep"), 1, "RecursionError"),
        (ValueError("embedded null byte"), 1, "ValueError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_foreign_errors_become_words(train, monkeypatch, error, code, words) -> None:
    def broken(*_, **__):
        raise error

    monkeypatch.setattr("napari_unet3d.session.job.Trainer", broken)
    outcome = train("--iterations", "1")
    assert outcome.code == code
    assert words in outcome.err
    assert "Traceback" not in outcome.err


def test_debug_shows_where(train, monkeypatch) -> None:
    def broken(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("napari_unet3d.session.job.Trainer", broken)
    monkeypatch.setenv("NAPARI_UNET3D_DEBUG", "1")
    with pytest.raises(OSError, match="Input/output"):
        train("--iterations", "1")


def test_commands_are_documented_beside_each_other() -> None:
    """Every command that has results has --json and --quiet."""
    import typer

    found = typer.main.get_command(cli.app).commands
    for name in ("train", "predict", "evaluate", "info"):
        flags = {flag for p in found[name].params for flag in p.opts}
        assert {"--json", "--quiet"} <= flags, name
