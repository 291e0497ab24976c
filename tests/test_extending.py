"""docs/extending.md keeps its promise: what it adds needs one file and one line, and works.

Each section of the page is carried out on a copy of the package: its new file is written, its one
changed line is changed, and its example is run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "extending.md"
FILE = re.compile(r"# (src/\S+\.py)\n")
"""First line of a block that belongs to a file of the repository."""

WITH_WINDOW = ("A feature of the dock",)
PROMISES = ("A network", "A loss", "An output", "An executor", *WITH_WINDOW)
"""The sections of the page."""


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes
    ----------
    files
        Path and text of the new files.
    changes
        Path and lines of each diff: " " marks a line that is there, "-" one that goes, "+" one
        that comes.
    example
        What is run then.
    """

    files: list[tuple[str, str]]
    changes: list[tuple[str, list[str]]]
    example: str


def sections() -> dict[str, Section]:
    by_name = {}
    for text in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.M)[1:]:
        files, changes, example = [], [], ""
        for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S):
            path = FILE.match(block)
            if language == "diff":
                assert path, f"a change without a path:\n{block}"
                changes.append((path[1], block.splitlines()[1:]))
            elif language == "python" and path:
                files.append((path[1], block))
            elif language == "python":
                example += block
        if example:
            by_name[text.partition("\n")[0]] = Section(files, changes, example)
    return by_name


def changed(text: str, diff: list[str]) -> str:
    """A text after the changes of a diff, each line of which must be there once."""
    at = 0
    lines = text.splitlines()
    for line in diff:
        mark, content = line[0], line[1:]
        if mark == "+":
            lines.insert(at, content)
            at += 1
            continue
        assert lines.count(content) == 1, f"there is no single line {content!r}"
        at = lines.index(content)
        if mark == "-":
            del lines[at]
        else:
            at += 1
    return "\n".join(lines) + "\n"


RUN_ALL = """
import json, pathlib, sys, traceback

failures = {}
for name, example in json.load(sys.stdin).items():
    print(f"## {name}", flush=True)
    try:
        exec(compile(example, name, "exec"), {})
    except BaseException:
        failures[name] = traceback.format_exc()
pathlib.Path("failures.json").write_text(json.dumps(failures))
"""
"""Runs examples in turn: PyTorch is imported once."""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """By section without a window: what its example printed, and how it failed.

    All sections are carried out on the same copy of the package; they are about different files.
    """
    copy = copied(tmp_path_factory.mktemp("extended"))
    chosen = {n: s for n, s in sections().items() if n not in WITH_WINDOW}
    for section in chosen.values():
        add(section, copy)
    examples = json.dumps({name: section.example for name, section in chosen.items()})
    run = started(RUN_ALL, copy, examples)
    assert run.returncode == 0, run.stderr
    failures = json.loads((copy / "failures.json").read_text())
    printed = re.split(r"^## (.*)\n", run.stdout, flags=re.M)
    return {n: (printed[printed.index(n) + 1], failures.get(n, "")) for n in chosen}


def copied(folder: Path) -> Path:
    """A folder with a copy of the package, to which things can be added."""
    shutil.copytree(ROOT / "src", folder / "src")  # with the compiled files, which are valid there
    return folder


def add(section: Section, copy: Path) -> None:
    """Write the new file of a section, and change its line."""
    assert len(section.files) == len(section.changes) == 1
    for path, text in section.files:
        assert not (copy / path).exists(), f"{path} is not new"
        (copy / path).write_text(text, encoding="utf-8")
    for path, diff in section.changes:
        file = copy / path
        file.write_text(changed(file.read_text(encoding="utf-8"), diff), encoding="utf-8")
        added = [line[1:] for line in diff if line.startswith("+")]
        assert len([line for line in added if not line.startswith("from ")]) == 1
        assert len(added) <= 2, "more than a line and its import"


def started(program: str, copy: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", program], input=text,
        cwd=copy, env=environment, capture_output=True, encoding="utf-8", timeout=250,
    )  # fmt: skip


@pytest.mark.parametrize("name", [n for n in PROMISES if n not in WITH_WINDOW])
def test_it_is_added_in_one_file_and_one_line(
    name: str, outcomes: dict[str, tuple[str, str]]
) -> None:
    printed, failure = outcomes[name]
    assert not failure, failure
    assert printed.strip(), "an example that prints nothing shows nothing"


@pytest.mark.needs_window
def test_a_feature_is_added_to_the_dock_in_one_file_and_one_line(tmp_path: Path) -> None:
    (name,) = WITH_WINDOW
    section = sections()[name]
    add(section, copied(tmp_path))
    run = started(section.example, tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip(), "an example that prints nothing shows nothing"


def test_every_promise_of_the_page_is_tested() -> None:
    assert set(sections()) == set(PROMISES)
