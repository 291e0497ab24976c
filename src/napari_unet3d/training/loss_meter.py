"""The losses of the steps, read without making a GPU wait."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class LossMeter:
    """Reads the loss of each step, and counts those that are numbers.

    To read a number from an NVIDIA GPU is to wait until it has done all that it was given. There,
    a loss is copied while the GPU works on, and read one step later.

    Parameters
    ----------
    device
        Where the losses are computed.

    Attributes
    ----------
    latest
        The loss that was read last: that of the step before on an NVIDIA GPU.
    finite
        Losses read so far that are finite numbers.
    bad_in_a_row
        Losses read last, without a finite one between them, that are not.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_late = device.type == "cuda"
        self._buffers: list[Tensor] = []
        self._waiting: tuple[Tensor, torch.cuda.Event] | None = None
        self.latest = math.nan
        self.finite = self.bad_in_a_row = 0

    def add(self, loss: Tensor) -> None:
        """Take the loss of a step, a scalar on the device."""
        if not self._is_late:
            self._count(loss.item())
            return
        first = not self._buffers
        if first:
            self._buffers = [torch.empty((), pin_memory=True) for _ in range(2)]
        self._buffers.reverse()  # the other one waits to be read
        copied = torch.cuda.Event()
        self._buffers[0].copy_(loss.detach(), non_blocking=True)
        copied.record()
        waiting, self._waiting = self._waiting, (self._buffers[0], copied)
        self._read(waiting)
        if first:
            self.settle()

    def settle(self) -> None:
        """Read the loss that still waits to be read, if any."""
        waiting, self._waiting = self._waiting, None
        self._read(waiting)

    def _read(self, waiting: tuple[Tensor, torch.cuda.Event] | None) -> None:
        if waiting is not None:
            number, copied = waiting
            copied.synchronize()
            self._count(number.item())

    def _count(self, loss: float) -> None:
        self.latest = loss
        self.finite += math.isfinite(loss)
        self.bad_in_a_row = 0 if math.isfinite(loss) else self.bad_in_a_row + 1
