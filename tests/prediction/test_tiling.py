"""Where tiles lie: they cover what is wanted, whatever its size."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np
import pytest

from napari_unet3d.data import boxes
from napari_unet3d.data.boxes import Box, BoxGrid, plan_blocks, plan_parts, spread_order
from napari_unet3d.prediction.tiling import blending_weights, plan_tiles
from napari_unet3d.sampling.source import mirror_index, nearest_index


def covered(tiles: list[Box], box: Box) -> np.ndarray:
    """How many tiles reach each voxel of a box."""
    count = np.zeros(box.shape, int)
    for tile in tiles:
        where = tuple(
            slice(max(a, c) - c, max(min(b, d) - c, 0))
            for a, b, c, d in zip(tile.start, tile.stop, box.start, box.stop, strict=True)
        )
        count[where] += 1
    return count


def random_cases(n: int, axes: int):
    """Boxes that need several tiles along the first `axes` axes."""
    rng = np.random.default_rng(0)
    for _ in range(n):
        volume, size, align, low, high = [1] * 3, [1] * 3, [1] * 3, [0] * 3, [1] * 3
        for axis in range(axes):
            volume[axis] = int(rng.integers(1, 70))
            align[axis] = int(rng.choice([1, 2, 4, 8]))
            # Of a padded network multiples of its stride, of an unpadded one any more than it.
            size[axis] = align[axis] * int(rng.integers(1, 6)) + int(rng.choice([0, 0, 1, 3]))
            low[axis] = int(rng.integers(0, volume[axis]))
            high[axis] = int(rng.integers(low[axis] + 1, volume[axis] + 1))
        if rng.random() < 0.3:
            low, high = [0, 0, 0], volume
        overlap = float(rng.choice([0, 0.25, 0.5, 0.75]))
        yield tuple(volume), Box(tuple(low), tuple(high)), tuple(size), overlap, tuple(align)


@pytest.mark.parametrize(("n", "axes"), [(3000, 1), (15, 3)])
def test_tiles_cover_every_box(n, axes):
    for volume, box, size, overlap, align in random_cases(n, axes):
        tiles = plan_tiles(volume, box, size, overlap, align)
        assert covered(tiles, box).min() >= 1, (volume, box, size, overlap, align)
        for tile in tiles:
            assert tile.shape == size
            assert all(s % a == 0 for s, a in zip(tile.start, align, strict=True))
            assert axes > 1 or covered([tile], box).any(), "a tile that is not needed"


def test_tiles_overlap_by_the_share_asked_for():
    tiles = plan_tiles((128, 16, 16), Box((0, 0, 0), (128, 16, 16)), (32, 16, 16), 0.5, (8, 8, 8))
    starts = sorted({t.start[0] for t in tiles})
    assert starts[0] == 0
    assert starts[-1] + 32 >= 128
    assert max(b - a for a, b in pairwise(starts)) <= 16


def test_without_overlap_exact_tiles_abut():
    box = Box((0, 0, 0), (64, 64, 64))
    tiles = plan_tiles((64, 64, 64), box, (32, 32, 32), 0.0, (1, 1, 1))
    assert len(tiles) == 8
    assert (covered(tiles, box) == 1).all()


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("index", [0, 7, 31, 63])
def test_one_slice_costs_one_row_of_tiles(axis, index):
    start, stop = [0, 0, 0], [64, 64, 64]
    start[axis], stop[axis] = index, index + 1
    size = [64, 64, 64]
    size[axis] = 16
    tiles = plan_tiles((64, 64, 64), Box(tuple(start), tuple(stop)), tuple(size), 0.5, (8, 8, 8))
    assert len(tiles) == 1
    low = tiles[0].start[axis]
    assert low <= index < low + 16
    if 16 <= index < 48:
        assert abs(low + 8 - index) <= 4, "the slice is not in the middle"


def test_stack_thinner_than_a_tile_needs_one():
    tiles = plan_tiles((3, 5, 6), Box((0, 0, 0), (3, 5, 6)), (16, 16, 16), 0.5, (8, 8, 8))
    assert list(tiles) == [Box((0, 0, 0), (16, 16, 16))]


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


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 64, 64), (16, 64, 63), (128, 8, 8)])
def test_blending_weights_are_positive_and_highest_in_the_middle(shape):
    weights = blending_weights(shape)
    assert weights.shape == shape
    assert weights.dtype == np.float32
    assert weights.min() > 0
    assert weights[tuple(n // 2 for n in shape)] == weights.max()
    np.testing.assert_allclose(weights, weights[::-1, ::-1, ::-1])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 3), (4, 4), (20, 33)])
def test_mirror_index_is_numpy_s_reflect(size, before, after):
    expected = np.pad(np.arange(size), (before, after), mode="reflect" if size > 1 else "edge")
    np.testing.assert_array_equal(mirror_index(-before, size + after, size), expected)


def test_mirror_index_of_a_part_that_lies_beyond_the_volume():
    whole = mirror_index(-40, 40, 7)
    np.testing.assert_array_equal(mirror_index(20, 31, 7), whole[60:71])


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


@pytest.mark.parametrize(("size", "before", "after"), [(7, 3, 4), (7, 40, 40), (1, 2, 2)])
def test_nearest_index_is_numpy_s_edge(size, before, after):
    expected = np.pad(np.arange(size), (before, after), mode="edge")
    np.testing.assert_array_equal(nearest_index(-before, size + after, size), expected)


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


def test_one_tile_of_a_large_stack_is_found_without_listing_all(monkeypatch):
    made = []
    whole = Box((0, 0, 0), (1000, 4000, 4000))
    monkeypatch.setattr(boxes, "Box", lambda *corners: made.append(corners) or Box(*corners))
    tiles = plan_tiles(whole.shape, whole, (64, 64, 64), 0.0, (8, 8, 8))
    assert len(tiles) == 16 * 63 * 63
    blocks = plan_blocks(whole.shape, (16, 16, 16), 100_000)
    assert len(blocks) > 100_000
    assert tiles[16 * 63 * 63 - 1].stop[0] >= 1000
    assert blocks[len(blocks) - 1].stop == whole.stop
    assert len(made) == 2


def test_the_box_of_each_voxel():
    grid = plan_blocks((20, 30, 7), (1, 1, 1), 50).moved((3, 0, 1))
    voxels = np.argwhere(np.ones((20, 30, 7))) + np.array([3, 0, 1])
    for voxel, index in zip(voxels, grid.containing(voxels), strict=True):
        box = grid[index]
        assert all(a <= v < b for a, v, b in zip(box.start, voxel, box.stop, strict=True))


# --- chunks ---------------------------------------------------------------------------------


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


@pytest.mark.parametrize("shape", [(1, 100, 37), (5, 6, 7)])
def test_parts_are_even_and_nowhere_too_long(shape):
    parts = plan_parts(shape, (3, 10, 37))
    assert (covered(list(parts), Box((0, 0, 0), shape)) == 1).all()
    for axis, most in enumerate((3, 10, 37)):
        lengths = {b.shape[axis] for b in parts}
        assert max(lengths) <= most
        assert max(lengths) - min(lengths) <= 1


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
