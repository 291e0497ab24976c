"""Predict a stack, block by block, with the one tiling there is."""

from __future__ import annotations

import math
import traceback
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from time import monotonic
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.config import BACKGROUND, ClassInfo, PredictionConfig, Triple
from napari_unet3d.data.boxes import Box, plan_blocks
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume, describe_shape
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import Notice, PredictionProgress
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.device import Precision
from napari_unet3d.networks.geometry import MOST_IN_A_MAP, largest_map, output_shape
from napari_unet3d.networks.layers import fold_batch_norm
from napari_unet3d.prediction.engine import CPU_TILE, BoxTooLargeError, NotFiniteError, Predictor

__all__ = [
    "CPU_TILE",
    "NotFiniteError",
    "Predictor",
    "label_table",
    "predict",
    "voxel_size_note",
]

_WRITTEN_VALUES = 1 << 24
"""Probabilities that are turned into labels at once: their copies take no more than 0.2 GB."""

_OTHER_VOXELS = 1.5
"""Voxel sizes that differ by this factor are worth a warning."""


def label_table(classes: Sequence[ClassInfo]) -> NDArray[np.uint8]:
    """Label value of each output index: 0 background, then the classes' own values."""
    return np.array([0, *(c.value for c in classes)], np.uint8)


def output_table(classes: Sequence[ClassInfo]) -> NDArray[np.uint8]:
    """Number in a segmentation of each output index: 0 background, then the classes' own."""
    return np.array([0, *(c.output_value for c in classes)], np.uint8)


def predict(
    bundle: ModelBundle,
    volume: Volume,
    out: Any,
    *,
    probabilities: Any = None,
    uncertainty: Any = None,
    times: Sequence[int] | None = None,
    config: PredictionConfig | None = None,
) -> Generator[PredictionProgress | Notice, None, None]:
    """Segment a whole stack; close the generator to cancel.

    Parameters
    ----------
    bundle
        The trained model.
    volume
        The image, in memory or not; gray values are normalized by its own statistics.
    out
        Integer array that takes the labels (0 background, classes by `ClassInfo.output_value`):
        (Z, Y, X), or (T, Z, Y, X) when the volume has a time axis. Anything that can be
        assigned to by slices: numpy, memmap, zarr.
    probabilities
        (K, Z, Y, X) or (T, K, Z, Y, X), floating; K = background and the classes.
    uncertainty
        Like `out`, floating: entropy of the probabilities, 0 sure … 1 undecided.
    times
        Time points to predict, all of them when None; the others are left alone.
    config
        Device, tile, memory.

    Yields
    ------
    PredictionProgress or Notice
        After each tile; when a tile had to be halved.

    Raises
    ------
    BadInputError
        The image does not fit the model, or `out` does not fit the image.
    RunFailedError
        Memory does not suffice even for the smallest tile, or torch failed.
    """
    config = config or PredictionConfig()
    chosen = range(volume.n_times) if times is None else times
    job = _Job(bundle, volume, out, probabilities, uncertainty, tuple(chosen))
    job.check()
    tile = _fitting_tile(bundle, config.tile_shape)
    device = devices.pick_device(config.device)
    precision = devices.pick_precision(device, config.precision)
    return _run(job, config, tile, device, precision)


