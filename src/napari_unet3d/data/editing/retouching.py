"""Fills holes of painted classes, and smooths their borders."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet3d.config import BACKGROUND, UNLABELLED
from napari_unet3d.data.editing.region import Region

_SMOOTHING = 1.5
"""Voxels (of the finer axis): removes steps and single voxels, keeps what is 4 voxels wide."""
_TRUNCATE = 2.0
"""Standard deviations. What lies further off changes the winner nowhere on the tested slices."""
_MARGIN = 4
"""Voxels around a class that its smoothed border may reach."""


def fill_holes(plane: NDArray[np.integer], values: Collection[int]) -> NDArray[np.integer]:
    """Give the holes of some classes their label.

    A hole is enclosed by one class, and is unlabelled or background. Paint of other classes stays.

    Parameters
    ----------
    plane
        Labels, (h, w).
    values
        Label values of the classes.

    Returns
    -------
    np.ndarray
        The new labels, (h, w).
    """
    filled = plane.copy()
    for value in values:
        region = Region.of(plane == value)
        if region is None:
            continue
        parts, n_parts = ndimage.label(~region.mask)
        enclosed = np.ones(n_parts + 1, bool)
        enclosed[0] = False
        for border in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
            enclosed[border] = False
        inside = filled[region.box]
        inside[enclosed[parts] & ((inside == UNLABELLED) | (inside == BACKGROUND))] = value
    return filled


def smooth(
    plane: NDArray[np.integer], values: Collection[int], spacing: tuple[float, float]
) -> NDArray[np.integer]:
    """Smooth the borders of some classes.

    Each voxel gets the label that weighs most around it, where that adds to one of the classes or
    takes from it. Unlabelled voxels count as a label.

    Parameters
    ----------
    plane
        Labels, (h, w).
    values
        Label values of the classes.
    spacing
        Size of the voxels along the rows and columns, in any unit.

    Returns
    -------
    np.ndarray
        The new labels, (h, w).
    """
    chosen = np.isin(plane, list(values))
    region = Region.of(chosen)
    if region is None:
        return plane.copy()
    box = tuple(slice(max(0, part.start - _MARGIN), part.stop + _MARGIN) for part in region.box)
    crop = plane[box]
    sigma = [_SMOOTHING * min(spacing) / size for size in spacing]
    labels = np.flatnonzero(np.bincount(crop.ravel()))
    # The last label weighs what the others leave.
    rest = np.ones(crop.shape, np.float32)
    best, winner = np.full(crop.shape, -1, np.float32), np.zeros_like(crop)
    for i, label in enumerate(labels):
        if i + 1 == len(labels):
            weight = rest
        else:
            weight = ndimage.gaussian_filter(
                (crop == label).astype(np.float32), sigma, truncate=_TRUNCATE, mode="nearest"
            )
            rest -= weight
        better = weight > best
        best[better], winner[better] = weight[better], label
    result = plane.copy()
    touched = chosen[box] | np.isin(winner, list(values))
    result[box] = np.where(touched, winner, crop)
    return result
