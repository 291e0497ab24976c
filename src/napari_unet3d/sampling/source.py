"""Normalized gray values of a stack, as tensors on the device that computes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.config import Triple
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.shapes import check_box
from napari_unet3d.data.volume import Volume
from napari_unet3d.networks import device as devices
from napari_unet3d.networks.resampling import to_device
from napari_unet3d.sampling.normalizing import normalize_there, normalizes_there

Beyond = Literal["mirror", "nearest"]

_RESIDENT_SHARE = 0.25
"""Share of the free memory of a device that a resident stack may take. Patches and tiles are
planned for half of the free memory, and the sum of the tiles for the last quarter."""
_SLAB = 16
"""Planes that become resident at once. A training patch on a GPU is up to 32 planes deep, so a
patch needs two or three slabs, and a training on a few slices does not read the whole stack."""

GIVEN_UP = "Out of memory on the GPU: the image is not kept there any more, which is slower."
"""What the user reads after `Source.give_up` has freed memory."""


def open_source(
    volume: Volume,
    intensity: IntensityNormalization,
    device: torch.device,
    memory: int | None = None,
) -> Source:
    """The source that suits a volume and a device.

    On a GPU, a stack in the main memory stays resident where it fits into a quarter of the free
    memory. On a CPU it would only be held twice.

    Parameters
    ----------
    volume, intensity, device
        As for `Source`.
    memory
        Bytes that may be used on the device; all that are free when None.
    """
    if device.type != "cpu" and isinstance(volume.data, np.ndarray):
        memory = devices.free_memory(device) if memory is None else memory
        room = int(_RESIDENT_SHARE * memory)
        if resident_bytes(volume) <= room:
            return ResidentSource(volume, intensity, device, room)
    return Source(volume, intensity, device)


def resident_bytes(volume: Volume) -> int:
    """Bytes of the normalized gray values of one time point."""
    return 4 * volume.n_channels * math.prod(volume.shape)


class Source:
    """Reads boxes of a stack; each box is read, normalized and moved to the device.

    Parameters
    ----------
    volume
        The stack, in memory or not.
    intensity
        Normalization of its gray values.
    device
        Device of the tensors.
    """

    def __init__(
        self, volume: Volume, intensity: IntensityNormalization, device: torch.device
    ) -> None:
        self.volume, self.intensity, self.device = volume, intensity, device

    def crop(self, time: int, start: Triple, stop: Triple) -> Tensor:
        """Gray values (C, z, y, x) float32 of a box that lies inside the volume.

        Raises
        ------
        IndexError
            The box or the time point lies outside the volume.
        RunFailedError
            The voxels cannot be read.
        """
        return self._normalized(self.volume.crop(time, start, stop))

    def read(
        self, time: int, start: Sequence[int], stop: Sequence[int], beyond: Beyond = "mirror"
    ) -> Tensor:
        """Gray values (C, z, y, x) float32 of a box that may reach beyond the volume.

        Parameters
        ----------
        time
            Time point.
        start, stop
            First voxel of the box (z, y, x), and one past the last.
        beyond
            Values outside the volume: 'mirror' reflects the image at its edge voxels, as the
            network expects; 'nearest' repeats the edge voxels, as the features of the pixel
            classifier need (a reflection hides the edge, which those features show).

        Raises
        ------
        IndexError
            The time point is not one of the volume.
        RunFailedError
            The voxels cannot be read.
        """
        voxels = _voxels(start, stop, self.volume.shape, beyond)
        low, high = _bounds(voxels)
        inside = self.volume.crop(time, low, high)
        if any(map(_is_rearranged, voxels)):
            z, y, x = (index - first for index, first in zip(voxels, low, strict=True))
            inside = inside[:, z[:, None, None], y[:, None], x]
        return self._normalized(inside)

    def give_up(self) -> bool:
        """Free the memory of the device that the source can do without, for good.

        Returns
        -------
        bool
            Whether it held any.
        """
        return False

    def _normalized(self, crop: np.ndarray) -> Tensor:
        """Gray values (C, z, y, x), as they were read, for the network."""
        if normalizes_there(self.intensity, crop.dtype, self.device):
            return normalize_there(self.intensity, crop, self.device)
        return to_device(self.intensity.apply(crop), self.device)


@dataclass(frozen=True)
class _TimePoint:
    """The gray values of one time point on the device.

    Attributes
    ----------
    values
        (C, Z, Y, X) float32.
    filled
        (slabs,) whether the planes of each slab have been read.
    """

    values: Tensor
    filled: NDArray[np.bool_]


class ResidentSource(Source):
    """Keeps the normalized gray values on the device: each voxel is read and moved once.

    Slabs of planes are read when a box first needs them, so that a training on a few slices does
    not wait for the whole stack. Where the memory does not suffice after all, boxes are read as
    `Source` does it.

    Parameters
    ----------
    volume, intensity, device
        As for `Source`.
    room
        Bytes on the device for all time points together. The oldest one makes way.
    """

    def __init__(
        self, volume: Volume, intensity: IntensityNormalization, device: torch.device, room: int
    ) -> None:
        super().__init__(volume, intensity, device)
        self._most_times = room // resident_bytes(volume)
        self._times: dict[int, _TimePoint] = {}

    def crop(self, time: int, start: Triple, stop: Triple) -> Tensor:
        """Gray values (C, z, y, x) float32 of a box that lies inside the volume."""
        check_box(start, stop, self.volume.shape)
        values = self._resident(time, start[0], stop[0])
        if values is None:
            return super().crop(time, start, stop)
        (a, b, c), (d, e, f) = start, stop
        # A copy, since the caller may change the box in place.
        return values[:, a:d, b:e, c:f].clone(memory_format=torch.contiguous_format)

    def read(
        self, time: int, start: Sequence[int], stop: Sequence[int], beyond: Beyond = "mirror"
    ) -> Tensor:
        """Gray values (C, z, y, x) float32 of a box that may reach beyond the volume."""
        voxels = _voxels(start, stop, self.volume.shape, beyond)
        low, high = _bounds(voxels)
        if self._resident(time, low[0], high[0]) is None:
            return super().read(time, start, stop, beyond)
        box = self.crop(time, low, high)
        for axis, (index, first) in enumerate(zip(voxels, low, strict=True), 1):
            if _is_rearranged(index):
                box = box.index_select(axis, to_device(index - first, self.device))
        return box

    def give_up(self) -> bool:
        """Free the gray values on the device; from now on, boxes are read as `Source` does it."""
        held = bool(self._times)
        self._times.clear()
        self._most_times = 0
        return held

    def _resident(self, time: int, first: int, stop: int) -> Tensor | None:
        """The time point, with the planes first…stop-1 filled; None where it does not fit."""
        if not 0 <= time < self.volume.n_times:
            return None  # `Source` then raises the error
        if time not in self._times:
            while len(self._times) >= self._most_times:
                if not self._times:
                    return None
                del self._times[next(iter(self._times))]
            try:
                values = torch.empty(
                    (self.volume.n_channels, *self.volume.shape), device=self.device
                )
            except Exception as error:
                if not devices.is_out_of_memory(error):
                    raise
                self._most_times = len(self._times)
                return None
            filled = np.zeros(-(-self.volume.shape[0] // _SLAB), bool)
            self._times[time] = _TimePoint(values, filled)
        point = self._times[time]
        slabs = range(first // _SLAB, -(-stop // _SLAB))
        for slab in slabs:
            if not point.filled[slab]:
                self._fill(time, point.values, slab)
                point.filled[slab] = True
        return point.values

    def _fill(self, time: int, values: Tensor, slab: int) -> None:
        _, y, x = self.volume.shape
        low, high = slab * _SLAB, min((slab + 1) * _SLAB, self.volume.shape[0])
        values[:, low:high] = super().crop(time, (low, 0, 0), (high, y, x))


_Indices = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]


def _voxels(start: Sequence[int], stop: Sequence[int], shape: Triple, beyond: Beyond) -> _Indices:
    """Voxel indices along z, y and x that fill a box."""
    outside = {"mirror": mirror_index, "nearest": nearest_index}[beyond]
    z, y, x = (outside(a, b, n) for a, b, n in zip(start, stop, shape, strict=True))
    return z, y, x


def _is_rearranged(index: NDArray[np.intp]) -> bool:
    """Whether voxels are repeated or reversed, instead of following one another."""
    return bool((np.diff(index) != 1).any())


def _bounds(voxels: _Indices) -> tuple[Triple, Triple]:
    """Start and stop of the smallest box that holds the indices."""
    z, y, x = voxels
    low = int(z.min()), int(y.min()), int(x.min())
    return low, (int(z.max()) + 1, int(y.max()) + 1, int(x.max()) + 1)


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