@dataclass(frozen=True)
class _Job:
    """What is to be predicted, and the arrays that take the result; see `predict`."""

    bundle: ModelBundle
    volume: Volume
    out: Any
    probabilities: Any
    uncertainty: Any
    times: tuple[int, ...]

    def check(self) -> None:
        """Raise `BadInputError` when it could not be carried out."""
        bundle, volume = self.bundle, self.volume
        volume.check()
        if volume.n_channels != bundle.network.in_channels:
            raise BadInputError(
                f"the image has {volume.n_channels} channel(s), the model was trained on "
                f"{bundle.network.in_channels}: choose an image with the same channels"
            )
        for t in self.times:
            if not 0 <= t < volume.n_times:
                raise BadInputError(
                    f"time point {t} is not there: the image has {volume.n_times} "
                    f"(0…{volume.n_times - 1})"
                )
        series = (volume.n_times,) if "T" in volume.axes else ()
        expected = (*series, *volume.shape)
        for name, array, shape in (
            ("out", self.out, expected),
            (
                "probabilities",
                self.probabilities,
                (*series, bundle.network.n_classes, *volume.shape),
            ),
            ("uncertainty", self.uncertainty, expected),
        ):
            if array is not None and tuple(array.shape) != shape:
                raise BadInputError(f"{name} has shape {tuple(array.shape)}, it must be {shape}")
            if array is not None and name != "out" and np.dtype(array.dtype).kind != "f":
                raise BadInputError(
                    f"{name} has dtype {array.dtype}, it must be a floating-point type"
                )
        dtype = np.dtype(self.out.dtype)
        highest = max((c.output_value for c in bundle.classes), default=BACKGROUND)
        if dtype.kind not in "iu" or np.iinfo(dtype).max < highest:
            raise BadInputError(
                f"out has dtype {dtype}: it must be an integer type that holds {highest}"
            )

    def chunk(self) -> Triple:
        """Voxels (z, y, x) that a file keeps together: the outputs' files, or else the image's."""
        outputs = (self.out, self.probabilities, self.uncertainty)
        chunks = [c for c in map(_chunk, outputs) if c] or [_chunk(self.volume.data) or (1, 1, 1)]
        z, y, x = (
            min(math.lcm(*(chunk[axis] for chunk in chunks)), n)
            for axis, n in enumerate(self.volume.shape)
        )
        return z, y, x

    def write(self, time: int, box: Box, probabilities: Tensor) -> None:
        """Write a box's result, by halves where memory does not suffice for it at once."""
        try:
            self._write(time, box, probabilities)
            return
        except Exception as error:
            if not devices.is_out_of_memory(error):
                raise
            reason = str(error)
        axis = box.longest_axis
        if box.shape[axis] == 1:
            raise RunFailedError(
                f"out of memory: the result cannot be written; close other programs ({reason})"
            )
        devices.make_room(probabilities.device)
        first, second = box.halves(axis)
        self.write(time, first, probabilities.narrow(1 + axis, 0, first.shape[axis]))
        self.write(
            time, second, probabilities.narrow(1 + axis, first.shape[axis], second.shape[axis])
        )

    def _write(self, at: int, box: Box, probabilities: Tensor) -> None:
        table = torch.from_numpy(output_table(self.bundle.classes)).to(probabilities.device)
        time_point = (at,) if "T" in self.volume.axes else ()
        where = (*time_point, *box.slices)
        labels = np.empty(box.shape, self.out.dtype)
        entropy = None if self.uncertainty is None else np.empty(box.shape, np.float32)
        # Little by little: of a large block, the indices of the classes would take GBs.
        for part in plan_blocks(
            box.shape, (1, 1, 1), max(_WRITTEN_VALUES // len(probabilities), 1)
        ):
            own = probabilities[(slice(None), *part.slices)]
            labels[part.slices] = table[own.argmax(0)].cpu().numpy()
            if entropy is not None:
                bits = torch.special.entr(own).sum(0) / math.log(len(own))
                entropy[part.slices] = bits.clamp(0, 1).cpu().numpy()
        _assign(self.out, where, labels)
        if self.probabilities is not None:
            every = (*time_point, slice(None), *box.slices)
            _assign(self.probabilities, every, probabilities.cpu().numpy())
        if entropy is not None:
            _assign(self.uncertainty, where, entropy)


def _chunk(array: Any) -> Triple | None:
    """Voxels (z, y, x) that a file keeps together, shards of chunks as one; None when unknown."""
    for name in ("shards", "chunks"):
        sizes = getattr(array, name, None)
        if isinstance(sizes, tuple) and len(sizes) >= 3:
            # dask lists the sizes of all chunks along an axis.
            z, y, x = (max(n) if isinstance(n, tuple) else n for n in sizes[-3:])
            return int(z), int(y), int(x)
    return None


def _run(
    job: _Job,
    config: PredictionConfig,
    tile: Triple | None,
    device: torch.device,
    precision: Precision,
) -> Generator[PredictionProgress | Notice, None, None]:
    predictor: Predictor | None = None
    try:
        devices.prepare(device)
        if len(job.times) == job.volume.n_times:
            room = devices.room_for_images() if config.memory is None else config.memory // 4
            job = replace(job, volume=job.volume.in_memory(room))
        predictor = _make_predictor(job, config, tile, device, precision)
        # fp32 is what it says, as in training.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
            yield from _predict(predictor, job)
    except (RuntimeError, MemoryError) as error:
        # superqt's workers swallow RuntimeErrors: the user would wait for ever.
        traceback.clear_frames(error.__traceback__)  # they hold the device's memory
        raise RunFailedError(f"prediction failed: {devices.reason(error)}") from error
    finally:
        del predictor
        devices.release(device)


def _make_predictor(
    job: _Job,
    config: PredictionConfig,
    tile: Triple | None,
    device: torch.device,
    precision: Precision,
) -> Predictor:
    """The model on its device, with the gray values of the job's volume."""
    pixels = job.bundle.build_pixels()
    network = fold_batch_norm(job.bundle.build())
    return Predictor(
        network.to(device, memory_format=devices.memory_format(device)),  # type: ignore[call-overload]
        IntensityNormalization.estimate(job.volume, job.bundle.intensity.clip),
        device,
        precision,
        tile,
        config.overlap,
        config.memory,
        None if pixels is None else pixels.to(device),
        job.bundle.calibration,
    )


def _predict(predictor: Predictor, job: _Job) -> Generator[PredictionProgress | Notice, None, None]:
    bundle, volume = job.bundle, job.volume
    started = monotonic()
    least = output_shape(bundle.network, predictor.plan(volume.shape))
    most = _block_voxels(predictor, job)
    blocks = plan_blocks(volume.shape, least, most, job.chunk())
    done = total = 0
    fitting = math.inf  # voxels that fitted, after a shortage of memory
    counted: Triple | None = None
    if (note := voxel_size_note(bundle, volume)) is not None:
        yield Notice(note)

    def parts(block: Box) -> list[Box]:
        """A block that fits; or else its parts, which cut through chunks, one after the other."""
        boxes = plan_blocks(block.shape, least, most).moved(block.start)
        return [part for box in boxes for part in box.cut(fitting)]

    def count(boxes: Iterable[Box]) -> int:
        return sum(predictor.steps(volume.shape, box) for box in boxes)

    def left(time: int, block: int, waiting: Sequence[Box]) -> int:
        """Steps that are left to do, `waiting` boxes of this block included."""
        each = [count(parts(b)) for b in blocks]
        return count(waiting) + sum(each[block + 1 :]) + (len(job.times) - time - 1) * sum(each)

    for t, b in product(range(len(job.times)), range(len(blocks))):
        if predictor.recover():
            fitting = math.inf
        waiting = parts(blocks[b])
        while waiting:
            if counted != predictor.tile_shape:
                total, counted = done + left(t, b, waiting), predictor.tile_shape
            before, box = done, waiting[0]
            steps = predictor.probabilities(volume, job.times[t], box)
            probabilities: Tensor | None = None
            while True:
                try:
                    step = next(steps)
                except StopIteration as end:
                    probabilities = end.value
                    break
                except BoxTooLargeError:
                    break
                if isinstance(step, Notice):
                    total, counted = before + left(t, b, waiting), predictor.tile_shape
                    yield step
                    continue
                done = before + step
                elapsed = monotonic() - started
                yield PredictionProgress(done, total, elapsed, elapsed * (total - done) / done)
            if probabilities is None:
                devices.make_room(predictor.device)
                halves = box.halves(box.longest_axis)
                waiting[:1] = halves
                fitting = max(math.prod(half.shape) for half in halves)
                done, counted = before, None
                yield Notice(
                    f"Out of memory for the result of {describe_shape(box.shape)} voxels: they "
                    "are predicted in two halves."
                )
                continue
            job.write(job.times[t], box, probabilities)
            del waiting[0]


def _block_voxels(predictor: Predictor, job: _Job) -> int:
    """Voxels that are predicted and written at once."""
    k = job.bundle.network.n_classes
    # Sum of probabilities, weights, the labels and the optional images, float32 each.
    free = predictor.memory or devices.free_memory(predictor.device)
    most = free // 4 // (4 * (2 * k + 3))
    if predictor.device.type != "cpu":  # what is written lies in the main memory
        free = predictor.memory or devices.free_memory(torch.device("cpu"))
        most = min(most, free // 4 // (4 * (k + 2)))
    return max(1, most)


def _assign(array: Any, where: tuple[Any, ...], values: NDArray[Any]) -> None:
    try:
        array[where] = values.astype(array.dtype, copy=False)
    except OSError as error:
        raise RunFailedError(
            f"the result could not be written ({error}): free some space, or write elsewhere"
        ) from error


def voxel_size_note(bundle: ModelBundle, volume: Volume) -> str | None:
    """A warning when a stack has other voxels than the model was trained on; else None."""
    if "pixel" in (bundle.unit, volume.unit):
        return None
    length = {"nm": 1e-3, "µm": 1.0, "mm": 1e3}
    unit, trained = (length.get(u, 1.0) for u in (volume.unit, bundle.unit))
    ratios = [
        v * unit / (t * trained) for v, t in zip(volume.voxel_size, bundle.voxel_size, strict=True)
    ]
    if all(1 / _OTHER_VOXELS < r < _OTHER_VOXELS for r in ratios):
        return None
    now, then = (" × ".join(f"{s:g}" for s in b.voxel_size) for b in (volume, bundle))
    return (
        f"The voxels are {now} {volume.unit}, the model was trained on {then} {bundle.unit}: "
        "resample the stack if the result is poor."
    )


def _fitting_tile(bundle: ModelBundle, tile: Triple | None) -> Triple | None:
    if tile is None:
        return None
    try:
        output_shape(bundle.network, tile)
        if largest_map(bundle.network, tile) > MOST_IN_A_MAP:
            raise ValueError(f"a tile of {tile} voxels is too large for PyTorch")
    except ValueError as error:
        raise BadInputError(f"{error}; leave the tile shape empty to have it planned") from error
    return tile
