"""The blocks of a stack, and what an executor does with them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from napari_unet3d.data.boxes import Box
from napari_unet3d.events import Notice


@dataclass(frozen=True)
class Block:
    """A part of the work: one box at one time point.

    No other block writes to the chunks of the output files that this one writes to, so blocks
    may be carried out in any order, or at once.
    """

    time: int
    box: Box


@dataclass(frozen=True)
class BlockProgress:
    """Steps of one block that are done, and its steps in all.

    After a lack of memory `done` may be smaller than before, and `total` another number.
    """

    block: Block
    done: int
    total: int


BlockEvent = BlockProgress | Notice
CarryOut = Callable[[Block], Generator[BlockEvent, None, None]]
"""Predicts and writes one block, while it yields events. Closing it cancels the block."""


class Executor(Protocol):
    """Carries out blocks."""

    def run(self, blocks: Sequence[Block], carry_out: CarryOut) -> Iterator[BlockEvent]:
        """Carry out every block once, and yield the events of all blocks.

        Parameters
        ----------
        blocks
            In the order in which the serial executor takes them.
        carry_out
            To be called once for each block; what it yields is to be passed on. The result does
            not depend on the order. An error ends the prediction.
        """
        ...
