"""The command line, called in this process, and a stack with a model of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from blobs import IMAGE, LABELS, QUICK, TRUTH, write
from napari_unet3d import cli


@dataclass(frozen=True)
class Outcome:
    """Exit code, what was written to the screen, and the layers that a window would show."""

    code: int
    out: str
    err: str
    opened: list[dict[str, Any]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    def call(*arguments: Any) -> Outcome:
        opened: list[dict[str, Any]] = []
        code = cli.run([str(a) for a in arguments], lambda **layers: opened.append(layers))
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err, opened)

    return call


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stack, its annotation and truth, and a model trained on them. Read only."""
    folder = tmp_path_factory.mktemp("work")
    write(folder / "image.tif", IMAGE)
    write(folder / "labels.tif", LABELS)
    write(folder / "truth.tif", TRUTH)
    arguments = ["train", folder / "image.tif", folder / "labels.tif", *QUICK]
    arguments += ["-o", folder / "model.unet3d", "--iterations", "25", "--hold-out", "z=5"]
    assert cli.run([str(a) for a in arguments], lambda **_: None) == 0
    return folder


@pytest.fixture
def train(run: Callable[..., Outcome], work: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """Run `train` with the usual files; arguments replace them."""

    def call(
        *more: Any,
        image: Path | None = None,
        labels: Path | None = None,
        output: Path | None = None,
    ) -> Outcome:
        output = output or tmp_path / "out.unet3d"
        image, labels = image or work / "image.tif", labels or work / "labels.tif"
        before = set(tmp_path.iterdir())
        outcome = run("train", image, labels, "-o", output, *QUICK, *more)
        if outcome.code:
            assert set(tmp_path.iterdir()) == before, "an output was left"
        return outcome

    return call
