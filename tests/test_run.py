"""`run.py` on machines that lack something; nothing is installed here."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "run.py"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module, working in an empty folder with a Python that always answers."""
    spec = importlib.util.spec_from_file_location("run", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "installed")
    monkeypatch.setattr(module, "CONSTRAINTS", tmp_path / "constraints-cpu.txt")
    monkeypatch.setattr(module, "can_run", lambda code: True)
    (tmp_path / "constraints-cpu.txt").write_text("torch==2.13.0\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / ".venv").mkdir()
    return module


@pytest.fixture
def steps(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collect the steps of every set-up, which are only noted, not made."""
    steps: list[str] = []
    monkeypatch.setattr(run, "install", lambda extras: (steps.append(extras), (0, []))[1])
    monkeypatch.setattr(run, "make_venv", lambda: steps.append("new venv"))
    return steps


def test_an_old_python_can_read_it() -> None:
    ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 7))


@pytest.mark.parametrize("newer", ["/usr/bin/python3.12", None])
def test_an_old_python_is_told_what_to_do(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, newer: str | None
) -> None:
    monkeypatch.setattr(run.shutil, "which", lambda name: newer and name == "python3.12")
    with pytest.raises(run.SetupError, match=r"needs a 64-bit Python 3\.11 or newer") as caught:
        run.reject_old_python((3, 10, 13))
    assert ("run `python3.12 run.py`" if newer else "install one") in str(caught.value)
    run.reject_old_python((3, 11, 0))


def test_second_run_installs_nothing(run: ModuleType, steps: list[str]) -> None:
    run.prepare("all,test")
    run.prepare("all,test")
    run.prepare("all")
    assert steps == ["all,test"]


def test_what_is_missing_for_the_tests_is_added(run: ModuleType, steps: list[str]) -> None:
    run.prepare("all")
    run.prepare("all,test")
    run.prepare("all")
    assert steps == ["all", "all,test"]


def test_changed_requirements_are_installed(run: ModuleType, steps: list[str]) -> None:
    run.prepare("all")
    run.CONSTRAINTS.write_text("torch==2.14.0\n")
    run.prepare("all")
    assert steps == ["all", "all"]


def test_a_folder_that_was_moved_is_installed_again(
    run: ModuleType, steps: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run.prepare("all")
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "pyproject.toml").write_text("[project]\n")
    monkeypatch.setattr(run, "ROOT", moved)
    run.prepare("all")
    assert steps == ["all", "all"]


def test_an_interrupted_installation_begins_again(
    run: ModuleType, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(extras: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run, "install", interrupted)
        run.prepare("all")
    run.prepare("all")
    assert steps == ["new venv", "all"]


def test_a_failed_installation_leaves_what_was_there(
    run: ModuleType, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.prepare("all")
    with monkeypatch.context() as patch, pytest.raises(run.SetupError, match="network"):
        patch.setattr(run, "install", lambda extras: (1, ["NewConnectionError"]))
        run.prepare("all,test")
    run.prepare("all")
    assert steps == ["all"]


def test_broken_venv_is_made_again(
    run: ModuleType, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.prepare("all")
    monkeypatch.setattr(run, "can_run", lambda code: False)
    run.prepare("all")
    assert steps == ["all", "new venv", "all"]


def test_folder_that_is_no_venv_is_left_alone(run: ModuleType) -> None:
    treasure = run.VENV / "thesis.txt"
    treasure.write_text("do not lose")
    with pytest.raises(run.SetupError, match="move it away"):
        run.make_venv()
    assert treasure.exists()


def test_a_python_that_makes_no_venv_names_the_package(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "run", lambda command: (1, ["No module named ensurepip"]))
    with pytest.raises(run.SetupError, match=r"(?s)ensurepip.*apt-get install python3-venv"):
        run.make_venv()


def test_full_disk_is_found_before_anything_is_made(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "DISK_GIB", 1e9)
    with pytest.raises(run.SetupError, match="make room"):
        run.make_venv()
    assert not list(run.VENV.iterdir())


@pytest.mark.parametrize(
    ("log", "cure"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", "make room"),
        ("NewConnectionError: Temporary failure in name resolution", "network"),
        ("ERROR: No matching distribution found for torch==2.13.0", "Python 3.11, 3.12 or 3.13"),
        ("something new", "Run this again"),
    ],
)
def test_pip_failure_names_the_cure(run: ModuleType, log: str, cure: str) -> None:
    message = run.explain(["first line", *["more"] * 30, log])
    assert cure in message
    assert log in message
    assert "first line" not in message


def test_missing_libraries_without_rights_are_named(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(run.sys, "platform", "linux")
    monkeypatch.setattr(run, "LIBRARIES", {"libnot-there.so.1": "libnot-there1"})
    monkeypatch.setattr(run, "PROGRAMS", {"not-there": "notthere"})
    monkeypatch.setattr(run.os, "geteuid", lambda: 1000, raising=False)
    monkeypatch.setattr(run, "run", lambda command: (commands.append(command), (1, ["no sudo"]))[1])
    run.install_system_libraries(with_screen=True)
    assert commands[0][:2] == ["sudo", "-n"]
    install = "apt-get install -y --no-install-recommends libnot-there1 notthere"
    assert commands[0][-1].endswith(install)
    shown = capsys.readouterr().out
    assert "no sudo" in shown
    assert f"sudo {install}" in shown


def test_a_program_that_is_missing_is_a_failure(run: ModuleType) -> None:
    status, lines = run.run(["not-there"])
    assert status
    assert "not-there" in lines[0]


def test_all_checks_run_though_the_first_fails(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def call(command: list[str], **options: object) -> int:
        commands.append(command)
        return len(commands) == 1

    monkeypatch.setattr(run, "prepare", lambda extras: None)
    monkeypatch.setattr(run, "install_system_libraries", lambda with_screen: None)
    monkeypatch.setattr(run.subprocess, "call", call)
    assert run.test(["-k", "loss"]) == 1
    assert len(commands) == 6
    assert commands[-1][-2:] == ["-k", "loss"]
    summary = capsys.readouterr().out.partition("== summary")[2].splitlines()[1:]
    assert [line.split()[0] for line in summary] == ["FAIL", *["ok"] * 5]
