"""Joins pieces to objects: across blocks, and where the neck between two of them is wide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_unet3d.objects.pieces import Pieces, strongest

_LEAST_PROMINENCE = 0.25
"""Shortest voxel edges that a maximum of the distance must rise above a neck. Rough outlines alone
make maxima of 0.1 to 0.2 after the smoothing; 0.5 left small nuclei (radius of 3 voxels) uncut."""


@dataclass(frozen=True)
class Parts:
    """The parts of all objects of a stack, before any neck is judged.

    Parameters
    ----------
    part_of
        Part of each piece, by the piece's number; 0 of piece 0, parts count from 1.
    sizes
        Voxels of each part, by its number.
    firsts
        Place of the first voxel of each part in the raster order of the stack.
    peaks
        Largest distance in each part, in shortest voxel edges.
    values
        Class of each part.
    contacts, saddles
        (n, 2) parts of one class that touch, and the largest distance at which they do; widest
        necks first.
    """

    part_of: NDArray[np.int64]
    sizes: NDArray[np.int64]
    firsts: NDArray[np.int64]
    peaks: NDArray[np.float32]
    values: NDArray[np.int64]
    contacts: NDArray[np.int64]
    saddles: NDArray[np.float32]


def components_of(n: int, links: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the connected components of a graph, in the order of their first nodes."""
    weights = np.ones(len(links), np.int8)
    graph = coo_array((weights, (links[:, 0], links[:, 1])), shape=(n, n))
    _, found = connected_components(graph, directed=False)
    _, firsts, numbers = np.unique(found, return_index=True, return_inverse=True)
    return np.asarray(_ranks(firsts)[numbers])


def join_parts(parts: Parts, separation: float, least: int) -> NDArray[np.int64]:
    """Decide which parts make up which object.

    A part joins the neighbor beyond its widest neck, unless that neck is narrow: below `separation`
    times the half-width of the thinner part. Objects that are too small then join the neighbor
    beyond their widest neck; those without a neighbor are no objects.

    Parameters
    ----------
    parts
        The parts.
    separation
        0 joins all parts that touch, 1 joins only those that no neck separates.
    least
        Smallest size of an object, voxels.

    Returns
    -------
    ndarray
        Object of each part, by the part's number: 1…n in the raster order of their first voxels, or
        0 for none.
    """
    forest = _Forest(parts.sizes, parts.peaks)
    contacts, saddles = parts.contacts.tolist(), parts.saddles.tolist()
    for (a, b), saddle in zip(contacts, saddles, strict=True):
        forest.join_unless_narrow(a, b, saddle, separation)
    for a, b in contacts:
        forest.join_if_small(a, b, least)
    roots, sizes = forest.roots(), np.asarray(forest.sizes)
    kept = sizes[roots] >= max(1, least)
    kept[0] = False
    firsts = np.full(len(roots), np.iinfo(np.int64).max)
    np.minimum.at(firsts, roots, parts.firsts)
    numbers = np.zeros(len(roots), np.int64)
    trees, of_parts = np.unique(roots[kept], return_inverse=True)
    numbers[kept] = 1 + _ranks(firsts[trees])[of_parts]
    return numbers


def _ranks(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank of each value, from 0."""
    ranks = np.empty(len(values), np.int64)
    ranks[np.argsort(values)] = np.arange(len(values))
    return ranks


class _Forest:
    """Disjoint sets of parts, with their sizes and peaks."""

    def __init__(self, sizes: NDArray[np.int64], peaks: NDArray[np.float32]) -> None:
        self._parent = list(range(len(sizes)))
        self.sizes: list[int] = sizes.tolist()
        self._peaks: list[float] = peaks.tolist()

    def join_unless_narrow(self, a: int, b: int, saddle: float, separation: float) -> None:
        a, b = self._root(a), self._root(b)
        if a == b:
            return
        thinner = min(self._peaks[a], self._peaks[b])
        if saddle < separation * thinner and saddle < thinner - _LEAST_PROMINENCE:
            return
        self._join(a, b)

    def join_if_small(self, a: int, b: int, least: int) -> None:
        a, b = self._root(a), self._root(b)
        if a != b and min(self.sizes[a], self.sizes[b]) < least:
            self._join(a, b)

    def roots(self) -> NDArray[np.int64]:
        """Root of each part; its size is that of the object."""
        return np.array([self._root(i) for i in range(len(self._parent))], np.int64)

    def _root(self, i: int) -> int:
        parent = self._parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def _join(self, a: int, b: int) -> None:
        if self.sizes[a] < self.sizes[b]:
            a, b = b, a
        self._parent[b] = a
        self.sizes[a] += self.sizes[b]
        self._peaks[a] = max(self._peaks[a], self._peaks[b])


class PieceList:
    """Collects the pieces of all blocks, and finds the pieces that continue in later blocks."""

    def __init__(self) -> None:
        self._sizes, self._peaks = [np.zeros(1, np.int64)], [np.zeros(1, np.float32)]
        self._values, self._firsts = [np.zeros(1, np.int64)], [np.zeros(1, np.int64)]
        self._links: list[NDArray[np.int64]] = [np.zeros((0, 2), np.int64)]
        self._contacts: list[NDArray[np.int64]] = [np.zeros((0, 2), np.int64)]
        self._saddles: list[NDArray[np.float32]] = [np.zeros(0, np.float32)]
        self.next = 1
        """Number of the next piece."""

    def add(self, pieces: Pieces, value: int) -> None:
        """Add the pieces of a block, which belong to a class."""
        n = len(pieces.sizes)
        self.next += n
        self._sizes.append(pieces.sizes)
        self._firsts.append(pieces.firsts)
        self._peaks.append(pieces.peaks)
        self._values.append(np.full(n, value, np.int64))
        self._links.append(pieces.links)
        self._contacts.append(pieces.contacts)
        self._saddles.append(pieces.saddles)

    def link(self, pairs: NDArray[np.int64]) -> None:
        """Add (n, 2) pieces that are one."""
        self._links.append(pairs)

    def parts(self) -> Parts:
        """The parts that the pieces make up."""
        part_of = components_of(self.next, np.concatenate(self._links))
        n = int(part_of.max(initial=0)) + 1
        peaks, values = np.zeros(n, np.float32), np.zeros(n, np.int64)
        firsts = np.full(n, np.iinfo(np.int64).max)
        np.maximum.at(peaks, part_of, np.concatenate(self._peaks))
        np.minimum.at(firsts, part_of, np.concatenate(self._firsts))
        values[part_of] = np.concatenate(self._values)
        sizes = np.bincount(part_of, np.concatenate(self._sizes), n).astype(np.int64)
        between = part_of[np.concatenate(self._contacts)]
        kept = between[:, 0] != between[:, 1]
        between, saddles = strongest(between[kept], np.concatenate(self._saddles)[kept])
        # Necks of equal width come in the order of the stack, so that blocks do not matter.
        places = np.sort(firsts[between], 1)
        order = np.lexsort((places[:, 1], places[:, 0], -saddles))
        return Parts(part_of, sizes, firsts, peaks, values, between[order], saddles[order])
