"""Continuous training: rounds, rest, the segmented stack; and more time for a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_job import session  # noqa: F401

from napari_unet3d.config import default_class
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.joined_labels import SlicePaint
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.events import (
    PredictionProgress,
    PredictionStarted,
    RoundFinished,
    RoundStarted,
    SlicesJoined,
    SlicesSummarized,
    drain,
)
from napari_unet3d.session.continuous import run_continuously
from napari_unet3d.session.job import make_outputs
from napari_unet3d.session.more_time import more_seconds, with_more_time
from napari_unet3d.session.session import NamedModel, Session
from napari_unet3d.training import rounds
from napari_unet3d.training.control import TrainingControl


@pytest.fixture
def resting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every second round be the last: any two results are the same."""
    monkeypatch.setattr(rounds, "FEWEST_ITERATIONS", 1)
    monkeypatch.setattr(rounds, "_SAME_RESULT", 0.0)


def names(events: list[Any]) -> list[str]:
    """The kinds of events that tell how the work goes on, each once in a row."""
    kinds = RoundStarted, RoundFinished, PredictionStarted, PredictionProgress, SlicesJoined
    told = [type(e).__name__ for e in events if isinstance(e, kinds)]
    return [name for i, name in enumerate(told) if not i or told[i - 1] != name]


ROUND = ["RoundStarted", "RoundFinished"]
SEGMENTED = ["PredictionStarted", "PredictionProgress"]


def test_rests_and_segments(session: Session, resting: None) -> None:  # noqa: F811
    outputs = make_outputs(session.volume, session.annotation.classes)
    before = np.full_like(outputs["labels"], 7)
    events: list[Any] = []

    def each(event: Any) -> None:
        if isinstance(event, RoundStarted) and event.number == 1:
            assert (outputs["labels"] == 7).all()  # the last segmentation, until there is another
        events.append(event)

    started = replace(session, segmentation=before)
    bundle = drain(run_continuously(started, None, outputs, first_round=0.2), each)
    assert names(events) == [*ROUND, *ROUND, *SEGMENTED]
    assert bundle is [e for e in events if isinstance(e, RoundFinished)][-1].bundle
    assert set(np.unique(outputs["labels"])) <= {0, 2}


def test_paint_that_comes_while_the_stack_is_segmented_goes_first(
    session: Session,  # noqa: F811
    resting: None,
) -> None:
    control, events = TrainingControl(), []
    outputs = make_outputs(session.volume, session.annotation.classes)
    slice_3 = np.ones((24, 24), np.uint8)

    def each(event: Any) -> None:
        if isinstance(event, PredictionStarted) and "SlicesJoined" not in names(events):
            control.join(SlicePaint(SliceRef(0, 3), slice_3))
        events.append(event)

    bundle = drain(run_continuously(session, control, outputs, first_round=0.2), each)
    joined = ["RoundStarted", "SlicesJoined", "RoundFinished"]
    assert names(events) == [*ROUND, *ROUND, *SEGMENTED, *joined, *ROUND, *SEGMENTED]
    assert bundle.record.trained_slices == ("z=2", "z=3", "z=5")


@pytest.mark.parametrize("order", ["stop", "cancel"])
def test_the_user_ends_it(session: Session, order: str) -> None:  # noqa: F811
    control, events = TrainingControl(), []

    def each(event: Any) -> None:
        events.append(event)
        if isinstance(event, RoundStarted):
            getattr(control, order)()

    outputs = make_outputs(session.volume, session.annotation.classes)
    bundle = drain(run_continuously(session, control, outputs, first_round=5.0), each)
    if order == "cancel":
        assert bundle is None
        assert names(events) == ["RoundStarted"]
    else:
        assert isinstance(events[-1], SlicesSummarized)
        assert events[-2].done == events[-2].total
        assert [e.end for e in events if isinstance(e, RoundFinished)] == ["stopped"]


def test_more_time_resumes_where_it_can(session: Session) -> None:  # noqa: F811
    bundle = drain(run_continuously(session, _stopping_at_once(), None, first_round=0.2))
    started = replace(session, start_from=NamedModel(bundle, "x"), resume=True)
    more = with_more_time(started, 300.0)
    assert more.resume
    assert more.settings.training.seconds == bundle.record.seconds + 300
    assert more.settings.training.iterations is None
    others = SparseAnnotation(session.annotation.labels, (default_class(2), default_class(3)))
    for changed in (
        replace(started, annotation=others),
        replace(started, start_from=NamedModel(bundle.model_copy(update={"state": {}}), "x")),
        replace(started, resume=False),
    ):
        anew = with_more_time(changed, 300.0)
        assert not anew.resume
        assert anew.settings.training.seconds == 300
    assert more_seconds(bundle) == 300  # its network has hardly learned


def _stopping_at_once() -> TrainingControl:
    control = TrainingControl()
    control.stop()
    return control
