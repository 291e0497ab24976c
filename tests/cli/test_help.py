"""Help, the command without a word, and what is imported for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def test_fixed_options_of_the_issue_are_there(run):
    """Scripts rely on them."""
    text = run("train", "--help").out
    for option in ("-o", "--seconds", "--iterations", "--seed", "--device", "--from", "--hold-out"):
        assert option in text
    for option in ("-o", "--probabilities", "--device"):
        assert option in run("predict", "--help").out
    for option in ("--skip", "--json"):
        assert option in run("evaluate", "--help").out


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


def test_unknown_command(run):
    outcome = run("segment")
    assert outcome.code == 2
    assert "segment" in outcome.err


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


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a new process holds after a statement."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{statement}\nprint(*sys.modules)"],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_command_line_imports_neither_qt_nor_napari():
    tasks = "napari_unet3d.cli.tasks"
    loaded = loaded_after(f"import {tasks}.training, {tasks}.demonstrating, napari_unet3d.__main__")
    assert "torch" in loaded
    assert not loaded & {
        "napari", "qtpy", "PyQt6", "PySide6", "magicgui", "superqt", "pyqtgraph"
    }  # fmt: skip


@pytest.mark.parametrize("command", ["", "train", "predict", "evaluate", "info", "demo"])
def test_help_waits_for_nothing_heavy(command):
    words = [*command.split(), "--help"]
    loaded = loaded_after(
        f"from napari_unet3d import cli\nassert cli.run({words}, lambda **_: None) == 0"
    )
    assert "typer" in loaded
    assert not loaded & {"torch", "zarr", "skimage", "scipy", "tifffile"}
