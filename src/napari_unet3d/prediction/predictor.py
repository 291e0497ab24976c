"""Predict a stack, a part of it, or one slice, with the one tiling there is."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.config import BACKGROUND, ClassInfo, PredictionConfig, Triple
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume, describe_shape
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.model import device as devices
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.calibration import Calibration
from napari_unet3d.model.device import Precision
from napari_unet3d.model.geometry import output_shape, shrink, total_stride
from napari_unet3d.model.pixels import PixelClassifier, Read
from napari_unet3d.model.planning import halve, plan_tile, prediction_bytes
from napari_unet3d.model.unet import UNet3D, fold_batch_norm
from napari_unet3d.prediction.tiling import (
    Box,
    blending_weights,
    mirror_index,
    nearest_index,
    plan_blocks,
    plan_tiles,
)

CPU_TILE = 2_000_000
"""Voxels of a tile on a CPU at the most: about half a second, the time a cancel may take."""

PIXEL_CHUNK = 1_000_000
"""Voxels whose features are computed at once, in an image of one channel; fewer in thin boxes."""
_SMALLEST_SIDE = 32
"""Shortest side, voxels, of the boxes that are cut for the pixel classifier."""

_OTHER_VOXELS = 1.5
"""Voxel sizes that differ by this factor are worth a warning."""


@dataclass(frozen=True)
class PredictionProgress:
    """Tiles done so far; `remaining` in seconds, None while unknown."""

    done: int
    total: int
    elapsed: float
    remaining: float | None


@dataclass(frozen=True)
class Notice:
    """Something the user should read, such as a tile that had to be halved."""

    text: str


class Predictor:
    """A network on its device, ready to predict any box of a volume.

    Parameters
    ----------
    network
        In eval mode, on `device`; quickest with its batch norms folded.
    intensity
        Gray-value normalization of the volume.
    device, precision
        Where and in which number format it runs.
    tile_shape
        What the network sees at once; planned from the free memory when None.
    overlap
        Smallest share of a tile in common with the next, unless the network is unpadded:
        then its outputs are exact, and have in common only what aligns the pooling.
    memory
        Bytes that may be used; what is free when None.
    pixels, calibration
        The classifier that supports the network, and how the two decide together.
    """

    def __init__(
        self,
        network: UNet3D,
        intensity: IntensityNormalization,
        device: torch.device,
        precision: Precision,
        tile_shape: Triple | None = None,
        overlap: float = 0.5,
        memory: int | None = None,
        pixels: PixelClassifier | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.network, self.intensity = network, intensity
        self.pixels, self.calibration = pixels, calibration or Calibration()
        self.device, self.precision = device, precision
        self.tile_shape = tile_shape
        self.memory = memory
        self._margin = shrink(network.config)
        self._overlap = overlap if network.config.padding == "same" else 0.0

    def plan(self, volume_shape: Triple) -> Triple:
        """The tile: as given, or what fits into about half of the free memory."""
        if self.tile_shape is None:
            config = self.network.config
            budget = (self.memory or devices.free_memory(self.device)) // 2
            voxels = CPU_TILE if self.device.type == "cpu" else 1 << 40
            tile = plan_tile(config, volume_shape, voxels)
            while prediction_bytes(config, tile, self.precision) > budget:
                smaller = halve(config, tile)
                if smaller is None:
                    break
                tile = smaller
            self.tile_shape = tile
        return self.tile_shape

    def tiles(self, volume_shape: Triple, box: Box) -> list[Box]:
        """Outputs of the tiles that cover `box`."""
        config = self.network.config
        out = output_shape(config, self.plan(volume_shape))
        # An unpadded tile may yield less than the stride: then its pooling falls as it may.
        z, y, x = (s if s <= n else 1 for s, n in zip(total_stride(config), out, strict=True))
        return plan_tiles(volume_shape, box, out, self._overlap, (z, y, x))

    def probabilities(
        self, volume: Volume, at: int, box: Box
    ) -> Generator[int | Notice, None, Tensor]:
        """Predict one box; yields the tiles done so far, returns the probabilities.

        When the memory does not suffice, the tile is halved and the box begun again.

        Returns
        -------
        Tensor
            (K, z, y, x) float32 on the device, K = background and classes.
        """
        while True:
            try:
                return (yield from self._probabilities(volume, at, box))
            except Exception as error:
                if not devices.is_out_of_memory(error):
                    raise
                tile, reason = self.plan(volume.shape), str(error)
                smaller = halve(self.network.config, tile)
            if smaller is None:
                raise RunFailedError(
                    f"out of memory: even a tile of {describe_shape(tile)} voxels does not fit; "
                    f"close other programs, or use a smaller network (preset 'fast'; {reason})"
                )
            self.tile_shape = smaller
            devices.make_room(self.device)
            yield Notice(
                f"Out of memory: tile halved from {describe_shape(tile)} to "
                f"{describe_shape(smaller)} voxels."
            )

    def _probabilities(self, volume: Volume, at: int, box: Box) -> Generator[int, None, Tensor]:
        tiles = self.tiles(volume.shape, box)
        out = output_shape(self.network.config, self.plan(volume.shape))
        k = self.network.config.n_classes
        total = torch.zeros((k, *box.shape), device=self.device)
        if len(tiles) == 1:
            weights, weight_sum = torch.ones(out, device=self.device), None
        else:
            weights = torch.from_numpy(blending_weights(out)).to(self.device)
            weight_sum = torch.zeros(box.shape, device=self.device)
        for i, tile in enumerate(tiles):
            probability = self._run(volume, at, tile)
            here, there = _overlap(tile, box)
            part = probability[(slice(None), *here)]
            total[(slice(None), *there)].addcmul_(part, weights[here])
            if weight_sum is not None:
                weight_sum[there] += weights[here]
            yield i + 1
        if weight_sum is not None:
            total.div_(weight_sum)
        classifier = self.pixels if self.calibration.pixels else None
        for j, chunk in enumerate(self._chunks(box)):
            where = (slice(None), *_overlap(chunk, box)[1])
            pixels = None if classifier is None else self._judge(classifier, volume, at, chunk)
            total[where] = self.calibration.apply(total[where], pixels)
            yield len(tiles) + j + 1
        return total

    def steps(self, volume_shape: Triple, box: Box) -> int:
        """What predicting a box yields in all."""
        return len(self.tiles(volume_shape, box)) + len(self._chunks(box))

    def _chunks(self, box: Box) -> list[Box]:
        """Parts of a box, in which the pixel classifier has its say."""
        if self.calibration == Calibration():
            return []
        # What surrounds a thin box costs more than the box.
        thin = min(8, max(1, _SMALLEST_SIDE // min(box.shape)))
        most = max(PIXEL_CHUNK // self.network.config.in_channels // thin, 4096)
        parts = plan_blocks(box.shape, (_SMALLEST_SIDE,) * 3, most)
        return [part.moved(box.start) for part in parts]

    def _judge(self, classifier: PixelClassifier, volume: Volume, at: int, box: Box) -> Tensor:
        """Log-probabilities (K, z, y, x) of the pixel classifier, by halves if need be."""
        read = reader_for_pixels(volume, self.intensity, self.device, at)
        try:
            return classifier.log_probabilities(read, box.start, box.stop, volume.voxel_size)
        except Exception as error:
            axis = max(range(3), key=lambda a: box.shape[a])
            if box.shape[axis] < 2 * _SMALLEST_SIDE or not devices.is_out_of_memory(error):
                raise
        devices.make_room(self.device)
        halves = [self._judge(classifier, volume, at, half) for half in box.halves(axis)]
        return torch.cat(halves, 1 + axis)

    def read(self, volume: Volume, at: int, tile: Box) -> Tensor:
        """What the network sees, (1, C, z, y, x), to yield the output `tile`.

        Beyond the volume the image is mirrored.
        """
        start = tuple(a - m // 2 for a, m in zip(tile.start, self._margin, strict=True))
        stop = tuple(b + m - m // 2 for b, m in zip(tile.stop, self._margin, strict=True))
        image = read_padded(volume, self.intensity, self.device, at, mirror_index, start, stop)
        return image[None].contiguous(memory_format=devices.memory_format(self.device))

    def _run(self, volume: Volume, at: int, tile: Box) -> Tensor:
        """Probabilities (K, z, y, x) of one tile."""
        image = self.read(volume, at, tile)
        with torch.inference_mode(), devices.autocast(self.device, self.precision):
            probability: Tensor = self.network(image)[0].float().softmax(0)
        return probability

    def predict(self, volume: Volume, at: int, box: Box) -> NDArray[np.float32]:
        """Probabilities (K, z, y, x) of a box, without reporting progress."""
        steps = self.probabilities(volume, at, box)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: NDArray[np.float32] = end.value.cpu().numpy()
                return found


def read_padded(
    volume: Volume,
    intensity: IntensityNormalization,
    device: torch.device,
    at: int,
    outside: Callable[[int, int, int], NDArray[np.intp]],
    start: Sequence[int],
    stop: Sequence[int],
) -> Tensor:
    """Normalized gray values (C, z, y, x) of a box, which may leave the volume.

    `outside` gives the voxel indices from start to stop on an axis of some size, with those
    that lie outside replaced: `mirror_index` or `nearest_index`.
    """
    index = [outside(a, b, n) for a, b, n in zip(start, stop, volume.shape, strict=True)]
    low = tuple(int(i.min()) for i in index)
    high = tuple(int(i.max()) + 1 for i in index)
    crop = intensity.apply(volume.crop(at, low, high))  # type: ignore[arg-type]
    if crop.shape[1:] != tuple(len(i) for i in index):
        z, y, x = (i - n for i, n in zip(index, low, strict=True))
        crop = crop[:, z[:, None, None], y[:, None], x]
    return torch.from_numpy(crop).to(device)


def reader_for_pixels(
    volume: Volume, intensity: IntensityNormalization, device: torch.device, at: int
) -> Read:
    """What the filter bank reads a time point with.

    Beyond the volume the border voxels go on. A mirror would hide the border; its trace in the
    features tells the classifier where the border is.
    """
    return partial(read_padded, volume, intensity, device, at, nearest_index)


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

    def write(self, at: int, box: Box, probabilities: Tensor) -> None:
        """Write a box's result."""
        table = torch.from_numpy(output_table(self.bundle.classes)).to(probabilities.device)
        time_point = (at,) if "T" in self.volume.axes else ()
        where = tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))
        _write(self.out, (*time_point, *where), table[probabilities.argmax(0)])
        if self.probabilities is not None:
            _write(self.probabilities, (*time_point, slice(None), *where), probabilities)
        if self.uncertainty is not None:
            entropy = torch.special.entr(probabilities).sum(0) / math.log(len(probabilities))
            _write(self.uncertainty, (*time_point, *where), entropy.clamp(0, 1))


