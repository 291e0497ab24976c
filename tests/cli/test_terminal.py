"""Printing never stops the work, and texts from models and files are shown, not obeyed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from blobs import IMAGE, QUICK, write
from bundles import random_bundle
from napari_unet3d.cli.terminal import errors, guarded, tell, tell_json, visible
from napari_unet3d.config import default_class
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.unet import UNetConfig

HOSTILE = "[/x][red]\x1b[31m\x9b2J\u202e\x07\r!"
SHOWN = "[/x][red]\\u001b[31m\\u009b2J\\u202e\\u0007\\u000d!"


def start(arguments, **streams) -> int:
    """The exit code of a command in a process of its own."""
    command = [sys.executable, "-m", "napari_unet3d", *map(str, arguments)]
    return subprocess.run(command, timeout=100, check=False, **streams).returncode


@pytest.fixture
def no_reader():
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.fixture
def full():
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    with open("/dev/full", "w") as file:
        yield file


@pytest.fixture
def training(work, tmp_path):
    model = tmp_path / "a.unet3d"
    quick = [*QUICK, "--set", "pixel_classifier=false", "--iterations", "2"]
    return ["train", work / "image.tif", work / "labels.tif", "-o", model, *quick], model


def test_training_goes_on_when_nobody_reads_and_the_disk_of_the_log_is_full(
    training, no_reader, full
) -> None:
    arguments, model = training
    assert start(arguments, stdout=no_reader, stderr=full) == 0
    assert ModelBundle.load(model).record.iterations == 2


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("--version", 0), ("nonsense", 2)])
def test_exit_codes_without_any_stream(word, code) -> None:
    command = f'"{sys.executable}" -m napari_unet3d {word} >&- 2>&-'
    assert subprocess.run(command, shell=True, timeout=60, check=False).returncode == code


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
def test_a_score_that_goes_nowhere_is_no_success(work) -> None:
    command = f'"{sys.executable}" -m napari_unet3d evaluate truth.tif truth.tif'
    for closed, code in (("2>&-", 0), (">&-", 1)):
        found = subprocess.run(f"{command} {closed}", shell=True, timeout=60, check=False, cwd=work)
        assert found.returncode == code, closed


def test_exit_codes_with_a_full_disk(full) -> None:
    assert start(["--help"], stdout=full, stderr=full) == 0
    assert start(["nonsense"], stdout=full, stderr=full) == 2


class Broken:
    """A stream that fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    flush = isatty = lambda self: self.write("")
    encoding = "utf-8"


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "full"), ValueError("closed")])
def test_messages_and_results_are_dropped(monkeypatch, error) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(error))
    monkeypatch.setattr(sys, "stderr", Broken(error))
    with pytest.raises(type(error)):
        tell("a result")
    with guarded():
        tell("a result")
        errors.print("a message")
        errors.complain("an error")
        print("from somewhere else")
    assert isinstance(sys.stdout, Broken), "the streams are given back"


@pytest.mark.parametrize(
    ("error", "code"), [(BrokenPipeError(), 0), (OSError(28, "No space left on device"), 1)]
)
def test_a_lost_score_is_no_success(run, work, monkeypatch, capsys, error, code) -> None:
    monkeypatch.setattr(sys, "stdout", Broken(error))
    outcome = run("evaluate", work / "truth.tif", work / "truth.tif", "--json")
    assert outcome.code == code
    assert ("No space left" in outcome.err) == bool(code)


# --- untrusted texts ------------------------------------------------------------------------


def test_control_characters_are_escaped() -> None:
    assert visible(HOSTILE) == SHOWN
    assert visible("a\nb\t", "\n\t") == "a\nb\t"
    assert visible("a\nb") == "a\\u000ab"
    assert visible("µm × 细胞 — é 😀") == "µm × 细胞 — é 😀"
    assert visible("\udcff\U000e0041") == "\\udcff\\udb40\\udc41"


def test_escaped_json_is_the_same_json(capsys) -> None:
    data = {HOSTILE: [HOSTILE, "\x7f\u2028\U000e0041", "µm"]}
    tell_json(data)
    text = capsys.readouterr().out
    assert json.loads(text) == data
    assert "µm" in text
    assert not any(c in text for c in "\x1b\x9b\u202e\x07\r\x7f\u2028")


@pytest.fixture
def hostile(tmp_path):
    """A model with a class and a unit that would steer a terminal."""
    classes = (default_class(2).model_copy(update={"name": HOSTILE}),)
    network = UNetConfig(widths=(4, 8), strides=((2, 2, 2),), kernels=((3, 3, 3),) * 2,
                            padding="same", normalization="none")  # fmt: skip
    bundle = random_bundle(
        network, [2], classes=classes, unit="[/x]\x1b[31m", voxel_size=(9.0, 9.0, 9.0)
    )
    return bundle.save(tmp_path / "hostile.unet3d")


def test_texts_of_a_model_are_shown_as_they_are(run, train, work, hostile, tmp_path) -> None:
    path = tmp_path / "[bold]\x1b[31mimage.tif"
    write(path, IMAGE)
    outcomes = [
        run("info", hostile),
        run("predict", hostile, path, "-o", tmp_path / "out[red].tif", "--device", "cpu"),
        train("--from", hostile, "--iterations", "1", "--hold-out", "z=5"),
        train("--names", f"2={HOSTILE}", "--iterations", "1", "--hold-out", "z=5", "--overwrite"),
        run("predict", hostile, tmp_path / "[red]\x1bnowhere.tif", "-o", tmp_path / "q.tif"),
        run("info", path),
    ]
    assert [o.code for o in outcomes] == [0, 0, 0, 0, 2, 0], [o.err for o in outcomes]
    for outcome in outcomes:
        text = outcome.out + outcome.err
        assert not any(c in text for c in "\x1b\x9b\u202e\x07\r"), text
    assert json.loads(outcomes[0].out)["classes"][0]["name"] == HOSTILE
    assert "[/x]\\u001b[31m" in outcomes[1].err, "the note about the voxel size"
    assert "out[red].tif" in outcomes[1].out
    for outcome in outcomes[2:4]:
        assert SHOWN in outcome.out
        assert SHOWN in outcome.err
    assert "[red]\\u001bnowhere.tif" in outcomes[4].err
