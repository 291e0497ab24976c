"""Events and phases in words, the same for the window and the terminal."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from bundles import random_bundle
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import (
    ClassScore,
    Forecast,
    HeldOutScores,
    PredictionProgress,
    RoundFinished,
    SlicesJoined,
    TrainingProgress,
    TrainingStarted,
)
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.session.texts import (
    PHASES,
    done_text,
    error_text,
    few_text,
    forecast_line,
    joined_text,
    look_text,
    phase_line,
    plan_line,
    prediction_line,
    rest_text,
    show_duration,
    starved_text,
    step_text,
    training_line,
)
from napari_unet3d.training.clock import Phase, Reading

NETWORK = UNetConfig(widths=(4, 8), strides=((2, 2, 2),), kernels=((3, 3, 3),) * 2, padding="same")
READING = Reading("training", 0.4, 75.0, 120.0)


def started(forecast: Forecast | None = None) -> TrainingStarted:
    return TrainingStarted(12_345, "CPU (2 threads)", "fp32", (8, 24, 24), 5_000, (), forecast)


def progress(iteration: int) -> TrainingProgress:
    return TrainingProgress(iteration, 75.0, 120.0, 0.4, 0.34567, 2**30)


def test_every_phase_has_words() -> None:
    assert set(PHASES) == set(get_args(Phase))
    assert len(set(PHASES.values())) == len(PHASES)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (60, "1 min"), (100, "1:40 min"),
        (200, "3:20 min"), (3599.6, "1 h"), (3600, "1 h"), (7199, "2 h"), (7500, "2:05 h"),
    ],
)  # fmt: skip
def test_durations_as_people_read_them(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text


def test_how_long_it_will_take() -> None:
    event = started(Forecast(60, 10, 15))
    assert forecast_line(event, 2) == (
        "About 1:40 min in all: 1 min to train, then 40 s to measure and segment."
    )
    assert forecast_line(event, 0) == (
        "About 1:10 min in all: 1 min to train, then 10 s to measure and finish the model."
    )
    assert forecast_line(started(), 1) is None


def test_a_part_that_takes_no_time_is_not_0_seconds() -> None:
    assert forecast_line(started(Forecast(0.2, 0.1, 0)), 0) == (
        "About 1 s in all: 1 s to train, then 1 s to measure and finish the model."
    )


def test_what_is_trained_and_where() -> None:
    assert plan_line(started()) == (
        "Network with 12,345 parameters, patches of 8 × 24 × 24 voxels, 5,000 labelled voxels; "
        "CPU (2 threads), fp32"
    )


def test_steps() -> None:
    assert step_text(progress(12)) == "iteration 12, loss 0.346"
    assert step_text(PredictionProgress(3, 7, 1.0, None)) == "tile 3 of 7"
    scores = HeldOutScores(3, 1.0, (ClassScore(2, 0.5, 0.6, 9),), ("z=6",), 3)
    assert look_text(scores) == "quick look at held-out slices: IoU 0.500"


def test_the_status_line_has_what_the_bar_does_not_say() -> None:
    assert training_line(progress(12), started(), READING) == (
        "12 iterations · 1:15 min · 2 min left · 1.0 GB · CPU"
    )
    assert training_line(progress(1), None, READING).startswith("1 iteration · ")
    assert prediction_line(PredictionProgress(3, 7, 1.0, None), READING) == (
        "tile 3 of 7 · 1:15 min · 2 min left"
    )
    assert phase_line(Reading("checking", 0, 5.0, None)) == "5 s"
    assert phase_line(Reading("training", 0.9, 5.0, 0.3)) == "5 s"


def test_errors_in_words() -> None:
    assert error_text(BadInputError("Paint more.")) == "Paint more."
    assert error_text(RunFailedError("It broke.")) == "It broke."
    assert "not enough memory" in error_text(MemoryError())
    assert "KeyError: 'x'" in error_text(KeyError("x"))
    assert "annotation is untouched" in error_text(KeyError("x"))


def test_a_training_that_was_too_short() -> None:
    bundle = random_bundle(NETWORK, [2])
    text = starved_text(bundle)
    assert text.startswith("The network has hardly learned: it had only ")
    assert text.endswith("the result is hardly better than chance.")
    assert ": few. The result comes mainly from a network that has hardly" in few_text(bundle)


def test_slices_that_join_are_told_with_what_their_scores_are_worth() -> None:
    z5, z9, z12 = SliceRef(0, 5), SliceRef(0, 9), SliceRef(0, 12)
    assert joined_text(SlicesJoined(trained=(z5,))) == "z=5 joined the training."
    assert joined_text(SlicesJoined(trained=(z5, z9))) == "z=5 and z=9 joined the training."
    assert joined_text(SlicesJoined(held_out=(z12,), seen=((z9, 3.0), (z12, 40.2)))) == (
        "z=12 is measured from now on. z=12 was trained on for 40 s before it was held out: its "
        "score flatters."
    )
    text = joined_text(SlicesJoined(erased=(z5,), left_out=((z9, (4, 7)),), refused=(z12,)))
    assert "z=5 left the training" in text
    assert "Labels 4 and 7 on z=9 are left out: a new class needs a new training." in text
    assert "z=12 stays in the training as before" in text


def test_why_a_continuous_training_rests() -> None:
    def rest(**more: Any) -> str:
        return rest_text(RoundFinished(random_bundle(NETWORK), 3, 140.0, **more))

    assert "by +0.004" in rest(end="scores", gain=0.004)
    assert "IoU 0.97 with it" in rest(end="result", agreement=0.97)
    assert rest(end="time").startswith("Learned for 2:20 min.")
    assert rest() == rest(end="stopped") == ""


def test_what_a_run_has_spent_its_time_on() -> None:
    spent: dict[Phase, float] = {"checking": 3.0, "pixels": 15.0, "training": 45.0}
    spent |= {"finishing": 20.0, "segmenting": 152.0}
    assert done_text(spent) == (
        "Done in 3:55 min (3 s preparing, 1 min training, 20 s measuring, 2:32 min segmenting)"
    )
    assert done_text({"segmenting": 30.0}) == "Done in 30 s"
