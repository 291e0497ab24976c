"""What a voxel costs: how often it goes through the network, whatever the stack and the memory."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmark_scripts import imported
from boxes import covered
from napari_unet3d.data.boxes import Box
from napari_unet3d.networks.geometry import fits, output_shape, receptive_field
from napari_unet3d.networks.planning import prediction_bytes
from napari_unet3d.networks.unet import PAPER_NETWORK, UNetConfig
from napari_unet3d.prediction.stack_plan import alignment, overlap_voxels, plan_stack
from napari_unet3d.prediction.tiling import plan_tiles

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
def test_a_voxel_is_computed_at_most_2_4_times_with_2_gib(
    passes: Any, shape: tuple[int, int, int], chunk: tuple[int, int, int]
) -> None:
    for overlap, most in ((0.25, 2.4), (0.125, 1.6)):
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


@pytest.mark.parametrize("network", [SMALL, UNPADDED, PAPER_NETWORK], ids=["same", "valid", "paper"])
def test_the_passes_of_a_plan_are_those_of_its_tiles(network: UNetConfig) -> None:
    rng = np.random.default_rng(0)
    planned = 0
    for _ in range(30):
        shape = tuple(int(n) for n in rng.integers(3, 200, 3))
        chunk = tuple(int(rng.choice([1, 1, 5, 8, 24, 64])) for _ in range(3))
        chunk = tuple(min(c, n) for c, n in zip(chunk, shape, strict=True))
        most_tile, most_block = int(10 ** rng.uniform(5, 7)), int(10 ** rng.uniform(5, 7))
        layout = plan_stack(network, shape, chunk, 0.25, most_tile, most_block)
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
        out = output_shape(network, layout.tile)
        overlap, align = overlap_voxels(network, out, 0.25), alignment(network, out)
        tiles = sum(len(plan_tiles(shape, b, out, overlap, align).outputs) for b in layout.blocks)
        assert layout.passes == pytest.approx(tiles * prod(layout.tile) / prod(shape))
    assert planned > 10


def test_the_overlap_follows_what_the_network_sees() -> None:
    seen = receptive_field(SMALL)
    assert overlap_voxels(SMALL, (200, 200, 200), 0.5) == tuple(n // 2 for n in seen)
    assert overlap_voxels(SMALL, (4, 200, 8), 0.75) == (2, int(0.75 * seen[1]), 4)
    assert overlap_voxels(UNPADDED, (200, 200, 200), 0.5) == (0, 0, 0)


def test_a_given_tile_is_kept() -> None:
    layout = plan_stack(SMALL, (60, 200, 200), (1, 1, 1), 0.25, 1, 10**5, (16, 64, 32))
    assert layout is not None
    assert layout.tile == (16, 64, 32)
    assert len(layout.blocks) > 20


def test_a_chunk_that_is_too_large_has_no_plan() -> None:
    assert plan_stack(SMALL, (64, 64, 64), (64, 64, 64), 0.25, 10**6, 10**5) is None
