"""Segment all stacks of a folder with a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from napari_unet3d.cli.tasks.steps import Steps
from napari_unet3d.cli.terminal import errors
from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.io.zarr_files import is_zarr
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import Notice, drain
from napari_unet3d.session.segmenting import (
    StackDone,
    StackProgress,
    StackStarted,
    plan_files,
    segment_stacks,
    stacks_in,
)
from napari_unet3d.session.session import NamedModel, RunSettings
from napari_unet3d.session.texts import show_duration


def is_batch(image: Path, output: Path) -> bool:
    """Whether a command line asks for all stacks of a folder, and not for a folder of slices."""
    return image.is_dir() and not is_zarr(image) and output.suffix == ""


def predict_folder(
    model: Path,
    folder: Path,
    target: Path,
    config: PredictionConfig,
    *,
    times: Sequence[int] | None = None,
    overwrite: bool = False,
    reading: Mapping[str, Any] | None = None,
) -> list[StackDone]:
    """Segment all stacks of a folder; one that fails does not stop the rest.

    Parameters
    ----------
    model
        The model file.
    folder, target
        Where the stacks are, and where the labels are written; it is made if it is missing.
    config
        Device, tile, memory.
    times
        Time points to predict, all of them when None.
    overwrite
        Whether results of the same names may be replaced.
    reading
        Axes and voxel size, where those of the files are wrong.

    Returns
    -------
    list of StackDone
        One for each stack.

    Raises
    ------
    BadInputError
        The folder holds no stack, or the results cannot be written there.
    """
    stacks = stacks_in(folder)
    named = NamedModel.load(model)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(
            f"'{target}' cannot be made ({error.strerror or error}). Choose another folder."
        ) from error
    settings = RunSettings(prediction=config, times=None if times is None else tuple(times))
    work = segment_stacks(
        named, stacks, plan_files(stacks, target), settings, overwrite=overwrite, reading=reading
    )
    with Steps("predicting") as bar, closing(work):
        step = ""

        def show(event: Any) -> None:
            nonlocal step
            if isinstance(event, StackStarted):
                step = f"{event.number} of {event.total}, {event.path.name}"
                bar.show(step, 0.0)
            elif isinstance(event, StackProgress):
                bar.show(step, event.progress.done / event.progress.total)
            elif isinstance(event, Notice):
                errors.note(event.text)
            elif isinstance(event, StackDone) and event.problem:
                errors.note(f"'{event.path.name}' was not segmented: {event.problem}")
            elif isinstance(event, StackDone):
                errors.print(f"{event.path.name}: {show_duration(event.seconds)}")

        return drain(work, show)
