"""Follow a job on the terminal: a progress bar, messages, checkpoints, and what Ctrl-C does."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TextColumn

from napari_unet3d.cli.settings import CHECKPOINT_SECONDS
from napari_unet3d.cli.signals import SAVING, first_signal, interrupt, say
from napari_unet3d.cli.tasks.checkpoints import CheckpointFile
from napari_unet3d.cli.terminal import errors, visible
from napari_unet3d.errors import RunFailedError
from napari_unet3d.events import (
    Checkpoint,
    FinishingStarted,
    HeldOutScores,
    InputChecked,
    Notice,
    PixelsStarted,
    PredictionProgress,
    PredictionStarted,
    SlicesSummarized,
    TrainingProgress,
    TrainingStarted,
    drain,
)
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.job import Outputs, run_job
from napari_unet3d.session.quality import show_expected
from napari_unet3d.session.session import Session
from napari_unet3d.session.texts import (
    PHASES,
    forecast_line,
    look_text,
    plan_line,
    show_duration,
    show_iterations,
    step_text,
    times,
)
from napari_unet3d.training.clock import RunClock
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.trainer import Trainer, TrainingFailedError

T = TypeVar("T")
State = Literal["checking", "training", "saving", "segmenting"]


def follow(
    events: Generator[Any, None, T], task: str, each: Callable[[Any], object] | None = None
) -> T:
    """Iterate a generator of events and show them; return what it returns.

    Parameters
    ----------
    events
        Such as `predict` or `run_job`.
    task
        Word at the beginning of each line where there is no terminal, such as "predicting".
    each
        Called with every event after it was shown.
    """
    with _Display(RunClock(), task) as display:

        def handle(event: Any) -> None:
            display.handle(event)
            if each is not None:
                each(event)

        return drain(events, handle)


class TrainingRun:
    """One progress bar and one way to stop, from the checks of a training to its saved model.

    Within it, the first Ctrl-C, SIGTERM or SIGHUP ends a training gently, and does not cut off
    the saving of its model; a second one interrupts. Before the training begins there is nothing
    to keep, so the first signal interrupts.

    Parameters
    ----------
    checkpoint
        Where checkpoints go; None for no checkpoints.
    seconds
        Seconds between two checkpoints; None for no checkpoints.
    time_points
        Time points that are segmented after the training.

    Attributes
    ----------
    scores
        Scores of the finished model on the held-out slices; None before, and without any.
    """

    def __init__(
        self,
        checkpoint: CheckpointFile | None = None,
        seconds: float | None = CHECKPOINT_SECONDS,
        time_points: int = 0,
    ) -> None:
        self.scores: HeldOutScores | None = None
        self._checkpoint = checkpoint
        self._state: State = "checking"
        self._signal: int | None = None
        self._control = TrainingControl()
        self._control.checkpoint_every(None if checkpoint is None else seconds)
        self._display = _Display(RunClock(time_points), "training", self._control, checkpoint)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(first_signal(self._heard))
        self._stack.enter_context(self._display)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        if self._checkpoint is None:
            return
        if error is None:
            self._checkpoint.remove()
        else:
            self._checkpoint.remember()

    def follow(
        self,
        session: Session,
        save: Callable[[ModelBundle], ModelBundle],
        outputs: Outputs | None = None,
        check: Callable[[int], object] | None = None,
    ) -> ModelBundle:
        """Train a session's model to its end or until it is stopped, save it, then segment.

        Parameters
        ----------
        session
            Image, annotation and settings.
        save
            Saves the model as soon as the training is over; returns the model as it was saved.
        outputs
            Arrays that take the segmentation; None when nothing is to be segmented.
        check
            Called with the number of the network's parameters before the training begins, to
            refuse what cannot work out.

        Returns
        -------
        ModelBundle
            What `save` returned.
        """
        saved: list[ModelBundle] = []

        def handle(event: Any) -> None:
            if isinstance(event, InputChecked):
                if check is not None:
                    check(event.parameters)
                self._state = "training"
            elif isinstance(event, PredictionStarted):
                saved.append(self._save(event.bundle, save))
                self._state = "segmenting"
            elif isinstance(event, HeldOutScores) and event.final:
                self.scores = event
            self._display.handle(event)

        with closing(run_job(session, self._control, outputs)) as job:
            trained = drain(job, handle)
        assert trained is not None  # None is for a cancelled training, and nothing cancels here
        return saved[0] if saved else self._save(trained, save)

    def follow_trainer(
        self, trainer: Trainer, save: Callable[[ModelBundle], ModelBundle]
    ) -> ModelBundle:
        """Train without a session, to the end or until it is stopped, and save the model.

        Parameters
        ----------
        trainer
            What is trained.
        save
            Saves the model, also what was learned where the training fails; returns it as saved.
        """
        self._state = "training"
        try:
            trained = drain(trainer.run(self._control), self._display.handle)
        except TrainingFailedError as failure:
            if failure.bundle is not None:
                save(failure.bundle)
            raise
        assert trained is not None  # None is for a cancelled training, and nothing cancels here
        return self._save(trained, save)

    def follow_and_rescue(
        self,
        session: Session,
        save: Callable[[ModelBundle], ModelBundle],
        rescue: Callable[[ModelBundle], object],
        path: Path,
        check: Callable[[int], object],
    ) -> ModelBundle:
        """Train as `follow`, and save what was learned also where the training fails.

        Parameters
        ----------
        session, save, check
            As in `follow`.
        rescue
            Saves the model of a training that failed.
        path
            Where the model goes, for the message.

        Raises
        ------
        RunFailedError
            The training failed; the text says what is kept.
        """
        try:
            return self.follow(session, save, check=check)
        except TrainingFailedError as failure:
            if failure.bundle is None:
                raise
            rescue(failure.bundle)
            raise RunFailedError(
                f"{str(failure).rstrip('.')}. What was learned in "
                f"{show_iterations(failure.bundle.record.iterations)} is kept: {path}"
            ) from failure

    def _save(self, bundle: ModelBundle, save: Callable[[ModelBundle], ModelBundle]) -> ModelBundle:
        self._state = "saving"
        if self._signal is not None:
            name = signal.Signals(self._signal).name
            errors.print(f"stopped by {name} after {show_iterations(bundle.record.iterations)}")
        return save(bundle)

    def _heard(self, number: int) -> None:
        if self._state == "training":
            self._signal = number
            self._control.stop()  # the display tells: a handler of signals must not print
        elif self._state == "saving":
            say(SAVING)
        else:
            interrupt(number)


class _Display:
    """Shows events: as a bar on a terminal, as lines elsewhere."""

    def __init__(
        self,
        clock: RunClock,
        task: str,
        control: TrainingControl | None = None,
        checkpoint: CheckpointFile | None = None,
    ) -> None:
        self._clock, self._task = clock, task
        self._control, self._checkpoint = control, checkpoint
        self._plain = not errors.is_terminal
        self._bar = _Bar(clock, self._plain)
        self._look: HeldOutScores | None = None
        self._printed_fraction = 0.0
        self._told_stopping = False

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._clock.finish()
            self._bar.refresh()
            if self._plain:
                self._print("")
        self._bar.stop()

    def handle(self, event: Any) -> None:
        """Show an event, and tell once when the training was asked to stop."""
        self._clock.handle(event)
        self._show(event)
        if self._control is not None and self._control.stopped and not self._told_stopping:
            self._told_stopping = True
            errors.print("stopping; the model is kept (Ctrl-C again drops it)")

    def _show(self, event: Any) -> None:
        if isinstance(event, TrainingStarted):
            errors.print(plan_line(event))
            for note in event.notes:
                errors.note(note)
            if (forecast := forecast_line(event, self._clock.time_points)) is not None:
                errors.print(forecast)
        elif isinstance(event, Notice):
            errors.note(event.text)
        elif isinstance(event, SlicesSummarized):
            self._tell_expected(event)
        elif isinstance(event, HeldOutScores):
            self._look = None if event.final else event
        elif isinstance(event, Checkpoint) and self._checkpoint is not None:
            self._checkpoint.write(event.bundle)
        elif isinstance(event, PixelsStarted | FinishingStarted):
            self._show_step("", at_once=True)
        elif isinstance(event, TrainingProgress):
            text = step_text(event)
            if self._look is not None:
                text += f", {look_text(self._look)}"
            self._show_step(text, at_once=event.fraction == 1)
        elif isinstance(event, PredictionProgress):
            self._show_step(step_text(event), at_once=False)

    def _tell_expected(self, event: SlicesSummarized) -> None:
        """Tell which IoU is expected, where no held-out slice says what it is."""
        names = [visible(info.name) for info in event.bundle.classes]
        if not event.bundle.record.held_out and (text := show_expected(names, event.expected)):
            errors.note(text)

    def _show_step(self, text: str, *, at_once: bool) -> None:
        """Show a step beside the bar; where there is no bar, print a line each tenth of the run."""
        self._bar.show(text)
        if self._plain and (at_once or self._clock.read().fraction >= self._printed_fraction + 0.1):
            self._print(text)

    def _print(self, text: str) -> None:
        reading = self._clock.read()
        self._printed_fraction = reading.fraction
        if not text and reading.phase in ("pixels", "finishing"):
            text = PHASES[reading.phase].lower()
        parts = [f"{self._task} {reading.fraction:4.0%}", show_duration(reading.elapsed), text]
        errors.print(", ".join(filter(None, parts)))


class _Bar(Progress):
    """A bar that reads the clock whenever it is drawn, so it moves between two events as well."""

    def __init__(self, clock: RunClock, disable: bool) -> None:
        self._text = ""
        self._clock = clock
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[times]}"),
            TextColumn("{task.fields[text]}", markup=False),
            console=errors,
            redirect_stdout=False,  # results go there
            disable=disable,
        )
        self._line = self.add_task(PHASES["checking"], total=1.0, times="", text="")

    def show(self, text: str) -> None:
        """Write a text behind the times."""
        self._text = text

    def get_renderables(self) -> Iterable[RenderableType]:
        """Update the line from the clock, then draw it as rich does."""
        if self.tasks:
            reading = self._clock.read()
            self.update(
                self._line,
                description=PHASES[reading.phase],
                completed=reading.fraction,
                times=", ".join(times(reading)),
                text=self._text,
            )
        yield from super().get_renderables()
