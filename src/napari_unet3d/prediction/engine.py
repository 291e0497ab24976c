"""Predict one box of a volume: a network, its tiles, and what to do where memory is short."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.config import Triple
from napari_unet3d.data.boxes import Box, BoxGrid, plan_blocks
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume, describe_shape
from napari_unet3d.errors import RunFailedError
from napari_unet3d.events import Notice
from napari_unet3d.model.mixture import Calibration, Mixture
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.architecture import Network
from napari_unet3d.networks.device import Precision
from napari_unet3d.networks.geometry import (
    MOST_IN_A_MAP,
    is_padded,
    largest_map,
    output_shape,
    shrink,
    total_stride,
)
from napari_unet3d.networks.planning import halve, plan_tile, prediction_bytes
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.pixels.features import feature_count
from napari_unet3d.prediction.tiling import blending_weights, plan_tiles
from napari_unet3d.sampling.source import Source

CPU_TILE = 2_000_000
"""Voxels of a tile on a CPU at the most: about half a second, the time a cancel may take."""

PIXEL_CHUNK = 1_000_000
"""Voxels whose features are computed at once, in an image of one channel; fewer in thin boxes."""
_SMALLEST_SIDE = 32
"""Shortest side, voxels, of the boxes that are cut for the pixel classifier."""

_TRIES = 3
"""Boxes in a row for which the planned tile is tried again after a shortage of memory: each try
costs the tiles that were done until it fails."""


class NotFiniteError(RunFailedError):
    """A model gives no numbers in place of probabilities."""


class BoxTooLargeError(Exception):
    """Memory does not suffice for the result of a box: its halves may fit."""


_Place = Literal["tile", "sum", "pixels"]
"""What needs memory: the network, the sum of its tiles, the pixel classifier."""


class _ShortageError(Exception):
    """Memory does not suffice; the text is the library's."""

    def __init__(self, place: _Place, reason: str) -> None:
        super().__init__(reason)
        self.place: _Place = place


class _NoNumbersError(Exception):
    """The network gives no numbers."""


