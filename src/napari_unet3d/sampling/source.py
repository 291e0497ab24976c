"""Normalized gray values of a stack, as tensors on the device that computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.config import Triple
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume

Beyond = Literal["mirror", "nearest"]


class Source:
    """Reads boxes of a stack; each box is read, normalized and moved to the device.

    Parameters
    ----------
    volume
        The stack, in memory or not.
    intensity
        Normalization of its gray values.
    device
        Where the tensors are wanted.
    """

    def __init__(
        self, volume: Volume, intensity: IntensityNormalization, device: torch.device
    ) -> None:
        self.volume, self.intensity, self.device = volume, intensity, device

    def crop(self, time: int, start: Triple, stop: Triple) -> Tensor:
        """Gray values (C, z, y, x) of a box that lies inside the volume."""
        return torch.from_numpy(self.intensity.apply(self.volume.crop(time, start, stop))).to(
            self.device
        )

    def read(
        self, time: int, start: Sequence[int], stop: Sequence[int], beyond: Beyond = "mirror"
    ) -> Tensor:
        """Gray values (C, z, y, x) of a box that may reach out of the volume.

        Parameters
        ----------
        time
            Time point.
        start, stop
            The box, voxels along z, y and x.
        beyond
            What stands outside the volume: 'mirror' reflects the image at its edge voxels, as
            the network expects; 'nearest' repeats the edge voxels, as the features of the pixel
            classifier need them (a reflection hides the edge, which those features show).
        """
        outside = {"mirror": mirror_index, "nearest": nearest_index}[beyond]
        z, y, x = (outside(a, b, n) for a, b, n in zip(start, stop, self.volume.shape, strict=True))
        low = int(z.min()), int(y.min()), int(x.min())
        high = int(z.max()) + 1, int(y.max()) + 1, int(x.max()) + 1
        inside = self.volume.crop(time, low, high)
        crop = self.intensity.apply(inside)
        if crop.shape[1:] != (len(z), len(y), len(x)):
            crop = crop[:, (z - low[0])[:, None, None], (y - low[1])[:, None], x - low[2]]
        return torch.from_numpy(crop).to(self.device)


def mirror_index(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Voxel indices start…stop, with those outside 0…size-1 reflected at the edge voxels."""
    index = np.arange(start, stop)
    if size == 1:
        return np.zeros(len(index), np.intp)
    period = 2 * (size - 1)
    index = np.abs(index) % period
    return np.where(index >= size, period - index, index).astype(np.intp)


def nearest_index(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Voxel indices start…stop, with the nearest edge voxel in place of those outside."""
    return np.clip(np.arange(start, stop), 0, size - 1).astype(np.intp)
