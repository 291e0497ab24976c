"""Joins pieces to objects: across blocks, and where the neck between two of them is wide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_unet3d.objects.pieces import Pieces, strongest

_LEAST_PROMINENCE = 0.5
"""Shortest voxel edges that a maximum of the distance must rise above a neck. Distances between
voxels are known to about half an edge, so less is no sign of another object."""


@dataclass(frozen=True)
class Parts:
    """The parts of all objects of a stack, before any neck is judged.

    Parameters
    ----------
    part_of
        Part of each piece, by the piece's number; 0 of piece 0, parts count from 1.
    sizes
        Voxels of each part, by its number.
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
    peaks: NDArray[np.float32]
    values: NDArray[np.int64]
    contacts: NDArray[np.int64]
    saddles: NDArray[np.float32]


def connect(
    pieces: int,
    sizes: NDArray[np.int64],
    peaks: NDArray[np.float32],
    values: NDArray[np.int64],
    links: NDArray[np.int64],
    contacts: NDArray[np.int64],
    saddles: NDArray[np.float32],
) -> Parts:
    """Make parts of pieces that are one; arrays by the piece's number have an entry for 0."""
    part_of = components_of(pieces + 1, links)
    n = int(part_of.max(initial=0)) + 1
    part_sizes = np.bincount(part_of, sizes, n).astype(np.int64)
    part_peaks = np.zeros(n, np.float32)
    np.maximum.at(part_peaks, part_of, peaks)
    part_values = np.zeros(n, np.int64)
    part_values[part_of] = values
    between = part_of[contacts]
    kept = between[:, 0] != between[:, 1]
    between, heights = strongest(between[kept], saddles[kept])
    order = np.argsort(-heights, kind="stable")
    return Parts(part_of, part_sizes, part_peaks, part_values, between[order], heights[order])


def components_of(n: int, links: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number the connected components of a graph, in the order of their first nodes."""
    weights = np.ones(len(links), np.int8)
    graph = coo_array((weights, (links[:, 0], links[:, 1])), shape=(n, n))
    _, found = connected_components(graph, directed=False)
    _, firsts, numbers = np.unique(found, return_index=True, return_inverse=True)
    rank = np.empty(len(firsts), np.int64)
    rank[np.argsort(firsts)] = np.arange(len(firsts))
    return np.asarray(rank[numbers])


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
        Object of each part, by the part's number: 1…n, or 0 for none.
    """
    forest = _Forest(parts.sizes, parts.peaks)
    contacts, saddles = parts.contacts.tolist(), parts.saddles.tolist()
    for (a, b), saddle in zip(contacts, saddles, strict=True):
        forest.join_unless_narrow(a, b, saddle, separation)
    for a, b in contacts:
        forest.join_if_small(a, b, least)
    return number_roots(forest.roots(), forest.sizes, least)


def number_roots(roots: NDArray[np.int64], sizes: Sequence[int], least: int) -> NDArray[np.int64]:
    """Number the trees 1…n that are large enough; 0 for the others, and for node 0."""
    kept = np.asarray(sizes)[roots] >= max(1, least)
    kept[0] = False
    numbers = np.zeros(len(roots), np.int64)
    _, firsts, inverse = np.unique(roots[kept], return_index=True, return_inverse=True)
    rank = np.empty(len(firsts), np.int64)
    rank[np.argsort(firsts)] = np.arange(1, len(firsts) + 1)
    numbers[kept] = rank[inverse]
    return numbers


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
        self._values = [np.zeros(1, np.int64)]
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
        return connect(
            self.next - 1,
            np.concatenate(self._sizes),
            np.concatenate(self._peaks),
            np.concatenate(self._values),
            np.concatenate(self._links),
            np.concatenate(self._contacts),
            np.concatenate(self._saddles),
        )
