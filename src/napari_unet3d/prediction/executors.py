"""Where and in which order the blocks of a stack are carried out.

To add an executor, write a class with the method of `blocks.Executor` and add it to `EXECUTORS`.
`PredictionConfig.executor` chooses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from napari_unet3d.prediction.blocks import Block, BlockEvent, CarryOut, Executor


class SerialExecutor:
    """One block after the other, in the thread that iterates the prediction."""

    def run(self, blocks: Sequence[Block], carry_out: CarryOut) -> Iterator[BlockEvent]:
        """Carry out every block in turn; see `Executor.run`."""
        for block in blocks:
            yield from carry_out(block)


EXECUTORS: dict[str, type[Executor]] = {"serial": SerialExecutor}
"""Every executor there is, by its name in `PredictionConfig.executor`."""
