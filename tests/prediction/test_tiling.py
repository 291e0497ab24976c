"""Tiles cover a box of any size."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from boxes import covered
from napari_unet3d.data import boxes
from napari_unet3d.data.boxes import Box, plan_blocks
from napari_unet3d.prediction.tiling import blending_weights, overlap_slices, plan_tiles


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


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 64, 64), (16, 64, 63), (128, 8, 8)])
def test_blending_weights_are_positive_and_highest_in_the_middle(shape):
    weights = blending_weights(shape)
    assert weights.shape == shape
    assert weights.dtype == np.float32
    assert weights.min() > 0
    assert weights[tuple(n // 2 for n in shape)] == weights.max()
    np.testing.assert_allclose(weights, weights[::-1, ::-1, ::-1])


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


def test_the_common_part_of_a_tile_and_a_box_is_found_in_both_arrays():
    index = np.stack(np.indices((9, 10, 11)))
    tile, box = Box((2, 0, 3), (6, 8, 11)), Box((4, 5, 0), (9, 10, 7))
    here, there = overlap_slices(tile, box)
    in_tile = index[(slice(None), *tile.slices)][(slice(None), *here)]
    in_box = index[(slice(None), *box.slices)][(slice(None), *there)]
    np.testing.assert_array_equal(in_tile, in_box)
    assert in_tile.shape == (3, 2, 3, 4)
