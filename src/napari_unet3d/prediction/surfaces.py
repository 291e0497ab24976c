"""Distances between the borders of a segmented and a true object, on one slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

_PERCENTILE = 95
"""Percent. The largest distance depends on single voxels; this one is what challenges report."""


@dataclass(frozen=True)
class SurfaceDistance:
    """Distances between two borders, in the unit of the voxel size.

    Attributes
    ----------
    mean
        Mean symmetric surface distance: the mean of the distances from each border voxel of
        either object to the nearest one of the other (Heimann et al. 2009, IEEE Trans. Med.
        Imaging 28:1251, "average symmetric surface distance").
    hausdorff95
        95 % Hausdorff distance: the larger one of the two 95th percentiles of these distances
        (Maier-Hein et al. 2024, Nat. Methods 21:195).
    """

    mean: float
    hausdorff95: float


def border(region: NDArray[np.bool_], counted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find the border of a region: its voxels with a neighbor outside it.

    Parameters
    ----------
    region
        2D; True inside.
    counted
        Voxels that are known. What lies beyond them, or beyond the edge of the slice, is unknown
        and makes no border.

    Returns
    -------
    np.ndarray
        2D; counted voxels of the region that have one of 4 neighbors which is counted and is not
        in the region.
    """
    outside = counted & ~region
    beside = np.zeros_like(outside)
    beside[1:] |= outside[:-1]
    beside[:-1] |= outside[1:]
    beside[:, 1:] |= outside[:, :-1]
    beside[:, :-1] |= outside[:, 1:]
    found: NDArray[np.bool_] = region & counted & beside
    return found


def surface_distance(
    predicted: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    spacing: tuple[float, float],
) -> SurfaceDistance | None:
    """Measure how far the border of a segmented region is from the true one.

    Parameters
    ----------
    predicted, truth
        2D; True inside.
    counted
        Voxels that are labelled and were measured. Borders are looked for there only, so where
        little is labelled, the true border may have no counterpart: it is then farther than it
        should be, never nearer.
    spacing
        Distance of neighboring voxels along the two axes.

    Returns
    -------
    SurfaceDistance or None
        None where one of the two regions has no border.
    """
    ours, theirs = border(predicted, counted), border(truth, counted)
    if not ours.any() or not theirs.any():
        return None
    # Trees of the border voxels: a distance transform of a whole slice takes ten times as long.
    here, there = (np.argwhere(mask) * spacing for mask in (ours, theirs))
    to_truth, to_prediction = (
        KDTree(other).query(points)[0] for points, other in ((here, there), (there, here))
    )
    return SurfaceDistance(
        mean=float(np.concatenate([to_truth, to_prediction]).mean()),
        hausdorff95=max(float(np.percentile(d, _PERCENTILE)) for d in (to_truth, to_prediction)),
    )
