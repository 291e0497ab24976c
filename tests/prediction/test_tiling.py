"""Tiles cover a box of any size, and each voxel is decided by the tile that sees most of it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from boxes import covered
from napari_unet3d.data import boxes
from napari_unet3d.data.boxes import Box, plan_blocks
from napari_unet3d.prediction.tiling import count_tiles, overlap_slices, plan_tiles


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
        share = float(rng.choice([0, 0.25, 0.5, 0.75]))
        overlap = tuple(int(share * n) for n in size)
        yield tuple(volume), Box(tuple(low), tuple(high)), tuple(size), overlap, tuple(align)


def part(core: Box, tile: Box) -> tuple[int, ...]:
    """Shape of the part of a core that lies in its tile."""
    return tuple(s.stop - s.start for s in overlap_slices(core, tile)[0])


@pytest.mark.parametrize(("n", "axes"), [(3000, 1), (15, 3)])
def test_tiles_cover_every_box(n, axes):
    for volume, box, size, overlap, align in random_cases(n, axes):
        tiles, cores = plan_tiles(volume, box, size, overlap, align)
        assert (covered(cores, box) == 1).all(), (volume, box, size, overlap, align)
        for tile, core in zip(tiles, cores, strict=True):
            assert tile.shape == size
            assert all(s % a == 0 for s, a in zip(tile.start, align, strict=True))
            # A core is empty where the next tile decides all that this one could.
            assert core.shape == part(core, tile), (volume, box, size, overlap, align)


def test_no_voxel_is_decided_by_a_tile_whose_border_is_near():
    """But for the border of the volume, which every tile sees as it is."""
    decided = 0
    for volume, box, size, overlap, align in random_cases(3000, 1):
        if align[0] > size[0] - overlap[0]:
            continue  # tiles cannot advance by less than the stride
        tiles, cores = plan_tiles(volume, box, size, overlap, align)
        for tile, core in zip(tiles, cores, strict=True):
            halo = overlap[0] // 2
            assert tile.start[0] <= max(0, core.start[0] - halo)
            assert tile.stop[0] >= min(volume[0], core.stop[0] + halo)
            decided += 1
    assert decided > 3000


def test_tiles_of_all_boxes_are_counted_without_placing_them():
    for volume, box, size, overlap, align in random_cases(300, 1):
        tiles = plan_tiles(volume, box, size, overlap, align).outputs
        low, high = np.array([box.start[0]]), np.array([box.stop[0]])
        sizes, overlaps = np.array([[size[0]]]), np.array([[overlap[0]]])
        assert count_tiles(volume[0], low, high, sizes, overlaps, align[0]) == [len(tiles)]


def test_tiles_overlap_by_as_much_as_is_asked_for():
    box = Box((0, 0, 0), (128, 16, 16))
    tiles = plan_tiles((128, 16, 16), box, (32, 16, 16), (16, 8, 8), (8, 8, 8)).outputs
    starts = sorted({t.start[0] for t in tiles})
    assert starts[0] == 0
    assert starts[-1] + 32 >= 128
    assert max(b - a for a, b in pairwise(starts)) <= 16


def test_without_overlap_exact_tiles_abut():
    box = Box((0, 0, 0), (64, 64, 64))
    tiles = plan_tiles((64, 64, 64), box, (32, 32, 32), (0, 0, 0), (1, 1, 1)).outputs
    assert len(tiles) == 8
    assert (covered(tiles, box) == 1).all()


def test_boxes_of_a_stack_are_predicted_by_tiles_that_reach_beyond_them():
    """So the border of two boxes is like that of any two tiles, whichever box comes first."""
    volume = (64, 64, 64)
    for box, inner in ((Box((0, 0, 0), (32, 64, 64)), 32), (Box((32, 0, 0), (64, 64, 64)), 32)):
        tiles = plan_tiles(volume, box, (40, 64, 64), (16, 16, 16), (8, 8, 8)).outputs
        assert len(tiles) == 1
        assert tiles[0].start[0] <= inner - 8 < inner + 8 <= tiles[0].stop[0]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("index", [0, 7, 31, 63])
def test_one_slice_costs_one_row_of_tiles(axis, index):
    start, stop = [0, 0, 0], [64, 64, 64]
    start[axis], stop[axis] = index, index + 1
    size = [64, 64, 64]
    size[axis] = 16
    box = Box(tuple(start), tuple(stop))
    tiles = plan_tiles((64, 64, 64), box, tuple(size), (8, 8, 8), (4, 4, 4)).outputs
    assert len(tiles) == 1
    low = tiles[0].start[axis]
    assert low <= index < low + 16
    if 16 <= index < 48:
        assert abs(low + 8 - index) <= 2, "the slice is not in the middle"


def test_stack_thinner_than_a_tile_needs_one():
    box = Box((0, 0, 0), (3, 5, 6))
    tiles = plan_tiles((3, 5, 6), box, (16, 16, 16), (8, 8, 8), (8, 8, 8)).outputs
    assert list(tiles) == [Box((0, 0, 0), (16, 16, 16))]


def test_one_tile_of_a_large_stack_is_found_without_listing_all(monkeypatch):
    made = []
    whole = Box((0, 0, 0), (1000, 4000, 4000))
    monkeypatch.setattr(boxes, "Box", lambda *corners: made.append(corners) or Box(*corners))
    tiles = plan_tiles(whole.shape, whole, (64, 64, 64), (0, 0, 0), (8, 8, 8)).outputs
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
