"""Follow the core's generators on the terminal."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from rich.console import RenderableType
from rich.progress import BarColumn, Progress, TextColumn

from napari_unet3d.cli.checkpoints import CheckpointFile
from napari_unet3d.cli.settings import CHECKPOINT_SECONDS
from napari_unet3d.cli.signals import SAVING, first_signal, interrupt, say
from napari_unet3d.cli.terminal import errors, tell, visible
from napari_unet3d.events import (
    Checkpoint,
    FinishingStarted,
    HeldOutScores,
    Notice,
    PixelsStarted,
    PredictionProgress,
    TrainingProgress,
    TrainingStarted,
    mean,
)
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.scores import show
from napari_unet3d.training.clock import PHASES, RunClock
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.trainer import Trainer

T = TypeVar("T")
State = Literal["checking", "training", "saving", "segmenting"]


def follow(events: Generator[Any, None, T], task: str) -> T:
    """Iterate a generator of events, showing them; returns what it returns."""
    with _Display(RunClock(), task) as display:
        return display.follow(events)


class TrainingRun:
    """One progress bar and one way to stop, from the checks of a training to its saved model.

    Within, the first Ctrl-C, SIGTERM or SIGHUP ends a training gently, and does not cut off the
    saving of its model. A second one interrupts. Before the training there is nothing to keep:
    the first one interrupts.

    Parameters
    ----------
    checkpoint
        Where checkpoints go; None for no checkpoints.
    seconds
        Between two checkpoints; None for no checkpoints.
    time_points
        How many are segmented after the training.
    """

    def __init__(
        self,
        checkpoint: CheckpointFile | None = None,
        seconds: float | None = CHECKPOINT_SECONDS,
        time_points: int = 0,
    ) -> None:
        self._checkpoint, self._state = checkpoint, "checking"
        self._signal: int | None = None
        self._control = TrainingControl()
        self._control.checkpoint_every(None if checkpoint is None else seconds)
        self._display = _Display(RunClock(time_points), "training", self._control, checkpoint)
        self._stack = ExitStack()

    _state: State

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

    def train(self, trainer: Trainer) -> ModelBundle:
        """Run a training to its end, or until it is stopped."""
        self._state = "training"
        bundle = self._display.follow(trainer.run(self._control))
        self._state = "saving"
        assert bundle is not None  # only a cancel gives None
        if self._signal is not None:
            name = signal.Signals(self._signal).name
            errors.print(f"stopped by {name} after {bundle.record.iterations} iterations")
        return bundle

    def segment(self, events: Generator[Any, None, T]) -> T:
        """Follow the segmentation with the model, which is saved by now."""
        self._state = "segmenting"
        return self._display.follow(events)

    def _heard(self, number: int) -> None:
        if self._state == "training":
            self._signal = number
            self._control.stop()  # the display says so: a handler must not print
        elif self._state == "saving":
            say(SAVING)
        else:
            interrupt(number)


class _Display:
    """Shows the events of generators: a bar on a terminal, else lines."""

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
        self._shown = 0.0
        self._stop_said = False

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

    def follow(self, events: Generator[Any, None, T]) -> T:
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                result: T = end.value
                return result
            self._clock.handle(event)
            self._show(event)
            if self._control is not None and self._control.stopped and not self._stop_said:
                self._stop_said = True
                errors.print("stopping; the model is kept (Ctrl-C again drops it)")

    def _show(self, event: Any) -> None:
        if isinstance(event, TrainingStarted):
            errors.print(
                f"3D U-Net, {event.parameters:,} parameters, patch {event.patch_shape}, "
                f"{event.labelled_voxels:,} labelled voxels; {event.device}, {event.precision}"
            )
            for note in event.notes:
                errors.note(note)
            if (plan := self._clock.plan(event)) is not None:
                errors.print(plan)
        elif isinstance(event, Notice):
            errors.note(event.text)
        elif isinstance(event, HeldOutScores):
            self._look = None if event.final else event
        elif isinstance(event, Checkpoint) and self._checkpoint is not None:
            self._checkpoint.write(event.bundle)
        elif isinstance(event, PixelsStarted | FinishingStarted):
            self._say("", at_once=True)
        elif isinstance(event, TrainingProgress):
            text = f", iteration {event.iteration}, loss {event.loss:.3f}"
            if self._look is not None:
                text += f", quick look at held-out slices: IoU {show(self._look.mean_iou)}"
            self._say(text, at_once=event.fraction == 1)
        elif isinstance(event, PredictionProgress):
            self._say(f", tile {event.done} of {event.total}", at_once=False)

    def _say(self, text: str, *, at_once: bool) -> None:
        self._bar.text = text.removeprefix(", ")
        if self._plain and (at_once or self._clock.read().fraction >= self._shown + 0.1):
            self._print(text)

    def _print(self, text: str) -> None:
        reading = self._clock.read()
        self._shown = reading.fraction
        if not text and reading.phase in ("pixels", "finishing"):
            text = ", " + PHASES[reading.phase].lower()
        errors.print(f"{self._task} {reading.fraction:4.0%}, {reading.elapsed:.0f} s{text}")


class _Bar(Progress):
    """A bar that reads the clock whenever it is drawn, also while nothing is told."""

    def __init__(self, clock: RunClock, disable: bool) -> None:
        self.text = ""
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

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.tasks:
            reading = self._clock.read()
            times = _clock_time(reading.elapsed)
            if reading.remaining is not None and reading.phase != "done":
                times += f", {_clock_time(reading.remaining)} left"
            self.update(
                self._line,
                description=PHASES[reading.phase],
                completed=reading.fraction,
                times=times,
                text=self.text,
            )
        yield from super().get_renderables()


def _clock_time(seconds: float) -> str:
    """Seconds as 0:05, 12:34 or 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def say_how_to_go_on(bundle: ModelBundle, model: Path) -> None:
    """Say how to go on when the training was stopped, or too short for the network to learn."""
    record = bundle.record
    how = f"--from {model}"
    if bundle.state:
        how = f"--resume {model}"
        if record.completed:
            how += f" --seconds N, with N above {record.seconds:.0f} (it counts from the beginning)"
    if record.starved:
        whose = ", and the result is mainly the pixel classifier's" if bundle.pixels else ""
        errors.print(
            f"The network has hardly learned: it had {record.iterations} iterations only{whose}. "
            f"Go on with {how}."
        )
    elif not record.completed:
        errors.print(f"The budget was not used up. Go on with {how}.")


