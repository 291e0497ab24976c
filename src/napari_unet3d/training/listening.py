"""Hears the orders of a `TrainingControl` while the network computes."""

from __future__ import annotations

import math
import time

from torch import Tensor, nn

from napari_unet3d.training.control import TrainingControl

_STOPPED_SECONDS = 1.2
"""Seconds for each of the two parts of the end after Stop, for which the user waits."""
_STOP_PATIENCE = 0.5
"""Seconds after Stop in which a step may end; a longer one is dropped."""


class CancelledError(Exception):
    """The training was cancelled within a step or a look."""


class StoppedError(Exception):
    """The training was stopped within a step or a look, which is dropped."""


class Listener:
    """Hears Stop and Cancel within a step, a look or a part of the end.

    A step of a large network takes seconds on a CPU, and on busy cores ten times as long. So
    every convolution asks, forward and backward.

    Parameters
    ----------
    control
        The orders.
    """

    def __init__(self, control: TrainingControl) -> None:
        self._control = control
        self._is_stoppable = False
        self._part_began, self._part_seconds = time.monotonic(), math.inf

    def attach(self, network: nn.Module) -> None:
        """Listen in the convolutions of a network, and of its copies."""

        def after(_: nn.Module, __: object, output: Tensor) -> None:
            self._check()
            if output.requires_grad:
                output.register_hook(self._check)

        for module in network.modules():
            if isinstance(module, nn.Conv3d):
                # A function, not a method: copies of the network then ask the same listener.
                module.register_forward_hook(after)

    def begin_iterations(self) -> None:
        """From now on, Stop ends the step or look that runs."""
        self._is_stoppable = True

    def begin_part(self, seconds: float) -> None:
        """From now on, a part of the end runs, which Stop shortens but does not break off.

        Parameters
        ----------
        seconds
            How long the part may take; less once the user said Stop.
        """
        self._is_stoppable = False
        self._part_began, self._part_seconds = time.monotonic(), seconds

    @property
    def limit(self) -> float:
        """Seconds that the part may take."""
        stopped = self._control.stopped
        return min(self._part_seconds, _STOPPED_SECONDS) if stopped else self._part_seconds

    def interrupted(self) -> bool:
        """Whether no further tile, slice or part is to be begun."""
        if self._is_stoppable:
            return self._control.stopped
        return self._control.cancelled or time.monotonic() - self._part_began > self.limit

    def _check(self, *_: object) -> None:
        if self._control.cancelled:
            raise CancelledError
        if self._is_stoppable and self._control.stopped_for > _STOP_PATIENCE:
            raise StoppedError
