"""Cuts the classes of a stack into pieces, block by block: the long half of finding objects."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import ObjectsConfig, Triple
from napari_unet3d.data.boxes import Box, BoxGrid, plan_blocks
from napari_unet3d.data.slices import at_time, n_times, space
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import ObjectsProgress
from napari_unet3d.objects.joining import Parts, PieceList, join_parts
from napari_unet3d.objects.masks import ClassMask, Holes, voxel_edges
from napari_unet3d.objects.pieces import basins, components
from napari_unet3d.objects.scratch import GRID, Scratch
from napari_unet3d.objects.seams import Seams

_BLOCK_VOXELS = 2**22
"""Voxels of the largest block, without what is read around it: one chunk of the files that are
written. Cutting it takes up to 0.3 GB."""


@dataclass(frozen=True, eq=False)
class Separation:
    """A stack that is cut into pieces, of which objects can be made again and again.

    Parameters
    ----------
    pieces
        Piece of each voxel, ZYX or TZYX; 0 outside the classes.
    parts
        What the pieces of each time point make up.
    blocks
        How the stack was cut.
    scratch
        Keeps the arrays.
    """

    pieces: Any
    parts: tuple[Parts, ...]
    blocks: BoxGrid
    scratch: Scratch

    def numbers(self, separation: float, least: int) -> tuple[list[NDArray[np.int64]], int]:
        """Number the objects: a table by the piece's number for each time point, and how many.

        Parameters
        ----------
        separation, least
            As in `join_parts`.
        """
        tables, count = [], 0
        for parts in self.parts:
            of_part = join_parts(parts, separation, least)
            of_part[of_part > 0] += count
            count = max(count, int(of_part.max(initial=0)))
            tables.append(of_part[parts.part_of])
        return tables, count

    def values(self, tables: Sequence[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
        """Class of each object, by its number, of the tables that `numbers` returned."""
        values = np.zeros(count + 1, np.int64)
        for parts, table in zip(self.parts, tables, strict=True):
            values[table] = parts.values[parts.part_of]
        values[0] = 0
        return values


def separate(
    labels: Any,
    config: ObjectsConfig,
    voxel_size: Sequence[float],
    values: Sequence[int],
    *,
    background: Collection[int] = (0,),
    scratch: Scratch | None = None,
    block: Triple | None = None,
) -> Generator[ObjectsProgress, None, Separation]:
    """Cut the classes of a stack into pieces.

    Parameters
    ----------
    labels
        Integers, ZYX or TZYX; in memory, zarr, or any array that can be sliced.
    config
        Method, holes and smoothing. Neither `separation` nor the smallest size matters here.
    voxel_size
        Along z, y, x.
    values
        The classes that become objects.
    background
        Values that smoothing and the filling of holes may overwrite.
    scratch
        Makes the arrays that are needed.
    block
        Voxels (z, y, x) of the blocks; planned when None.

    Yields
    ------
    ObjectsProgress
        After each block.

    Returns
    -------
    Separation
        The pieces.
    """
    shape, edges = space(labels), voxel_edges(voxel_size)
    grid = plan(shape, block)
    scratch = scratch or Scratch()
    pieces = scratch.zeros(labels.shape, np.uint32)
    passes = len(values) * (2 if config.fill_holes else 1)
    progress = _Counter("Separating", len(grid) * n_times(labels) * passes)
    parts = []
    for time in range(n_times(labels)):
        masks = []
        for value in values:
            mask = ClassMask(labels, time, value, edges, config.smoothing, tuple(background))
            if config.fill_holes:
                holes = yield from _find_holes(mask, grid, scratch, progress)
                mask = replace(mask, holes=holes)
            masks.append(mask)
        found = yield from _cut(masks, config.method, grid, pieces, time, progress)
        parts.append(found)
    return Separation(pieces, tuple(parts), grid, scratch)


def plan(shape: Triple, block: Triple | None = None) -> BoxGrid:
    """The blocks of a stack of this shape (z, y, x), or those of a given size."""
    if block is not None:
        return BoxGrid(
            [
                [(a, min(a + s, n)) for a in range(0, n, s)]
                for n, s in zip(shape, block, strict=True)
            ]
        )
    return plan_blocks(shape, (1, 1, 1), _BLOCK_VOXELS, GRID)


class _Counter:
    def __init__(self, step: str, total: int) -> None:
        self._step, self._done, self._total = step, 0, total

    def next(self) -> ObjectsProgress:
        self._done += 1
        return ObjectsProgress(self._step, self._done, self._total)


def _cut(
    masks: Sequence[ClassMask],
    method: str,
    grid: BoxGrid,
    pieces: Any,
    time: int,
    progress: _Counter,
) -> Generator[ObjectsProgress, None, Parts]:
    """Cut one time point, and write the numbers of the pieces."""
    found = PieceList()
    seams = [Seams(mask.shape) for mask in masks]
    expected = [_Expected(grid) for _ in masks]
    for index, box in enumerate(grid):
        numbers = np.zeros(box.shape, np.uint32)
        for mask, seam, waiting in zip(masks, seams, expected, strict=True):
            if method == "connected":
                block = components(mask.read(box), box, seam, found.next)
            else:
                block = basins(mask, box, seam, found.next)
            found.add(block, mask.value)
            found.link(waiting.arrived(index, box, block.numbers))
            waiting.expect(block.exits)
            np.copyto(numbers, block.numbers, casting="unsafe", where=block.numbers > 0)
            yield progress.next()
        if found.next > np.iinfo(np.uint32).max:
            raise BadInputError(
                "The stack has more pieces than can be numbered. Smooth the outlines, or crop it."
            )
        if numbers.any():
            pieces[at_time(pieces, time, box.slices)] = numbers
    return found.parts()


def _find_holes(
    mask: ClassMask, grid: BoxGrid, scratch: Scratch, progress: _Counter
) -> Generator[ObjectsProgress, None, Holes]:
    """Find the cavities of a class: what is outside of it, and not connected to the border."""
    pieces = scratch.zeros(mask.shape, np.uint32)
    found, seams, open_pieces = PieceList(), Seams(mask.shape), [np.zeros(1, np.int64)]
    for box in grid:
        block = components(~mask.read(box), box, seams, found.next, faces_only=True)
        found.add(block, 0)
        pieces[box.slices] = block.numbers.astype(np.uint32)
        for axis, (a, b, n) in enumerate(zip(box.start, box.stop, mask.shape, strict=True)):
            for at_border, i in ((a == 0, 0), (b == n, -1)):
                if at_border:
                    open_pieces.append(np.unique(np.take(block.numbers, i, axis)))
        yield progress.next()
    parts = found.parts()
    is_open = np.zeros(len(parts.sizes), bool)
    is_open[parts.part_of[np.concatenate(open_pieces)]] = True
    return Holes(pieces, ~is_open[parts.part_of])


class _Expected:
    """Pieces that continue in blocks that are not done yet."""

    def __init__(self, grid: BoxGrid) -> None:
        self._grid = grid
        self._waiting: dict[int, list[NDArray[np.int64]]] = {}

    def expect(self, exits: NDArray[np.int64]) -> None:
        """Remember the exits of a block."""
        if not len(exits):
            return
        blocks = self._grid.containing(exits[:, :3])
        for block in np.unique(blocks):
            self._waiting.setdefault(int(block), []).append(exits[blocks == block])

    def arrived(self, index: int, box: Box, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Pairs of pieces that are one, now that a block is done."""
        waiting = self._waiting.pop(index, None)
        if waiting is None:
            return np.zeros((0, 2), np.int64)
        exits = np.concatenate(waiting)
        z, y, x = (exits[:, :3] - np.asarray(box.start)).T
        return np.column_stack([exits[:, 3], numbers[z, y, x]])
