"""Follow the core's generators on the terminal."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from napari_unet3d.cli.terminal import errors, tell, visible
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.predictor import Notice, PredictionProgress
from napari_unet3d.prediction.scores import mean, show
from napari_unet3d.training.events import (
    HeldOutScores,
    PixelsStarted,
    TrainingControl,
    TrainingProgress,
    TrainingStarted,
)
from napari_unet3d.training.trainer import Trainer

T = TypeVar("T")


def train(trainer: Trainer) -> ModelBundle:
    """Run a training to its end, or to Ctrl-C, which keeps the model."""
    control = TrainingControl()
    with _interrupt(control.stop):
        bundle = follow(trainer.run(control), "training")
    assert bundle is not None  # only a cancel gives None
    return bundle


def follow(events: Generator[Any, None, T], task: str) -> T:
    """Iterate a generator of events, showing them; returns what it returns."""
    scores: HeldOutScores | None = None
    plain = not errors.is_terminal
    with Progress(
        TextColumn("{task.description:10}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        console=errors,
        disable=plain,
    ) as bar:
        line = bar.add_task(task, total=1.0, text="")
        shown = 0.0
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                result: T = end.value
                break
            if isinstance(event, TrainingStarted):
                errors.print(
                    f"3D U-Net, {event.parameters:,} parameters, patch {event.patch_shape}, "
                    f"{event.labelled_voxels:,} labelled voxels; {event.device}, {event.precision}"
                )
                for note in event.notes:
                    errors.note(note)
            elif isinstance(event, PixelsStarted):
                bar.update(line, text="learning from single voxels")
            elif isinstance(event, Notice):
                errors.note(event.text)
            elif isinstance(event, HeldOutScores):
                scores = event
            elif isinstance(event, TrainingProgress | PredictionProgress):
                fraction, text = _progress(event, scores)
                bar.update(line, completed=fraction, text=text)
                if plain and (fraction >= shown + 0.1 or fraction == 1):
                    shown = fraction
                    errors.print(f"{task} {fraction:4.0%}, {event.elapsed:.0f} s{text}")
    return result


def _progress(
    event: TrainingProgress | PredictionProgress, scores: HeldOutScores | None
) -> tuple[float, str]:
    if not isinstance(event, TrainingProgress):
        return event.done / event.total, f", tile {event.done} of {event.total}"
    text = f", iteration {event.iteration}, loss {event.loss:.3f}"
    if scores is not None:
        text += f", held-out IoU about {show(scores.mean_iou)}"
    return event.fraction, text


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


@contextlib.contextmanager
def _interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Within, the first Ctrl-C stops gently; a second one interrupts."""

    def handle(*_: object) -> None:
        errors.print("stopping; the model is kept (Ctrl-C again drops it)")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    old = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)
