"""Counts of the paint of one time point, by line, plane and value; kept up to date by changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_unet3d.config import Triple
from napari_unet3d.data.slices import plane_index

OTHER_CODE = 255
"""Stands for label values that are no annotation: negative ones and those above 254."""
_NEVER = np.iinfo(np.int64).max
_FEW_VALUES = 16
"""So many values are counted one by one, which is faster than a histogram."""
_HISTOGRAM_VOXELS = 2**16
"""Voxels: a histogram converts them to 8 bytes each, which then fit the processor's cache."""


def to_codes(values: np.ndarray) -> np.ndarray:
    """Return label values as uint8; what does not fit is `OTHER_CODE`.

    The values of uint8 labels stay, 255 too.
    """
    if values.dtype == np.uint8:
        return values
    return np.where((values < 0) | (values >= OTHER_CODE), OTHER_CODE, values).astype(np.uint8)


def count_codes(lines: np.ndarray) -> np.ndarray:
    """Count the codes on each of some lines.

    Parameters
    ----------
    lines
        (n, length) uint8.

    Returns
    -------
    np.ndarray
        (n, largest code + 1) int64. Code 0, no paint, is not counted.
    """
    n_values = int(lines.max(initial=0)) + 1
    counts = np.zeros((len(lines), n_values), np.int64)
    if n_values <= _FEW_VALUES:
        for value in range(1, n_values):
            counts[:, value] = (lines == value).sum(1, dtype=np.uint32)
        return counts
    for line, row in zip(lines, counts, strict=True):
        for start in range(0, len(line), _HISTOGRAM_VOXELS):
            row += np.bincount(line[start : start + _HISTOGRAM_VOXELS], minlength=n_values)
    counts[:, 0] = 0
    return counts


class CrossSlice:
    """The voxels of an xz or yz slice, and how many of each code lie on its lines.

    Parameters
    ----------
    codes
        (depth, width or height) uint8.
    """

    def __init__(self, codes: np.ndarray) -> None:
        self.codes = codes
        self.counts = np.zeros((len(codes), 1), np.int64)
        painted = np.flatnonzero(codes.max(1, initial=0))
        if len(painted):
            self.recount(int(painted[0]), int(painted[-1]) + 1)

    def recount(self, first: int, last: int) -> None:
        """Count the lines from z = `first` to before `last` again."""
        counts = count_codes(self.codes[first:last])
        self.counts = _widened(self.counts, counts.shape[1])
        self.counts[first:last, : counts.shape[1]] = counts
        self.counts[first:last, counts.shape[1] :] = 0

    def replace(self, first: int, lines: np.ndarray) -> bool:
        """Put other lines (n, length) in from z = `first` on; return whether they differ."""
        last = first + len(lines)
        if np.array_equal(self.codes[first:last], lines):
            return False
        self.codes[first:last] = lines
        self.recount(first, last)
        return True


