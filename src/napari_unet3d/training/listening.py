"""Hears the orders of a `TrainingControl` while torch computes."""

from __future__ import annotations

import math
import time

from torch import Tensor, nn

from napari_unet3d.networks.architecture import Network
from napari_unet3d.training.control import TrainingControl

_STOPPED_SECONDS = 2.0
"""Seconds for a part of the end after the user said Stop, and waits."""
_STOP_PATIENCE = 0.5
"""Seconds. A step that ends so soon after Stop is kept, a longer one is dropped."""


class CancelledError(Exception):
    """The training was cancelled within a step."""


class StoppedError(Exception):
    """The training was stopped within a step or a look, which is dropped."""


class Listener:
    """Hears Stop and Cancel within a step, a look or a part of the end.

    A step of a large network takes seconds on a CPU, and on busy cores ten times as long. So
    every convolution asks, forward and backward.

    Attributes
    ----------
    stoppable
        Whether a stop ends what is going on. True while there are iterations: the end of a
        training must come to its end.
    """

    def __init__(self, control: TrainingControl) -> None:
        self._control = control
        self.stoppable = False
        self._begun, self._limit = time.monotonic(), math.inf

    def attach(self, network: Network) -> None:
        """Listen in this network, and in copies of it."""

        def after(_: nn.Module, __: object, output: Tensor) -> None:
            self._check()
            if output.requires_grad:
                output.register_hook(self._check)

        for module in network.modules():
            if isinstance(module, nn.Conv3d):
                # A function, no method: copies of the network then ask the same listener.
                module.register_forward_hook(after)

    def allow(self, seconds: float) -> None:
        """A part of the end begins, which may take so long; less once the user said Stop."""
        self._begun, self._limit = time.monotonic(), seconds

    @property
    def limit(self) -> float:
        """Seconds that the part may take."""
        return min(self._limit, _STOPPED_SECONDS) if self._control.stopped else self._limit

    def interrupted(self) -> bool:
        """Whether no further tile, slice or part is to be begun."""
        if self.stoppable:
            return self._control.stopped
        return self._control.cancelled or time.monotonic() - self._begun > self.limit

    def _check(self, *_: object) -> None:
        if self._control.cancelled:
            raise CancelledError
        if self.stoppable and self._control.stopped_for > _STOP_PATIENCE:
            raise StoppedError
