"""Interpolates the labels between two slices, by the shapes of the classes.

Each class is described by its signed distance to the border, which is interpolated linearly
(Raya and Udupa 1990, IEEE Trans. Med. Imaging 9:32); the class with the largest value wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet3d.data.editing.region import Region
from napari_unet3d.data.slices import SliceRef

_MARGIN = 16
"""Voxels around the voxels that differ, whose borders count too."""
_MOST_VOXELS = 2**18
"""Voxels of a distance map. Larger ones are computed on every second, third … voxel, which keeps
both slices of 2048² below 0.2 s; the border is then right to a fraction of that step."""

_NO_BORDER = 1e6
"""Voxels, more than any slice has."""


class Interpolation:
    """Labels between two slices.

    Parameters
    ----------
    first, last
        Labels of both slices, (h, w) each.
    spacing
        Size of the voxels along the rows and columns, in any unit.
    """

    def __init__(
        self,
        first: NDArray[np.integer],
        last: NDArray[np.integer],
        spacing: tuple[float, float],
    ) -> None:
        self._first = first
        region = Region.of(first != last)
        self._labels = np.zeros(0, first.dtype)
        if region is None:
            return
        box = tuple(slice(max(0, part.start - _MARGIN), part.stop + _MARGIN) for part in region.box)
        one, other = first[box], last[box]
        step = ceil(sqrt(one.size / _MOST_VOXELS))
        coarse = one[::step, ::step], other[::step, ::step]
        labels = np.flatnonzero(np.bincount(one.ravel()) if one.size else [])
        labels = np.union1d(labels, np.flatnonzero(np.bincount(other.ravel())))
        self._labels = labels.astype(first.dtype)
        differ = np.nonzero(one != other)
        self._where = differ[0] + box[0].start, differ[1] + box[1].start
        points = np.stack(differ).astype(np.float32) / step
        distances = np.empty((2, len(labels), points.shape[1]), np.float32)
        depths = np.zeros(len(labels))
        for i, label in enumerate(labels):
            for side, plane in enumerate(coarse):
                distance = _signed_distance(plane == label, spacing)
                depths[i] = max(depths[i], float(distance.max()))
                if i == 1 and len(labels) == 2:
                    distances[side, 1] = -distances[side, 0]
                else:
                    distances[side, i] = ndimage.map_coordinates(
                        distance, points, order=1, mode="nearest"
                    )
        # Without a bound, what ends between the slices would vanish at once where its class is far
        # away in the other slice. The deepest label is the background, or what is like it.
        bound = float(np.sort(depths)[-2])
        self._distances = distances.clip(-bound, bound)

    @classmethod
    def planes(
        cls,
        first: NDArray[np.integer],
        last: NDArray[np.integer],
        spacing: tuple[float, float],
        ends: tuple[int, int],
        refs: Iterable[SliceRef],
    ) -> Iterator[tuple[SliceRef, NDArray[np.integer]]]:
        """Interpolate slices, one at a time; nothing is computed before the first is asked for.

        Parameters
        ----------
        first, last, spacing
            See the class.
        ends
            Positions of both slices.
        refs
            The slices between them.

        Yields
        ------
        ref : SliceRef
        labels : np.ndarray
            (h, w).
        """
        interpolation = cls(first, last, spacing)
        for ref in refs:
            yield ref, interpolation.at((ref.index - ends[0]) / (ends[1] - ends[0]))

    def at(self, share: float) -> NDArray[np.integer]:
        """Labels (h, w) of a slice; `share` is 0 at the first slice and 1 at the last one."""
        labels = self._first.copy()
        if len(self._labels):
            first, last = self._distances
            winner = np.argmax((1 - share) * first + share * last, axis=0)
            labels[self._where] = self._labels[winner]
        return labels


def _signed_distance(mask: NDArray[np.bool_], spacing: tuple[float, float]) -> NDArray[np.float32]:
    """Distance to the border, above zero inside; very large where there is none."""
    if mask.all() or not mask.any():
        return np.full(mask.shape, _NO_BORDER if mask.all() else -_NO_BORDER, np.float32)
    inside = ndimage.distance_transform_edt(mask, sampling=spacing)
    outside = ndimage.distance_transform_edt(~mask, sampling=spacing)
    return np.asarray(inside - outside, np.float32)
