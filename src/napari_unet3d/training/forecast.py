"""How long the parts of a training will take, from a measurement of half a second."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from napari_unet3d.config import Triple
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import Forecast
from napari_unet3d.networks import device as devices
from napari_unet3d.pixels.features import filter_bank
from napari_unet3d.training.looks import Evaluator

_TILE = 150_000
"""Voxels of the tile that is timed: a third of a second on one core, and hardly slower a voxel
than the tiles of a prediction."""
_BOX = (24, 64, 64)
"""Voxels of the box whose features are timed: a sixth of a second on one core."""
_STEP_COST = 3.0
"""A training step takes about three times as long as a prediction of as many voxels."""
_FITTING_SECONDS = 1.0
"""Seconds that fitting the calibration takes, about."""


class Speed:
    """Seconds a voxel of this computer, measured once.

    Parameters
    ----------
    evaluator
        Whose network is timed.
    device
        Where.
    volume
        The stack: its voxel size decides how far the filters of the pixel classifier reach.
    pixels
        Whether there is a pixel classifier.
    """

    def __init__(
        self, evaluator: Evaluator, device: torch.device, volume: Volume, pixels: bool
    ) -> None:
        self._evaluator = evaluator
        self._network, self._pixels = None, 0.0
        try:
            self._network = evaluator.time_voxel(_TILE)
            if pixels and self._network is not None:
                self._pixels = _time_features(device, volume)
        except Exception as error:
            if not devices.is_out_of_memory(error):
                raise

    def training(self, iterations: int, batch_size: int, patch: Triple) -> float | None:
        """Expected seconds of so many iterations, without the pixel classifier."""
        if self._network is None:
            return None
        return _STEP_COST * self._network * iterations * batch_size * math.prod(patch)

    def finishing(self, limit: float) -> float | None:
        """Expected seconds of what follows the training; in two parts of at most `limit`."""
        if self._network is None:
            return None
        each = (n * self._network for n in self._evaluator.finishing_voxels())
        tile, statistics, calibration, scores = each
        if not self._pixels:
            calibration = 0.0
        # Each part takes one tile at least, however short the time is.
        least = tile * (1 + (calibration > 0))
        seconds = max(least, min(limit, statistics + calibration))
        if calibration:
            seconds += _FITTING_SECONDS
        if scores:
            seconds += max(tile, min(limit, self._evaluator.scoring_seconds, scores))
        return seconds

    def forecast(self, training: float | None, limit: float) -> Forecast | None:
        """Expected seconds of all parts; None where they are not known."""
        finishing = self.finishing(limit)
        if training is None or finishing is None or self._network is None:
            return None
        network, stack = self._evaluator.stack_voxels()
        return Forecast(training, finishing, self._network * network + self._pixels * stack)


def _time_features(device: torch.device, volume: Volume) -> float:
    """Seconds that the features of a voxel take."""
    z, y, x = (min(n, most) for n, most in zip(volume.shape, _BOX, strict=True))

    def read(start: tuple[int, ...], stop: tuple[int, ...]) -> Tensor:
        shape = (b - a for a, b in zip(start, stop, strict=True))
        return torch.zeros((volume.n_channels, *shape), device=device)

    begin = time.monotonic()
    with torch.no_grad():
        filter_bank(read, (0, 0, 0), (z, y, x), volume.voxel_size).sum().item()
    return (time.monotonic() - begin) / (z * y * x)
