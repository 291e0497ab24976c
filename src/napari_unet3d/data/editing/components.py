"""Connected parts of a labelled slice."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet3d.data.editing.region import Region

_EIGHT = np.ones((3, 3), bool)
"""Voxels that share a corner hang together."""
_WINDOW = 128
"""Voxels from the click to the border of the first window, which most objects fit into."""


def component_at(plane: NDArray[np.integer], point: tuple[int, int]) -> tuple[int, Region]:
    """Find the voxels that hang together with a point and have its label.

    Parameters
    ----------
    plane
        Labels, (h, w).
    point
        Row and column.

    Returns
    -------
    label : int
        The label at the point.
    region : Region
        The voxels.
    """
    label, half = int(plane[point]), _WINDOW
    while True:
        window = tuple(
            slice(max(0, i - half), min(n, i + half + 1))
            for i, n in zip(point, plane.shape, strict=True)
        )
        parts, _ = ndimage.label(plane[window] == label, _EIGHT)
        start = window[0].start, window[1].start
        region = Region.of(parts == parts[point[0] - start[0], point[1] - start[1]], start)
        assert region is not None
        cut = any(
            (box.start == part.start > 0) or (box.stop == part.stop < n)
            for box, part, n in zip(region.box, window, plane.shape, strict=True)
        )
        if not cut:
            return label, region
        half *= 2


def count_components(plane: NDArray[np.integer], label: int) -> int:
    """Count the connected parts of a label."""
    return int(ndimage.label(plane == label, _EIGHT)[1])
