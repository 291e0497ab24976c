"""What is said about the time of a run before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from napari_unet3d.config import TrainingConfig
from napari_unet3d.session import past_runs as module
from napari_unet3d.session.past_runs import (
    PastRun,
    basis_text,
    expectation_text,
    past_runs,
    remember_run,
)

PAST = PastRun(preset="balanced", device="auto", preparing=10, measuring=20, segmenting=30,
               voxels=1_000_000)  # fmt: skip


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "data_folder", lambda: tmp_path)


def test_the_last_run_of_each_kind_is_remembered(tmp_path: Path) -> None:
    assert past_runs() == []
    remember_run(PAST)
    remember_run(PAST.model_copy(update={"segmenting": 60.0}))
    remember_run(PAST.model_copy(update={"device": "cuda:0"}))
    remember_run(PAST.model_copy(update={"computer": "another"}))
    (tmp_path / "runs" / "broken.json").write_text('{"preset": 3}')
    runs = {run.device: run for run in past_runs()}
    assert set(runs) == {"auto", "cuda:0"}
    assert runs["auto"].segmenting == 60


def test_a_folder_that_cannot_be_written_is_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(module, "data_folder", lambda: tmp_path / "file")
    remember_run(PAST)
    assert past_runs() == []


def test_nothing_is_guessed_without_a_basis() -> None:
    config = TrainingConfig(seconds=60)
    assert expectation_text(config, 10**6, None) == "1 min training, then the whole stack."
    assert "not known yet" in basis_text(None)


def test_the_time_for_the_segmentation_grows_with_the_stack() -> None:
    config = TrainingConfig(seconds=60)
    same, tenfold = (expectation_text(config, n * 10**6, PAST) for n in (1, 10))
    assert same == "About 2 min in all: 1 min training, then the whole stack."
    assert tenfold == "About 6:30 min in all: 1 min training, then the whole stack."
    assert "30 s to segment 1 million voxels" in basis_text(PAST)


def test_a_run_without_a_budget_has_no_time() -> None:
    steps = TrainingConfig(seconds=None, iterations=2000)
    assert expectation_text(steps, 10**6, PAST) == "2,000 iterations, then the whole stack."
    learning = expectation_text(TrainingConfig(), 10**6, PAST, keeps_learning=True)
    assert learning.startswith("Trains until more time no longer helps")
