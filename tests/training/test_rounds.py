"""Rounds of a continuous training, and when it comes to rest."""

from __future__ import annotations

import pytest
from toy_stack import HELD_OUT, TRUTH, make_trainer, run, with_checkpoints

from napari_unet3d.data.joined_labels import SlicePaint
from napari_unet3d.events import (
    Checkpoint,
    ClassScore,
    HeldOutScores,
    RoundFinished,
    RoundStarted,
    SlicePreview,
    TrainingProgress,
)
from napari_unet3d.training.budget import Budget
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.rounds import Plateau, next_length

ENOUGH = 200
"""Iterations after which the network counts as trained."""


def scores(iou: float) -> HeldOutScores:
    return HeldOutScores(1, 1.0, (ClassScore(2, iou, iou, 9),), ("z=6",), 3, final=True)


def judge(plateau: Plateau, *rounds: tuple[float | None, float | None]) -> list[str]:
    """Why each round with these scores and this agreement would be the last."""
    return [
        plateau.judge(20.0 * i, ENOUGH, None if iou is None else scores(iou), same).end
        for i, (iou, same) in enumerate(rounds, 1)
    ]


def test_rests_when_the_scores_rise_no_more() -> None:
    assert judge(Plateau(), (0.6, None), (0.7, 0.8), (0.705, 0.8)) == ["", "", "scores"]
    assert judge(Plateau(), (0.7, None), (0.5, 0.3)) == ["", "scores"]


def test_rests_when_the_result_stays_the_same_and_nothing_is_measured() -> None:
    assert judge(Plateau(), (None, None), (None, 0.8), (None, 0.97)) == ["", "", "result"]


def test_goes_on_while_the_network_has_hardly_learned() -> None:
    plateau = Plateau()
    assert [plateau.judge(20.0, n, None, 1.0).end for n in (5, 50, ENOUGH)] == ["", "", "result"]


def test_slices_that_join_are_a_new_beginning() -> None:
    plateau = Plateau()
    assert judge(plateau, (0.7, None)) == [""]
    assert not plateau.judge(40.0, ENOUGH, scores(0.7), 1.0, joined=True).end
    assert plateau.judge(80.0, ENOUGH, scores(0.7), 1.0).end == "scores"


def test_an_hour_without_paint_is_enough() -> None:
    assert Plateau().judge(4000.0, 3, None, 0.1).end == "time"


def test_rounds_grow_and_stay_short_while_slices_join() -> None:
    assert [next_length(20.0, joined) for joined in (False, True)] == [40.0, 20.0]
    assert next_length(320.0, joined=True) == 80.0


def test_the_schedule_of_a_round_runs_to_its_end() -> None:
    first, later = Budget(20.0, None, 0.0, 0.0), Budget(60.0, None, 0.0, 20.0)
    assert [first.fraction(1, s) for s in (0.0, 10.0, 20.0)] == [0.0, 0.5, 1.0]
    assert [later.fraction(1, s) for s in (20.0, 40.0, 60.0)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert later.remaining(1, 50.0) == 10.0


def test_rounds_of_one_training() -> None:
    """Each gives a model; the network, its optimizer and the time go on; paint joins."""
    control = TrainingControl()
    control.watch(HELD_OUT)
    trainer = make_trainer(iterations=None, seconds=60.0, pixel_classifier=False)
    events = []
    for event in trainer.run_rounds(control, 0.4):
        events.append(event)
        if isinstance(event, RoundFinished):
            if event.number == 1:
                control.join(SlicePaint(HELD_OUT, TRUTH[6].clip(1)))
            elif event.number == 3:
                control.stop()
    ends = [e for e in events if isinstance(e, RoundFinished)]
    assert [e.end for e in ends[:2]] == ["", ""]
    assert ends[-1].end in ("", "stopped")
    begins = [e.seconds for e in events if isinstance(e, RoundStarted)]
    assert begins[:3] == [0.4, 0.8, 0.8]  # a slice joined in the second
    iterations = [e.bundle.record.iterations for e in ends]
    assert sorted(iterations) == iterations
    assert iterations[-1] > iterations[0]
    assert [e.seconds for e in ends] == sorted(e.seconds for e in ends)
    assert ends[-1].seconds < 4  # not that of the ends of rounds
    trained = [e.bundle.record.trained_slices for e in ends]
    assert trained[0] == ("z=2", "z=9")
    assert trained[1] == ("z=2", "z=6", "z=9")
    assert ends[0].agreement is None
    assert ends[1].agreement is not None
    for i, event in enumerate(events):  # the slice on the screen is that of the finished model
        if isinstance(event, RoundFinished):
            assert isinstance(events[i - 1], SlicePreview)
    assert all(e.remaining is not None for e in events if isinstance(e, TrainingProgress))


def test_a_checkpoint_comes_though_the_rounds_are_shorter_than_its_interval() -> None:
    control = with_checkpoints(0.45)
    ends = 0
    for event in make_trainer(iterations=None, seconds=60.0, pixel_classifier=False).run_rounds(
        control, 0.2
    ):
        ends += isinstance(event, RoundFinished)
        if isinstance(event, Checkpoint):
            break
        assert ends < 2, "0.6 s of training without a checkpoint"
    else:
        pytest.fail("no checkpoint at all")


def test_cancel_ends_rounds_without_a_model() -> None:
    control = TrainingControl()
    trainer = make_trainer(iterations=None, seconds=60.0, pixel_classifier=False)

    def each(event: object) -> None:
        if isinstance(event, RoundStarted) and event.number == 2:
            control.cancel()

    assert run(trainer.run_rounds(control, 0.2), None, each)[1] is None
