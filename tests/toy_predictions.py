"""The smallest of what may be added to a prediction: an output and two executors."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.config import ClassInfo
from napari_unet3d.prediction.blocks import Block, BlockEvent, CarryOut
from napari_unet3d.prediction.output import LayerOptions, Output, output_table


@dataclass(frozen=True)
class SecondClass(Output):
    """The number of the second most probable class."""

    name = "second_class"
    help = "Also write the second most probable class here."
    title = "Also show the second most probable class"
    tooltip = "A hidden Labels layer."
    dtype = "uint8"
    of_classes = True

    def block(self, probabilities: Tensor, classes: Sequence[ClassInfo]) -> NDArray[Any]:
        return output_table(classes)[probabilities.argsort(0)[-2].cpu().numpy()]

    def layers(self, classes: Sequence[ClassInfo]) -> tuple[LayerOptions, ...]:
        return (LayerOptions("labels", "second class"),)


class LastFirst:
    """The blocks in the opposite order, every second one before the others."""

    def run(self, blocks: Sequence[Block], carry_out: CarryOut) -> Iterator[BlockEvent]:
        for block in (*blocks[::-2], *blocks[-2::-2]):
            yield from carry_out(block)


class TwoMachines:
    """Each half of the blocks in a thread of its own, as if on another machine."""

    def run(self, blocks: Sequence[Block], carry_out: CarryOut) -> Iterator[BlockEvent]:
        events: SimpleQueue[BlockEvent | BaseException | None] = SimpleQueue()

        def work(part: Sequence[Block]) -> None:
            try:
                for block in part:
                    for event in carry_out(block):
                        events.put(event)
            except BaseException as error:
                events.put(error)
            finally:
                events.put(None)

        machines = [threading.Thread(target=work, args=(blocks[i::2],)) for i in range(2)]
        for machine in machines:
            machine.start()
        try:
            left = len(machines)
            while left:
                event = events.get()
                if event is None:
                    left -= 1
                elif isinstance(event, BaseException):
                    raise event
                else:
                    yield event
        finally:
            for machine in machines:
                machine.join()


def second_class(probabilities: np.ndarray, classes: Sequence[ClassInfo]) -> np.ndarray:
    """What `SecondClass` gives, from the probabilities (K, z, y, x) of a whole stack."""
    return output_table(classes)[np.argsort(probabilities, 0)[-2]]
