"""Plans: they follow voxel size, stack and memory, and are always admissible."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

from napari_unet3d.networks.geometry import (
    excess,
    feature_map_values,
    fits,
    is_padded,
    next_fitting,
    output_shape,
    receptive_field,
    smallest_map,
    total_stride,
    walk,
)
from napari_unet3d.networks.planning import (
    halve,
    largest_cpu_tile,
    plan_batch,
    plan_patch,
    plan_patches,
    plan_tile,
    prediction_bytes,
    training_bytes,
)
from napari_unet3d.networks.unet import PAPER_NETWORK, UNetConfig
from toy_networks import Branches, Plain

CUBE = (128, 128, 128)


def plan(voxel_size=(1.0, 1.0, 1.0), shape=CUBE, preset="balanced", **more) -> UNetConfig:
    given = {"in_channels": 1, "n_classes": 2, "accelerator": False} | more
    return UNetConfig.plan(preset, voxel_size, shape, **given)


# --- network --------------------------------------------------------------------------------


def test_isotropic_voxels_are_pooled_alike():
    network = plan()
    assert len(network.strides) >= 2
    assert set(network.strides) == {(2, 2, 2)}
    assert set(network.kernels) == {(3, 3, 3)}
    assert network.padding == "same"


def test_unit_of_the_voxel_size_does_not_matter():
    assert plan((3.0, 1.0, 1.0)) == plan((0.0003, 0.0001, 0.0001)) == plan((3e4, 1e4, 1e4))


def test_coarse_z_waits_until_the_plane_is_as_coarse():
    network = plan((3.0, 1.0, 1.0), accelerator=True)
    assert network.strides[0] == (1, 2, 2)
    assert network.kernels[0] == (1, 3, 3)
    assert network.strides[-1] == (2, 2, 2)
    assert network.kernels[-1] == (3, 3, 3)


def test_very_coarse_z_is_hardly_pooled():
    network = plan((11.0, 1.0, 1.0), accelerator=True)
    assert total_stride(network)[0] == 1
    assert min(total_stride(network)[1:]) >= 4
    # Still three-dimensional: where the plane has become as coarse, z is convolved.
    assert network.kernels[0][0] == 1
    assert network.kernels[-1][0] == 3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_whichever_axis_is_coarse(axis):
    size = [1.0, 1.0, 1.0]
    size[axis] = 3.0
    network = plan(tuple(size), accelerator=True)
    assert network.strides[0][axis] == 1
    assert network.kernels[0][axis] == 1
    assert total_stride(network)[axis] < max(total_stride(network))


@pytest.mark.parametrize("spacing", [0.6, 1.0, 1.5])
@pytest.mark.parametrize("depth", [6, 10])
def test_shallow_stack_is_pooled_and_convolved_in_its_plane(depth, spacing):
    """What is too short to be pooled says nothing about the other axes."""
    network = plan((1.0, spacing, spacing), shape=(depth, 256, 256))
    assert total_stride(network)[0] <= depth // 4
    assert total_stride(network)[1:] == total_stride(plan())[1:]
    assert all(kernel[1:] == (3, 3) for kernel in network.kernels)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [0.1, 1.0, 10.0])
def test_an_axis_of_one_voxel_is_left_alone(axis, spacing):
    shape, size = [64, 64, 64], [1.0, 1.0, 1.0]
    shape[axis], size[axis] = 1, spacing
    network = plan(tuple(size), tuple(shape))
    others = [a for a in range(3) if a != axis]
    assert total_stride(network)[axis] == 1
    assert all(k[axis] == 1 for k in network.kernels)
    assert all(total_stride(network)[a] > 1 for a in others)
    assert all(network.kernels[0][a] == 3 for a in others)


@pytest.mark.parametrize("preset", ["fast", "balanced"])
@pytest.mark.parametrize("size", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (1.0, 3.0, 1.0)])
def test_a_cpu_computes_the_levels_on_a_coarser_grid(size, preset):
    """Its first convolution steps over what a GPU pools first, so no level is as large."""
    cpu, gpu = (plan(size, preset=preset, accelerator=a) for a in (False, True))
    assert cpu.stem == gpu.strides[0]
    assert gpu.stem == (1, 1, 1)
    tile = (32, 64, 64)
    work = [
        sum(
            layer.multiply_adds
            for layer in walk(p.model_copy(update={"widths": gpu.widths}), tile)[0]
        )
        for p in (cpu, gpu)
    ]
    assert work[0] < work[1] / 2
    assert output_shape(cpu, tile) == tile


def test_tiles_on_a_cpu_are_as_large_as_their_work_allows():
    """A quicker network gets larger tiles, whose overlaps are computed less often."""
    quick, slow = plan(), plan(accelerator=True)
    assert largest_cpu_tile(quick) > 4 * largest_cpu_tile(slow)
    tile = plan_tile(quick, (512, 512, 512), largest_cpu_tile(quick))
    work = sum(layer.multiply_adds for layer in walk(quick, tile)[0])
    assert 2e10 < work <= 1.6e11
    assert largest_cpu_tile(PAPER_NETWORK) == 3_000_000  # however slow, it is not cut up


@pytest.mark.parametrize(
    ("shape", "precision", "accelerator", "batch"),
    [
        ((64, 256, 256), "bf16", False, 1),
        ((64, 256, 256), "fp32", False, 2),
        ((64, 256, 256), "fp32", True, 1),
        ((42, 47, 41), "bf16", False, 2),  # patches of 8 × 48 × 48
        ((1, 1024, 1024), "bf16", False, 1),  # small only along slices that nobody annotates
    ],
)
def test_a_batch_of_small_patches_has_two(shape, precision, accelerator, batch):
    network = plan(shape=shape, accelerator=accelerator)
    assert plan_batch(network, shape, accelerator, precision) == batch


def test_images_and_probabilities_count_where_they_are_more_than_the_maps():
    many = plan(in_channels=8, n_classes=40)
    tile = (64, 64, 64)
    assert prediction_bytes(many, tile, "bf16") >= prod(tile) * (4 * 8 + 8 * 40)


def test_a_grid_that_is_too_short_has_no_stem():
    assert plan(shape=(3, 5, 6)).stem == (1, 1, 1)
    assert plan(shape=(5, 64, 64)).stem == (1, 2, 2)


def test_tiny_odd_stack():
    network = plan(shape=(42, 47, 41))
    tile = plan_tile(network, (42, 47, 41), 10**9)
    assert all(n >= m for n, m in zip(tile, (42, 47, 41), strict=True))


def test_stack_too_small_to_pool_makes_a_network_all_the_same():
    network = plan(shape=(3, 5, 6))
    assert total_stride(network) == (1, 1, 1)
    assert output_shape(network, (3, 5, 6)) == (3, 5, 6)


def test_paper_preset_is_the_paper_s():
    assert plan(preset="paper", in_channels=3, n_classes=3) == PAPER_NETWORK
    assert plan((9.0, 1.0, 1.0), preset="paper").strides == PAPER_NETWORK.strides


def test_options_reach_the_network():
    network = plan(in_channels=4, n_classes=5, normalization="channel")
    assert (network.in_channels, network.n_classes) == (4, 5)
    assert network.normalization == "channel"
    assert plan(preset="paper", normalization="none").normalization == "none"


def test_fast_is_cheaper_and_a_gpu_gets_more_features():
    tile = (32, 64, 64)
    assert feature_map_values(plan(preset="fast"), tile) <= feature_map_values(plan(), tile)
    fast, balanced = (
        sum(c.in_channels * c.out_channels for c in walk(plan(preset=p), tile)[0])
        for p in ("fast", "balanced")
    )
    assert fast < balanced
    assert plan(accelerator=True).widths[0] > plan().widths[0]


# --- patches and tiles ----------------------------------------------------------------------


def random_stacks(n: int):
    rng = np.random.default_rng(0)
    for _ in range(n):
        shape = tuple(int(m) for m in np.exp(rng.uniform(np.log(2), np.log(400), 3)))
        voxel_size = tuple(float(s) for s in np.exp(rng.uniform(-2.5, 2.5, 3)))
        preset = str(rng.choice(["fast", "balanced", "paper"]))
        network = UNetConfig.plan(
            preset, voxel_size, shape, in_channels=1, n_classes=2, accelerator=False
        )
        yield rng, network, shape


def is_admissible(network: UNetConfig, shape) -> bool:
    return all(fits(network, axis, n) for axis, n in enumerate(shape))


def test_every_plan_is_admissible():
    padding = set()
    for rng, network, shape in random_stacks(60):
        padding.add(network.padding)
        axis, voxels, depth = rng.integers(3), 10 ** rng.uniform(3, 6), rng.integers(1, 40)
        patch = plan_patch(network, shape, int(axis), int(voxels), int(depth))
        tile = plan_tile(network, shape, int(voxels))
        assert is_admissible(network, patch), (network, shape, patch)
        assert is_admissible(network, tile), (network, shape, tile)
    assert padding == {"same", "valid"}


def test_no_plan_is_too_large():
    for _, network, _ in random_stacks(200):
        assert excess(network) is None


def test_patch_is_thin_along_the_axis_of_the_slice():
    for axis in range(3):
        patch = plan_patch(plan(), CUBE, axis, 200_000, 16)
        others = [patch[a] for a in range(3) if a != axis]
        assert patch[axis] <= 24
        assert min(others) > 2 * patch[axis]
        assert prod(patch) < 400_000


def test_patch_of_a_narrow_stack_grows_along_the_other_axis():
    wide = plan_patch(plan(shape=(64, 32, 400)), (64, 32, 400), 0, 300_000, 16)
    assert wide[1] == 32
    assert wide[2] > 3 * 32


def test_padded_patch_is_not_larger_than_the_stack_needs():
    for _, network, shape in random_stacks(40):
        if network.padding == "valid":
            continue
        patch = plan_patch(network, shape, 0, 10**7, 1000)
        step = total_stride(network)
        assert all(p < max(n, 16) + s for p, n, s in zip(patch, shape, step, strict=True))


def test_tile_covers_the_stack_when_it_may():
    for _, network, shape in random_stacks(40):
        tile = plan_tile(network, shape, 10**12)
        out = output_shape(network, tile)
        assert all(n >= m for n, m in zip(out, shape, strict=True))


def test_tile_obeys_the_limit_or_is_the_smallest():
    for _, network, shape in random_stacks(40):
        tile = plan_tile(network, shape, 20_000)
        assert prod(tile) <= 20_000 or halve(network, tile) is None


def test_no_map_has_a_single_voxel_where_a_deep_network_meets_a_small_stack():
    network = UNetConfig(
        widths=(4, 4, 4, 4),
        strides=((2, 2, 2),) * 3,
        kernels=((3, 3, 3),) * 4,
        padding="same",
    )
    assert smallest_map(network, (8, 8, 8)) == 1, "the precondition"
    for shape in (plan_patch(network, (8, 8, 8), 0, 1000, 8), plan_tile(network, (8, 8, 8), 1000)):
        assert smallest_map(network, shape) == 2


def test_halving_always_shrinks_and_ends():
    for _, network, shape in random_stacks(60):
        tile = plan_tile(network, shape, 10**12)
        for _ in range(64):
            smaller = halve(network, tile)
            if smaller is None:
                break
            assert is_admissible(network, smaller)
            assert all(a <= b for a, b in zip(smaller, tile, strict=True))
            assert prod(smaller) < prod(tile)
            tile = smaller
        else:
            pytest.fail(f"{shape} never ends")
        # What is half as large is not admissible, or ends in a single voxel.
        for axis in range(3):
            shorter = list(tile)
            shorter[axis] = max(1, tile[axis] // 2)
            shorter = next_fitting(network, tuple(shorter))
            assert shorter == tile or smallest_map(network, shorter) == 1


def test_halving_is_about_half():
    tile = (64, 64, 64)
    smaller = halve(plan(), tile)
    assert prod(smaller) == prod(tile) // 2


@pytest.mark.parametrize("estimate", [training_bytes, prediction_bytes])
def test_estimated_bytes_follow_size_and_precision(estimate):
    network = plan()
    small, large = (estimate(network, t, "fp32") for t in ((32, 32, 32), (64, 64, 64)))
    assert large == pytest.approx(8 * small, rel=0.01)
    assert estimate(network, (32, 32, 32), "bf16") < small


def test_training_bytes_of_the_paper_s_tile():
    """2.2 GiB were measured (fp32); an estimate that is off by half would plan nonsense."""
    found = training_bytes(PAPER_NETWORK, (116, 132, 132), "fp32")
    assert 1.5 * 2**30 < found < 3.5 * 2**30


@pytest.mark.parametrize(("ratio", "thin"), [(1, False), (11, True)])
def test_patch_is_no_thicker_than_what_its_slice_can_see(ratio, thin):
    network = plan((ratio, 1.0, 1.0), (64, 256, 256), accelerator=True)
    seen = receptive_field(network)[0]
    shape = plan_patch(network, (64, 256, 256), 0, 300_000, 16)
    assert shape[0] == (seen if thin else 16)
    assert prod(shape) == pytest.approx(300_000, rel=0.15)


# --- networks that planning has never heard of ----------------------------------------------


@pytest.mark.parametrize(
    "network", [Plain(), Plain(padded=False), Branches()], ids=["plain", "unpadded", "branches"]
)
@pytest.mark.parametrize("shape", [(40, 200, 150), (3, 5, 6), (1, 64, 64)])
def test_plans_for_any_network(network, shape):
    for voxels in (2_000, 30_000, 10**7):
        tile = plan_tile(network, shape, voxels)
        assert is_admissible(network, tile)
        assert prod(tile) <= voxels or halve(network, tile) is None
    whole = output_shape(network, plan_tile(network, shape, 10**12))
    assert all(n >= m for n, m in zip(whole, shape, strict=True))
    for memory in (10**6, 10**8, 10**12):
        for small in (False, True):
            patches = plan_patches(network, shape, False, memory, "fp32", small)
            for patch in patches.values():
                assert is_admissible(network, patch)
                fitting = training_bytes(network, patch, "fp32") <= memory
                assert fitting or halve(network, patch) is None


def test_patch_of_any_network_is_no_thicker_than_it_can_see():
    assert plan_patch(Plain(), CUBE, 0, 300_000, 16)[0] == 9
    assert plan_patch(Plain(kernels=(1, 3, 3)), CUBE, 0, 300_000, 16)[0] == 5


def test_a_network_that_cuts_off_little_has_no_patch_like_the_paper_s():
    network, stack = Plain(padded=False), (16, 48, 48)
    assert not is_padded(network), "the precondition"
    patches = plan_patches(network, stack, False, 10**12, "fp32")
    for axis, patch in patches.items():
        # The output is planned like that of a padded network; what is cut off comes on top.
        padded = plan_patch(Plain(), stack, axis, 300_000, 16)
        assert output_shape(network, patch) == padded
    small, large = (
        plan_patches(network, (300, 300, 300), False, 10**12, "fp32", small)
        for small in (True, False)
    )
    assert all(prod(small[a]) < prod(large[a]) / 2 for a in range(3))


def test_the_paper_s_network_has_the_paper_s_patch_on_any_stack():
    for stack in ((16, 48, 48), (300, 1000, 1000)):
        for small in (False, True):
            patches = plan_patches(PAPER_NETWORK, stack, False, 10**12, "fp32", small)
            assert patches == dict.fromkeys(range(3), (116, 132, 132))
