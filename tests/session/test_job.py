"""One job: check, train, segment; with real, tiny trainings."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import pytest

from napari_unet3d.config import PredictionConfig, TrainingConfig, default_class
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import (
    InputChecked,
    PredictionProgress,
    PredictionStarted,
    SlicePreview,
    SlicesSummarized,
    TrainingProgress,
    TrainingStarted,
    drain,
)
from napari_unet3d.networks.geometry import parameter_count
from napari_unet3d.session.job import make_outputs, run_job, show_preview
from napari_unet3d.session.session import NamedModel, RunSettings, Session
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.throttle import Throttle

SHAPE = (8, 24, 24)
"""A bright bar in noise: rows 8 to 15; slices z=2 and z=5 are painted."""


@pytest.fixture(scope="module")
def session() -> Session:
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, SHAPE).astype(np.float32)
    image[:, 8:16] += 60
    labels = np.zeros(SHAPE, np.uint8)
    labels[[2, 5]] = 1
    labels[[2, 5], 8:16] = 2
    training = TrainingConfig(
        preset="fast", iterations=2, patch_shape=(8, 24, 24), pixel_classifier=False, device="cpu"
    )
    return Session(
        volume=Volume(image),
        annotation=SparseAnnotation(labels, (default_class(2),)),
        settings=RunSettings(training=training, prediction=PredictionConfig(device="cpu")),
    )


def outputs_for(session: Session) -> Any:
    """Arrays with a value that no segmentation has."""
    assert session.volume is not None
    assert session.annotation is not None
    outputs = make_outputs(session.volume, session.annotation.classes, ("uncertainty",))
    for array in outputs.values():
        array[...] = 99
    return outputs


def run(*given: Any, **options: Any) -> tuple[Any, list[Any]]:
    """What a job returns, and its events."""
    events: list[Any] = []
    return drain(run_job(*given, **options), events.append), events


def test_check_then_train_then_segment(session: Session) -> None:
    outputs = outputs_for(session)
    bundle, events = run(session, TrainingControl(), outputs)
    kinds = [kind for kind, _ in groupby(type(event) for event in events)]
    order = [InputChecked, TrainingStarted, TrainingProgress, PredictionStarted, PredictionProgress]
    places = [kinds.index(kind) for kind in order]
    assert places == sorted(places)
    assert places[0] == 0
    assert events[0].parameters == parameter_count(bundle.network)
    (ended,) = [event for event in events if isinstance(event, PredictionStarted)]
    assert ended.bundle is bundle
    assert set(np.unique(outputs["labels"])) <= {0, 2}
    assert 0 <= outputs["uncertainty"].min() <= outputs["uncertainty"].max() <= 1


def test_without_outputs_nothing_is_segmented(session: Session) -> None:
    bundle, events = run(session)
    assert bundle.record.iterations == 2
    assert not any(isinstance(e, PredictionStarted | PredictionProgress) for e in events)


def test_without_training_the_current_model_is_applied(session: Session) -> None:
    bundle, _ = run(session)
    outputs = outputs_for(session)
    applied = Session(
        volume=session.volume, settings=session.settings, model=NamedModel(bundle, "m")
    )
    result, events = run(applied, None, outputs, train=False)
    assert result is bundle
    *progress, summarized = events
    assert {type(event) for event in progress} == {PredictionProgress}
    assert isinstance(summarized, SlicesSummarized)
    assert summarized.summaries[0].shape == applied.volume.shape
    assert set(np.unique(outputs["labels"])) <= {0, 2}


def test_what_to_expect_is_told_for_the_stack_that_was_trained_on_only(session: Session) -> None:
    training = session.settings.training.model_copy(update={"pixel_classifier": True})
    settings = session.settings.model_copy(update={"training": training})
    session = replace(session, settings=settings)
    outputs = outputs_for(session)
    bundle, (*_, here) = run(session, None, outputs)
    (expected,) = here.expected
    assert expected.low < expected.value < expected.high
    assert expected.slices == 2
    applied = replace(session, annotation=None, model=NamedModel(bundle, "m"))
    _, (*_, again) = run(applied, None, outputs, train=False)
    assert again.expected == here.expected
    assert session.volume is not None
    other = Volume(session.volume.data[::-1, ::2] + 1)
    applied = replace(applied, volume=other)
    outputs = make_outputs(other, bundle.classes)
    _, (*_, elsewhere) = run(applied, None, outputs, train=False)
    assert elsewhere.summaries and not elsewhere.expected


def test_a_training_starts_from_the_model_that_was_chosen(session: Session) -> None:
    first, _ = run(session)
    model = NamedModel(first, "m")
    tuned, _ = run(replace(session, start_from=model))
    assert (tuned.record.iterations, tuned.record.iterations_before) == (2, 2)
    longer = session.settings.training.model_copy(update={"iterations": 3})
    settings = session.settings.model_copy(update={"training": longer})
    resumed, _ = run(replace(session, start_from=model, resume=True, settings=settings))
    assert resumed.record.iterations == 3


def test_previews_are_written_where_the_segmentation_will_be(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Throttle, "due", lambda self, elapsed: True)
    monkeypatch.setattr(Throttle, "affordable", lambda self, elapsed, cost: True)
    outputs, control = outputs_for(session), TrainingControl()
    control.watch(SliceRef(0, 3))
    job = run_job(session, control, outputs)
    preview = next(event for event in job if isinstance(event, SlicePreview))
    np.testing.assert_array_equal(outputs["labels"][3], preview.labels)
    assert (outputs["labels"][4] == 99).all()
    job.close()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_preview_of_a_series(axis: int) -> None:
    labels = np.zeros((2, 3, 4, 5), np.uint8)
    plane = np.ones(np.delete(labels.shape[1:], axis), np.uint8)
    show_preview(labels, SlicePreview(SliceRef(axis, 1, time=1), plane))
    assert labels.sum() == plane.size
    assert labels[1].take(1, axis).all()


def test_cancelled_while_the_input_is_checked(session: Session) -> None:
    control = TrainingControl()
    control.cancel()
    outputs = outputs_for(session)
    assert run(session, control, outputs) == (None, [])
    assert (outputs["labels"] == 99).all()


@pytest.mark.parametrize(
    ("missing", "train", "words"),
    [("volume", True, "No image"), ("annotation", True, "no annotation"),
     ("model", False, "no model")],
)  # fmt: skip
def test_what_is_missing_is_told_before_the_first_event(
    session: Session, missing: str, train: bool, words: str
) -> None:
    with pytest.raises(BadInputError, match=words):
        next(run_job(replace(session, **{missing: None}), train=train))


@pytest.mark.parametrize(
    ("prediction", "words"),
    [({"executor": "none"}, "executor 'none' does not exist"), ({"tile_shape": (5, 5, 5)}, "tile")],
)
def test_settings_of_the_prediction_are_checked_before_the_training(
    session: Session, prediction: Any, words: str
) -> None:
    given = PredictionConfig(device="cpu", **prediction)
    settings = session.settings.model_copy(update={"prediction": given})
    with pytest.raises(BadInputError, match=words):
        next(run_job(replace(session, settings=settings), outputs=outputs_for(session)))
