"""Stop and Cancel are heard in each phase of a training: what was begun is the last."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from toy_stack import HELD_OUT, run
from toy_stack import make_trainer as make_toy_trainer

from napari_unet3d.data.slices import SliceRef
from napari_unet3d.events import FinishingStarted, HeldOutScores, TrainingProgress
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.pixels import fit
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.prediction.engine import Engine
from napari_unet3d.sampling.source import Source
from napari_unet3d.training import listening
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.learner import Learner
from napari_unet3d.training.looks import Looks
from napari_unet3d.training.throttle import Throttle
from napari_unet3d.training.trainer import Trainer


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of a tiny network ends before half a second: let none of them end."""
    monkeypatch.setattr(listening, "_STOP_PATIENCE", 0.0)
    monkeypatch.setattr(listening, "_STOPPED_SECONDS", 0.0)


def make_trainer(**settings: Any) -> Trainer:
    return make_toy_trainer(held_out=[HELD_OUT], **settings)


class Calls:
    """Counts the calls of a function; at the n-th one an order is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        self.count, self.at, self.order = 0, 0, lambda: None
        function = getattr(owner, name)

        def counted(*args: Any, **more: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                self.order()
            return function(*args, **more)

        monkeypatch.setattr(owner, name, counted)


@pytest.mark.parametrize("how", ["stop", "cancel"])
def test_no_feature_is_computed_after_it(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    control, scales, read = TrainingControl(), 0, Source.read

    def counted(self: Source, *given: Any, **named: Any) -> torch.Tensor:
        nonlocal scales
        scales += named.get("beyond") == "nearest"
        if scales == 3:
            getattr(control, how)()
        return read(self, *given, **named)

    monkeypatch.setattr(Source, "read", counted)
    _, bundle = run(make_trainer(), control)
    assert scales == 3  # a whole part takes five
    assert (bundle is None) == (how == "cancel")
    assert bundle is None or not bundle.pixels


def test_no_voxel_is_judged_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "_CHUNK", 100)  # of 2880 voxels
    calls = Calls(monkeypatch, PixelClassifier, "voxel_log_probabilities")
    control = TrainingControl()
    calls.at, calls.order = 4, control.stop
    seen: list[int] = []
    events, bundle = run(
        make_trainer(),
        control,
        lambda e: seen.append(calls.count) if isinstance(e, FinishingStarted) else None,
    )
    assert seen == [4]
    assert bundle is not None
    assert not any(isinstance(e, TrainingProgress) for e in events)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("how", ["stop", "cancel"])
def test_a_step_ends_at_its_next_convolution(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    control = TrainingControl()
    steps = Calls(monkeypatch, Learner, "step")
    forward = Calls(monkeypatch, nn.Conv3d, "forward")
    seen: list[int] = []

    def order() -> None:
        getattr(control, how)()
        seen.append(forward.count)

    steps.at, steps.order = 3, order
    events, bundle = run(
        make_trainer(pixel_classifier=False, iterations=1000),
        control,
        lambda e: seen.append(forward.count) if isinstance(e, FinishingStarted) else None,
    )
    done = [e.iteration for e in events if isinstance(e, TrainingProgress)]
    assert done == [1, 2]
    assert steps.count == 3
    if how == "cancel":
        assert bundle is None
        assert forward.count == seen[0] + 1
    else:
        assert bundle is not None
        assert bundle.record.iterations == 2  # the third was dropped
        assert all(t.isfinite().all() for t in bundle.state.values())
        assert seen[1] == seen[0] + 1


def test_a_step_that_ends_soon_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "_STOP_PATIENCE", 60.0)
    control = TrainingControl()
    steps = Calls(monkeypatch, Learner, "step")
    steps.at, steps.order = 3, control.stop
    _, bundle = run(make_trainer(pixel_classifier=False, iterations=1000), control)
    assert bundle is not None
    assert bundle.record.iterations == 3


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("look", ["preview", "measure"])
def test_a_look_ends_at_its_next_convolution(look: str, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(Throttle, "due", lambda self, elapsed: True)
    monkeypatch.setattr(Throttle, "affordable", lambda self, elapsed, cost: True)
    control = TrainingControl()
    if look == "preview":
        control.watch(SliceRef(0, 4))
    looks = Calls(monkeypatch, Looks, look)
    forward = Calls(monkeypatch, nn.Conv3d, "forward")
    seen: list[int] = []
    looks.at, looks.order = 2, lambda: (control.stop(), seen.append(forward.count))
    _, bundle = run(
        make_trainer(pixel_classifier=False, iterations=1000),
        control,
        lambda e: seen.append(forward.count) if isinstance(e, FinishingStarted) else None,
    )
    assert bundle is not None
    assert bundle.record.iterations == 2
    assert seen[1] - seen[0] <= 1


@pytest.mark.usefixtures("impatient")
def test_the_end_is_short_after_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tile of statistics, one part of the calibration and of the scores: no more of them."""

    def tiles(stop: bool) -> tuple[int, ModelBundle | None, list[Any]]:
        control = TrainingControl()
        with monkeypatch.context() as patch:
            boxes = Calls(patch, Engine, "predict")
            reads = Calls(patch, Engine, "read")
            before: list[int] = []

            def each(event: Any) -> None:
                if isinstance(event, FinishingStarted):
                    before.append(reads.count)
                    if stop:
                        control.stop()

            events, bundle = run(make_trainer(), control, each)
            assert boxes.count <= reads.count
            return reads.count - before[0], bundle, events

    whole, bundle, _ = tiles(stop=False)
    assert bundle is not None
    assert whole > 3  # it does take more, undisturbed
    short, bundle, events = tiles(stop=True)
    assert short < whole
    assert bundle is not None
    assert bundle.pixels
    assert isinstance(events[-1], HeldOutScores)
    assert bundle.record.held_out


def test_cancel_ends_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    control = TrainingControl()
    forward = Calls(monkeypatch, nn.Conv3d, "forward")
    seen: list[int] = []

    def each(event: Any) -> None:
        if isinstance(event, FinishingStarted):
            seen.append(forward.count)
            control.cancel()

    _, bundle = run(make_trainer(), control, each)
    assert bundle is None
    assert forward.count <= seen[0] + 1


def test_stop_before_the_run_is_no_error() -> None:
    control = TrainingControl()
    control.stop()
    _, bundle = run(make_trainer(), control)
    assert bundle is not None
    assert bundle.record.iterations == 0
