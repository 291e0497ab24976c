"""Trials really train; what is finished is kept, and the tables say what was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.reproduction import running
from napari_unet3d.reproduction.running import (
    LabelledStack,
    TrialFailed,
    TrialFinished,
    TrialResult,
    TrialStarted,
    load_results,
    run_trials,
)
from napari_unet3d.reproduction.tables import write_report
from napari_unet3d.reproduction.trials import (
    PAPER_METHODS,
    Trial,
    by_slices,
    compared,
    fully_automated,
    semi_automated,
)

CONFIG = TrainingConfig(iterations=2, device="cpu", precision="fp32", pixel_classifier=False)


def stack(seed: int = 0, corner: int = 6) -> LabelledStack:
    truth = np.zeros((12, 24, 24), np.uint8)
    truth[3:9, corner : corner + 12, corner : corner + 12] = 2
    image = np.random.default_rng(seed).normal(100, 5, truth.shape) + 30 * truth
    return LabelledStack(f"cube {seed}", Volume(image.astype(np.float32)), truth)


def run(trials: list[Trial], folder, stacks=None, config=CONFIG) -> tuple[list[Any], dict]:
    events = []
    steps = run_trials(stacks or [stack()], trials, config, folder)
    while True:
        try:
            events.append(next(steps))
        except StopIteration as end:
            return events, end.value


def test_trials_train_and_are_not_repeated(tmp_path):
    trials = semi_automated((12, 24, 24), PAPER_METHODS, seeds=1)[::4]
    events, results = run(trials, tmp_path)
    assert set(results) == {t.key for t in trials}
    assert all(r.iterations == 2 and 0 <= r.iou <= 1 for r in results.values())
    assert load_results(tmp_path) == results
    started = [e.trial for e in events if isinstance(e, TrialStarted)]
    assert started == trials
    events, again = run(trials, tmp_path)
    assert not events
    assert again == results


def test_one_of_several_stacks_is_left_out(tmp_path, monkeypatch):
    stacks = [stack(seed) for seed in range(3)]
    trials = fully_automated(3, PAPER_METHODS[:1], seeds=1)[1:2]
    planned = []
    plan = running.plan_stacks
    monkeypatch.setattr(running, "plan_stacks", lambda s, c: planned.append(s) or plan(s, c))
    _, results = run(trials, tmp_path, stacks)
    assert [v for v, _ in planned[0]] == [stacks[0].volume, stacks[2].volume]
    assert 0 <= results[trials[0].key].iou <= 1


def with_prediction(monkeypatch, labels: np.ndarray) -> None:
    """Let every segmentation be known."""

    def predicted(bundle, volume, out, *, config):
        out[:] = labels
        return iter(())

    monkeypatch.setattr(running, "predict", predicted)


def test_the_whole_of_the_stack_that_is_left_out_is_measured(tmp_path, monkeypatch):
    stacks = [stack(0), stack(1), stack(2, corner=12)]
    with_prediction(monkeypatch, stacks[0].truth)
    trials = fully_automated(3, PAPER_METHODS[:1], seeds=1)[1:]
    _, results = run(trials, tmp_path, stacks)
    assert results[trials[0].key].iou == 1
    assert results[trials[1].key].iou == pytest.approx(36 / (2 * 144 - 36)), "6 × 6 of 12 × 12"


def test_all_voxels_of_the_measured_slices_and_no_others_count(tmp_path, monkeypatch):
    one = stack()
    (trial,) = by_slices((12, 24, 24), PAPER_METHODS[1], seeds=1)[:1]
    wrong = one.truth.copy()
    for ref in trial.trained:
        wrong[(slice(None),) * ref.axis + (ref.index,)] = 0
    for ref in trial.measured:
        where = (slice(None),) * ref.axis + (ref.index,)
        wrong[where] = one.truth[where]
    with_prediction(monkeypatch, wrong)
    _, results = run([trial], tmp_path)
    assert results[trial.key].iou == 1
    assert len(results[trial.key].patch) == 3
    assert results[trial.key].precision == "fp32"


def test_a_trial_that_cannot_be_carried_out_does_not_end_the_others(tmp_path):
    one = stack()
    one.truth[:] = 0
    one.truth[1, 1:3, 1:3] = 2  # only the densest slices meet it
    refs = tuple(SliceRef(0, z) for z in (1, 6, 10))
    bad, good = (
        Trial("slices", PAPER_METHODS[1], label, 0, trained, (SliceRef(0, 2),))
        for label, trained in (("none", refs[1:]), ("some", refs))
    )
    events, results = run([bad, good], tmp_path, [one])
    assert set(results) == {good.key}
    (failed,) = [e for e in events if isinstance(e, TrialFailed)]
    assert failed.trial == bad
    assert "no class" in failed.reason
    events, _ = run([bad, good], tmp_path, [one])
    assert [type(e) for e in events] == [TrialStarted, TrialFailed], "it is tried again"


def test_a_training_that_is_over_is_not_lost_where_measuring_fails(tmp_path, monkeypatch):
    def fails(*_, **__):
        raise RunFailedError("no memory")

    trials = [
        *by_slices((12, 24, 24), PAPER_METHODS[1], seeds=1)[:1],
        *fully_automated(3, PAPER_METHODS[:1], seeds=1)[:1],
    ]
    stacks = [stack(seed) for seed in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(running, "predict", fails)
        events, _ = run(trials, tmp_path, stacks)
    assert [e.reason for e in events if isinstance(e, TrialFailed)] == ["no memory"] * 2
    assert len(list(tmp_path.glob("*-trained.unet3d"))) == 2
    events, results = run(trials, tmp_path, stacks)
    assert all(r.iterations == 2 for r in results.values())
    assert not [e for e in events if hasattr(e, "iteration")], "nothing was trained again"
    assert not list(tmp_path.glob("*.unet3d"))


def test_a_checkpoint_of_the_last_iteration_does_not_block_its_trial(tmp_path, monkeypatch):
    """A run may be killed between the last iteration and the last statistics."""
    monkeypatch.setattr(running, "_CHECKPOINT_SECONDS", 0.0)
    (trial,) = by_slices((12, 24, 24), PAPER_METHODS[1], seeds=1)[:1]
    path = tmp_path / f"{trial.key}.unet3d"
    steps = run_trials([stack()], [trial], CONFIG, tmp_path)
    for _ in steps:
        if path.exists() and running.ModelBundle.load(path).record.iterations == 2:
            break
    steps.close()
    assert running.ModelBundle.load(path).record.iterations == 2
    assert not load_results(tmp_path)
    _, results = run([trial], tmp_path)
    assert results[trial.key].iterations == 2
    assert not path.exists()


def test_wrong_settings_do_not_block_a_folder(tmp_path):
    trials = by_slices((12, 24, 24), PAPER_METHODS[1], seeds=1)[:1]
    _, results = run(trials, tmp_path, config=CONFIG.model_copy(update={"loss": "none"}))
    assert not results
    _, results = run(trials, tmp_path)
    assert results


def test_a_trial_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    """Where a run ended within a trial, the next one resumes it."""
    monkeypatch.setattr(running, "_CHECKPOINT_SECONDS", 0.0)
    (trial,) = by_slices((12, 24, 24), PAPER_METHODS[1], seeds=1)[:1]
    config = CONFIG.model_copy(update={"iterations": 6})
    steps = run_trials([stack()], [trial], config, tmp_path)
    for _ in steps:
        if list(tmp_path.glob("*.unet3d")):
            break
    steps.close()
    (path,) = tmp_path.glob("*.unet3d")
    assert path.stem == trial.key
    begun = running.ModelBundle.load(path).record.iterations
    assert 0 < begun < 6
    events, results = run([trial], tmp_path, config=config)
    assert results[trial.key].iterations == 6
    finished = [e for e in events if isinstance(e, TrialFinished)]
    assert len(finished) == 1
    iterations = [e.iteration for e in events if hasattr(e, "iteration")]
    assert min(iterations) > begun
    assert not path.exists()


@pytest.mark.parametrize("other", ["settings", "image"])
def test_results_of_others_are_not_taken_for_ours(tmp_path, other):
    trials = by_slices((12, 24, 24), PAPER_METHODS[1], seeds=1)[:1]
    run(trials, tmp_path)
    with pytest.raises(BadInputError, match="results of other stacks or settings"):
        if other == "settings":
            run(trials, tmp_path, config=CONFIG.model_copy(update={"iterations": 3}))
        else:
            run(trials, tmp_path, [replace(stack(seed=5), name=stack().name)])


def test_damaged_results_are_named(tmp_path):
    (tmp_path / "results.json").write_text("[{]")
    with pytest.raises(BadInputError, match=r"results\.json is damaged: remove it"):
        load_results(tmp_path)


def test_the_tables_say_what_was_measured(tmp_path):
    shape = (64, 160, 160)
    trials = [
        *semi_automated(shape, PAPER_METHODS, seeds=2),
        *by_slices(shape, PAPER_METHODS[1], seeds=1),
        *compared(shape, seconds=60, seeds=1),
    ]
    ious = {t.key: 0.5 + 0.01 * i for i, t in enumerate(trials)}
    results = {
        k: TrialResult(k, iou, {"2": iou}, 100, 50.0, "a CPU", "fp32", (8, 32, 32))
        for k, iou in ious.items()
    }
    missing = trials[-1]
    del results[missing.key]
    write_report(
        tmp_path,
        trials,
        results,
        stack="cells",
        budget="100 iterations",
        version="PyTorch 2",
        failed=["3D: no memory"],
    )
    text = (tmp_path / "reproduction.md").read_text()
    assert "not public" in text
    assert "Stack: cells. 100 iterations. a CPU in fp32, PyTorch 2." in text
    assert "- 3D: no memory" in text
    mine = [ious[t.key] for t in trials if t.method.key == "3d" and t.experiment == "semi"]
    row = next(line for line in text.splitlines() if line.startswith("| 3D, no norm"))
    assert f"**{np.mean(mine):.3f}** ± 0.005" in row
    assert row.endswith("| 0.842 |")
    assert "| 1, 1, 1 | 0.680 | 0.331 / 0.483 / 0.475 |" in text
    assert f"| {missing.method.title} | — | 0 | 0 |" in text
    assert "| 3D, no normalization | 8×32×32 | 100 | 0.500 | 9.7 |" in text
    chart = (tmp_path / "slices.svg").read_text()
    assert chart.startswith("<svg xmlns=")
    assert "this stack" in chart


def test_results_are_plain_json(tmp_path):
    trials = by_slices((12, 24, 24), PAPER_METHODS[1], seeds=1)[:1]
    run(trials, tmp_path)
    (found,) = json.loads((tmp_path / "results.json").read_text())
    assert found["key"] == "slices-3d_norm-1_1_1-0"
    names = {"key", "iou", "classes", "iterations", "seconds", "device", "precision", "patch"}
    assert set(found) == names
