"""Boxes of voxels: how a volume is cut, and in which order its parts come."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from boxes import covered
from napari_unet3d.data.boxes import Box, BoxGrid, plan_blocks, plan_parts, spread_order


def test_blocks_partition_the_volume():
    rng = np.random.default_rng(0)
    split = 0
    for _ in range(200):
        volume = tuple(int(n) for n in rng.integers(1, 60, 3))
        least = tuple(int(n) for n in rng.integers(1, 20, 3))
        most = int(10 ** rng.uniform(1, 5.5))
        blocks = list(plan_blocks(volume, least, most))
        count = np.zeros(volume, int)
        for block in blocks:
            assert all(n > 0 for n in block.shape)
            count[tuple(slice(a, b) for a, b in zip(block.start, block.stop, strict=True))] += 1
        assert (count == 1).all()
        largest = max(prod(b.shape) for b in blocks)
        if len(blocks) == 1:
            continue
        split += 1
        # Not below the tile, where a smaller block would cost the same memory.
        assert largest <= most or all(
            max(b.shape[a] for b in blocks) < 2 * least[a] for a in range(3)
        )
    assert split > 50


def test_blocks_of_a_network_that_takes_single_voxels():
    """Splitting went on for ever where a block may be one voxel thick."""
    assert len(list(plan_blocks((3, 4, 2), (1, 1, 1), 1))) == 24
    assert len(list(plan_blocks((3, 4, 2), (9, 9, 1), 1))) == 2


def test_small_volume_is_one_block():
    assert list(plan_blocks((8, 9, 10), (4, 4, 4), 720)) == [Box((0, 0, 0), (8, 9, 10))]


def test_no_chunk_lies_in_two_blocks():
    rng = np.random.default_rng(0)
    split = 0
    for _ in range(200):
        volume = tuple(int(n) for n in rng.integers(1, 60, 3))
        chunk = tuple(int(n) for n in rng.integers(1, 25, 3))
        least = tuple(int(n) for n in rng.integers(1, 20, 3))
        most = int(10 ** rng.uniform(2, 5))
        blocks = list(plan_blocks(volume, least, most, chunk))
        assert sum(prod(b.shape) for b in blocks) == prod(volume)
        owner: dict[tuple, int] = {}
        for number, block in enumerate(blocks):
            assert all(n > 0 for n in block.shape)
            first = tuple(a // c for a, c in zip(block.start, chunk, strict=True))
            last = tuple(-(-b // c) for b, c in zip(block.stop, chunk, strict=True))
            for place in np.ndindex(*(b - a for a, b in zip(first, last, strict=True))):
                key = tuple(a + p for a, p in zip(first, place, strict=True))
                assert owner.setdefault(key, number) == number
        split += len(blocks) > 1
        # Too large only where one chunk more would make it shorter than asked for.
        assert max(prod(b.shape) for b in blocks) <= most or all(
            max(b.shape[a] for b in blocks) < 2 * (least[a] + chunk[a]) for a in range(3)
        )
    assert split > 100


@pytest.mark.parametrize("axis", range(3))
def test_halves_of_a_box(axis):
    first, second = Box((1, 2, 3), (6, 7, 8)).halves(axis)
    assert first.start == (1, 2, 3)
    assert second.stop == (6, 7, 8)
    assert first.shape[axis] == 2
    assert second.shape[axis] == 3
    assert first.stop[axis] == second.start[axis]
    assert [s for a, s in enumerate(first.shape) if a != axis] == [5, 5]


@pytest.mark.parametrize("most", [1, 10, 59, 60])
def test_a_box_is_cut_in_halves_until_they_fit(most):
    box = Box((1, 2, 3), (4, 6, 8))
    parts = box.cut(most)
    assert (covered(parts, box) == 1).all()
    assert max(prod(part.shape) for part in parts) <= most
    assert len(parts) == {1: 60, 10: 10, 59: 2, 60: 1}[most]


@pytest.mark.parametrize("shape", [(1, 100, 37), (5, 6, 7)])
def test_parts_are_even_and_nowhere_too_long(shape):
    parts = plan_parts(shape, (3, 10, 37))
    assert (covered(list(parts), Box((0, 0, 0), shape)) == 1).all()
    for axis, most in enumerate((3, 10, 37)):
        lengths = {b.shape[axis] for b in parts}
        assert max(lengths) <= most
        assert max(lengths) - min(lengths) <= 1


# --- grids ----------------------------------------------------------------------------------

GRID = BoxGrid([[(0, 2), (2, 5)], [(0, 4)], [(1, 3), (3, 9), (9, 10)]])


def test_a_grid_lists_its_boxes_with_x_fastest():
    assert list(GRID) == [
        Box((z, 0, a), (w, 4, b)) for z, w in ((0, 2), (2, 5)) for a, b in ((1, 3), (3, 9), (9, 10))
    ]
    assert [GRID[i] for i in range(len(GRID))] == list(GRID)
    assert GRID[-1] == list(GRID)[5]
    assert GRID[1:3] == list(GRID)[1:3]
    for outside in (6, -7):
        with pytest.raises(IndexError, match="6"):
            GRID[outside]


def test_a_moved_grid_holds_the_moved_boxes():
    assert list(GRID.moved((5, 6, 7))) == [box.moved((5, 6, 7)) for box in GRID]


def test_the_box_of_each_voxel():
    grid = plan_blocks((20, 30, 7), (1, 1, 1), 50).moved((3, 0, 1))
    voxels = np.argwhere(np.ones((20, 30, 7))) + np.array([3, 0, 1])
    for voxel, index in zip(voxels, grid.containing(voxels), strict=True):
        box = grid[index]
        assert all(a <= v < b for a, v, b in zip(box.start, voxel, box.stop, strict=True))


@pytest.mark.parametrize("sizes", [(1, 16, 16), (1, 13, 37), (1, 21, 20), (1, 1, 40), (1, 1, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_the_beginning_of_the_spread_order_reaches_all_quarters(sizes, seed):
    grid = plan_parts(sizes, (1, 1, 1))
    order = spread_order(grid, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(grid)))
    halves = [
        tuple(2 * a // n for a, n in zip(grid[i].start, sizes, strict=True)) for i in order[:16]
    ]
    assert len(set(halves)) == prod(min(n, 2) for n in sizes)
