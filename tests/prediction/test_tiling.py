"""Where tiles lie: they cover what is wanted, whatever its size."""

from __future__ import annotations

from itertools import pairwise
from math import prod

import numpy as np
import pytest

from napari_unet3d.prediction.tiling import (
    Box,
    blending_weights,
    mirror_index,
    nearest_index,
    plan_blocks,
    plan_tiles,
)


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
    assert tiles == [Box((0, 0, 0), (16, 16, 16))]


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


@pytest.mark.parametrize(("size", "before", "after"), [(7, 3, 4), (7, 40, 40), (1, 2, 2)])
def test_nearest_index_is_numpy_s_edge(size, before, after):
    expected = np.pad(np.arange(size), (before, after), mode="edge")
    np.testing.assert_array_equal(nearest_index(-before, size + after, size), expected)
