"""How much there is to see on each slice of an image, from a sample of its gray values."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.data.volume import Volume

_PLANES = 96
"""xy planes that are read at most: a large file needs a few seconds for them."""
_SIDE = 256
"""Voxels along y and x that are kept of a plane at most; the sample then takes 25 MB."""
_FLOOR = 0.9
"""Share of the smallest variation that counts as noise, which empty slices show too."""

Floats = NDArray[np.float64]


def gray_content(volume: Volume, time: int = 0) -> tuple[Floats, Floats, Floats]:
    """How much the gray values vary on each slice of a time point, beyond the noise.

    Parameters
    ----------
    volume
        The image, in memory or not.
    time
        The time point.

    Returns
    -------
    tuple of ndarray
        For the slices perpendicular to z, y and x: (n,) standard deviations of the gray values,
        less those of an empty slice; 1 everywhere where the slices do not differ.

    Raises
    ------
    RunFailedError
        The voxels cannot be read.
    """
    depth, height, width = volume.shape
    planes = np.unique(np.linspace(0, depth - 1, min(depth, _PLANES)).round().astype(int))
    down, right = (max(1, math.ceil(n / _SIDE)) for n in (height, width))
    sample = np.stack(
        [
            volume.crop(time, (z, 0, 0), (z + 1, height, width))[:, 0, ::down, ::right]
            for z in planes.tolist()
        ],
        axis=1,
    ).astype(np.float64)
    sample = np.nan_to_num(sample, nan=0.0, posinf=0.0, neginf=0.0)
    spread = sample.std((1, 2, 3), keepdims=True)
    sample /= np.where(spread > 0, spread, 1)  # all channels count alike
    places = planes, np.arange(height)[::down], np.arange(width)[::right]
    z, y, x = (
        np.interp(np.arange(n), where, _content(sample, axis))
        for axis, (n, where) in enumerate(zip(volume.shape, places, strict=True))
    )
    return z, y, x


def _content(sample: Floats, axis: int) -> Floats:
    """Content of the slices perpendicular to an axis of (C, z, y, x) values."""
    others = tuple(a + 1 for a in range(3) if a != axis)
    variation = sample.std(others).max(0)
    content: Floats = variation - _FLOOR * variation.min()
    return content if content.max() > 0 else np.ones_like(content)
