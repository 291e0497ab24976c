"""Scores of numbered objects: average precision, F1 and variation of information."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from napari_unet3d.data.piecewise import PIECE_VOXELS, planes_in, shared_pieces
from napari_unet3d.data.slices import SliceRef, at_time

THRESHOLDS = (0.5, 0.75)
"""IoU from which an object counts as found."""
_MOST_WAITING = 2**22
"""Pairs that are collected before equal ones are added up: 100 MB."""
_TIME_BITS = 40
"""Bits of a number above which the time point stands: objects of two time points are never one."""


@dataclass(frozen=True)
class FoundObjects:
    """How many objects were found, at one threshold of the IoU.

    Attributes
    ----------
    iou
        The threshold: a predicted and a true object are a pair from this IoU on.
    tp, fp, fn
        Pairs; predicted and true objects without a partner.
    """

    iou: float
    tp: int
    fp: int
    fn: int

    @property
    def average_precision(self) -> float | None:
        """TP/(TP+FP+FN), as in StarDist (Schmidt et al. 2018) and Cellpose (Stringer et al. 2021).

        None without any object.
        """
        total = self.tp + self.fp + self.fn
        return self.tp / total if total else None

    @property
    def f1(self) -> float | None:
        """2TP/(2TP+FP+FN); None without any object."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else None


@dataclass(frozen=True)
class InstanceScores:
    """Scores of numbered objects.

    Attributes
    ----------
    predicted, true
        Numbers of objects.
    found
        One entry for each threshold.
    split, merge
        Variation of information (Meilă 2003) in bits, over the voxels of true objects: the
        conditional entropy of the prediction, which grows when true objects are split; and that of
        the truth, which grows when they are merged. None without a true object.
    """

    predicted: int
    true: int
    found: tuple[FoundObjects, ...]
    split: float | None
    merge: float | None


class Contingency:
    """Counts how many voxels each predicted and each true object have in common.

    Memory grows with the number of objects that touch each other, not with the stack.
    """

    def __init__(self) -> None:
        self._keys: list[NDArray[np.int64]] = []
        self._counts: list[NDArray[np.int64]] = []
        self._waiting = 0

    def add(
        self,
        predicted: NDArray[np.integer],
        truth: NDArray[np.integer],
        mask: NDArray[np.bool_] | None = None,
        *,
        time: int = 0,
    ) -> None:
        """Count two arrays of one time point, only where `mask` is True if one is given."""
        if mask is not None:
            predicted, truth = predicted[mask], truth[mask]
        keep = (predicted != 0) | (truth != 0)
        if not keep.any():
            return
        pairs = np.stack([predicted[keep], truth[keep]], axis=1).astype(np.int64)
        pairs[pairs != 0] += time << _TIME_BITS
        keys, counts = _counted(pairs, np.ones(len(pairs), np.int64))
        self._keys.append(keys)
        self._counts.append(counts)
        self._waiting += len(keys)
        if self._waiting > _MOST_WAITING:
            self._merge()

    def _merge(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if not self._keys:
            return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
        keys, counts = _counted(np.concatenate(self._keys), np.concatenate(self._counts))
        self._keys, self._counts, self._waiting = [keys], [counts], 0
        return keys, counts

    def scores(self, thresholds: Sequence[float] = THRESHOLDS) -> InstanceScores:
        """The scores of everything that was added."""
        keys, counts = self._merge()
        names_p, p = np.unique(keys[:, 0], return_inverse=True)
        names_t, t = np.unique(keys[:, 1], return_inverse=True)
        size_p = np.bincount(p, counts, len(names_p))
        size_t = np.bincount(t, counts, len(names_t))
        both = (keys != 0).all(1)
        iou = counts[both] / (size_p[p[both]] + size_t[t[both]] - counts[both])
        n_p, n_t = int((names_p != 0).sum()), int((names_t != 0).sum())
        found = []
        for threshold in thresholds:
            pairs = iou >= threshold
            shape = (len(names_p), len(names_t))
            graph = csr_array(
                coo_array(
                    (np.ones(int(pairs.sum()), np.int8), (p[both][pairs], t[both][pairs])), shape
                )
            )
            # From an IoU above 0.5 on, no object has two partners; at 0.5 it may have.
            tp = int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
            found.append(FoundObjects(threshold, tp, n_p - tp, n_t - tp))
        split, merge = _variation(keys, counts)
        return InstanceScores(n_p, n_t, tuple(found), split, merge)


def compare_instances(
    predicted: Any,
    truth: Any,
    skip: Sequence[SliceRef] = (),
    *,
    piece_voxels: int = PIECE_VOXELS,
) -> InstanceScores:
    """Score numbered objects by the true ones.

    Parameters
    ----------
    predicted, truth
        Integers of the same shape, ZYX or TZYX; in memory, zarr or dask. 0 is background, every
        other number one object; objects of two time points are two objects.
    skip
        Slices that do not count.
    piece_voxels
        Voxels that are compared at once.
    """
    table = Contingency()
    for time, box in shared_pieces(predicted, truth, piece_voxels):
        where = at_time(truth, time, tuple(slice(a, b) for a, b in box))
        p, t = np.asarray(predicted[where]), np.asarray(truth[where])
        mask = None
        for plane in planes_in(skip, time, box):
            mask = np.ones(t.shape, bool) if mask is None else mask
            mask[plane] = False
        table.add(p, t, mask, time=time)
    return table.scores()


def _variation(
    keys: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[float | None, float | None]:
    """Conditional entropies H(prediction | truth) and H(truth | prediction), in bits."""
    inside = keys[:, 1] != 0
    keys, counts = keys[inside], counts[inside]
    total = counts.sum()
    if not total:
        return None, None
    joint = _entropy(counts / total)
    marginal = []
    for column in (0, 1):
        _, index = np.unique(keys[:, column], return_inverse=True)
        marginal.append(_entropy(np.bincount(index, counts) / total))
    of_prediction, of_truth = marginal
    return max(0.0, joint - of_truth), max(0.0, joint - of_prediction)


def _entropy(shares: NDArray[np.float64]) -> float:
    return float(-(shares * np.log2(shares)).sum())


def _counted(
    pairs: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each pair once, with the sum of its counts."""
    if not len(pairs):
        return pairs, counts
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    pairs, counts = pairs[order], counts[order]
    new = np.ones(len(pairs), bool)
    new[1:] = (pairs[1:] != pairs[:-1]).any(1)
    starts = np.flatnonzero(new)
    return pairs[starts], np.add.reduceat(counts, starts)
