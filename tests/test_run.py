"""`run.py` on machines that lack something; nothing is installed here."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
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
    monkeypatch.setattr(module, "STATE", tmp_path / ".venv" / "run-state.json")
    monkeypatch.setattr(module, "CONSTRAINTS", tmp_path / "constraints-cpu.txt")
    monkeypatch.setattr(module, "answers", lambda python, code: True)
    (tmp_path / "constraints-cpu.txt").write_text("torch==2.13.0\n")
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / ".venv").mkdir()
    return module


@pytest.fixture
def installed(run: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Collect the extras of every installation, which is only noted, not made."""
    calls: list[list[str]] = []

    def install(extras: list[str]) -> None:
        calls.append(extras)
        run.write_state(
            status="ready", root=str(run.ROOT), extras=extras, fingerprint=run.fingerprint()
        )

    monkeypatch.setattr(run, "install", install)
    monkeypatch.setattr(run, "make_venv", lambda: calls.append(["new venv"]))
    return calls


def test_an_old_python_can_read_it() -> None:
    ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 7))


def test_second_run_installs_nothing(run: ModuleType, installed: list[list[str]]) -> None:
    run.prepare(["all", "test"])
    run.prepare(["all", "test"])
    run.prepare(["all"])
    assert installed == [["all", "test"]]


def test_changed_requirements_are_installed(run: ModuleType, installed: list[list[str]]) -> None:
    run.prepare(["all"])
    run.CONSTRAINTS.write_text("torch==2.14.0\n")
    run.prepare(["all"])
    assert installed == [["all"], ["all"]]


def test_extras_add_up(run: ModuleType, installed: list[list[str]]) -> None:
    run.prepare(["all"])
    run.prepare(["all", "test"])
    run.prepare(["all"])
    assert installed == [["all"], ["all", "test"]]


@pytest.mark.parametrize("state", [{"status": "installing"}, {"root": "/elsewhere"}])
def test_interrupted_or_moved_venv_is_made_again(
    run: ModuleType, installed: list[list[str]], state: dict[str, str]
) -> None:
    run.STATE.write_text(json.dumps(state))
    run.prepare(["all"])
    assert installed == [["new venv"], ["all"]]


def test_broken_venv_is_made_again(
    run: ModuleType, installed: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.prepare(["all"])
    monkeypatch.setattr(run, "answers", lambda python, code: False)
    run.prepare(["all"])
    assert installed == [["all"], ["new venv"], ["all"]]


def test_folder_that_is_no_venv_is_left_alone(run: ModuleType) -> None:
    treasure = run.VENV / "thesis.txt"
    treasure.write_text("do not lose")
    with pytest.raises(run.SetupError, match="move it away"):
        run.make_venv()
    assert treasure.exists()


def test_old_python_is_told_what_to_install(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "answers", lambda python, code: False)
    with pytest.raises(run.SetupError, match=r"needs a 64-bit Python 3\.11 or newer"):
        run.find_python()


def test_missing_venv_module_names_the_package(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(run, "answers", lambda python, code: "ensurepip" not in code)
    monkeypatch.setattr(run, "install_packages", lambda packages, purpose: asked.append(packages))
    package = "python{}.{}-venv".format(*sys.version_info)
    with pytest.raises(run.SetupError, match=package):
        run.find_python()
    assert asked == [[package]]


@pytest.mark.parametrize(
    ("log", "cure"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", "make room"),
        ("Temporary failure in name resolution", "network"),
        ("ERROR: No matching distribution found for torch==2.13.0", "Python 3.11, 3.12 or 3.13"),
        ("something new", "Run this again"),
    ],
)
def test_pip_failure_names_the_cure(run: ModuleType, log: str, cure: str) -> None:
    message = run.pip_failure("\n".join(["first line", *["more"] * 30, log]))
    assert cure in message
    assert log in message
    assert "first line" not in message


def test_full_disk_is_found_before_anything_is_made(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "MINIMUM_GIB", 1e9)
    with pytest.raises(run.SetupError, match="make room"):
        run.check_disk()


def test_missing_libraries_without_rights_are_named(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run.sys, "platform", "linux")
    monkeypatch.setattr(run, "LIBRARIES", {"libnot-there.so.1": "libnot-there1"})
    monkeypatch.setattr(run, "PROGRAMS", {"not-there": "notthere"})
    monkeypatch.setattr(run, "may_install", lambda: None)
    run.system_libraries(with_screen=True)
    assert "apt-get install -y --no-install-recommends libnot-there1 notthere" in (
        capsys.readouterr().out
    )


def test_all_checks_run_though_the_first_fails(
    run: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def call(command: list[str], **options: object) -> int:
        commands.append(command)
        return len(commands) == 1

    monkeypatch.setattr(run, "prepare", lambda extras: None)
    monkeypatch.setattr(run, "system_libraries", lambda with_screen: None)
    monkeypatch.setattr(run.subprocess, "call", call)
    assert run.test(["-k", "loss"]) == 1
    assert len(commands) == 6
    assert commands[-1][-2:] == ["-k", "loss"]
    summary = capsys.readouterr().out.partition("== summary")[2].splitlines()[1:]
    assert [line.split()[0] for line in summary] == ["FAIL", *["ok"] * 5]