def _run(
    job: _Job,
    config: PredictionConfig,
    tile: Triple | None,
    device: torch.device,
    precision: Precision,
) -> Generator[PredictionProgress | Notice, None, None]:
    if len(job.times) == job.volume.n_times:
        room = devices.room_for_images() if config.memory is None else config.memory // 4
        job = replace(job, volume=job.volume.in_memory(room))
    pixels = job.bundle.build_pixels()
    network = fold_batch_norm(job.bundle.build())
    predictor = Predictor(
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
    try:
        devices.prepare(device)
        # fp32 is what it says, as in training.
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, allow_tf32=False):
            yield from _predict(predictor, job)
    except RuntimeError as error:
        # superqt's workers swallow RuntimeErrors: the user would wait for ever.
        traceback.clear_frames(error.__traceback__)  # they hold the device's memory
        raise RunFailedError(f"prediction failed: {error}") from error
    finally:
        del predictor, network
        devices.release(device)


def _predict(predictor: Predictor, job: _Job) -> Generator[PredictionProgress | Notice, None, None]:
    bundle, volume = job.bundle, job.volume
    started = time.monotonic()
    k = bundle.network.n_classes
    free = predictor.memory or devices.free_memory(predictor.device)
    tile = output_shape(bundle.network, predictor.plan(volume.shape))
    # Sum of probabilities, weights, the labels and the optional images, float32 each.
    boxes = list(plan_blocks(volume.shape, tile, max(1, free // 4 // (4 * (2 * k + 3)))))
    parts = [(t, box) for t in job.times for box in boxes]
    total = sum(predictor.steps(volume.shape, box) for _, box in parts)
    done = 0
    if (note := voxel_size_note(bundle, volume)) is not None:
        yield Notice(note)
    for t, box in parts:
        steps = predictor.probabilities(volume, t, box)
        before = done
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                found: Tensor = end.value
                break
            if isinstance(step, Notice):
                rest = parts[parts.index((t, box)) :]
                total = before + sum(predictor.steps(volume.shape, b) for _, b in rest)
                yield step
                continue
            done = before + step
            elapsed = time.monotonic() - started
            yield PredictionProgress(done, total, elapsed, elapsed * (total - done) / done)
        job.write(t, box, found)


def _write(array: Any, where: tuple[Any, ...], values: Tensor) -> None:
    try:
        array[where] = values.cpu().numpy().astype(array.dtype, copy=False)
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
    except ValueError as error:
        raise BadInputError(f"{error}; leave the tile shape empty to have it planned") from error
    return tile


def _overlap(tile: Box, box: Box) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where tile and box overlap, in the tile's and in the box's own coordinates."""
    here, there = [], []
    for axis in range(3):
        low = max(tile.start[axis], box.start[axis])
        high = min(tile.stop[axis], box.stop[axis])
        here.append(slice(low - tile.start[axis], high - tile.start[axis]))
        there.append(slice(low - box.start[axis], high - box.start[axis]))
    return tuple(here), tuple(there)
