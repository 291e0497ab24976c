"""Slices of images, of which only the boxes that are needed are read."""

from __future__ import annotations

import numpy as np

from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume


class VolumePlane:
    """One slice of a volume; indexing it with a box reads (C, h, w) gray values.

    Parameters
    ----------
    volume
        In memory or not.
    ref
        The slice.
    """

    def __init__(self, volume: Volume, ref: SliceRef) -> None:
        self._volume, self._ref = volume, ref
        shape = list(volume.shape)
        del shape[ref.axis]
        self.shape: tuple[int, int] = (shape[0], shape[1])

    def __getitem__(self, box: tuple[slice, slice]) -> np.ndarray:
        start = [part.indices(n)[0] for part, n in zip(box, self.shape, strict=True)]
        stop = [part.indices(n)[1] for part, n in zip(box, self.shape, strict=True)]
        start.insert(self._ref.axis, self._ref.index)
        stop.insert(self._ref.axis, self._ref.index + 1)
        z, y, x = start
        z_stop, y_stop, x_stop = stop
        crop = self._volume.crop(self._ref.time, (z, y, x), (z_stop, y_stop, x_stop))
        return np.squeeze(crop, 1 + self._ref.axis)


def spacing_in_slice(sizes: tuple[float, ...], ref: SliceRef) -> tuple[float, float]:
    """Size of the voxels along rows and columns of a slice; `sizes` has those along z, y, x last.

    Only their proportion matters, so they are relative to the smaller one.
    """
    rows, columns = (abs(float(s)) for axis, s in enumerate(sizes[-3:]) if axis != ref.axis)
    return rows / min(rows, columns), columns / min(rows, columns)
