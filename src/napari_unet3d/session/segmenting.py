"""Segment stacks with a model into files: one of them, or all of a folder one after the other."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from napari_unet3d.data.io.outputs import OutputArray, check_output, check_paths, create_output
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.io.zarr_files import is_zarr
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import Notice, PredictionProgress
from napari_unet3d.prediction.outputs import chosen_outputs
from napari_unet3d.session.job import run_job
from napari_unet3d.session.session import NamedModel, RunSettings, Session
from napari_unet3d.session.texts import error_text

_STACKS = (".tif", ".tiff")
SUFFIX = " segmented"
"""Added to the name of a stack in the folder of the results."""


@dataclass(frozen=True)
class StackStarted:
    """A stack is opened; `number` counts from 1 to `total`."""

    path: Path
    number: int
    total: int


@dataclass(frozen=True)
class StackProgress:
    """Tiles of the stack in work that are done, as in `PredictionProgress`."""

    progress: PredictionProgress


@dataclass(frozen=True)
class StackDone:
    """A stack is segmented, or could not be.

    Attributes
    ----------
    path
        The stack.
    written
        The files that were written, the labels first; empty where it failed.
    problem
        Why it failed, and the cure; "" where it did not.
    seconds
        How long it took.
    """

    path: Path
    written: tuple[Path, ...]
    problem: str
    seconds: float


BatchEvent = StackStarted | StackProgress | StackDone | Notice


def segment_to_files(
    session: Session, paths: Mapping[str, Path], *, overwrite: bool
) -> Generator[Any, None, list[Path]]:
    """Segment the image of a session with its model, into files.

    Parameters
    ----------
    session
        Image, model and settings.
    paths
        Where the labels and the outputs that the settings name are written.
    overwrite
        Whether files of these names may be replaced.

    Yields
    ------
    object
        The events of `run_job`.

    Returns
    -------
    list of Path
        The files that were written, the labels first.

    Raises
    ------
    BadInputError, RunFailedError
        As `create_output` and `run_job`. Nothing half written is left.
    """
    volume, model = session.volume, session.model
    assert volume is not None
    assert model is not None
    classes = model.bundle.classes
    arrays: dict[str, OutputArray] = {}
    with ExitStack() as files:
        for kind in chosen_outputs(session.settings.outputs):
            file = create_output(
                paths[kind.name],
                kind.shape(volume, classes),
                kind.dtype,
                kind.axes(volume, classes),
                volume.voxel_size,
                volume.unit,
                translation=volume.translation,
                time_step=volume.time_step,
                overwrite=overwrite,
                **kind.file_options(classes),
            )
            arrays[kind.name] = files.enter_context(file)
        with closing(run_job(session, outputs=arrays, train=False)) as job:
            yield from job
        _finish(list(arrays.values()))
    return [paths[name] for name in arrays]


def stacks_in(folder: Path) -> list[Path]:
    """The stacks of a folder by name: TIFF files and OME-Zarr folders; no hidden ones.

    Raises
    ------
    BadInputError
        The folder is missing, or holds no stack.
    """
    if not folder.is_dir():
        raise BadInputError(f"'{folder}' is no folder. Choose a folder with stacks in it.")
    found = [
        path
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
        and (path.suffix.lower() in _STACKS if path.is_file() else is_zarr(path))
    ]
    if not found:
        raise BadInputError(
            f"'{folder}' holds no stack: neither TIFF files (.tif) nor OME-Zarr folders (.zarr)."
        )
    return found


def plan_files(stacks: Sequence[Path], target: Path, *, as_zarr: bool = False) -> list[Path]:
    """Names of the labels in the folder of the results: "embryo 1 segmented.ome.tif".

    Parameters
    ----------
    stacks
        Files or folders.
    target
        The folder of the results.
    as_zarr
        Whether results are OME-Zarr folders, also those of TIFF stacks.
    """
    taken: set[str] = set()
    names = []
    for path in stacks:
        stem = path.name
        for ending in (".zarr", ".tiff", ".tif", ".ome"):
            if stem.lower().endswith(ending):
                stem = stem[: -len(ending)]
        ending = ".ome.zarr" if as_zarr or path.is_dir() else ".ome.tif"
        name, number = f"{stem}{SUFFIX}", 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}{SUFFIX} {number}"
        taken.add(name.casefold())
        names.append(target / f"{name}{ending}")
    return names


def segment_stacks(
    model: NamedModel,
    stacks: Sequence[Path],
    labels: Sequence[Path],
    settings: RunSettings,
    *,
    overwrite: bool = False,
    reading: Mapping[str, Any] | None = None,
) -> Generator[BatchEvent, None, list[StackDone]]:
    """Segment stacks one after the other; one that fails does not stop the rest.

    Parameters
    ----------
    model
        The model that is applied.
    stacks
        Files or folders.
    labels
        Where the labels of each stack are written. More outputs get the same names with "-" and the
        name of the output added.
    settings
        Device, tiles, outputs and time points.
    overwrite
        Whether results of these names may be replaced; otherwise such a stack is a failure.
    reading
        Axes and voxel size, where those of the files are wrong.

    Yields
    ------
    BatchEvent
        For each stack: `StackStarted`, `StackProgress` and `Notice`, `StackDone`. Closing the
        generator cancels; what is complete stays.

    Returns
    -------
    list of StackDone
        One for each stack.
    """
    results: list[StackDone] = []
    for number, (path, target) in enumerate(zip(stacks, labels, strict=True), start=1):
        yield StackStarted(path, number, len(stacks))
        began, problem = monotonic(), ""
        written: list[Path] = []
        try:
            targets = _targets(target, settings.outputs)
            check_paths(list(targets.values()), [path])
            for each in targets.values():
                check_output(each, overwrite=overwrite)
            volume = read_volume(path, **(reading or {}))
            volume.check()
            session = Session(volume=volume, image_path=path, settings=settings, model=model)
            with closing(segment_to_files(session, targets, overwrite=overwrite)) as work:
                written = yield from _as_batch(work)
        except (BadInputError, RunFailedError, MemoryError, OSError) as error:
            problem = error_text(error)
        done = StackDone(path, tuple(written), problem, monotonic() - began)
        results.append(done)
        yield done
    return results


def summary(results: Sequence[StackDone], total: int) -> str:
    """Write how many stacks were segmented: "3 of 4 stacks segmented, 1 failed"."""
    failed = sum(bool(done.problem) for done in results)
    text = f"{len(results) - failed} of {total} stacks segmented"
    return f"{text}, {failed} failed" if failed else text


def _as_batch(
    work: Generator[Any, None, list[Path]],
) -> Generator[BatchEvent, None, list[Path]]:
    while True:
        try:
            event = next(work)
        except StopIteration as end:
            written: list[Path] = end.value
            return written
        if isinstance(event, PredictionProgress):
            yield StackProgress(event)
        elif isinstance(event, Notice):
            yield event


def _targets(labels: Path, outputs: Sequence[str]) -> dict[str, Path]:
    """Where the outputs of a stack are written."""
    targets = {"labels": labels}
    for ending in (".ome.zarr", ".ome.tif"):
        if labels.name.endswith(ending):
            stem = labels.name.removesuffix(ending)
            targets |= {name: labels.with_name(f"{stem}-{name}{ending}") for name in outputs}
    return targets


def _finish(arrays: Sequence[OutputArray]) -> None:
    """Give every output its name, also where one of them fails."""
    failed: list[RunFailedError] = []
    for array in arrays:
        try:
            array.finish()
        except RunFailedError as error:
            failed.append(error)
    if failed:
        raise RunFailedError(" ".join(map(str, failed))) from failed[0]