def print_scores(bundle: ModelBundle) -> None:
    """Print what was measured on the held-out slices, and how far to trust it."""
    record = bundle.record
    if not record.held_out:
        tell("Not measured: hold out a slice (--hold-out z=12) to learn how good the model is.")
        return
    tell(
        f"Held-out slices {', '.join(record.held_out_slices)} (never trained on), measured with "
        "the final model (looks on the way were quicker and rougher):"
    )
    classes = {c.value: c for c in bundle.classes}
    for s in record.held_out:
        info = classes[s.value]
        tell(
            f"  {visible(info.name)} ({info.output_value}): IoU {show(s.iou)}, Dice {show(s.dice)}"
        )
    iou = mean([s.iou for s in record.held_out])
    dice = mean([s.dice for s in record.held_out])
    tell(f"  mean: IoU {show(iou)}, Dice {show(dice)}")
    if record.held_out_scored < 1:
        tell(f"  Time was short: scored on {record.held_out_scored:.0%} of their labelled voxels.")
    near = record.held_out_distance
    tell(
        "  Slices of one stack look alike"
        + ("" if near is None else f" (the nearest trained slice is {near} away)")
        + ": another stack may do worse."
    )


def training_as_dict(bundle: ModelBundle) -> dict[str, Any]:
    """What was trained and measured, for programs; scores are None where nothing was measured."""
    record = bundle.record
    measured = {s.value: s for s in record.held_out}
    classes = {
        c.output_value: {"name": c.name}
        | {key: getattr(measured.get(c.value), key, None) for key in ("iou", "dice", "voxels")}
        for c in bundle.classes
    }
    return {
        "iterations": record.iterations,
        "seconds": round(record.seconds, 3),
        "completed": record.completed,
        "classes": classes,
        "mean_iou": mean([s.iou for s in record.held_out]),
        "mean_dice": mean([s.dice for s in record.held_out]),
        "held_out_slices": record.held_out_slices,
        "held_out_scored": record.held_out_scored if record.held_out else None,
        "held_out_distance": record.held_out_distance,
    }