class PaintCounts:
    """How much is painted on each line and plane of one time point.

    Parameters
    ----------
    shape
        Voxels along z, y, x.

    Attributes
    ----------
    by_zy, by_zx
        (depth, height) and (depth, width): painted voxels on each line along x and along y.
    by_value
        (depth, values): voxels of each code on each xy plane; column 0 is 0.
    cross
        The xz and yz slices whose voxels are kept, by axis and index.
    """

    def __init__(self, shape: Triple) -> None:
        self.shape = shape
        depth, height, width = shape
        dtype = np.uint16 if max(shape) < 2**16 else np.uint32
        self.by_zy = np.zeros((depth, height), dtype)
        self.by_zx = np.zeros((depth, width), dtype)
        self.by_value = np.zeros((depth, 1), np.int64)
        self.cross: dict[tuple[int, int], CrossSlice] = {}

    def total(self) -> int:
        """Count the painted voxels."""
        return int(self.by_value.sum())

    # ---- planes that were read

    def set_planes(
        self, first: int, by_zy: np.ndarray, by_zx: np.ndarray, by_value: np.ndarray
    ) -> bool:
        """Take over the counts of planes from z = `first` on; return whether they differ."""
        rows = slice(first, first + len(by_zy))
        self.by_value = _widened(self.by_value, by_value.shape[1])
        by_value = _widened(by_value, self.by_value.shape[1])
        differs = False
        pairs = ((self.by_zy, by_zy), (self.by_zx, by_zx), (self.by_value, by_value))
        for known, new in pairs:
            if not np.array_equal(known[rows], new):
                known[rows] = new
                differs = True
        return differs

    def check_cross(self, z: int, y: int, codes: np.ndarray) -> bool:
        """Compare the kept slices with voxels just read; take these over and say if they differ.

        Parameters
        ----------
        z, y
            Where the voxels begin.
        codes
            (planes, rows, width) uint8.
        """
        differs = False
        planes, rows = codes.shape[:2]
        for (axis, index), kept in self.cross.items():
            if axis == 1 and y <= index < y + rows:
                differs |= kept.replace(z, codes[:, index - y])
            elif axis == 2:
                lines = kept.codes[z : z + planes].copy()
                lines[:, y : y + rows] = codes[:, :, index]
                differs |= kept.replace(z, lines)
        return differs

    # ---- changes

    def change(
        self, start: Triple, mask: np.ndarray, old: np.ndarray | int, new: np.ndarray | int
    ) -> None:
        """Count voxels anew that had one code and now have another.

        Parameters
        ----------
        start
            First voxel (z, y, x) of the box they lie in.
        mask
            (z, y, x) bool: which voxels of the box have changed.
        old, new
            The codes: one for all voxels, or uint8 in the shape of the box.
        """
        z, y, x = start
        depth, height, width = mask.shape
        planes = slice(z, z + depth)
        if isinstance(old, int) and isinstance(new, int):
            signs = [((new != 0) - (old != 0), mask)]
        else:
            signs = [(1, mask & (old == 0) & (new != 0)), (-1, mask & (old != 0) & (new == 0))]
        for sign, voxels in signs:
            if sign:
                dtype = self.by_zy.dtype
                for known, axis, first, n in (
                    (self.by_zy, 2, y, height),
                    (self.by_zx, 1, x, width),
                ):
                    sums = voxels.sum(axis, dtype=dtype)
                    part = known[planes, first : first + n]
                    np.add(part, sums, out=part) if sign > 0 else np.subtract(part, sums, out=part)
        for sign, codes in ((-1, old), (1, new)):
            counts = _count_masked(codes, mask)
            self.by_value = _widened(self.by_value, counts.shape[1])
            self.by_value[planes, : counts.shape[1]] += sign * counts
        for (axis, index), kept in self.cross.items():
            place = index - (y if axis == 1 else x)
            if 0 <= place < mask.shape[axis]:
                box = plane_index(axis, place)
                first = x if axis == 1 else y
                here = mask[box]
                lines = kept.codes[planes, first : first + here.shape[1]]
                np.copyto(lines, new if isinstance(new, int) else new[box], where=here)
                kept.recount(z, z + depth)

    # ---- rows

    def count_slices(self, order: Sequence[tuple[int, int]]) -> list[np.ndarray]:
        """Count the voxels that belong to each slice.

        Parameters
        ----------
        order
            Axis and index of the slices in the order of their claims; those of axis 1 and 2 are
            in `cross`.

        Returns
        -------
        list of np.ndarray
            For each slice in this order: voxels of each code.
        """
        rank = self.rank(order)
        across = {axis: [i for a, i in order if a == axis] for axis in (1, 2)}
        n_values = [kept.counts.shape[1] for kept in self.cross.values()]
        xy = _widened(self.by_value.copy(), max(n_values, default=0))
        for axis in (1, 2):
            for index in across[axis]:
                kept = self.cross[axis, index]
                earlier = np.flatnonzero(rank[axis][index] < rank[0])
                xy[earlier, : kept.counts.shape[1]] -= kept.counts[earlier]
        x = np.array(across[2], np.intp)
        for index in across[1]:
            # Voxels on an xz and a yz slice were subtracted twice.
            codes = self.cross[1, index].codes[:, x]
            earlier = np.maximum(rank[1][index], rank[2][x]) < rank[0][:, None]
            z, nth = np.nonzero((codes != 0) & earlier & (rank[0] < _NEVER)[:, None])
            np.add.at(xy, (z, codes[z, nth]), 1)
        counts = []
        for axis, index in order:
            if axis == 0:
                counts.append(xy[index])
                continue
            kept = self.cross[axis, index]
            other = np.array(across[3 - axis], np.intp)
            other = other[rank[3 - axis][other] < rank[axis][index]]
            own = rank[0] > rank[axis][index]
            lost = count_codes(kept.codes[own][:, other].reshape(1, -1))[0]
            row = kept.counts[own].sum(0)
            row[: len(lost)] -= lost
            counts.append(row)
        return counts

    def rank(self, order: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the place in the order of claims of every plane, by axis."""
        z, y, x = (np.full(n, _NEVER) for n in self.shape)
        rank = z, y, x
        for place, (axis, index) in enumerate(order):
            rank[axis][index] = place
        return rank

    def labelled(self, axis: int, index: int) -> int:
        """Count the painted voxels of a plane, whichever slice they belong to."""
        if axis == 0:
            return int(self.by_value[index].sum())
        lines = self.by_zy if axis == 1 else self.by_zx
        return int(lines[:, index].sum(dtype=np.int64))


def _count_masked(codes: np.ndarray | int, mask: np.ndarray) -> np.ndarray:
    """Count the codes of the masked voxels of each plane; (planes, values)."""
    if isinstance(codes, int):
        counts = np.zeros((len(mask), codes + 1), np.int64)
        if codes:
            counts[:, codes] = mask.reshape(len(mask), -1).sum(1, dtype=np.uint32)
        return counts
    return count_codes(np.where(mask, codes, np.uint8(0)).reshape(len(mask), -1))


def _widened(counts: np.ndarray, n_values: int) -> np.ndarray:
    """Return counts (n, values) with at least `n_values` columns."""
    missing = n_values - counts.shape[1]
    return np.pad(counts, ((0, 0), (0, missing))) if missing > 0 else counts
