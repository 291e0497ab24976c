"""The training loop: a generator of events that knows no window, no printer and no torch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator
from functools import partial

from napari_unet3d.data.slices import SliceRef
from napari_unet3d.errors import RunFailedError
from napari_unet3d.events import (
    Checkpoint,
    FinishingStarted,
    HeldOutScores,
    Notice,
    PixelsStarted,
    RoundEnd,
    RoundFinished,
    RoundStarted,
    TrainingEvent,
)
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.training.budget import Budget
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.forecast import Speed
from napari_unet3d.training.joining import Joining
from napari_unet3d.training.learner import Learner
from napari_unet3d.training.listening import Listener, StoppedError
from napari_unet3d.training.looks import Looks
from napari_unet3d.training.plan import TrainingPlan
from napari_unet3d.training.record import make_bundle
from napari_unet3d.training.reports import describe_progress, describe_start
from napari_unet3d.training.rescue import Attempts, rescue
from napari_unet3d.training.rounds import Plateau, Sample, next_length
from napari_unet3d.training.throttle import Throttle

_REFITTING_SHARE = 0.25
"""Share of the time in which the pixel classifier is fitted again, where slices join all the time:
the network is trained in the rest."""

_FIRST_CHECKPOINT = 10.0
"""Seconds of training after which the first checkpoint is made, where checkpoints are further
apart: what was learned in the first minute is worth keeping, too."""

_FORECAST_SECONDS = 5.0
"""Seconds of training between two forecasts of what follows it."""

Events = Generator[TrainingEvent, None, None]


class TrainingLoop:
    """Runs a plan once.

    Parameters
    ----------
    plan
        What is done.
    control
        Orders of the user.

    Attributes
    ----------
    learner, looks
        The training, and what it is looked at with.
    """

    def __init__(self, plan: TrainingPlan, control: TrainingControl) -> None:
        self._control = control
        self._listener = Listener(control)
        self.learner = Learner(plan, self._listener)
        self.looks = Looks(self.learner, self._listener.interrupted)
        self._attempts = Attempts(plan.device)
        self._joining = Joining(plan)
        self._refits = Throttle(first=0.0, share=_REFITTING_SHARE)
        self._forecasts = Throttle(first=_FORECAST_SECONDS)
        self._fit_seconds = 0.0
        """Of the last fit of the pixel classifier."""
        self._begin = time.monotonic() - plan.budget.seconds_before
        self._speed: Speed | None = None
        self._save_at: float | None = None
        """When the next checkpoint is due, in seconds of training; counted through all rounds."""
        self._joins = 0
        """How often slices have joined."""

    @property
    def _plan(self) -> TrainingPlan:
        return self.learner.plan

    @property
    def _budget(self) -> Budget:
        return self._plan.budget

    @property
    def elapsed(self) -> float:
        """Seconds of the training, those before it was resumed included."""
        return time.monotonic() - self._begin

    def run(self) -> Generator[TrainingEvent, None, ModelBundle | None]:
        """Train; yields what happens, returns the model, or None when cancelled."""
        learner, first = self.learner, self.learner.iteration
        self._speed = speed = Speed(learner, self.looks)
        yield describe_start(learner, speed.forecast(first, self.elapsed))
        if self._plan.fits_pixels:
            yield from self._fit_pixels(self._budget.pixel_seconds)
            self.looks.support.hide_slices(speed.iterations())
        yield from self._train(first)
        return None if self._control.cancelled else (yield from self._finish(speed))[0]

    def run_rounds(self, length: float) -> Generator[TrainingEvent, None, ModelBundle | None]:
        """Train in rounds that grow, until the user says stop; yields what happens.

        After a round with an `end`, whoever iterates decides: closing the generator ends the
        training with the model of the event; the next event begins another round, such as when
        slices wait to join.

        Parameters
        ----------
        length
            Seconds of the first round.
        """
        learner, first, shortest = self.learner, self.learner.iteration, length
        learner.adopt(self._plan.in_round(self.elapsed, length))
        self._speed = speed = Speed(learner, self.looks)
        plateau = Plateau()
        sample = Sample(self._plan, self.looks, self._listener.interrupted)
        yield describe_start(learner, None)
        if self._plan.fits_pixels:
            yield from self._fit_pixels(self._budget.pixel_seconds)
        for number in itertools.count(1):
            yield RoundStarted(number, length)
            joins = self._joins
            yield from self._train(first)
            if self._control.cancelled:
                return None
            elapsed = self.elapsed
            bundle, scores = yield from self._finish(speed)
            if bundle is None:
                return None
            agreement = yield from self._show_round(sample)
            joined = self._joins != joins
            verdict = plateau.judge(elapsed, learner.iteration, scores, agreement, joined)
            end: RoundEnd = "stopped" if self._control.stopped else verdict.end
            yield RoundFinished(bundle, number, elapsed, end, verdict.gain, verdict.agreement)
            if self._control.stopped:
                return bundle
            length = shortest if end else next_length(length, joined)
            self._begin = time.monotonic() - elapsed  # the end of a round is no training
            learner.adopt(self._plan.in_round(elapsed, length))
        return None

    def _train(self, first: int) -> Events:
        """Iterate until the budget is used or the user says stop.

        Parameters
        ----------
        first
            Iterations before this run.
        """
        learner = self.learner
        try:
            yield from self._iterate()
        except StoppedError:
            learner.drop_step()
        if not self._control.cancelled and learner.iteration > first and not learner.finite_steps:
            raise RunFailedError(
                "The loss was never a finite number, so nothing was learned. Choose precision "
                "'fp32', or start from another model."
            )

    def _show_round(self, sample: Sample) -> Generator[TrainingEvent, None, float | None]:
        """Predict the watched slice with the model of a round; how much its result is the last."""
        if self._control.stopped:
            return None  # the stack is segmented next
        if (ref := self._watched()) is not None:
            yield from self._attempts(
                "The slice on the screen could not be predicted",
                partial(self.looks.preview, ref, final=True),
            )
        self._listener.begin_part(self._budget.finishing_seconds)
        return sample.compare()

    def _fit_pixels(self, seconds: float) -> Events:
        """Fit the pixel classifier within so many seconds."""
        yield PixelsStarted()
        control, begin = self._control, time.monotonic()
        end = begin + seconds
        notice = self.looks.support.fit(lambda: self._left(end), lambda: control.stopped)
        self._fit_seconds = time.monotonic() - begin
        if notice is not None:
            yield notice

    def _iterate(self) -> Events:
        """Iterations, with looks and checkpoints between them, until the budget is used."""
        learner, budget, control = self.learner, self._budget, self._control
        scoring, viewing = Throttle(), Throttle()
        viewed: SliceRef | None = None
        self._listener.begin_iterations()
        while not control.stopped:
            fraction = budget.fraction(learner.iteration, self.elapsed)
            if fraction >= 1 and learner.iteration:
                if self.looks.support.is_outdated:
                    yield from self._refit()
                break
            if control.has_paint:
                yield from self._join()
            if self.looks.support.unseen.is_due(fraction):
                yield from self._judge_unseen()
                continue
            if self.looks.support.is_outdated and self._refits.due(self.elapsed):
                yield from self._refit()
                continue
            begin = time.monotonic()
            loss = learner.advance(fraction)
            if isinstance(loss, Notice):
                yield loss
                continue
            elapsed = self.elapsed
            if self._speed is not None:
                self._speed.note_step(time.monotonic() - begin)
            yield describe_progress(learner, elapsed, loss)
            yield from self._tell_forecast(elapsed)
            look = partial(self._look, elapsed)
            if self._plan.annotation.held_out:
                yield from look(
                    scoring,
                    lambda: (self.looks.measure_voxels, self.looks.measure_pixels),
                    "The held-out slices could not be measured this time",
                    partial(self.looks.measure, learner.iteration, elapsed, final=False),
                )
            if (ref := self._watched()) is not None:
                if ref != viewed:
                    viewing.hurry()
                    viewed = ref
                yield from look(
                    viewing,
                    lambda ref=ref: (  # type: ignore[misc]
                        self.looks.preview_voxels(ref),
                        self.looks.preview_pixels(ref),
                    ),
                    "The slice on the screen could not be predicted this time",
                    partial(self.looks.preview, ref),
                )
            if self._checkpoint_due():
                yield from self._attempts("No checkpoint could be made", self._checkpoint)
                self._save_at = self.elapsed + (control.checkpoint_seconds or 0.0)

    def _join(self) -> Events:
        """Take in the slices that were painted since the last iteration."""
        joined = self._joining.join(self._plan, self._control.take_paint(), self.elapsed)
        if joined is None:
            return
        if joined.plan is not self._plan:
            self._joins += 1
            self.learner.adopt(joined.plan)
            self.looks.adopt(joined.changed)
        yield joined.event

    def _judge_unseen(self) -> Events:
        """Find the weight that the network deserves on the hidden slices, then show them to it."""
        seconds = self._budget.refitting_seconds(self.elapsed, self._fit_seconds)
        yield from self._attempts(
            "The network could not be judged on slices that it had not seen",
            partial(self.looks.judge_unseen, seconds),
        )
        if not self._control.stopped:  # a training that is resumed judges then
            self.looks.support.unseen.show()

    def _left(self, end: float) -> float:
        """Seconds until a time; 0 once the user said stop."""
        return 0.0 if self._control.stopped else end - time.monotonic()

    def _refit(self) -> Events:
        """Fit the pixel classifier again, with the slices that have joined."""
        with self._refits.timed(self.elapsed):
            seconds = self._budget.refitting_seconds(self.elapsed, self._fit_seconds)
            yield from self._fit_pixels(seconds)

    def _look(
        self,
        elapsed: float,
        throttle: Throttle,
        voxels: Callable[[], tuple[int, int]],
        failure: str,
        look: Callable[[], TrainingEvent | None],
    ) -> Events:
        """Take a look where it is time for it, and cheap enough."""
        if not throttle.due(elapsed):
            return
        cost = 0.0 if self._speed is None else self._speed.look(*voxels())
        if throttle.affordable(elapsed, cost):
            with throttle.timed(elapsed):
                events = list(self._attempts(failure, look))
            yield from events

    def _tell_forecast(self, elapsed: float) -> Events:
        """Tell, now and then, how long what follows will take: the load of a computer changes."""
        if self._speed is None or not self._forecasts.due(elapsed):
            return
        self._forecasts = Throttle(first=elapsed + _FORECAST_SECONDS)
        forecast = self._speed.forecast(self.learner.iteration, elapsed)
        if forecast is not None and self._budget.round_begin is None:
            yield forecast

    def _watched(self) -> SliceRef | None:
        """The slice that the user looks at; None where it is one of another image."""
        ref, volume = self._control.watched, self._plan.volume
        if ref is None or ref.index >= volume.shape[ref.axis] or ref.time >= volume.n_times:
            return None
        return ref

    def _checkpoint_due(self) -> bool:
        interval = self._control.checkpoint_seconds
        if interval is None:
            return False
        if self._save_at is None:
            before = self._budget.seconds_before
            self._save_at = before + min(interval, _FIRST_CHECKPOINT)
        return self.elapsed >= self._save_at

    def _checkpoint(self) -> Checkpoint:
        self.looks.prepare(final=False)
        return Checkpoint(make_bundle(self.learner, self.looks, self.elapsed))

    def _finish(
        self, speed: Speed
    ) -> Generator[TrainingEvent, None, tuple[ModelBundle | None, HeldOutScores | None]]:
        """Statistics, calibration and scores of the final model; both are returned."""
        learner, looks, elapsed = self.learner, self.looks, self.elapsed
        self._listener.begin_part(self._budget.finishing_seconds)
        yield FinishingStarted(elapsed, speed.finishing(self._listener.limit))
        looks.prepare(final=True)
        yield from self._attempts("The model could not be calibrated", looks.calibrate)
        scores: list[TrainingEvent] = []
        if self._plan.annotation.held_out:
            self._listener.begin_part(self._budget.finishing_seconds)
            measure = partial(looks.measure, learner.iteration, elapsed, final=True)
            scores = list(self._attempts("The held-out slices could not be measured", measure))
            yield from scores
        if self._control.cancelled:
            return None, None
        final = next((e for e in scores if isinstance(e, HeldOutScores)), None)
        return make_bundle(learner, looks, elapsed, final), final

    def rescue(self) -> ModelBundle | None:
        """The model as it is when the training has failed; None where nothing was learned."""
        self._listener.begin_part(self._budget.finishing_seconds)
        return rescue(self.learner, self.looks, self.elapsed)
