"""The events and phases of a run as words, for the window and the terminal alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_unet3d.data.wording import counted, either, joined
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import (
    HeldOutScores,
    PredictionProgress,
    RoundFinished,
    RoundStarted,
    SlicesJoined,
    TrainingProgress,
    TrainingStarted,
)
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.scores import show
from napari_unet3d.training.clock import Phase, Reading

PHASES: dict[Phase, str] = {
    "checking": "Checking the input",
    "preparing": "Preparing the training",
    "pixels": "Fitting the pixel classifier",
    "training": "Training",
    "finishing": "Measuring the model",
    "segmenting": "Segmenting the stack",
    "done": "Done",
}
"""What the user reads beside the progress bar."""


def show_duration(seconds: float) -> str:
    """Write seconds as "45 s", "3 min", "3:20 min" or "2:05 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min" if whole % 60 else f"{whole // 60} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes % 60 else f"{minutes // 60} h"


def times(reading: Reading) -> list[str]:
    """Write the time that has passed, and the time left where it is known: "45 s", "3 min left"."""
    parts = [show_duration(reading.elapsed)]
    if reading.phase != "done" and reading.remaining is not None and round(reading.remaining):
        parts.append(f"{show_duration(reading.remaining)} left")
    return parts


def done_text(seconds: Mapping[Phase, float]) -> str:
    """Write what a run has spent its time on: "Done in 3:55 min (1 min training, 2 min …)".

    Parameters
    ----------
    seconds
        Seconds of each phase.
    """
    names = {"training": "training", "finishing": "measuring", "segmenting": "segmenting"}
    before = sum(s for phase, s in seconds.items() if phase in ("checking", "preparing"))
    trained = seconds.get("pixels", 0.0) + seconds.get("training", 0.0)
    parts = [("preparing", before), ("training", trained)]
    parts += [(names[p], seconds.get(p, 0.0)) for p in ("finishing", "segmenting")]
    told = ", ".join(f"{show_duration(s)} {name}" for name, s in parts if round(s))
    in_all = show_duration(sum(seconds.values()))
    return f"Done in {in_all} ({told})" if told.count(",") else f"Done in {in_all}"


# --- before the first iteration -------------------------------------------------------------


def plan_line(started: TrainingStarted) -> str:
    """Write what is trained, on what, and where."""
    patch = " × ".join(map(str, started.patch_shape))
    return (
        f"Network with {started.parameters:,} parameters, patches of {patch} voxels, "
        f"{started.labelled_voxels:,} labelled voxels; {started.device}, {started.precision}"
    )


def forecast_line(started: TrainingStarted, time_points: int) -> str | None:
    """Write how long the run will take; None while that is unknown.

    Parameters
    ----------
    started
        The plan of the training.
    time_points
        Time points that are segmented after the training; 0 for none.
    """
    forecast = started.forecast
    if forecast is None:
        return None
    after = forecast.finishing + forecast.segmenting * time_points
    then = "measure and segment" if time_points else "measure and finish the model"
    in_all, first, second = (
        show_duration(max(1, seconds))
        for seconds in (forecast.training + after, forecast.training, after)
    )
    return f"About {in_all} in all: {first} to train, then {second} to {then}."


# --- while it runs --------------------------------------------------------------------------


def joined_text(event: SlicesJoined) -> str:
    """Write what became of slices that were painted or held out while the training runs."""
    parts = []
    if event.trained:
        parts.append(f"{joined(event.trained)} joined the training.")
    if event.held_out:
        verb = either(len(event.held_out), "is", "are")
        parts.append(f"{joined(event.held_out)} {verb} measured from now on.")
    parts += [
        f"{ref} was trained on for {show_duration(max(1, seconds))} before it was held out: its "
        "score flatters."
        for ref, seconds in event.seen
        if ref in event.held_out
    ]
    if event.erased:
        parts.append(f"{joined(event.erased)} left the training: nothing is painted there now.")
    for ref, values in event.left_out:
        noun, verb = either(len(values), "Label"), either(len(values), "is", "are")
        parts.append(
            f"{noun} {joined(values)} on {ref} {verb} left out: a new class needs a new training."
        )
    if event.refused:
        parts.append(
            f"{joined(event.refused)} {either(len(event.refused), 'stays', 'stay')} in the "
            "training as before: without it nothing would be left to train on."
        )
    return " ".join(parts)


def round_text(event: RoundStarted) -> str:
    """Write which round of a continuous training runs: "Round 3, 1:20 min"."""
    return f"Round {event.number}, {show_duration(event.seconds)}"


def rest_text(event: RoundFinished) -> str:
    """Write why a continuous training rests; "" when it goes on, or the user has stopped it."""
    begin = f"Learned for {show_duration(event.seconds)}"
    if event.end == "scores":
        gain = 0.0 if event.gain is None else event.gain
        return (
            f"{begin}. More time no longer helps: the last round changed the IoU on the held-out "
            f"slices by {gain:+.3f}. New paint does: learning goes on by itself."
        )
    if event.end == "result":
        share = 1.0 if event.agreement is None else event.agreement
        return (
            f"{begin}. More time no longer helps: the result is the same as a round before "
            f"(IoU {share:.2f} with it). New paint does: learning goes on by itself."
        )
    if event.end == "time":
        return f"{begin}. That is the longest time without new paint; paint, and it goes on."
    return ""


# --- progress -------------------------------------------------------------------------------


def step_text(progress: TrainingProgress | PredictionProgress) -> str:
    """Write which step is done: "iteration 12, loss 0.345" or "tile 3 of 7"."""
    if isinstance(progress, TrainingProgress):
        return f"iteration {progress.iteration}, loss {progress.loss:.3f}"
    return f"tile {progress.done} of {progress.total}"


def look_text(scores: HeldOutScores) -> str:
    """Write the score of a quick look, which is made while the training goes on."""
    return f"quick look at held-out slices: IoU {show(scores.mean_iou)}"


def phase_line(reading: Reading) -> str:
    """Write the times of a phase that counts no steps."""
    return " · ".join(times(reading))


def training_line(
    progress: TrainingProgress, started: TrainingStarted | None, reading: Reading
) -> str:
    """Write iterations, the times of the whole run, memory and device."""
    parts = [show_iterations(progress.iteration), *times(reading)]
    parts.append(f"{progress.memory / 2**30:.1f} GB")
    if started is not None:
        parts.append(started.device.partition(" (")[0])  # `plan_line` has the whole name
    return " · ".join(parts)


def prediction_line(progress: PredictionProgress, reading: Reading) -> str:
    """Write tiles and times."""
    return " · ".join([step_text(progress), *times(reading)])


# --- the end --------------------------------------------------------------------------------


def starved_text(bundle: ModelBundle) -> str:
    """Say that the training was too short for the network, and what the result rests on."""
    result = (
        "comes mainly from the pixel classifier"
        if bundle.pixels
        else "is hardly better than chance"
    )
    return (
        f"The network has hardly learned: it had only {show_iterations(bundle.record.iterations)}, "
        f"and the result {result}."
    )


def few_text(bundle: ModelBundle) -> str:
    """Say how few iterations the time sufficed for: "21 iterations in 60 s: few. …"."""
    record = bundle.record
    done = f"{show_iterations(record.iterations)} in {show_duration(record.seconds)}: few."
    learner = "the pixel classifier" if bundle.pixels else "a network that has hardly learned"
    return f"{done} The result comes mainly from {learner}."


def applied_text(image: str, model: str) -> str:
    """Say with which model an image was segmented, and that nothing was measured."""
    return (
        f"'{image}' was segmented with the model {model}. Not measured here: scores hold for "
        "the stack that a model was trained on."
    )


RESCUED = (
    "The model that was trained until then is kept: segment with 'Apply to image', save it, or "
    "continue the training."
)
"""What follows the error of a training that was cut off."""
TRAINED_WELL = (
    "The training had ended well and its model is kept: save it, or segment with 'Apply to image'."
)
"""What follows the error of a segmentation after a training."""


def error_text(error: Any) -> str:
    """Write what went wrong; errors of the product have their own words."""
    if isinstance(error, BadInputError | RunFailedError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There is not enough memory. Close other programs, or crop the image."
    problem = f"{type(error).__name__}: {error}"
    return f"Something unexpected failed ({problem}). Your annotation is untouched."


def show_iterations(number: int) -> str:
    """Write a number of iterations: "1 iteration", "12 iterations"."""
    return counted(number, "iteration")
