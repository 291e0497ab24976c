"""Signals end a command gently, and nothing half-written is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_unet3d import cli
from napari_unet3d.cli import signals
from napari_unet3d.cli.tasks import checkpoints
from napari_unet3d.data.io.outputs import create_output
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.engine import Engine
from napari_unet3d.training.learner import Learner
from napari_unet3d.training.throttle import Throttle
from napari_unet3d.training.trainer import Trainer

SHAPE = (10, 32, 36)
QUICK = ["--device", "cpu", "--preset", "fast", "--set", "patch_shape=[8,24,24]"]
POLITE = [
    pytest.param(getattr(signal, name), id=name)
    for name in ("SIGTERM", "SIGHUP")
    if hasattr(signal, name)
]


class Outcome:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bright bar in noise, two painted slices, and a model of it."""
    folder = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, SHAPE)
    image[:, 8:20, 10:30] += 60
    labels = np.zeros(SHAPE, np.uint8)
    labels[[2, 7]] = 1
    labels[[2, 7], 8:20, 10:30] = 2
    for name, data in (("image.tif", image.astype(np.uint16)), ("labels.tif", labels)):
        with create_output(folder / name, SHAPE, data.dtype) as out:
            out[...] = data
    arguments = ["train", folder / "image.tif", folder / "labels.tif", *QUICK]
    arguments += ["-o", folder / "model.unet3d", "--iterations", "2"]
    assert cli.run([str(a) for a in arguments], lambda **_: None) == 0
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def call(*arguments: Any) -> Outcome:
        before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        code = cli.run([str(a) for a in arguments], lambda **_: None)
        assert {n: signal.getsignal(n) for n in before} == before
        return Outcome(code, *capsys.readouterr())

    return call


@pytest.fixture
def train(run: Any, inputs: Path, tmp_path: Path) -> Callable[..., Outcome]:
    def call(*more: Any) -> Outcome:
        files = inputs / "image.tif", inputs / "labels.tif", "-o", tmp_path / "out.unet3d"
        return run("train", *files, *QUICK, *more)

    return call


