"""Predict a stack: blocks of whole chunks, each predicted and written by itself."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.config import ClassInfo, Triple
from napari_unet3d.data.boxes import Box
from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import RunFailedError
from napari_unet3d.events import Notice, PredictionProgress
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.geometry import output_shape
from napari_unet3d.prediction import outputs
from napari_unet3d.prediction.blocks import Block, BlockEvent, BlockProgress, Executor
from napari_unet3d.prediction.engine import Engine
from napari_unet3d.prediction.output import Output
from napari_unet3d.prediction.shortage import BoxTooLargeError
from napari_unet3d.prediction.tally import SliceTally

_SHARE = 4
"""Divisor of the free memory: a quarter is for the result of a block, and on a GPU a quarter of the
main memory is for its outputs. A tile is planned for half, an image that is kept on a GPU for the
last quarter. Together they could use all that was free; the plan of a tile leaves room, since it
counts on more than was measured, and the image makes way when memory is short."""


@dataclass(frozen=True)
class ResultArrays:
    """The arrays that take the result of a stack.

    Attributes
    ----------
    arrays
        One array for each output that is wanted, of the shape and type that `Output.check` wants.
    classes
        The foreground classes of the model.
    series
        Whether the arrays begin with a time axis.
    """

    arrays: Mapping[Output, Any]
    classes: tuple[ClassInfo, ...]
    series: bool

    def chunk(self, volume: Volume) -> Triple:
        """Voxels (z, y, x) that the files keep together: the outputs', or else the image's."""
        chunks = [c for c in map(_chunk, self.arrays.values()) if c]
        chunks = chunks or [_chunk(volume.data) or (1, 1, 1)]
        z, y, x = (
            min(math.lcm(*(chunk[axis] for chunk in chunks)), n)
            for axis, n in enumerate(volume.shape)
        )
        return z, y, x

    def write(self, time: int, box: Box, probabilities: Tensor) -> None:
        """Write the result of a box; by halves where memory does not suffice to do it at once."""
        try:
            for output, array in self.arrays.items():
                values = self._values(output, probabilities)
                every = (slice(None),) * (values.ndim - 3)
                _assign(array, (*((time,) if self.series else ()), *every, *box.slices), values)
                del values  # before the next output is made
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
        n, m = first.shape[axis], second.shape[axis]
        self.write(time, first, probabilities.narrow(1 + axis, 0, n))
        self.write(time, second, probabilities.narrow(1 + axis, n, m))

    def _values(self, output: Output, probabilities: Tensor) -> NDArray[Any]:
        """The output for a box. Numpy would repeat a channel that is given once, without a word."""
        values = output.block(probabilities, self.classes)
        names = output.channel_names(self.classes)
        wanted = (*((len(names),) if names else ()), *probabilities.shape[1:])
        if values.shape != wanted:
            raise TypeError(
                f"the output '{output.name}' gives the shape {values.shape} for a box, it must "
                f"give {wanted}: a channel for each of its `channel_names`, if any, then z, y, x"
            )
        return values


class StackPrediction:
    """The prediction of a stack as blocks that may be carried out in any order.

    A block ends at the borders of the chunks of the output files, so that no two blocks write to
    one chunk. Blocks that are carried out at once share the engine, and what it has learned about
    a lack of memory.

    Parameters
    ----------
    engine
        Predicts boxes of the stack.
    results
        Take the result.
    times
        The time points to predict.
    tally
        Adds up what the prediction says about each slice; None when nobody asks.
    """

    def __init__(
        self,
        engine: Engine,
        results: ResultArrays,
        times: Sequence[int],
        tally: SliceTally | None = None,
    ) -> None:
        self._engine, self._results, self._times = engine, results, tuple(times)
        self._tally = tally
        volume = engine.source.volume
        # A block that is smaller than the output of a tile would waste most of it.
        least = math.prod(output_shape(engine.config, engine.plan()))
        self._block_voxels = max(block_voxels(engine, results.classes), least)
        self._boxes = engine.plan_blocks(results.chunk(volume), self._block_voxels)

    def blocks(self) -> list[Block]:
        """All blocks, in the order of the time points and of the volume's rows."""
        return [Block(time, box) for time in self._times for box in self._boxes]

    def run(self, executor: Executor) -> Generator[PredictionProgress | Notice, None, None]:
        """Carry out all blocks; close the generator to cancel."""
        started = monotonic()
        blocks = self.blocks()
        count = _StepCount({box: self._steps(self.parts(box)) for box in self._boxes}, blocks)
        for event in executor.run(blocks, self.carry_out):
            if isinstance(event, Notice):
                yield event
                continue
            done, total = count.update(event)
            elapsed = monotonic() - started
            yield PredictionProgress(done, total, elapsed, elapsed * (total - done) / done)

    def carry_out(self, block: Block) -> Generator[BlockEvent, None, None]:
        """Predict and write one block; close the generator to cancel it."""
        engine = self._engine
        engine.recover()
        done, waiting = 0, self.parts(block.box)
        while waiting:
            box = waiting[0]
            probabilities = yield from self._predict_first(block, waiting, done)
            if probabilities is None:
                devices.make_room(engine.device)
                waiting[:1] = box.halves(box.longest_axis)
                yield Notice(
                    f"Out of memory for the result of {describe_shape(box.shape)} voxels: they "
                    "are predicted in two halves."
                )
                continue
            self._results.write(block.time, box, probabilities)
            if self._tally is not None:
                self._tally.add(block.time, box, probabilities)
            del probabilities, waiting[0]  # before memory for the next box is taken
            done += engine.steps(box)

    def _predict_first(
        self, block: Block, waiting: Sequence[Box], done: int
    ) -> Generator[BlockEvent, None, Tensor | None]:
        """Probabilities of the first of the boxes that wait; None where it is too large.

        `done` steps of the block were done before it.
        """
        steps = self._engine.probabilities(block.time, waiting[0])
        total = done + self._steps(waiting)
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                probabilities: Tensor = end.value
                return probabilities
            except BoxTooLargeError:
                return None
            if isinstance(step, Notice):
                total = done + self._steps(waiting)  # the tile may be another one
                yield step
            else:
                yield BlockProgress(block, done + step, total)

    def parts(self, block: Box) -> list[Box]:
        """The box of a block, or its parts where it is too large: they cut through chunks."""
        most = self._block_voxels
        boxes = [block] if math.prod(block.shape) <= most else self._engine.parts(block, most)
        return [part for box in boxes for part in box.cut(self._engine.box_voxels)]

    def _steps(self, boxes: Sequence[Box]) -> int:
        return sum(self._engine.steps(box) for box in boxes)


