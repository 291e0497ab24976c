"""Pieces of one block, and how they touch: connected components, or basins of the distance.

A *piece* is part of one object. Components are pieces that must be joined wherever they touch.
Basins are small: each has one maximum of the distance to the border of the class, and every voxel
belongs to the basin at the end of its steepest way up (a watershed, Meyer 1994). Where each voxel
goes follows from its 26 neighbors, so it does not depend on how the stack is cut into blocks. The
objects are made of them afterwards, in `joining`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import cc3d
import edt
import numpy as np
from numpy.typing import NDArray

from napari_unet3d.data.boxes import Box
from napari_unet3d.objects.masks import (
    ClassMask,
    gaussian,
    gaussian_radius,
    grow,
    inside,
    voxels_of,
)
from napari_unet3d.objects.seams import Numbers, Seams

OFFSETS = tuple(o for o in product((-1, 0, 1), repeat=3) if o != (0, 0, 0))
"""The 26 neighbors of a voxel: voxels that share a face, an edge or a corner touch."""
_FORWARD = OFFSETS[13:]
DISTANCE_SIGMA = 1.0
"""Shortest voxel edges. The distance is smoothed by so much: rough borders make fewer maxima."""
_FIRST_REACH, _LAST_REACH = 12.0, 96.0
"""Shortest voxel edges, around a block, within which the border of the class is looked for. The
first suffices for objects up to 24 voxels thick, and is doubled as long as it does not. Thicker
parts than twice the last one are flat inside, so they are cut at thinner necks only."""


@dataclass(frozen=True)
class Pieces:
    """The pieces of one block.

    Parameters
    ----------
    numbers
        Number of the piece of each voxel of the block, counted from `first`; 0 outside the class.
    sizes
        Voxels of each piece.
    firsts
        Place of the first voxel of each piece in the raster order of the stack.
    peaks
        Largest distance in each piece, in shortest voxel edges; 0 where it lies in another block.
    links
        (n, 2) numbers of pieces that are one.
    contacts
        (n, 2) numbers of pieces that touch.
    saddles
        (n,) largest distance at which they do.
    exits
        (n, 4): voxel z, y, x of a later block into which a piece goes on, and its number.
    """

    numbers: Numbers
    sizes: NDArray[np.int64]
    firsts: NDArray[np.int64]
    peaks: NDArray[np.float32]
    links: NDArray[np.int64]
    contacts: NDArray[np.int64]
    saddles: NDArray[np.float32]
    exits: NDArray[np.int64]


_NO_PAIRS = np.zeros((0, 2), np.int64)
_NO_HEIGHTS = np.zeros(0, np.float32)
_NO_EXITS = np.zeros((0, 4), np.int64)


def components(
    mask: NDArray[np.bool_], box: Box, seams: Seams, first: int, *, faces_only: bool = False
) -> Pieces:
    """Find the connected components of a block, and those of earlier blocks that they touch.

    Parameters
    ----------
    mask
        The voxels of the block.
    box
        Where it lies.
    seams
        The blocks before it; takes its border voxels.
    first
        Number of the first piece.
    faces_only
        Whether only voxels that share a face touch; otherwise, also those at edges and corners.
    """
    found, n = cc3d.connected_components(
        mask.view(np.uint8), connectivity=6 if faces_only else 26, return_N=True
    )
    frame = seams.framed(box)
    numbers = np.where(mask, found.astype(np.int64) + (first - 1), 0)
    frame[1:-1, 1:-1, 1:-1] = numbers
    seams.put(box, numbers)
    links = _touching_earlier(frame, faces_only)
    sizes = np.bincount(found.ravel(), minlength=n + 1)[1:]
    where = np.flatnonzero(found)
    firsts = _firsts(
        found.ravel()[where].astype(np.int64) - 1, where, box.shape, box.start, n, seams
    )
    peaks = np.zeros(n, np.float32)
    return Pieces(numbers, sizes, firsts, peaks, links, _NO_PAIRS, _NO_HEIGHTS, _NO_EXITS)


def basins(mask: ClassMask, box: Box, seams: Seams, first: int) -> Pieces:
    """Find the basins of the distance to the border of a class in a block.

    Parameters
    ----------
    mask
        The class.
    box
        The block.
    seams
        The blocks before it; takes its border voxels.
    first
        Number of the first piece.
    """
    frame = seams.framed(box)
    height = _framed_distance(mask, box)
    shape = frame.shape
    core = np.zeros(shape, bool)
    core[1:-1, 1:-1, 1:-1] = True
    where = np.flatnonzero((height > 0) & core)
    if not len(where):
        seams.put(box, frame[1:-1, 1:-1, 1:-1])
        numbers, none = np.zeros(box.shape, np.int64), np.zeros(0, np.int64)
        return Pieces(
            numbers, none, none, _NO_HEIGHTS, _NO_PAIRS, _NO_PAIRS, _NO_HEIGHTS, _NO_EXITS
        )
    tops = _tops(height, where, mask.edges)
    is_top = np.zeros(height.size, bool)
    is_top[tops] = True
    roots = np.flatnonzero(is_top)
    table = np.zeros(height.size, np.int64)
    table[roots] = np.arange(first, first + len(roots))
    of_voxels = table[tops]
    ours = core.ravel()[roots]
    earlier = frame.ravel()[roots]  # 0 in the block itself, and where it is not done yet
    ends = ~ours & (earlier > 0)
    links = np.column_stack([table[roots[ends]], earlier[ends]])
    later = roots[~ours & (earlier == 0)]
    position = np.column_stack(np.unravel_index(later, shape)) + np.asarray(box.start) - 1
    frame.ravel()[where] = of_voxels
    numbers = frame[1:-1, 1:-1, 1:-1].copy()
    seams.put(box, numbers)
    contacts, saddles = _contacts(frame.ravel(), height.ravel(), where, shape)
    return Pieces(
        numbers,
        np.bincount(of_voxels - first, minlength=len(roots)),
        _firsts(of_voxels - first, where, shape, [a - 1 for a in box.start], len(roots), seams),
        np.where(ours, height.ravel()[roots], 0).astype(np.float32),
        links,
        contacts,
        saddles,
        np.column_stack([position, table[later]]),
    )


def strongest(
    pairs: NDArray[np.int64], heights: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Keep each pair once, in ascending order, with its largest height."""
    if not len(pairs):
        return _NO_PAIRS, _NO_HEIGHTS
    pairs = np.sort(pairs, 1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    pairs, heights = pairs[order], heights[order]
    new = np.ones(len(pairs), bool)
    new[1:] = (pairs[1:] != pairs[:-1]).any(1)
    starts = np.flatnonzero(new)
    return pairs[starts], np.maximum.reduceat(heights, starts)


def _firsts(
    pieces: NDArray[np.int64],
    where: NDArray[np.int64],
    shape: Sequence[int],
    start: Sequence[int],
    count: int,
    seams: Seams,
) -> NDArray[np.int64]:
    """Place of the first voxel of each piece in the stack; `where` ascends, from `start` on."""
    firsts = np.zeros(count, np.int64)
    firsts[pieces[::-1]] = where[::-1]  # the first is written last
    place = [axis + a for axis, a in zip(np.unravel_index(firsts, shape), start, strict=True)]
    return np.asarray(np.ravel_multi_index(place, seams.shape))


# --- the distance ---------------------------------------------------------------------------


def _framed_distance(mask: ClassMask, box: Box) -> NDArray[np.float32]:
    """Smoothed distance to the border of the class, in a block and one voxel around it.

    It is 0 outside the class and outside the stack.
    """
    edges, shape = mask.edges, mask.shape
    radius = gaussian_radius(DISTANCE_SIGMA, edges)
    framed = grow(box, (1, 1, 1), shape)
    exact = grow(framed, radius, shape)
    distance = _distance(mask, exact)
    smooth = gaussian(distance, DISTANCE_SIGMA, edges)
    within = inside(framed, exact)
    height = np.zeros([n + 2 for n in box.shape], np.float32)
    start = [a - b + 1 for a, b in zip(framed.start, box.start, strict=True)]
    place = tuple(slice(a, a + n) for a, n in zip(start, framed.shape, strict=True))
    height[place] = np.where(distance[within] > 0, smooth[within], 0)
    return height


def _distance(mask: ClassMask, box: Box) -> NDArray[np.float32]:
    """Distance to the border of the class in a box, in shortest voxel edges.

    The border of the stack is no border of the class: what lies outside is not known.
    """
    reach = _FIRST_REACH
    while True:
        outer = grow(box, voxels_of(reach, mask.edges), mask.shape)
        voxels = mask.read(outer)
        core = inside(box, outer)
        if not voxels[core].any():
            return np.zeros(box.shape, np.float32)
        distance = edt.edt(voxels.view(np.uint8), anisotropy=mask.edges, parallel=1)[core]
        if reach >= _LAST_REACH or float(distance.max()) <= reach or outer.shape == mask.shape:
            return np.asarray(np.minimum(distance, _LAST_REACH), np.float32)
        reach = min(2 * reach, _LAST_REACH)


# --- ways up --------------------------------------------------------------------------------


def _steps(shape: tuple[int, ...], offset: tuple[int, ...]) -> int:
    """How far a neighbor is in the flat array."""
    z, y, x = offset
    return (z * shape[1] + y) * shape[2] + x


def _tops(
    height: NDArray[np.float32], where: NDArray[np.int64], edges: tuple[float, float, float]
) -> NDArray[np.int64]:
    """Where the steepest way up from each voxel ends: at a maximum, or where it leaves the block.

    Parameters
    ----------
    height
        Of the framed block.
    where
        Flat indices of the voxels in the block.
    edges
        Edges of a voxel.

    Returns
    -------
    ndarray
        Flat indices, one for each of `where`.
    """
    flat = height.ravel()
    here = flat[where]
    steepest = np.zeros(len(where), np.float32)
    up = where.copy()
    for offset in OFFSETS:
        step = _steps(height.shape, offset)
        length = np.float32(sum((o * e) ** 2 for o, e in zip(offset, edges, strict=True)) ** -0.5)
        slope = (flat[where + step] - here) * length
        # On a plateau the way goes to the neighbor that comes last in raster order.
        better = slope >= steepest if step > 0 else slope > steepest
        np.copyto(steepest, slope, where=better)
        np.copyto(up, where + step, where=better)
    parent = np.arange(flat.size)
    parent[where] = up
    while True:
        further = parent[up]
        if np.array_equal(further, up):
            return up
        up = further
        parent[where] = up


# --- contacts -------------------------------------------------------------------------------


def _contacts(
    numbers: Numbers, height: NDArray[np.float32], where: NDArray[np.int64], shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pieces that touch, and the largest height at which they do."""
    pairs, heights = [], []
    z, y, x = np.unravel_index(where, shape)
    border = where[
        (z == 1) | (y == 1) | (x == 1)
        | (z == shape[0] - 2) | (y == shape[1] - 2) | (x == shape[2] - 2)
    ]  # fmt: skip
    for offset in OFFSETS:
        here = where if offset in _FORWARD else border
        there = here + _steps(shape, offset)
        a, b = numbers[here], numbers[there]
        differ = (a != b) & (b > 0)
        if differ.any():
            pairs.append(np.column_stack([a[differ], b[differ]]))
            heights.append(np.minimum(height[here[differ]], height[there[differ]]))
    if not pairs:
        return _NO_PAIRS, _NO_HEIGHTS
    return strongest(np.concatenate(pairs), np.concatenate(heights))


def _touching_earlier(frame: Numbers, faces_only: bool) -> NDArray[np.int64]:
    """Pairs of pieces of the block and of earlier blocks that touch."""
    pairs = []
    for offset in OFFSETS:
        if faces_only and sum(map(abs, offset)) > 1:
            continue
        for axis in range(3):
            if offset[axis] >= 0:
                continue
            side = [slice(1, -1)] * 3
            side[axis] = slice(1, 2)  # the first voxels of the block along this axis
            there = tuple(
                slice(s.start + d, (s.stop + d) or None) for s, d in zip(side, offset, strict=True)
            )
            a, b = frame[tuple(side)], frame[there]
            both = (a > 0) & (b > 0) & (a != b)
            if both.any():
                pairs.append(np.unique(np.column_stack([a[both], b[both]]), axis=0))
    return np.concatenate(pairs) if pairs else _NO_PAIRS
