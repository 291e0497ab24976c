"""Which slice a painted voxel belongs to, decided from counts of painted voxels.

A voxel lies on three planes: one perpendicular to z, one to y, one to x. It belongs to the slice
that claims its voxels first, so the order of the claims says everything. This order depends on
how many voxels each plane still has, and these numbers follow from counts on lines; the voxels
themselves are looked at only on the claimed xz and yz slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np


def claim_slices(
    by_zy: np.ndarray,
    by_zx: np.ndarray,
    totals: Sequence[np.ndarray],
    read: Callable[[int, int], np.ndarray],
) -> Iterator[tuple[int, int]]:
    """Yield the slices that hold paint, in the order in which they claim their voxels.

    A plane whose neighbors hold no paint is the next slice: xy planes before xz before yz planes,
    and the plane with most voxels first. Where no plane stands alone, the plane with most voxels
    is the next slice; of equals the xy plane, and the plane with the smaller index. A slice takes
    its voxels away from the planes that cross it.

    Parameters
    ----------
    by_zy
        (depth, height) unsigned integers: painted voxels on each line along x.
    by_zx
        (depth, width) unsigned integers: painted voxels on each line along y.
    totals
        Painted voxels on each plane perpendicular to z, y and x; (depth,), (height,), (width,).
    read
        Called with axis 1 or 2 and an index; returns the voxels of that plane, (depth, width) or
        (depth, height), where 0 is no paint.

    Yields
    ------
    tuple of int
        Axis and index of a slice.
    """
    return iter(_Claims(by_zy, by_zx, totals, read))


class _Claims:
    def __init__(
        self,
        by_zy: np.ndarray,
        by_zx: np.ndarray,
        totals: Sequence[np.ndarray],
        read: Callable[[int, int], np.ndarray],
    ) -> None:
        self._read = read
        # Voxels on each line that no slice has claimed yet, by z and by y or x: `_lines` less
        # `_full`, which counts the claimed slices that are painted all over. Lines of claimed xz
        # and yz slices are 0; those of claimed xy slices are not kept up to date, since nothing
        # reads them any more.
        self._lines = [by_zy, by_zy, by_zx]
        self._full = [np.zeros(len(total), np.int64) for total in totals]
        self._copied = False
        self._free = [total.astype(np.int64) for total in totals]
        self._taken = [np.zeros(len(free), bool) for free in self._free]
        self._n_busy = [np.count_nonzero(free) for free in self._free]
        # Planes that stand alone, the next one last; None where this must be looked for again.
        self._alone: list[list[int] | None] = [None, None, None]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        while True:
            axis, indices = self._next()
            if not indices:
                return
            if axis == 0:
                self._take_xy(indices)
            else:
                self._take_across(axis, indices[0])
            for other in {0, 1, 2} - {axis}:
                n_busy = np.count_nonzero(self._free[other])
                # A plane can only begin to stand alone when another one has lost its last voxel.
                if n_busy != self._n_busy[other] or self._alone[other]:
                    self._n_busy[other] = n_busy
                    self._alone[other] = None
            for index in indices:
                yield axis, index

    def _next(self) -> tuple[int, list[int]]:
        for axis in range(3):
            alone = self._alone[axis]
            if alone is None:
                alone = self._alone[axis] = self._find_alone(axis)
            if alone and axis == 0:
                # xy planes take nothing from each other: all that stand alone are claimed in turn.
                self._alone[0] = []
                return 0, alone[::-1]
            if alone:
                return axis, [alone.pop()]
        best = [int(free.argmax()) for free in self._free]
        sizes = [int(free[i]) for free, i in zip(self._free, best, strict=True)]
        axis = sizes.index(max(sizes))
        return axis, [best[axis]] if sizes[axis] > 0 else []

    def _find_alone(self, axis: int) -> list[int]:
        free, taken = self._free[axis], self._taken[axis]
        alone = free > 0
        # Strokes of another orientation would reach into a neighboring plane; into one that is
        # claimed they may have.
        busy = alone | taken
        alone[1:] &= ~busy[:-1]
        alone[:-1] &= ~busy[1:]
        indices = np.flatnonzero(alone)
        ascending: list[int] = indices[np.argsort(-free[indices], kind="stable")].tolist()
        return ascending[::-1]

    def _take_xy(self, indices: list[int]) -> None:
        for axis in (1, 2):
            lines = self._lines[axis]
            if len(indices) == 1:
                self._free[axis] -= lines[indices[0]]
            else:
                self._free[axis] -= lines[indices].sum(0, dtype=np.int64)
            self._free[axis] += len(indices) * self._full[axis]
        self._free[0][indices] = 0
        self._taken[0][indices] = True

    def _take_across(self, axis: int, index: int) -> None:
        if not self._copied:
            self._lines = [self._lines[0], self._lines[1].copy(), self._lines[2].copy()]
            self._copied = True
        other = 3 - axis
        # Only lines with unclaimed voxels, on xy planes that are not claimed, matter from now on.
        on_lines = self._lines[axis][:, index] - self._full[axis][index]
        z = np.flatnonzero((on_lines > 0) & ~self._taken[0])
        self._free[0][z] -= on_lines[z]
        free = ~self._taken[other]
        if (on_lines[~self._taken[0]] == np.count_nonzero(free)).all():
            self._free[other][free] -= len(z)
            self._full[other][free] += 1
        else:
            bits = (self._read(axis, index)[z] != 0) & free
            self._free[other] -= bits.sum(0, dtype=np.uint32)
            self._lines[other][z] -= bits.view(np.uint8)
        self._free[axis][index] = 0
        self._full[axis][index] = 0
        self._lines[axis][:, index] = 0
        self._taken[axis][index] = True
