"""Adds up a `SliceSummary` while a stack is predicted, block by block."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.config import Triple
from napari_unet3d.data.boxes import Box, plan_blocks
from napari_unet3d.data.slice_summary import PerAxis, SliceSummary

_EVERY_SLICE = 96
"""Voxels. Along a longer axis every second slice is looked at, and speaks for its neighbor: a
quarter or an eighth of the voxels suffices for sums over whole slices."""
_CELLS = 24
"""Cells along an axis of the coarse grid, at most: the place that is most unsure is found to
within a few percent of the stack."""
_SMALLEST_CELL = 8
"""Voxels along an edge of a cell. Smaller ones would find single noisy voxels."""
_VALUES_AT_ONCE = 1 << 22
"""Probabilities that are summed at once: the temporary copies take at most 50 MB."""


class SliceTally:
    """Sums of the probabilities and of the uncertainty of each slice, at each time point.

    Parameters
    ----------
    shape
        Of the stack (z, y, x), voxels.
    n_classes
        Classes, background included.
    """

    def __init__(self, shape: Triple, n_classes: int) -> None:
        self._shape, self._k = shape, n_classes
        self._step = _triple(1 if n <= _EVERY_SLICE else 2 for n in shape)
        self._cell = _triple(_cell(n, step) for n, step in zip(shape, self._step, strict=True))
        self._sums: dict[int, _Sums] = {}

    def add(self, time: int, box: Box, probabilities: Tensor) -> None:
        """Add a box that was predicted; each voxel of a stack is to be added once.

        Parameters
        ----------
        time
            Time point.
        box
            Where the voxels lie.
        probabilities
            (K, z, y, x) on any device; not changed.
        """
        if time not in self._sums:
            self._sums[time] = _Sums(self._shape, self._step, self._cell, self._k)
        first = [-a % step for a, step in zip(box.start, self._step, strict=True)]
        sampled = probabilities[
            (slice(None), *(slice(a, None, s) for a, s in zip(first, self._step, strict=True)))
        ]
        if not sampled.numel():
            return
        start = [(a + f) // s for a, f, s in zip(box.start, first, self._step, strict=True)]
        shape = sampled.shape[1], sampled.shape[2], sampled.shape[3]
        for part in plan_blocks(shape, (1, 1, 1), max(_VALUES_AT_ONCE // self._k, 1)):
            place = [a + b for a, b in zip(start, part.start, strict=True)]
            self._sums[time].add(place, sampled[(slice(None), *part.slices)])

    def overlaps(self) -> NDArray[np.float64]:
        """Sums (K, 3) over the voxels that are looked at, for `prediction.expected`.

        Of background and each class: voxels that were taken for it, the sum of their probabilities
        of it, and the sum of those of all voxels.
        """
        total = np.zeros((self._k, 3))
        for sums in self._sums.values():
            total += sums.overlaps()
        return total

    def summaries(self) -> dict[int, SliceSummary]:
        """The summary of each time point that was added."""
        return {time: sums.summary() for time, sums in sorted(self._sums.items())}


class _Sums:
    """The sums of one time point, over every `step`-th voxel."""

    def __init__(self, shape: Triple, step: Triple, cell: Triple, k: int) -> None:
        self._shape, self._step, self._cell, self._k = shape, step, cell, k
        sampled = [-(-n // s) for n, s in zip(shape, step, strict=True)]
        self._amounts = [np.zeros((n, k)) for n in sampled]
        self._unsure = [np.zeros((n, k)) for n in sampled]
        self._in_cell = [c // s for c, s in zip(cell, step, strict=True)]
        grid = [-(-n // c) for n, c in zip(sampled, self._in_cell, strict=True)]
        self._found, self._hits = np.zeros(k), np.zeros(k)
        self._cells, self._counts = np.zeros(grid), np.zeros(grid)

    def add(self, start: list[int], probabilities: Tensor) -> None:
        entropy = torch.special.entr(probabilities).sum(0).div_(math.log(max(self._k, 2)))
        entropy.clamp_(0, 1)
        self._add_to_slices(self._amounts, start, probabilities)
        self._add_to_slices(self._unsure, start, probabilities * entropy)
        self._add_to_cells(start, entropy)
        top, taken = (values.flatten() for values in probabilities.max(0))
        self._found += taken.bincount(minlength=self._k).cpu().double().numpy()
        # In double precision: a million voxels, added one by one, are too many for single.
        self._hits += taken.cpu().bincount(top.cpu().double(), self._k).numpy()

    def _add_to_slices(self, sums: list[np.ndarray], start: list[int], values: Tensor) -> None:
        rows, columns = values.sum(3), values.sum((1, 2))  # (K, z, y) and (K, x)
        of_axis = rows.sum(2), rows.sum(1), columns
        for total, first, more in zip(sums, start, of_axis, strict=True):
            total[first : first + more.shape[1]] += more.T.cpu().double().numpy()

    def _add_to_cells(self, start: list[int], entropy: Tensor) -> None:
        values = entropy
        counts = torch.ones((1, 1, 1), device=entropy.device)
        where = []
        for axis, (first, edge) in enumerate(zip(start, self._in_cell, strict=True)):
            n = entropy.shape[axis]
            low, high = first // edge, (first + n - 1) // edge + 1
            number = torch.arange(first, first + n, device=entropy.device) // edge - low
            shape = [*values.shape]
            shape[axis] = high - low
            values = values.new_zeros(shape).index_add_(axis, number, values)
            of_cell = number.bincount(minlength=high - low).float()
            counts = counts * of_cell.view([-1 if a == axis else 1 for a in range(3)])
            where.append(slice(low, high))
        self._cells[tuple(where)] += values.cpu().double().numpy()
        self._counts[tuple(where)] += counts.cpu().double().numpy()

    def overlaps(self) -> NDArray[np.float64]:
        return np.stack([self._found, self._hits, self._amounts[0].sum(0)], 1)

    def summary(self) -> SliceSummary:
        return SliceSummary(
            self._shape,
            self._per_axis(self._amounts),
            self._per_axis(self._unsure),
            self._cells / np.maximum(self._counts, 1),
            self._cell,
        )

    def _per_axis(self, sums: list[np.ndarray]) -> PerAxis:
        z, y, x = (
            # One sampled voxel stands for those between it and the next ones.
            np.repeat(total, self._step[axis], 0)[: self._shape[axis]]
            * (math.prod(self._step) / self._step[axis])
            for axis, total in enumerate(sums)
        )
        return z, y, x


def _cell(n: int, step: int) -> int:
    """Edge of a cell along an axis of n voxels, a multiple of the step."""
    return max(_SMALLEST_CELL, -(-n // (_CELLS * step)) * step)


def _triple(values: Iterable[int]) -> Triple:
    z, y, x = values
    return z, y, x
