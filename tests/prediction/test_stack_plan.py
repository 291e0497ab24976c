"""What a voxel costs: how often it goes through the network, whatever the stack and the memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import pytest

from benchmark_scripts import imported
from boxes import covered
from napari_unet3d.data.boxes import Box
from napari_unet3d.networks.geometry import fits, output_shape, receptive_field, total_stride
from napari_unet3d.networks.planning import prediction_bytes
from napari_unet3d.networks.unet import PAPER_NETWORK, UNetConfig
from napari_unet3d.prediction.stack_plan import DENSE_OVERLAP, TileRules

GIB = 1 << 30
SHAPES = (
    (256, 256, 256),
    (300, 300, 300),
    (384, 384, 384),
    (512, 512, 512),
    (1024, 1024, 1024),
    (512, 1024, 1024),
    (64, 16384, 16384),
)


@pytest.fixture(scope="module")
def passes() -> Iterator[Any]:
    with imported(["passes"]) as scripts:
        yield scripts.passes


@pytest.mark.parametrize("chunk", [(1, 1, 1), (64, 128, 128), (1, 512, 512)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_voxel_is_computed_at_most_1_8_times_with_2_gib(
    passes: Any, shape: tuple[int, int, int], chunk: tuple[int, int, int]
) -> None:
    # Blocks of whole chunks cannot be as thick as they had to be for 1.6.
    most = 1.6 if chunk == (1, 1, 1) else 1.8
    for overlap in (DENSE_OVERLAP, 0.125):
        plan = passes.plan_of(shape, 2 * GIB, chunk, overlap)
        assert 1 <= plan.passes <= most, plan


def test_the_cost_of_a_voxel_does_not_grow_with_the_stack(passes: Any) -> None:
    """Halos are computed at the borders inside of the stack only, so small stacks cost less."""
    costs = [passes.plan_of((n, n, n), 2 * GIB).passes for n in (1024, 2048, 4096)]
    assert max(costs) < 1.06 * min(costs)


def test_memory_is_as_promised_for_large_planes(passes: Any) -> None:
    for memory in (GIB // 2, 2 * GIB, 8 * GIB):
        for chunk in ((1, 1, 1), (64, 128, 128), (1, 16384, 16384)):
            plan = passes.plan_of((64, 16384, 16384), memory, chunk)
            network = UNetConfig.plan(
                "balanced", (1.0, 1.0, 1.0), (64, 512, 512),
                in_channels=1, n_classes=2, accelerator=False,
            )  # fmt: skip
            # Probabilities of two classes and all outputs, in fp32.
            result = 4 * (2 + 4) * plan.largest
            assert result <= memory / 4
            assert prediction_bytes(network, plan.tile, "fp32") <= memory / 2


def test_little_memory_costs_more_passes_and_no_error(passes: Any) -> None:
    costs = [passes.plan_of((256, 256, 256), m).passes for m in (2 * GIB, GIB // 4, GIB // 32)]
    assert costs[0] < costs[1] < costs[2] < 30


# --- plans of any network ---------------------------------------------------------------------

SMALL = UNetConfig(
    widths=(4, 8, 8),
    strides=((1, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 3,
    padding="same",
)
UNPADDED = SMALL.model_copy(update={"padding": "valid"})


@pytest.mark.parametrize(
    "network", [SMALL, UNPADDED, PAPER_NETWORK], ids=["same", "valid", "paper"]
)
def test_the_passes_of_a_plan_are_those_of_its_tiles(network: UNetConfig) -> None:
    rng = np.random.default_rng(0)
    planned = 0
    for _ in range(30):
        shape = tuple(int(n) for n in rng.integers(3, 200, 3))
        chunk = tuple(int(rng.choice([1, 1, 5, 8, 24, 64])) for _ in range(3))
        chunk = tuple(min(c, n) for c, n in zip(chunk, shape, strict=True))
        most_tile, most_block = int(10 ** rng.uniform(5, 7)), int(10 ** rng.uniform(5, 7))
        rules = TileRules(network, shape, 0.25)
        layout = rules.plan(chunk, most_tile, most_block)
        if layout is None:
            continue
        planned += 1
        assert prod(layout.tile) <= most_tile
        assert all(fits(network, axis, n) for axis, n in enumerate(layout.tile))
        assert all(prod(block.shape) <= most_block for block in layout.blocks)
        whole = Box((0, 0, 0), shape)
        assert (covered(layout.blocks, whole) == 1).all()
        for block in layout.blocks:
            assert all(a % c == 0 for a, c in zip(block.start, chunk, strict=True))
        assert rules.output(layout.tile) == output_shape(network, layout.tile)
        tiles = sum(len(rules.tiles(block, layout.tile).outputs) for block in layout.blocks)
        passes = tiles * prod(layout.tile) / prod(shape)
        assert passes == pytest.approx(layout.passes)
    assert planned > 10


def test_the_overlap_follows_what_the_network_sees() -> None:
    shape, box = (1, 1, 800), Box((0, 0, 0), (1, 1, 800))

    def overlaps(network: UNetConfig, tile: tuple[int, int, int], share: float) -> set[int]:
        tiles = TileRules(network, shape, share).tiles(box, tile).outputs
        return {a.stop[2] - b.start[2] for a, b in pairwise(tiles)}

    seen, stride = receptive_field(SMALL)[2], total_stride(SMALL)[2]
    for share in (0.25, 0.5):
        found = overlaps(SMALL, (16, 200, 200), share)
        assert int(share * seen) <= min(found) <= max(found) < 60
    assert overlaps(SMALL, (16, 200, 16), 0.75) == {8}, "half a tile at most"
    assert max(overlaps(UNPADDED, (64, 200, 204), 0.5)) <= 2 * stride, "as they are aligned"


def test_a_part_of_a_slice_lies_in_the_middle_of_one_tile() -> None:
    """Whatever the network sees: a look must not cost several tiles."""
    rules = TileRules(SMALL, (64, 64, 64), 0.25, adjoining=False)
    for low in range(52):
        tiles, cores = rules.tiles(Box((5, low, 20), (6, low + 12, 32)), (16, 16, 16))
        assert len(tiles) == 1
        assert tiles[0].start[1] <= low
        assert low + 12 <= tiles[0].stop[1]
        assert len(cores) == 1


def test_a_given_tile_is_kept() -> None:
    rules = TileRules(SMALL, (60, 200, 200), 0.25)
    layout = rules.plan((1, 1, 1), 1, 10**5, (16, 64, 32))
    assert layout is not None
    assert layout.tile == (16, 64, 32)
    assert len(layout.blocks) > 20


def test_a_chunk_that_is_too_large_has_no_plan() -> None:
    rules = TileRules(SMALL, (64, 64, 64), 0.25)
    assert rules.plan((64, 64, 64), 10**6, 10**5) is None
    assert rules.plan((1, 1, 1), 10**6, 10**5) is not None