@contextmanager
def _needing_memory(place: _Place) -> Iterator[None]:
    """Tell where memory did not suffice."""
    try:
        yield
    except Exception as error:
        if not devices.is_out_of_memory(error):
            raise
        raise _ShortageError(place, str(error)) from error


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
        network: Network,
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
        self._overlap = overlap if is_padded(network.config) else 0.0
        self._planned_tile: Triple | None = None
        self._last_tile: Triple | None = None
        self._sum_device = device
        self._short = False
        self._tries = _TRIES

    def plan(self, volume_shape: Triple) -> Triple:
        """The tile: as given, or what fits into about half of the free memory."""
        if self.tile_shape is None:
            config = self.network.config
            budget = (self.memory or devices.free_memory(self.device)) // 2
            voxels = CPU_TILE if self.device.type == "cpu" else 1 << 40
            tile = plan_tile(config, volume_shape, voxels)
            while (
                prediction_bytes(config, tile, self.precision) > budget
                or largest_map(config, tile) > MOST_IN_A_MAP
            ):
                smaller = halve(config, tile)
                if smaller is None:
                    break
                tile = smaller
            self.tile_shape = tile
        return self.tile_shape

    def halve_tile(self, volume_shape: Triple) -> bool:
        """Take half of the tile from now on; False when it cannot be smaller."""
        smaller = halve(self.network.config, self.plan(volume_shape))
        if smaller is None:
            return False
        self.tile_shape = smaller
        return True

    def tiles(self, volume_shape: Triple, box: Box) -> BoxGrid:
        """Outputs of the tiles that cover `box`."""
        config = self.network.config
        out = output_shape(config, self.plan(volume_shape))
        # An unpadded tile may yield less than the stride: then its pooling falls as it may.
        z, y, x = (s if s <= n else 1 for s, n in zip(total_stride(config), out, strict=True))
        return plan_tiles(volume_shape, box, out, self._overlap, (z, y, x))

    def probabilities(
        self, volume: Volume, time: int, box: Box
    ) -> Generator[int | Notice, None, Tensor]:
        """Predict one box; yields the tiles done so far, returns the probabilities.

        Where memory does not suffice, the network gets smaller tiles, and the sum of a GPU's
        tiles is kept in the main memory; the box is then begun again. It is also begun again,
        in fp32, where the network gives no numbers in a shorter format.

        Returns
        -------
        Tensor
            (K, z, y, x) float32, K = background and classes; on the device, or on the CPU.

        Raises
        ------
        BoxTooLargeError
            Memory does not suffice for the sum of the tiles: predict the box in parts.
        NotFiniteError
            The probabilities are not numbers.
        RunFailedError
            Memory does not suffice for the smallest tile.
        """
        while True:
            answer: Callable[[], str]
            try:
                return (yield from self._probabilities(volume, time, box))
            except _ShortageError as error:
                place, reason = error.place, str(error)
                answer = partial(self._make_do, volume.shape, box, place, reason)
            except _NoNumbersError:
                answer = self._change_precision
            # Outside of the except block: the traceback would keep the tensors alive.
            devices.make_room(self.device)
            yield Notice(answer())

    def _make_do(self, volume_shape: Triple, box: Box, place: _Place, reason: str) -> str:
        """Ask for less memory at the place where it did not suffice; says what changes."""
        tile = self.plan(volume_shape)
        self._planned_tile = self._planned_tile or tile
        self._short = True
        if place == "tile":
            last, self._last_tile = self._last_tile, None
            if last not in (None, tile):
                self.tile_shape = last
                return (
                    f"Out of memory in the network again: the tile is {describe_shape(last)} "
                    "voxels as before."
                )
            if self.halve_tile(volume_shape):
                return (
                    f"Out of memory in the network: tile halved from {describe_shape(tile)} to "
                    f"{describe_shape(self.plan(volume_shape))} voxels."
                )
        if self._sum_device.type != "cpu":
            self._sum_device = torch.device("cpu")
            self.tile_shape = self._planned_tile  # it may have lacked what the sum took
            return (
                "Out of memory on the GPU for the result of "
                f"{describe_shape(box.shape)} voxels: it is kept in the main memory, which is "
                "slower."
            )
        if place == "sum" and max(box.shape) > 1:
            raise BoxTooLargeError(reason)
        what = {
            "tile": f"even a tile of {describe_shape(tile)} voxels does not fit",
            "sum": "not even the result of one voxel fits",
            "pixels": "the features of the pixel classifier do not fit",
        }
        raise RunFailedError(
            f"out of memory: {what[place]}; close other programs, or use a smaller network "
            f"(preset 'fast'; {reason})"
        )

    def recover(self) -> bool:
        """Plan the next box as if there had been no shortage of memory: it may have passed.

        False after several failures in a row: it goes on with what sufficed.
        """
        if not self._short:
            self._tries = _TRIES
            return True
        if not self._tries:
            return False
        self._tries -= 1
        self._last_tile, self.tile_shape = self.tile_shape, self._planned_tile
        self._sum_device = self.device
        self._short = False
        return True

    def _change_precision(self) -> str:
        """Compute in fp32, since there are no numbers in another format; says so."""
        if self.precision == "fp32":
            raise NotFiniteError(
                "the model gives no numbers (NaN) in place of probabilities, in fp32: its weights "
                "are too large, or damaged. Train it again with a lower learning rate, or use "
                "another model"
            )
        before, self.precision = self.precision, "fp32"
        return f"In {before} the model gives no numbers: it goes on in fp32, which is slower."

    def _probabilities(self, volume: Volume, time: int, box: Box) -> Generator[int, None, Tensor]:
        tiles = self.tiles(volume.shape, box)
        out = output_shape(self.network.config, self.plan(volume.shape))
        k = self.network.config.n_classes
        place = self._sum_device
        with _needing_memory("sum"):
            total = torch.zeros((k, *box.shape), device=place)
            weight_sum = None if len(tiles) == 1 else torch.zeros(box.shape, device=place)
        with _needing_memory("tile"):
            if weight_sum is None:
                weights = torch.ones(out, device=place)
            else:
                weights = torch.from_numpy(blending_weights(out)).to(place)
        for i, tile in enumerate(tiles):
            with _needing_memory("tile"):
                probability = self._run(volume, time, tile)
            # Asking a GPU means waiting for it: there, the others are looked at together, below.
            if (i == 0 or self.device.type == "cpu") and not _is_finite(probability):
                raise _NoNumbersError
            here, there = _overlap(tile, box)
            with _needing_memory("sum"):
                part = probability[(slice(None), *here)].to(place)
                total[(slice(None), *there)].addcmul_(part, weights[here])
                if weight_sum is not None:
                    weight_sum[there] += weights[here]
            yield i + 1
        with _needing_memory("sum"):
            if weight_sum is not None:
                total.div_(weight_sum)
            finite = self.device.type == "cpu" or _is_finite(total)
        if not finite:
            raise _NoNumbersError
        yield from self._calibrate(volume, time, box, total, len(tiles))
        return total

    def _calibrate(
        self, volume: Volume, time: int, box: Box, total: Tensor, done: int
    ) -> Generator[int, None, None]:
        """Let the pixel classifier and the calibration change the network's probabilities."""
        mixture = Mixture(self.network, self.pixels, self.calibration)
        classifier = self.pixels if self.calibration.pixels else None
        for i, chunk in enumerate(self._chunks(box)):
            where = (slice(None), *_overlap(chunk, box)[1])
            pixels = None
            if classifier is not None:
                with _needing_memory("pixels"):
                    pixels = self._classify_pixels(classifier, volume, time, chunk)
            with _needing_memory("sum"):
                network = total[where].to(self.device)
                total[where] = mixture.combine(network, pixels).to(total.device)
            yield done + i + 1
        if len(self._chunks(box)) and not _is_finite(total):
            raise NotFiniteError(
                "the model's pixel classifier gives no numbers (NaN): its weights are too large, "
                "or damaged. Train the model again, or use another one"
            )

    def steps(self, volume_shape: Triple, box: Box) -> int:
        """What predicting a box yields in all."""
        return len(self.tiles(volume_shape, box)) + len(self._chunks(box))

    def _chunks(self, box: Box) -> Sequence[Box]:
        """Parts of a box, in which the pixel classifier has its say."""
        if self.calibration == Calibration():
            return ()
        # What surrounds a thin box costs more than the box.
        thin = min(8, max(1, _SMALLEST_SIDE // min(box.shape)))
        config = self.network.config
        # Many classes take as much memory as many channels, which have 21 features each.
        channels = max(config.in_channels, -(-config.n_classes // feature_count(1)))
        most = max(PIXEL_CHUNK // channels // thin, 4096)
        return plan_blocks(box.shape, (_SMALLEST_SIDE,) * 3, most).moved(box.start)

    def _classify_pixels(
        self, classifier: PixelClassifier, volume: Volume, time: int, box: Box
    ) -> Tensor:
        """Log-probabilities (K, z, y, x) of the pixel classifier, by halves if need be."""
        source = Source(volume, self.intensity, self.device)
        read = partial(source.read, time, beyond="nearest")
        try:
            return classifier.log_probabilities(read, box.start, box.stop, volume.voxel_size)
        except Exception as error:
            axis = box.longest_axis
            if box.shape[axis] < 2 * _SMALLEST_SIDE or not devices.is_out_of_memory(error):
                raise
        devices.make_room(self.device)
        halves = [self._classify_pixels(classifier, volume, time, h) for h in box.halves(axis)]
        return torch.cat(halves, 1 + axis)

    def read(self, volume: Volume, time: int, tile: Box) -> Tensor:
        """What the network sees, (1, C, z, y, x), to yield the output `tile`.

        Beyond the volume the image is mirrored.
        """
        start = tuple(a - m // 2 for a, m in zip(tile.start, self._margin, strict=True))
        stop = tuple(b + m - m // 2 for b, m in zip(tile.stop, self._margin, strict=True))
        image = Source(volume, self.intensity, self.device).read(time, start, stop)
        return image[None].contiguous(memory_format=devices.memory_format(self.device))

    def _run(self, volume: Volume, time: int, tile: Box) -> Tensor:
        """Probabilities (K, z, y, x) of one tile."""
        image = self.read(volume, time, tile)
        with torch.inference_mode(), devices.autocast(self.device, self.precision):
            probability: Tensor = self.network(image)[0].float().softmax(0)
        return probability

    def predict(self, volume: Volume, time: int, box: Box) -> NDArray[np.float32]:
        """Probabilities (K, z, y, x) of a box, without reporting progress."""
        steps = self.probabilities(volume, time, box)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                probabilities: NDArray[np.float32] = end.value.cpu().numpy()
                return probabilities
            except BoxTooLargeError:
                break
        axis = box.longest_axis
        halves = [self.predict(volume, time, half) for half in box.halves(axis)]
        return np.concatenate(halves, 1 + axis)


def _is_finite(values: Tensor) -> bool:
    return math.isfinite(values.sum().item())  # a sum needs no memory


def _overlap(tile: Box, box: Box) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where tile and box overlap, in the tile's and in the box's own coordinates."""
    here, there = [], []
    for axis in range(3):
        low = max(tile.start[axis], box.start[axis])
        high = min(tile.stop[axis], box.stop[axis])
        here.append(slice(low - tile.start[axis], high - tile.start[axis]))
        there.append(slice(low - box.start[axis], high - box.start[axis]))
    return tuple(here), tuple(there)