class _StepCount:
    """Adds up the steps of all blocks, whatever their order.

    Parameters
    ----------
    planned
        Steps of each box, as planned.
    blocks
        All blocks.
    """

    def __init__(self, planned: Mapping[Box, int], blocks: Sequence[Block]) -> None:
        self._planned = planned
        self._waiting = sum(planned[block.box] for block in blocks)
        self._begun: dict[Block, BlockProgress] = {}
        self._done = self._total = 0

    def update(self, event: BlockProgress) -> tuple[int, int]:
        """Steps that are done and steps in all, after this event."""
        planned = self._planned[event.block.box]
        before = self._begun.get(event.block)
        if before is None:
            self._waiting -= planned
            before = BlockProgress(event.block, 0, 0)
        self._begun[event.block] = event
        self._done += event.done - before.done
        self._total += event.total - before.total
        # Blocks that have not begun are expected to take as much more as this one, after a lack
        # of memory.
        return self._done, self._total + math.ceil(self._waiting * event.total / planned)


def block_voxels(engine: Engine, classes: Sequence[ClassInfo]) -> int:
    """Voxels of the largest block: its probabilities are kept, then written at once.

    All outputs count, also those that are not wanted, so that the blocks do not depend on them.

    The free memory is read before the network has run, which on a GPU loads libraries and finds
    out what its convolutions need. It is not read again after the first tile: the result of the
    first block, as large as those of the others, is there before its first tile is computed. So a
    plan that is too large usually shows at the first tile, and costs one tile and a `Notice`.
    Later tiles can still lack memory, where other programs take it; `Engine` answers that too.
    """
    values = sum(output.values_per_voxel(classes) for output in outputs.OUTPUTS)
    k = len(classes) + 1
    free = engine.memory or devices.free_memory(engine.device)
    voxels = free // _SHARE // (4 * (k + values))  # fp32 each
    if engine.device.type != "cpu":  # what is written lies in the main memory
        free = engine.memory or devices.free_memory(torch.device("cpu"))
        voxels = min(voxels, free // _SHARE // (4 * values))
    return max(1, voxels)


def _chunk(array: Any) -> Triple | None:
    """Voxels (z, y, x) that a file keeps together, a shard as one chunk; None when unknown."""
    for name in ("shards", "chunks"):
        sizes = getattr(array, name, None)
        if isinstance(sizes, tuple) and len(sizes) >= 3:
            # dask lists the sizes of all chunks along an axis.
            z, y, x = (max(n) if isinstance(n, tuple) else n for n in sizes[-3:])
            return int(z), int(y), int(x)
    return None


def _assign(array: Any, where: tuple[Any, ...], values: NDArray[Any]) -> None:
    try:
        array[where] = values.astype(array.dtype, copy=False)
    except OSError as error:
        raise RunFailedError(
            f"the result could not be written ({error}): free some space, or write elsewhere"
        ) from error
