"""One clock for a whole run: it never goes back, and says what it knows."""

from __future__ import annotations

from itertools import pairwise

import pytest

from napari_unet3d.events import (
    FinishingStarted,
    Forecast,
    PixelsStarted,
    PredictionProgress,
    RoundStarted,
    TrainingProgress,
    TrainingStarted,
)
from napari_unet3d.training.clock import Reading, RunClock


class Time:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


def started(forecast: Forecast | None = None) -> TrainingStarted:
    return TrainingStarted(1000, "cpu", "fp32", (8, 24, 24), 500, forecast=forecast)


def progress(elapsed: float, budget: float = 60) -> TrainingProgress:
    return TrainingProgress(1, elapsed, budget - elapsed, elapsed / budget, 0.5, 0)


def test_a_whole_run_is_one_progress(time: Time) -> None:
    clock = RunClock(time_points=2, now=time)
    readings: list[Reading] = []

    def pass_by(seconds: float, event: object = None) -> Reading:
        time.now += seconds
        if event is not None:
            clock.handle(event)
        readings.append(clock.read())
        return readings[-1]

    checking = pass_by(5)
    assert (checking.phase, checking.fraction, checking.remaining) == ("checking", 0, None)
    preparing = pass_by(5, started(Forecast(60, 10, 20)))
    assert preparing.remaining == pytest.approx(60 + 10 + 2 * 20)
    assert preparing.fraction == pytest.approx(10 / 120)
    pass_by(0, PixelsStarted())
    pixels = pass_by(15)
    assert (pixels.phase, pixels.remaining) == ("pixels", pytest.approx(95))
    training = pass_by(15, progress(30))
    assert training.remaining == pytest.approx(30 + 50)
    assert training.fraction == pytest.approx(40 / 120)
    pass_by(30, FinishingStarted(60, 5))
    finishing = pass_by(2)
    assert (finishing.phase, finishing.remaining) == ("finishing", pytest.approx(3 + 40))
    clock.segment()
    assert pass_by(3).remaining == pytest.approx(37)
    segmenting = pass_by(1, PredictionProgress(1, 4, 4, 12))
    assert (segmenting.phase, segmenting.remaining) == ("segmenting", pytest.approx(12))
    clock.finish()
    done = pass_by(12)
    assert (done.phase, done.fraction, done.remaining) == ("done", 1, 0)
    assert done.elapsed == pytest.approx(88)
    assert all(a.fraction <= b.fraction for a, b in pairwise(readings))
    assert all(r.fraction < 1 for r in readings[:-1])


def test_it_never_goes_back_when_things_take_longer_than_expected(time: Time) -> None:
    clock = RunClock(now=time)
    clock.handle(started(Forecast(10, 1, 0)))
    fractions = []
    for elapsed in range(0, 200, 10):
        time.now = 1000 + elapsed
        reading = clock.read()
        fractions.append(reading.fraction)
        assert reading.remaining is not None
        assert reading.remaining > 0
    assert all(a <= b for a, b in pairwise(fractions))
    clock.handle(progress(5, budget=1000))  # much is left after all
    assert clock.read().fraction == fractions[-1]


def test_what_is_not_known_is_not_said_but_the_bar_moves(time: Time) -> None:
    clock = RunClock(time_points=1, now=time)
    clock.handle(started())
    assert clock.read().remaining is None
    time.now += 30
    clock.handle(progress(30))
    reading = clock.read()
    assert reading.remaining is None  # the segmentation may take a minute or a day
    assert 0 < reading.fraction <= 0.5
    clock.handle(FinishingStarted(60, 5))
    assert clock.read().remaining is None


def test_without_a_segmentation_nothing_follows_the_end(time: Time) -> None:
    clock = RunClock(now=time)
    clock.handle(started())
    clock.handle(FinishingStarted(60, 5))
    assert clock.read().remaining == pytest.approx(5)


def test_tells_what_the_time_was_spent_on(time: Time) -> None:
    clock = RunClock(1, time)
    time.now += 3
    clock.handle(started(Forecast(60, 10, 40)))
    time.now += 1
    clock.handle(PixelsStarted())
    time.now += 9
    clock.handle(progress(10))
    time.now += 50
    clock.handle(PixelsStarted())  # slices have joined
    time.now += 5
    clock.handle(progress(60))
    clock.handle(FinishingStarted(60, 10))
    time.now += 12
    clock.segment()
    time.now += 40
    clock.finish()
    expected = {"checking": 3, "preparing": 1, "pixels": 14}
    expected |= {"training": 50, "finishing": 12, "segmenting": 40}
    assert clock.durations() == expected


def test_a_later_forecast_corrects_what_follows(time: Time) -> None:
    clock = RunClock(2, time)
    clock.handle(started(Forecast(60, 10, 40)))
    clock.handle(progress(0))
    assert clock.read().remaining == 60 + 10 + 2 * 40
    clock.handle(Forecast(60, 30, 100))
    assert clock.read().remaining == 60 + 30 + 2 * 100


def test_each_round_begins_at_0(time: Time) -> None:
    clock = RunClock(1, time)
    clock.handle(RoundStarted(1, 20))
    time.now += 15
    assert clock.read().fraction == pytest.approx(0.75)
    clock.handle(RoundStarted(2, 40))
    time.now += 4
    assert clock.read().fraction == pytest.approx(0.1)
    assert clock.read().remaining == pytest.approx(36)
