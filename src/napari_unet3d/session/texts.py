"""Events of a run in words: the status line, and what an error means for the user."""

from __future__ import annotations

from typing import Any

from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import PredictionProgress, TrainingProgress, TrainingStarted
from napari_unet3d.training.clock import Reading


def show_duration(seconds: float) -> str:
    """Seconds as "45 s", "3 min", "3:20 min" or "2:05 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min" if whole % 60 else f"{whole // 60} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes % 60 else f"{minutes // 60} h"


def phase_line(reading: Reading) -> str:
    """Elapsed and time left, where there is nothing to count; the bar says what is done."""
    return " · ".join(_times(reading))


def training_line(
    progress: TrainingProgress, started: TrainingStarted | None, reading: Reading
) -> str:
    """Iterations, elapsed, time left of the whole run, memory and device in one line."""
    number = progress.iteration
    parts = ["1 iteration" if number == 1 else f"{number} iterations", *_times(reading)]
    parts.append(f"{progress.memory / 2**30:.1f} GB")
    if started is not None:
        parts.append(started.device.partition(" (")[0])  # all of it is in the tool tip
    return " · ".join(parts)


def prediction_line(progress: PredictionProgress, reading: Reading) -> str:
    """Tiles, elapsed and time left."""
    return " · ".join([f"tile {progress.done} of {progress.total}", *_times(reading)])


def _times(reading: Reading) -> list[str]:
    parts = [show_duration(reading.elapsed)]
    if reading.remaining is not None and round(reading.remaining):
        parts.append(f"{show_duration(reading.remaining)} left")
    return parts


def plan_line(started: TrainingStarted) -> str:
    """What was planned, for the tool tip of the status line."""
    patch = " × ".join(map(str, started.patch_shape))
    return (
        f"{started.parameters / 1e6:.2f} million parameters, patches of {patch} voxels, "
        f"{started.precision}, {started.device}"
    )


def error_text(error: Any) -> str:
    """What the user reads: the core's own words, or at least what kind of thing went wrong."""
    if isinstance(error, BadInputError | RunFailedError):
        return str(error)
    if isinstance(error, MemoryError):
        return "The computer's memory does not suffice. Close other programs, or crop the image."
    problem = f"{type(error).__name__}: {error}"
    return f"Something unexpected failed ({problem}). Your annotation is untouched."
