"""docs/extending.md keeps its promise: what it adds needs one file and one line, and works.

Each section of the page is carried out on a copy of the package: its new file is written, its one
changed line is changed, and its example is run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "extending.md"
FILE = re.compile(r"# (src/\S+\.py)\n")
"""First line of a block that belongs to a file of the repository."""


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Attributes
    ----------
    files
        Path and text of the new files.
    changes
        Path, the lines that go and the lines that come.
    example
        What is run then.
    """

    files: list[tuple[str, str]]
    changes: list[tuple[str, list[str], list[str]]]
    example: str


def sections() -> dict[str, Section]:
    found = {}
    for text in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.M)[1:]:
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.M | re.S)
        if not blocks:
            continue
        files, changes, example = [], [], ""
        for language, block in blocks:
            path = FILE.match(block)
            if language == "diff":
                assert path, f"a change without a path:\n{block}"
                lines = block.splitlines()[1:]
                old = [line[1:] for line in lines if line.startswith("-")]
                new = [line[1:] for line in lines if line.startswith("+")]
                changes.append((path[1], old, new))
            elif language == "python" and path:
                files.append((path[1], block))
            elif language == "python":
                example += block
        found[text.partition("\n")[0]] = Section(files, changes, example)
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, to which things can be added."""
    shutil.copytree(
        ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    return tmp_path


@pytest.mark.parametrize("name", ["A network", "A loss", "An output", "An executor"])
def test_it_is_added_in_one_file_and_one_line(name: str, copy: Path) -> None:
    section = sections()[name]
    assert len(section.files) + len(section.changes) <= 2
    for path, text in section.files:
        assert not (copy / path).exists(), f"{path} is not new"
        (copy / path).write_text(text, encoding="utf-8")
    own_lines = 0
    for path, old, new in section.changes:
        file = copy / path
        text = file.read_text(encoding="utf-8")
        for line in old:
            assert text.count(line + "\n") == 1, f"{path} has no line {line!r}"
        # A function that stands in the changed file belongs to the thing that is added.
        before, after = "\n".join(old), "\n".join(new)
        text = text.replace(before, after) if old else text + after + "\n"
        file.write_text(text, encoding="utf-8")
        own_lines += len(old)
    assert own_lines <= 1, "more than one line of the package is changed"
    environment = os.environ | {"PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", section.example],
        cwd=copy, env=environment, capture_output=True, encoding="utf-8", timeout=100,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip(), "an example that prints nothing shows nothing"


def test_every_promise_of_the_page_is_tested() -> None:
    assert set(sections()) == {"A network", "A loss", "An output", "An executor"}