def at_call(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, number: int, *sent: int
) -> None:
    """Send signals to this process at the n-th call of a function."""
    function, calls = getattr(owner, name), []

    def calling(*args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == number:
            for one in sent:
                signal.raise_signal(one)
        return function(*args, **more)

    monkeypatch.setattr(owner, name, calling)


@pytest.mark.parametrize("sent", POLITE)
def test_a_polite_signal_keeps_the_model(
    train: Any, sent: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at_call(monkeypatch, Learner, "step", 3, sent)
    outcome = train("--iterations", "100000")
    assert outcome.code == 0, outcome.err
    assert "the model is kept" in outcome.err
    assert f"stopped by {signal.Signals(sent).name} after 3 iterations" in outcome.err
    bundle = ModelBundle.load(tmp_path / "out.unet3d")
    assert bundle.record.iterations == 3
    assert not bundle.record.completed
    assert os.listdir(tmp_path) == ["out.unet3d"]
    assert "hardly learned: it had only 3 iterations" in outcome.err
    assert f"--resume {tmp_path / 'out.unet3d'}" in outcome.err


@pytest.mark.parametrize("sent", [signal.SIGINT, *POLITE])
def test_a_second_one_interrupts(
    train: Any, sent: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(signals, "_ECHO_SECONDS", -1.0)
    at_call(monkeypatch, Learner, "step", 3, sent, sent)
    outcome = train("--iterations", "100000")
    assert outcome.code == (1 if sent == signal.SIGINT else 128 + sent)
    assert ("interrupted" if sent == signal.SIGINT else "ended by SIG") in outcome.err
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP")
def test_the_echo_of_a_signal_is_no_second_one(
    train: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A closed terminal's SIGHUP comes twice; `docker stop` may be heard beside it."""
    monkeypatch.setattr(signals, "_ECHO_SECONDS", 60.0)
    at_call(monkeypatch, Learner, "step", 2, signal.SIGHUP, signal.SIGHUP, signal.SIGTERM)
    assert train("--iterations", "100000").code == 0
    assert ModelBundle.load(tmp_path / "out.unet3d").record.iterations == 2


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP")
def test_nohup_is_respected(train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        at_call(monkeypatch, Learner, "step", 2, signal.SIGHUP)
        outcome = train("--iterations", "4")
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, old)
    assert "4 iterations" in outcome.out


@pytest.mark.parametrize("sent", [signal.SIGINT, *POLITE])
def test_while_the_input_is_checked_it_ends_at_once(
    train: Any, sent: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at_call(monkeypatch, Trainer, "__init__", 1, sent)
    outcome = train("--iterations", "100000")
    assert outcome.code == (1 if sent == signal.SIGINT else 128 + sent)
    assert "loss" not in outcome.err
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("sent", [signal.SIGINT, *POLITE])
def test_while_the_model_is_saved_a_first_one_does_not_lose_it(
    train: Any, sent: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at_call(monkeypatch, ModelBundle, "save", 1, sent)
    outcome = train("--iterations", "2", "--checkpoint-every", "0")
    assert outcome.code == 0, outcome.err
    assert ModelBundle.load(tmp_path / "out.unet3d").record.iterations == 2


@pytest.mark.parametrize("name", ["out.tif", "out.ome.zarr"])
@pytest.mark.parametrize("sent", [signal.SIGINT, *POLITE])
def test_a_prediction_ends_and_leaves_nothing(
    run: Any, inputs: Path, sent: int, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    at_call(monkeypatch, Engine, "_run", 1, sent)
    outcome = run(
        "predict", inputs / "model.unet3d", inputs / "image.tif", "-o", tmp_path / name,
        "--device", "cpu",
    )  # fmt: skip
    assert outcome.code == (1 if sent == signal.SIGINT else 128 + sent)
    assert ("interrupted" if sent == signal.SIGINT else signal.Signals(sent).name) in outcome.err
    assert not os.listdir(tmp_path)


# --- progress -------------------------------------------------------------------------------


def test_progress_runs_once_from_0_to_100(train: Any) -> None:
    outcome = train("--iterations", "30")
    shown = [int(n) for n in re.findall(r"^training +(\d+)%", outcome.err, re.MULTILINE)]
    assert len(shown) > 2
    assert shown == sorted(shown)
    assert shown.count(100) == 1
    assert shown[-1] == 100
    assert re.search(r"^About .* in all: .* to train, then .* to measure", outcome.err, re.M)
    assert "measuring the model" in outcome.err


def test_looks_on_the_way_are_told_from_the_final_scores(
    train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(Throttle, "due", lambda self, elapsed: True)
    monkeypatch.setattr(Throttle, "affordable", lambda self, elapsed, cost: True)
    outcome = train("--iterations", "3", "--hold-out", "z=7")
    assert "quick look at held-out slices: IoU" in outcome.err
    assert "held-out IoU" not in outcome.err
    assert "Held-out slices z=7 (never trained on)" in outcome.out
    assert "looks on the way" in outcome.out


def test_a_starved_training_says_how_to_go_on(train: Any, tmp_path: Path) -> None:
    outcome = train("--seconds", "0.2")
    assert "hardly learned" in outcome.err
    assert f"--resume {tmp_path / 'out.unet3d'}" in outcome.err
    lean = train("--seconds", "0.2", "--lean", "--overwrite")
    assert f"--from {tmp_path / 'out.unet3d'}" in lean.err
    assert "hardly" not in train("--iterations", "2", "--overwrite").err  # as it was asked for


# --- checkpoints ----------------------------------------------------------------------------


def checkpoint_of(folder: Path) -> Path:
    return folder / "out.checkpoint.unet3d"


def test_a_checkpoint_goes_when_the_model_is_there(train: Any, tmp_path: Path) -> None:
    outcome = train("--iterations", "4", "--checkpoint-every", "0.000001")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count(f"--resume {checkpoint_of(tmp_path)}") == 1
    assert "removed" in outcome.err
    assert os.listdir(tmp_path) == ["out.unet3d"]


def test_what_is_interrupted_can_be_resumed(
    train: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(signals, "_ECHO_SECONDS", -1.0)
    with monkeypatch.context() as patch:
        at_call(patch, Learner, "step", 4, signal.SIGINT, signal.SIGINT)
        outcome = train("--iterations", "8", "--checkpoint-every", "0.000001")
    assert outcome.code == 1
    assert "last checkpoint is kept" in outcome.err
    assert os.listdir(tmp_path) == [checkpoint_of(tmp_path).name]
    ahead = train("--iterations", "8")
    assert (
        f"{checkpoint_of(tmp_path)} is the checkpoint of a training that was cut off" in ahead.err
    )
    straight = ModelBundle.load(tmp_path / "out.unet3d")
    again = train("--iterations", "8", "--resume", checkpoint_of(tmp_path), "--overwrite")
    assert again.code == 0
    resumed = ModelBundle.load(tmp_path / "out.unet3d")
    assert resumed.record.iterations == 8
    assert all((t == resumed.weights[n]).all() for n, t in straight.weights.items())


def test_killed_and_resumed(train: Any, inputs: Path, tmp_path: Path) -> None:
    """SIGKILL, as when the machine goes down."""
    plain = ["--set", "pixel_classifier=false"]  # which learns for long in another process
    arguments = ["train", inputs / "image.tif", inputs / "labels.tif", *QUICK, *plain]
    arguments += ["-o", tmp_path / "out.unet3d", "--iterations", "100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_unet3d", *map(str, arguments), "--checkpoint-every", "0.01"],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 100
        while not checkpoint_of(tmp_path).exists() and time.monotonic() < deadline:
            assert process.poll() is None, "it ended by itself"
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert not (tmp_path / "out.unet3d").exists()
    done = ModelBundle.load(checkpoint_of(tmp_path)).record.iterations
    assert done > 0
    outcome = train(*plain, "--iterations", str(done + 2), "--resume", checkpoint_of(tmp_path))
    assert outcome.code == 0, outcome.err
    assert ModelBundle.load(tmp_path / "out.unet3d").record.iterations == done + 2


def test_a_checkpoint_that_cannot_be_written_is_said_once(
    train: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.CheckpointFile, "_check_space", full)
    outcome = train("--iterations", "4", "--checkpoint-every", "0.000001")
    assert outcome.code == 0
    assert outcome.err.count("training goes on") == 1
    assert "No space left" in outcome.err
    assert os.listdir(tmp_path) == ["out.unet3d"]
