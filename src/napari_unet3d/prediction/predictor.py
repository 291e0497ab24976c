"""`predict`: any stack in, any arrays out."""

from __future__ import annotations

import traceback
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch

from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import Notice, PredictionProgress
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.device import Precision
from napari_unet3d.networks.geometry import largest_map, output_shape
from napari_unet3d.networks.quantizing import quantize
from napari_unet3d.prediction.blocks import Executor
from napari_unet3d.prediction.calibration_tiles import calibration_tiles
from napari_unet3d.prediction.engine import Engine
from napari_unet3d.prediction.executors import EXECUTORS
from napari_unet3d.prediction.matching import check_volume, voxel_size_note
from napari_unet3d.prediction.outputs import chosen_outputs
from napari_unet3d.prediction.stack import ResultArrays, StackPrediction
from napari_unet3d.prediction.tally import SliceTally
from napari_unet3d.sampling.source import open_source


def predict(
    bundle: ModelBundle,
    volume: Volume,
    out: Any,
    *,
    times: Sequence[int] | None = None,
    config: PredictionConfig | None = None,
    tally: SliceTally | None = None,
    **outputs: Any,
) -> Generator[PredictionProgress | Notice, None, None]:
    """Segment a whole stack; close the generator to cancel.

    Parameters
    ----------
    bundle
        The trained model.
    volume
        The image, in memory or not; its gray values are normalized by its own statistics.
    out
        Integer array for the labels (0 background, classes by `ClassInfo.output_value`):
        (Z, Y, X), or (T, Z, Y, X) when the volume has a time axis. Anything that can be
        assigned to by slices: numpy, memmap, zarr.
    times
        Time points to predict, all of them when None; the others are left alone.
    config
        Device, tile, memory, executor.
    tally
        Adds up how much of each class every slice holds, and how unsure it is; it costs less
        than a hundredth of the time.
    **outputs
        Arrays for more outputs, by the names in `prediction.outputs`; None for one that is not
        wanted. ``probabilities``: (K, Z, Y, X) or (T, K, Z, Y, X), floating; K = background and
        the classes. ``uncertainty``: like `out`, but floating; 0 sure … 1 undecided.

    Yields
    ------
    PredictionProgress or Notice
        After each tile; when something changed that the user should know, such as the tile
        after a lack of memory.

    Raises
    ------
    BadInputError
        The image does not fit the model, an array does not fit the image, or an output or a
        setting does not exist.
    RunFailedError
        Memory does not suffice even for the smallest tile, or PyTorch failed.
    """
    config = config or PredictionConfig()
    arrays = {
        output: outputs[output.name] if output.optional else out
        for output in chosen_outputs(outputs)
    }
    if out is None:
        raise BadInputError("`out` is None: give an array for the labels")
    wanted = {output: array for output, array in arrays.items() if array is not None}
    chosen = tuple(range(volume.n_times) if times is None else dict.fromkeys(times))
    check_volume(bundle, volume, chosen)
    for output, array in wanted.items():
        output.check(array, volume, bundle.classes)
    device, precision = check_settings(config, bundle.network)
    return _run(
        _Task(
            bundle,
            volume,
            ResultArrays(wanted, bundle.classes, series="T" in volume.axes),
            chosen,
            config,
            device,
            precision,
            EXECUTORS[config.executor](),
            tally,
        )
    )


def check_settings(
    config: PredictionConfig, network: Architecture
) -> tuple[torch.device, Precision]:
    """The device of a prediction, and the number format of what is not computed in integers.

    Raises
    ------
    BadInputError
        A setting cannot be used on this computer, or with this network.
    """
    if config.executor not in EXECUTORS:
        raise BadInputError(
            f"executor '{config.executor}' does not exist; choose one of {', '.join(EXECUTORS)}"
        )
    device = devices.pick_device(config.device)
    _check_tile(network, config, device)
    if config.precision != "int8":
        return device, devices.pick_precision(device, config.precision)
    if device.type != "cpu":
        raise BadInputError("int8 runs on a CPU only: choose the device cpu, or fp16")
    return device, "fp32"


@dataclass(frozen=True)
class _Task:
    """A prediction whose input was checked; see `predict`."""

    bundle: ModelBundle
    volume: Volume
    results: ResultArrays
    times: tuple[int, ...]
    config: PredictionConfig
    device: torch.device
    precision: Precision
    executor: Executor
    tally: SliceTally | None


def _run(task: _Task) -> Generator[PredictionProgress | Notice, None, None]:
    stack: StackPrediction | None = None
    engine: Engine | None = None
    try:
        devices.prepare(task.device)
        if len(task.times) == task.volume.n_times:
            memory = task.config.memory
            room = devices.room_for_images() if memory is None else memory // 4
            task = replace(task, volume=task.volume.in_memory(room))
        engine, about = _engine(task)
        stack = StackPrediction(engine, task.results, task.times, task.tally)
        with devices.computing(task.device, task.precision):
            for note in (voxel_size_note(task.bundle, task.volume), about):
                if note is not None:
                    yield Notice(note)
            yield from stack.run(task.executor)
    except (RuntimeError, MemoryError) as error:
        # superqt's workers swallow RuntimeErrors: the user would wait for ever.
        traceback.clear_frames(error.__traceback__)  # they hold the device's memory
        raise RunFailedError(f"prediction failed: {devices.reason(error)}") from error
    finally:
        del stack, engine
        devices.release(task.device)


def _engine(task: _Task) -> tuple[Engine, str | None]:
    """The model on its device, with the gray values of the task's volume; and a note."""
    with ThreadPoolExecutor(1) as beside:  # both take a good part of a second
        estimate = beside.submit(
            IntensityNormalization.estimate, task.volume, task.bundle.intensity.clip
        )
        mixture = task.bundle.build_mixture(folded=True)
        mixture = mixture.to(task.device, memory_format=devices.memory_format(task.device))  # type: ignore[call-overload]
        intensity = estimate.result()
    source = open_source(task.volume, intensity, task.device, task.config.memory)
    note = None
    if task.config.precision == "int8":
        memory = task.config.memory or devices.free_memory(task.device)
        try:
            tiles = list(calibration_tiles(source, task.bundle.network, task.times, memory))
            quantized, agreement = quantize(mixture.network, tiles)
        except BadInputError as error:
            note = f"{error}. The segmentation is computed in fp32."
        else:
            mixture = mixture.with_network(quantized)
            note = (
                f"int8: the classes of the network have a mean IoU of {agreement:.3f} with those "
                "in fp32, measured on tiles of this stack."
            )
    if task.config.mirrors:
        mixture = mixture.mirrored()
    engine = Engine(
        mixture,
        source,
        task.precision,
        tile_shape=task.config.tile_shape,
        overlap=task.config.overlap,
        memory=task.config.memory,
        adjoining=True,
    )
    return engine, note


def _check_tile(network: Architecture, config: PredictionConfig, device: torch.device) -> None:
    """Raise `BadInputError` where the network cannot take the tile that was given."""
    tile = config.tile_shape
    if tile is None:
        return
    try:
        output_shape(network, tile)
        if largest_map(network, tile) > devices.largest_map(device):
            raise ValueError(f"a tile of {tile} voxels is too large for PyTorch")
    except ValueError as error:
        raise BadInputError(f"{error}; leave the tile shape empty to have it planned") from error
