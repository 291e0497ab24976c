"""The curves that a model keeps of its training."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from toy_stack import HELD_OUT, SMALL, make_trainer, run

from bundles import random_bundle
from napari_unet3d.events import Checkpoint, ClassScore, HeldOutScores, TrainingProgress
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.evidence import TrainingHistory
from napari_unet3d.training.history import History


def step(n: int, loss: float) -> TrainingProgress:
    return TrainingProgress(n, float(n), None, 0.5, loss, 0)


def look(elapsed: float, iou: float | None) -> HeldOutScores:
    return HeldOutScores(1, elapsed, (ClassScore(2, iou, iou, 9),), ("z=6",), 3)


def followed(*events: object, before: TrainingHistory | None = None) -> TrainingHistory:
    def training() -> Iterator[object]:
        yield from events
        return random_bundle(SMALL)

    _, bundle = run(History(before).follow(training()))
    assert bundle is not None
    return bundle.record.history


def test_a_short_training_keeps_every_point():
    history = followed(step(1, 2.0), look(1.5, 0.25), step(2, 1.0), look(2.5, None))
    assert history == TrainingHistory(((1.0, 2.0), (2.0, 1.0)), ((1.5, 0.25),))


@pytest.mark.parametrize("n", [201, 1000, 12345])
def test_a_long_training_keeps_few_points_with_the_same_mean(n):
    history = followed(*(step(i + 1, 1 + (i % 2)) for i in range(n)))
    assert 100 <= len(history.loss) <= 200
    assert history.loss[-1][0] > 0.98 * n
    assert all(loss == pytest.approx(1.5) for _, loss in history.loss)


def test_the_last_look_is_always_kept():
    history = followed(*(look(i, i / 1000) for i in range(450)))
    assert len(history.iou) <= 201
    assert history.iou[-1] == (449, 0.449)


def test_a_loss_that_is_no_number_is_left_out():
    assert followed(step(1, math.nan), step(2, 1.0)).loss == ((2.0, 1.0),)


def test_a_checkpoint_has_the_curves_until_then():
    events, _ = run(
        History().follow(iter_of(step(1, 2.0), Checkpoint(random_bundle(SMALL)), step(2, 1.0)))
    )
    (checkpoint,) = (e for e in events if isinstance(e, Checkpoint))
    assert checkpoint.bundle.record.history.loss == ((1.0, 2.0),)


def iter_of(*events: object) -> Iterator[object]:
    yield from events


def test_a_resumed_training_goes_on_with_the_curves():
    before = TrainingHistory(((1.0, 3.0),), ((1.0, 0.1),))
    assert followed(step(2, 2.0), before=before).loss == ((1.0, 3.0), (2.0, 2.0))


def test_a_real_training_keeps_scores_and_curves_in_its_file(tmp_path):
    events, bundle = run(make_trainer(held_out=[HELD_OUT], iterations=3))
    assert bundle is not None
    final = [e for e in events if isinstance(e, HeldOutScores)][-1]
    record = ModelBundle.load(bundle.save(tmp_path / "toy.unet3d")).record
    assert record.held_out_by_slice == final.by_slice
    assert [s.ref for s in final.by_slice] == ["z=6"]
    assert len(record.history.loss) == 3
    assert record.history.iou[-1][1] == final.mean_iou
