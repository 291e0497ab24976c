"""Gray values of a part of a stack and of its surroundings, read once for the pixel classifier."""

from __future__ import annotations

from torch import Tensor

from napari_unet3d.data.boxes import Box
from napari_unet3d.pixels.features import SCALES, Read, Scales, halo
from napari_unet3d.sampling.source import Source


def read_around(source: Source, time: int, box: Box, scales: Scales = SCALES) -> Read:
    """Read a box and the halo that its features need; edge voxels are repeated outside the volume.

    Parameters
    ----------
    source
        The stack.
    time
        Time point.
    box
        Features of these voxels are wanted.
    scales
        Scales of the features.

    Returns
    -------
    Read
        Gives views of what was read: they must not be changed. What lies beyond is read anew.
    """
    around = halo(source.volume.voxel_size, scales)
    low = tuple(a - n for a, n in zip(box.start, around, strict=True))
    high = tuple(b + n for b, n in zip(box.stop, around, strict=True))
    image = source.read(time, low, high, beyond="nearest")

    def read(start: tuple[int, ...], stop: tuple[int, ...]) -> Tensor:
        inside = all(a >= n for a, n in zip(start, low, strict=True)) and all(
            b <= n for b, n in zip(stop, high, strict=True)
        )
        if not inside:
            return source.read(time, start, stop, beyond="nearest")
        where = (slice(a - n, b - n) for a, b, n in zip(start, stop, low, strict=True))
        return image[(slice(None), *where)]

    return read
