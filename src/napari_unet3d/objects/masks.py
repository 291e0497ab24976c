"""The mask of one class in any box of a stack: smoothed, its holes filled."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_unet3d.config import Triple
from napari_unet3d.data.boxes import Box
from napari_unet3d.data.slices import at_time, space

_TRUNCATE = 3.0
"""Standard deviations at which Gaussian filters are cut off: the weights beyond sum up to 0.3 %."""


def grow(box: Box, by: Triple, shape: Triple) -> Box:
    """Enlarge a box by some voxels (z, y, x) on each side, within a stack of this shape."""
    z, y, x = (max(0, a - n) for a, n in zip(box.start, by, strict=True))
    stop = tuple(min(s, b + n) for b, n, s in zip(box.stop, by, shape, strict=True))
    return Box((z, y, x), (stop[0], stop[1], stop[2]))


def inside(inner: Box, outer: Box) -> tuple[slice, slice, slice]:
    """Index of a box in an array that holds a larger box."""
    a, b, c = outer.start
    return inner.moved((-a, -b, -c)).slices


def gaussian_radius(sigma: float, edges: Sequence[float]) -> Triple:
    """Voxels (z, y, x) that `gaussian` reads on each side.

    Parameters
    ----------
    sigma
        Standard deviation, in units of the shortest voxel edge.
    edges
        Edges of a voxel (z, y, x), in the same unit.
    """
    z, y, x = (int(_TRUNCATE * sigma / e + 0.5) for e in edges)
    return z, y, x


def gaussian(values: NDArray[Any], sigma: float, edges: Sequence[float]) -> NDArray[np.float32]:
    """Smooth values by the same length in space along all axes; parameters as `gaussian_radius`."""
    smooth = gaussian_filter(
        values,
        [sigma / e for e in edges],
        output=np.float32,
        mode="nearest",
        radius=gaussian_radius(sigma, edges),
    )
    return np.asarray(smooth, np.float32)


@dataclass(frozen=True)
class Holes:
    """Which voxels lie in a cavity of a class.

    Parameters
    ----------
    pieces
        Number of the connected piece outside the class that each voxel belongs to (z, y, x).
    closed
        Whether a piece, by its number, does not reach the border of the stack.
    """

    pieces: Any
    closed: NDArray[np.bool_]

    def read(self, box: Box) -> NDArray[np.bool_]:
        """Mask of the voxels of a box that lie in a cavity."""
        return np.asarray(self.closed[np.asarray(self.pieces[box.slices])])


@dataclass(frozen=True)
class ClassMask:
    """The voxels of one class at one time point, read box by box.

    Parameters
    ----------
    labels
        Integers, ZYX or TZYX; any array that can be sliced.
    time
        Time point; 0 without a time axis.
    value
        The class.
    edges
        Edges of a voxel (z, y, x), in units of the shortest one.
    smoothing
        Standard deviation of the smoothing, in the same unit; 0 for none.
    background
        Values of voxels that smoothing and the filling of holes may take.
    holes
        The cavities that are filled; None for none.
    """

    labels: Any
    time: int
    value: int
    edges: tuple[float, float, float]
    smoothing: float = 0.0
    background: Collection[int] = (0,)
    holes: Holes | None = None

    @property
    def shape(self) -> Triple:
        """Shape (z, y, x) of the stack, voxels."""
        return space(self.labels)

    def raw(self, box: Box) -> NDArray[np.integer]:
        """The labels of a box."""
        return np.asarray(self.labels[at_time(self.labels, self.time, box.slices)])

    def read(self, box: Box) -> NDArray[np.bool_]:
        """Mask of the class in a box; the same for a voxel, whichever box it is read with."""
        if not self.smoothing and self.holes is None:
            return np.asarray(self.raw(box) == self.value)
        radius = (0, 0, 0)
        if self.smoothing:
            radius = gaussian_radius(self.smoothing, self.edges)
        outer = grow(box, radius, self.shape)
        raw = self.raw(outer)
        mask = raw == self.value
        core = inside(box, outer)
        free = np.isin(raw[core], [*self.background])
        if self.smoothing and mask.any():
            smooth = gaussian(mask.astype(np.float32), self.smoothing, self.edges)[core] > 0.5
            mask = smooth & (mask[core] | free)
        else:
            mask = mask[core]
        if self.holes is not None:
            mask |= self.holes.read(box) & free
        return np.asarray(mask)


def voxel_edges(voxel_size: Sequence[float]) -> tuple[float, float, float]:
    """Edges of a voxel (z, y, x) in units of the shortest one."""
    z, y, x = (float(s) for s in voxel_size)
    least = min(z, y, x)
    return z / least, y / least, x / least


def voxels_of(length: float, edges: Sequence[float]) -> Triple:
    """Voxels (z, y, x) that cover a length, in units of the shortest voxel edge."""
    z, y, x = (math.ceil(length / e) for e in edges)
    return z, y, x
