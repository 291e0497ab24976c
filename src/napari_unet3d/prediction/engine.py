"""Predict one box of a stack: its tiles, then the pixel classifier."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import suppress
from functools import partial
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.config import Triple
from napari_unet3d.data.boxes import Box, BoxGrid, plan_blocks
from napari_unet3d.errors import RunFailedError
from napari_unet3d.events import Notice, drain
from napari_unet3d.model.mixture import Mixture
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.device import Precision
from napari_unet3d.networks.geometry import largest_map, shrink
from napari_unet3d.networks.planning import halve, largest_cpu_tile, plan_tile, prediction_bytes
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.pixels.features import Read, feature_count
from napari_unet3d.prediction.shortage import (
    BoxTooLargeError,
    MemoryPlan,
    ShortageError,
    needing_memory,
)
from napari_unet3d.prediction.stack_plan import DENSE_OVERLAP, TileRules
from napari_unet3d.prediction.surroundings import read_around
from napari_unet3d.prediction.tiling import overlap_slices
from napari_unet3d.sampling.source import GIVEN_UP, Source

CPU_TILE = 2_000_000
"""Voxels of the largest tile on a CPU while a model trains."""

PIXEL_CHUNK = 1_000_000
"""Voxels whose features are computed at once in an image of one channel; fewer in thin boxes, whose
halo is large."""

_PIXEL_CHUNK_ON_GPU = 8_000_000
"""The same on an NVIDIA GPU, which takes longer to launch the features of a smaller box than to
compute them, and whose boxes then read half as much halo."""
_SMALLEST_PIXEL_CHUNK = 100_000
"""The same where memory is short: the halo of a smaller box has 30 times its voxels."""
_PIXEL_SHARE = 4 * 300
"""Bytes of free memory for each voxel of such a box: its features and temporary maps take about 300
(21 features and up to 50 maps in fp32), and may have a quarter, or on a CPU, where the network has
freed its own, a half."""

_REGION = 4
"""Boxes whose gray values are read at once, 3.4 times as many voxels with their halo: 54 MB. Each
box alone would read 5.8 times its voxels, and 11.7 times where each scale reads its own."""

_SMALLEST_SIDE = 32
"""Voxels of the shortest side of the boxes that are cut for the pixel classifier. The halo of a
smaller box, which its features need, would take more time than the box."""


class NotFiniteError(RunFailedError):
    """A model gives NaN or infinite values in place of probabilities."""


class _NotFiniteTilesError(Exception):
    """The network gives NaN or infinite values in the number format that it runs in."""


class Engine:
    """A model on its device, ready to predict any box of one stack.

    Parameters
    ----------
    mixture
        The model, in eval mode and on the device of `source`; quickest with its batch norms
        folded.
    source
        The stack; the model runs on its device.
    precision
        Number format of the network. After it gave NaN or infinite values, fp32 takes its place.
    tile_shape
        Tile (z, y, x) that the network sees at once, voxels; planned from the free memory when
        None.
    overlap
        Voxels that a tile has in common with the next, as a share of what the network sees; at
        most half a tile. Tiles of an unpadded network, whose outputs are exact, overlap only as
        far as the alignment of the pooling needs it.
    memory
        Bytes that may be used; the free memory when None.
    sum_device
        Where the tiles of a box are put together; the source's device when None.
    adjoining
        Whether the boxes adjoin, as the blocks of a stack; see `TileRules`.
    """

    def __init__(
        self,
        mixture: Mixture,
        source: Source,
        precision: Precision,
        *,
        tile_shape: Triple | None = None,
        overlap: float = DENSE_OVERLAP,
        memory: int | None = None,
        sum_device: torch.device | None = None,
        adjoining: bool = False,
    ) -> None:
        self.mixture, self.source, self.device = mixture, source, source.device
        self.config: Architecture = mixture.network.config
        self.memory = memory
        self._precision = precision
        self._rules = TileRules(self.config, source.volume.shape, overlap, adjoining)
        self._halo = shrink(self.config)
        self._given = tile_shape
        voxels = largest_cpu_tile(self.config) if self.device.type == "cpu" else 1 << 40
        whole = plan_tile(self.config, source.volume.shape, voxels)
        tile = tile_shape or self._fitting(whole)
        self._room = MemoryPlan(self.config, tile, sum_device or self.device)
        self._pixel_chunk = self._fitting_pixel_chunk()

    def _fitting(self, tile: Triple) -> Triple:
        """A tile, halved until it fits into half of the memory."""
        while self._share_of_limit(tile) > 1:
            smaller = halve(self.config, tile)
            if smaller is None:
                break
            tile = smaller
        return tile

    def _share_of_limit(self, tile: Triple) -> float:
        """How much of what is possible a tile takes: memory, or values of one map."""
        free = self.memory or devices.free_memory(self.device)
        needed = prediction_bytes(self.config, tile, self.precision, self.device.type != "cpu")
        values = largest_map(self.config, tile) / devices.largest_map(self.device)
        return max(2 * needed / max(free, 1), values)

    def plan_blocks(self, chunk: Triple, most_voxels: int) -> BoxGrid:
        """Plan the blocks of the stack, and the tile with them unless it was given.

        Parameters
        ----------
        chunk
            Blocks begin at multiples of this, (z, y, x) voxels.
        most_voxels
            Voxels of the largest block; exceeded where whole chunks leave no smaller one.
        """
        shape, tile = self.source.volume.shape, self.plan()
        most_tile = int(prod(tile) / self._share_of_limit(tile))
        if self.device.type == "cpu":
            most_tile = min(most_tile, largest_cpu_tile(self.config))
        plan = partial(
            self._rules.plan, most_tile=most_tile, most_block=most_voxels, tile=self._given
        )
        layout = plan(chunk)
        best = layout or plan((1, 1, 1))
        if best is not None and self._given is None:
            self._room = MemoryPlan(self.config, self._fitting(best.tile), self._room.sum_device)
        if layout is not None:
            return layout.blocks
        return plan_blocks(shape, self._rules.output(self.plan()), most_voxels, chunk)

    def parts(self, block: Box, most_voxels: int) -> BoxGrid:
        """Parts of a block that is too large: they may cut through chunks."""
        tile = self.plan()
        rules = self._rules.of_stack(block.shape)
        layout = rules.plan((1, 1, 1), prod(tile), most_voxels, tile)
        least = rules.output(tile)
        boxes = layout.blocks if layout else plan_blocks(block.shape, least, most_voxels)
        return boxes.moved(block.start)

    def _fitting_pixel_chunk(self) -> int:
        """Voxels of one channel whose features are computed at once."""
        if self.mixture.is_network_alone:
            return PIXEL_CHUNK
        free = self.memory or devices.free_memory(self.device)
        if self.device.type == "cuda":
            return max(PIXEL_CHUNK, min(_PIXEL_CHUNK_ON_GPU, free // _PIXEL_SHARE))
        return max(_SMALLEST_PIXEL_CHUNK, min(PIXEL_CHUNK, 2 * free // _PIXEL_SHARE))

    @property
    def precision(self) -> Precision:
        """Number format of the network."""
        return self._precision

    @property
    def box_voxels(self) -> float:
        """Voxels of the largest box whose result fits, as far as a lack of memory has shown."""
        return self._room.box_voxels

    def plan(self) -> Triple:
        """The tile (z, y, x) that the network sees at once, voxels."""
        return self._room.tile

    def halve_tile(self) -> bool:
        """Take half of the tile from now on; False where it cannot be smaller."""
        return self._room.halve_tile()

    def recover(self) -> None:
        """Plan the next box as if memory had not been short: the lack may have passed.

        After a lack in several boxes in a row, what sufficed for the last one is kept.
        """
        self._room.recover()

    def tiles(self, box: Box) -> BoxGrid:
        """Outputs of the tiles that predict `box`."""
        return self._rules.tiles(box, self.plan()).outputs

    def steps(self, box: Box) -> int:
        """How many steps `probabilities` reports for a box."""
        parts = sum(len(self._pixel_parts(region)) for region in self._pixel_regions(box))
        return len(self.tiles(box)) + parts

    def probabilities(self, time: int, box: Box) -> Generator[int | Notice, None, Tensor]:
        """Predict one box at one time point.

        After a lack of memory the box is begun again. An image that was kept on the GPU makes way
        first. Then the network gets smaller tiles if it lacked memory, and the result of the box
        moves to the main memory if the GPU lacked memory for it. The box is also begun again,
        in fp32, where the network gives no finite values in a shorter format.

        Yields
        ------
        int or Notice
            The number of steps that are done; what has changed, as a text for the user.

        Returns
        -------
        Tensor
            (K, z, y, x) float32, K = background and classes; on the device, or on the CPU.

        Raises
        ------
        BoxTooLargeError
            Memory does not suffice for the result: predict the halves of the box.
        NotFiniteError
            The probabilities are not finite.
        RunFailedError
            Memory does not suffice for the smallest tile.
        """
        while True:
            shortage: ShortageError | None = None
            try:
                return (yield from self._probabilities(time, box))
            except ShortageError as error:
                shortage = ShortageError(error.place, str(error))
            except _NotFiniteTilesError:
                pass
            # Outside the except block, whose traceback would keep the tensors alive.
            freed = shortage is not None and self._free_source(shortage)
            devices.make_room(self.device)
            if freed:
                yield Notice(GIVEN_UP)
            else:
                yield Notice(self._room.answer(shortage, box) if shortage else self._use_fp32())

    def _free_source(self, shortage: ShortageError) -> bool:
        """Free the image that the source keeps on the GPU; False where that cannot help."""
        if shortage.place == "sum" and self._room.sum_device.type == "cpu":
            return False  # the main memory was short
        return self.source.give_up()

    def _use_fp32(self) -> str:
        """Compute in fp32 from now on; returns what the user reads."""
        if self._precision == "fp32":
            raise NotFiniteError(
                "the model gives no numbers (NaN) in place of probabilities, in fp32: its weights "
                "are too large, or damaged. Train it again with a lower learning rate, or use "
                "another model"
            )
        before, self._precision = self._precision, "fp32"
        return f"In {before} the model gives no numbers: it goes on in fp32, which is slower."

    def _probabilities(self, time: int, box: Box) -> Generator[int, None, Tensor]:
        place, tiles = self._room.sum_device, self._rules.tiles(box, self.plan())
        with needing_memory("sum"):
            total = torch.zeros((self.config.n_classes, *box.shape), device=place)
        for i, (tile, core) in enumerate(zip(tiles.outputs, tiles.cores, strict=True)):
            with needing_memory("tile"):
                probability = self._run(time, tile)
            # Reading a value of a GPU waits for it: later tiles are checked together, below.
            if (i == 0 or self.device.type == "cpu") and not _is_finite(probability):
                raise _NotFiniteTilesError
            here, there = overlap_slices(core, tile)[1], overlap_slices(core, box)[1]
            with needing_memory("sum"):
                total[(slice(None), *there)] = probability[(slice(None), *here)].to(place)
            yield i + 1
        if self.device.type != "cpu":
            with needing_memory("sum"):
                finite = _is_finite(total)
            if not finite:
                raise _NotFiniteTilesError
        yield from self._combine(time, box, total, len(tiles.outputs))
        return total

    def _run(self, time: int, tile: Box) -> Tensor:
        """Probabilities (K, z, y, x) of the network for one tile."""
        image = self.read(time, tile)
        with torch.inference_mode(), devices.autocast(self.device, self._precision):
            probability: Tensor = self.mixture.network(image)[0].float().softmax(0)
        return probability

    def read(self, time: int, tile: Box) -> Tensor:
        """Input of the network, (1, C, z, y, x), whose output is the box `tile`.

        Outside the volume the image is mirrored.
        """
        start = tuple(a - h // 2 for a, h in zip(tile.start, self._halo, strict=True))
        stop = tuple(b + h - h // 2 for b, h in zip(tile.stop, self._halo, strict=True))
        image = self.source.read(time, start, stop)
        return image[None].contiguous(memory_format=devices.memory_format(self.device))

    def _combine(self, time: int, box: Box, total: Tensor, done: int) -> Generator[int, None, None]:
        """Replace the network's probabilities of a box by those of the mixture, part by part."""
        regions = self._pixel_regions(box)
        classifier = self.mixture.pixels if self.mixture.needs_pixels else None
        read: Read | None = None
        for region in regions:
            if classifier is not None:
                with needing_memory("pixels"):
                    read = None  # frees one region before the next one is read
                    read = read_around(self.source, time, region, classifier.scales)
            for part in self._pixel_parts(region):
                where = (slice(None), *overlap_slices(part, box)[1])
                pixels = None
                if classifier is not None and read is not None:
                    with needing_memory("pixels"):
                        pixels = self._classify_pixels(classifier, read, part)
                with needing_memory("sum"):
                    network = total[where].to(self.device)
                    total[where] = self.mixture.combine(network, pixels).to(total.device)
                done += 1
                yield done
        if len(regions) and not _is_finite(total):
            raise NotFiniteError(
                "the model's pixel classifier gives no numbers (NaN): its weights are too large, "
                "or damaged. Train the model again, or use another one"
            )

    def _pixel_regions(self, box: Box) -> Sequence[Box]:
        """Parts of a box whose gray values are read at once for the pixel classifier."""
        if self.mixture.is_network_alone:
            return ()
        most = _REGION * self._pixel_voxels(box)
        return plan_blocks(box.shape, (_SMALLEST_SIDE,) * 3, most).moved(box.start)

    def _pixel_parts(self, region: Box) -> BoxGrid:
        """Parts of a region in which the two learners are combined one after the other."""
        most = self._pixel_voxels(region)
        return plan_blocks(region.shape, (_SMALLEST_SIDE,) * 3, most).moved(region.start)

    def _pixel_voxels(self, box: Box) -> int:
        """Voxels whose features are computed at once."""
        # The halo of a thin box has more voxels than the box: its parts are smaller.
        thinness = min(8, max(1, _SMALLEST_SIDE // min(box.shape)))
        # Many classes take as much memory as many channels, each of which has 21 features.
        channels = max(self.config.in_channels, -(-self.config.n_classes // feature_count(1)))
        return max(self._pixel_chunk // channels // thinness, 4096)

    def _classify_pixels(self, classifier: PixelClassifier, read: Read, box: Box) -> Tensor:
        """Log-probabilities (K, z, y, x) of the pixel classifier; by halves if memory is short."""
        voxel_size = self.source.volume.voxel_size
        try:
            return classifier.log_probabilities(read, box.start, box.stop, voxel_size)
        except Exception as error:
            axis = box.longest_axis
            if box.shape[axis] < 2 * _SMALLEST_SIDE or not devices.is_out_of_memory(error):
                raise
        devices.make_room(self.device)
        halves = [self._classify_pixels(classifier, read, half) for half in box.halves(axis)]
        return torch.cat(halves, 1 + axis)

    def predict(self, time: int, box: Box) -> NDArray[np.float32]:
        """Probabilities (K, z, y, x) of a box, without reporting progress.

        A box whose result does not fit into the device's memory is predicted in halves.

        Raises
        ------
        NotFiniteError, RunFailedError
            As `probabilities`.
        """
        with suppress(BoxTooLargeError):
            probabilities: NDArray[np.float32] = drain(self.probabilities(time, box)).cpu().numpy()
            return probabilities
        axis = box.longest_axis
        return np.concatenate([self.predict(time, half) for half in box.halves(axis)], 1 + axis)


def _is_finite(values: Tensor) -> bool:
    return math.isfinite(values.sum().item())  # unlike a comparison, a sum needs no memory
