"""Boxes of voxels, and how a volume is cut into them: pure arithmetic, no torch."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod
from typing import overload

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import Triple
from napari_unet3d.data.slices import SliceRef


@dataclass(frozen=True)
class Box:
    """A part of a volume: the voxels from `start` up to, but not including, `stop` (z, y, x)."""

    start: Triple
    stop: Triple

    @property
    def shape(self) -> Triple:
        """Shape (z, y, x), voxels."""
        z, y, x = (b - a for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of the box in an array of the volume."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def longest_axis(self) -> int:
        """The axis along which the box is longest; the first one of equals."""
        return max(range(3), key=lambda axis: self.shape[axis])

    def moved(self, by: Triple) -> Box:
        """A box of the same shape that lies `by` (z, y, x) voxels further."""
        (a, b, c), (d, e, f) = self.start, self.stop
        return Box((a + by[0], b + by[1], c + by[2]), (d + by[0], e + by[1], f + by[2]))

    def halves(self, axis: int) -> tuple[Box, Box]:
        """The two halves of the box along an axis; the second is one voxel longer if need be."""
        start, stop = list(self.start), list(self.stop)
        start[axis] = stop[axis] = (self.start[axis] + self.stop[axis]) // 2
        return Box(self.start, (stop[0], stop[1], stop[2])), Box(
            (start[0], start[1], start[2]), self.stop
        )

    def cut(self, most_voxels: float) -> list[Box]:
        """Parts of the box: it is halved until no part has more than `most_voxels` voxels."""
        axis = self.longest_axis
        if prod(self.shape) <= most_voxels or self.shape[axis] == 1:
            return [self]
        return [part for half in self.halves(axis) for part in half.cut(most_voxels)]


def slice_box(shape: Triple, ref: SliceRef) -> Box:
    """The box, one voxel thick, that a slice of a volume of this shape fills."""
    start, stop = [0, 0, 0], list(shape)
    start[ref.axis], stop[ref.axis] = ref.index, ref.index + 1
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


class BoxGrid(Sequence[Box]):
    """All combinations of intervals along z, y and x, as a sequence of boxes with x fastest.

    A box is made when it is asked for: a large stack has more than 100,000, and a caller may want
    one of them, or only their number.

    Parameters
    ----------
    axes
        (start, stop) of the intervals along z, y and x, ascending.
    """

    def __init__(self, axes: Sequence[Sequence[tuple[int, int]]]) -> None:
        z, y, x = (tuple(intervals) for intervals in axes)
        self.axes = z, y, x

    def __len__(self) -> int:
        return prod(len(intervals) for intervals in self.axes)

    @overload
    def __getitem__(self, index: int) -> Box: ...
    @overload
    def __getitem__(self, index: slice) -> list[Box]: ...
    def __getitem__(self, index: int | slice) -> Box | list[Box]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        rest = operator.index(index)
        rest += len(self) if rest < 0 else 0
        if not 0 <= rest < len(self):
            raise IndexError(f"box {index} is not among the {len(self)} of the grid")
        rest, i = divmod(rest, len(self.axes[2]))
        rest, j = divmod(rest, len(self.axes[1]))
        return _box(self.axes[0][rest], self.axes[1][j], self.axes[2][i])

    def __iter__(self) -> Iterator[Box]:
        return (_box(z, y, x) for z, y, x in product(*self.axes))

    def moved(self, by: Triple) -> BoxGrid:
        """A grid of the same boxes, `by` (z, y, x) voxels further."""
        return BoxGrid(
            [[(a + n, b + n) for a, b in axis] for axis, n in zip(self.axes, by, strict=True)]
        )

    def containing(self, voxels: NDArray[np.integer]) -> NDArray[np.intp]:
        """Index of the box in which each voxel lies.

        Parameters
        ----------
        voxels
            (n, 3) positions along z, y and x, inside the grid. The boxes must not overlap.

        Returns
        -------
        ndarray
            (n,).
        """
        index = np.zeros(len(voxels), np.intp)
        for axis, intervals in enumerate(self.axes):
            starts = [a for a, _ in intervals]
            place = np.searchsorted(starts, voxels[:, axis], "right") - 1
            index = index * len(intervals) + place
        return index


def _box(z: tuple[int, int], y: tuple[int, int], x: tuple[int, int]) -> Box:
    return Box((z[0], y[0], x[0]), (z[1], y[1], x[1]))


def plan_blocks(
    volume_shape: Triple, least: Triple, most_voxels: int, chunk: Triple = (1, 1, 1)
) -> BoxGrid:
    """Split a volume into boxes, each of which is predicted at once.

    Small boxes need little memory. Large ones take less time, since a tile on the border between
    two boxes is computed for both.

    Parameters
    ----------
    volume_shape
        (z, y, x), voxels.
    least
        Boxes are not cut to be shorter than this, (z, y, x) voxels.
    most_voxels
        Voxels of the largest box; exceeded where `least` or `chunk` leaves no smaller one.
    chunk
        Boxes begin at multiples of this, (z, y, x) voxels, so that no chunk of a file lies in two
        boxes.

    Returns
    -------
    BoxGrid
        Boxes that cover the volume and do not overlap.
    """
    # Along each axis, `units` chunks are divided among `parts` boxes.
    units = [-(-n // c) for n, c in zip(volume_shape, chunk, strict=True)]
    parts = [1, 1, 1]

    def size(axis: int, count: int) -> int:
        return min(-(-units[axis] // count) * chunk[axis], volume_shape[axis])

    while prod(size(a, parts[a]) for a in range(3)) > most_voxels:
        can = [
            a for a, n in enumerate(units)
            if parts[a] < n and size(a, parts[a] + 1) >= least[a]
        ]  # fmt: skip
        if not can:
            break
        # z first, since the rows of a plane lie together on the disk.
        axis = next((a for a in can if size(a, parts[a]) >= 2 * least[a]), can[0])
        parts[axis] += 1
    axes = []
    for n, c, u, p in zip(volume_shape, chunk, units, parts, strict=True):
        cuts = [min(round(i * u / p) * c, n) for i in range(p + 1)]
        axes.append(list(pairwise(cuts)))
    return BoxGrid(axes)


def plan_parts(shape: Triple, most: Triple) -> BoxGrid:
    """Split a volume evenly into boxes of at most `most` (z, y, x) voxels along each axis."""
    axes = []
    for n, longest in zip(shape, most, strict=True):
        count = -(-n // longest)
        axes.append(list(pairwise(round(i * n / count) for i in range(count + 1))))
    return BoxGrid(axes)


def spread_order(grid: BoxGrid, rng: np.random.Generator) -> list[int]:
    """The indices of a grid in an order of which every beginning is spread over the whole grid.

    Boxes are sorted by the lowest bits of their positions: every second box of a row comes before
    its neighbors, and among these every fourth comes first. Positions are counted from a random
    box, so that no border is preferred.
    """
    sizes = [len(intervals) for intervals in grid.axes]
    positions = [
        (place + int(rng.integers(n))) % n
        for place, n in zip(np.indices(sizes).reshape(3, -1), sizes, strict=True)
    ]
    keys = []
    for bit in range(max(sizes).bit_length()):
        keys += [place >> bit & 1 for place in positions]
    # The last key of lexsort weighs most.
    return [int(i) for i in np.lexsort(keys[::-1])]
