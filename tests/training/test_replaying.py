"""Passes that are recorded and replayed: when, and what happens where that fails."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from toy_stack import make_plan

from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.learner import Learner
from napari_unet3d.training.listening import CancelledError, Listener
from napari_unet3d.training.replaying import Pass, ReplayedPass


class Copying:
    """Stands in for a CUDA graph: it computes with tensors of its own, to which batches are
    copied."""

    def __init__(self, run: Pass, image: Tensor, target: Tensor) -> None:
        self._run, self._image, self._target = run, image.clone(), target.clone()

    def replay(self, image: Tensor, target: Tensor) -> Tensor:
        self._image.copy_(image)
        self._target.copy_(target)
        return self._run(self._image, self._target)


class Recorder:
    """Records without a GPU, and keeps count.

    Parameters
    ----------
    room
        Whether there is memory.
    error
        What a recording raises.
    """

    def __init__(self, room: bool = True, error: Exception | None = None) -> None:
        self.room, self.error = room, error
        self.asked = self.rehearsed = self.recorded = 0

    def has_room(self, image: Tensor) -> bool:
        self.asked += 1
        return self.room

    def rehearse(self, run: Pass, image: Tensor, target: Tensor) -> Tensor:
        self.rehearsed += 1
        return run(image, target)

    def record(self, run: Pass, image: Tensor, target: Tensor) -> Copying:
        self.recorded += 1
        if self.error is not None:
            raise self.error
        return Copying(run, image, target)


def batch(size: int = 3, value: float = 1.0) -> tuple[Tensor, Tensor]:
    return torch.full((1, 1, size, 4, 4), value), torch.zeros(1, size, 4, 4)


def test_a_pass_is_recorded_after_three_steps_of_its_shape() -> None:
    recorder, values = Recorder(), []
    passes = ReplayedPass(lambda image, _: values.append(float(image[0, 0, 0, 0, 0])), recorder)
    for step in range(6):
        passes(*batch(value=step))
        assert passes.recordings == (step >= 3)
    passes(*batch(size=5, value=9))  # another shape is computed as usual
    assert values == [0, 1, 2, 3, 4, 5, 9]
    assert (recorder.rehearsed, recorder.recorded) == (1, 1)


def test_without_room_nothing_is_recorded_until_there_is_some() -> None:
    recorder = Recorder(room=False)
    passes = ReplayedPass(lambda image, _: image.sum(), recorder)
    for _ in range(6):
        passes(*batch())
    assert (recorder.asked, recorder.recorded) == (3, 0)
    recorder.room = True
    passes(*batch())
    assert passes.recordings == 1


@pytest.mark.parametrize(
    "error", [RuntimeError("operation not permitted when stream is capturing"), MemoryError()]
)
def test_after_a_recording_has_failed_all_steps_are_computed_as_usual(error: Exception) -> None:
    recorder = Recorder(error=error)
    passes = ReplayedPass(lambda image, _: image.sum(), recorder)
    losses = [float(passes(*batch(value=n))) for n in range(6)]
    assert losses == [48.0 * n for n in range(6)]
    assert (recorder.recorded, passes.recordings) == (1, 0)


def test_a_replay_that_fails_is_computed_as_usual() -> None:
    class Broken(Recorder):
        def record(self, run: Pass, image: Tensor, target: Tensor) -> Copying:
            return super().record(lambda *_: 1 / 0, image, target)  # type: ignore[arg-type]

    recorder = Broken()
    passes = ReplayedPass(lambda image, _: image.sum(), recorder)
    assert [float(passes(*batch())) for _ in range(6)] == [48.0] * 6
    assert recorder.recorded == 1


def test_a_cancel_within_a_recording_ends_the_training() -> None:
    def cancelled(image: Tensor, target: Tensor) -> Tensor:
        raise CancelledError

    passes = ReplayedPass(lambda image, _: image.sum(), Recorder(error=CancelledError()))
    for _ in range(3):
        passes(*batch())
    passes._run = cancelled  # type: ignore[method-assign]
    with pytest.raises(CancelledError):
        passes(*batch())


def test_what_is_forgotten_is_recorded_again_and_what_is_given_up_is_not() -> None:
    recorder = Recorder()
    passes = ReplayedPass(lambda image, _: image.sum(), recorder)
    for _ in range(4):
        passes(*batch())
    passes.forget()
    assert passes.recordings == 0
    for _ in range(4):
        passes(*batch())
    assert passes.recordings == 1
    passes.give_up()
    for _ in range(8):
        passes(*batch())
    assert (recorder.recorded, passes.recordings) == (2, 0)


class Replaying(Learner):
    """Learns as on an NVIDIA GPU, with recordings that a CPU can make."""

    def _make_recorder(self) -> Recorder:  # type: ignore[override]
        return Recorder()


def test_a_learner_that_replays_learns_the_same() -> None:
    plan = make_plan(precision="fp32", class_weights="balanced")
    losses, learners = [], []
    for replays in (False, True):
        learner = Replaying(plan, Listener(TrainingControl()), replays=replays)
        steps = []
        for _ in range(8):
            learner.adopt(plan)  # as when slices join: recordings stay as they are
            steps.append(learner.advance(0.2))
        assert learner.recorded_shapes == replays
        losses.append(steps)
        learners.append(learner)
    assert losses[0] == losses[1]
    for one, other in zip(*(net.average.parameters() for net in learners), strict=True):
        assert torch.equal(one, other)


def test_a_shortage_and_a_step_that_breaks_off_drop_the_recordings() -> None:
    learner = Replaying(make_plan(), Listener(TrainingControl()))
    for _ in range(4):
        learner.advance(0.5)
    assert learner.recorded_shapes == 1
    learner.drop_step()
    assert learner.recorded_shapes == 0
    for _ in range(4):
        learner.advance(0.5)
    assert learner.recorded_shapes == 1
    learner.shrink("no room")
    for _ in range(5):
        learner.advance(0.5)
    assert learner.recorded_shapes == 0
