"""Warps and gray-value changes: the right size, the right place, labels never mixed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet3d.config import AugmentationConfig
from napari_unet3d.sampling.augmentation import Warp, change_gray_values, draw_warp, spline_basis

CPU = torch.device("cpu")
SHAPE = (7, 9, 11)
NOTHING = AugmentationConfig(
    flips=False, rotation=0, tilt=0, scaling=0, contrast=0, brightness=0, gamma=0, noise=0,
    deformation=0,
)  # fmt: skip
CUBIC = (1.0, 1.0, 1.0)


def volume(shape=SHAPE, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(channels, *shape, generator=generator)
    return image, torch.randint(0, 4, shape, generator=generator).to(torch.uint8)


def sample(warp: Warp, image, target):
    start, stop = warp.bounds(tuple(target.shape))
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    return warp.sample(image[(slice(None), *box)], target[box], start, tuple(target.shape))


def quarter_turn(axis: int) -> np.ndarray:
    a, b = (i for i in range(3) if i != axis)
    matrix = np.eye(3)
    matrix[a, a] = matrix[b, b] = 0
    matrix[a, b], matrix[b, a] = -1, 1
    return matrix


# --- warps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_identity_changes_nothing(channels):
    image, target = volume(channels=channels)
    center = tuple((n - 1) / 2 for n in SHAPE)
    found, labels = sample(Warp(SHAPE, center, np.eye(3)), image, target)
    torch.testing.assert_close(found, image, rtol=0, atol=1e-5)
    assert torch.equal(labels, target)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_flip(axis):
    image, target = volume()
    matrix = np.eye(3)
    matrix[axis, axis] = -1
    found, labels = sample(Warp(SHAPE, tuple((n - 1) / 2 for n in SHAPE), matrix), image, target)
    torch.testing.assert_close(found, image.flip(axis + 1), rtol=0, atol=1e-5)
    assert torch.equal(labels, target.flip(axis))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_quarter_turn(axis):
    """Image and labels turn together, and into the same direction."""
    image, target = volume((9, 9, 9))
    warp = Warp((9, 9, 9), (4.0, 4.0, 4.0), quarter_turn(axis))
    found, labels = sample(warp, image, target)
    a, b = (i for i in range(3) if i != axis)
    turned = [torch.rot90(target, k, (a, b)) for k in (1, 3)]
    k = 1 if torch.equal(labels, turned[0]) else 3
    assert torch.equal(labels, turned[k // 2])
    torch.testing.assert_close(found, torch.rot90(image, k, (a + 1, b + 1)), rtol=0, atol=1e-5)


def test_image_is_linear_and_labels_are_nearest():
    image, target = volume((1, 1, 8))
    warp = Warp((1, 1, 4), (0.0, 0.0, 3.75), np.eye(3))  # voxels 2.25, 3.25, 4.25, 5.25
    found, labels = sample(warp, image, target)
    line = image[0, 0, 0]
    expected = [0.75 * line[i] + 0.25 * line[i + 1] for i in (2, 3, 4, 5)]
    torch.testing.assert_close(found[0, 0, 0], torch.stack(expected))
    assert torch.equal(labels[0, 0], target[0, 0, 2:6])


def test_outside_of_the_volume_is_unlabelled_and_finite():
    image, target = volume()
    target = target.clamp(min=1)
    warp = Warp((21, 21, 21), tuple((n - 1) / 2 for n in SHAPE), np.eye(3))
    found, labels = sample(warp, image, target)
    inside = np.zeros((21, 21, 21), bool)
    inside[7:14, 6:15, 5:16] = True
    np.testing.assert_array_equal(labels.numpy() > 0, inside)
    assert found.isfinite().all()
    assert found.abs().max() <= image.abs().max() + 1e-5


def test_the_crop_that_bounds_name_suffices():
    """Warping the crop gives what warping the whole volume gives."""
    image, target = volume((30, 34, 38))
    whole = tuple(target.shape)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        center = tuple(rng.uniform(0, n - 1) for n in whole)
        warp = draw_warp(rng, AugmentationConfig(), (8, 10, 12), center, (2.0, 1.0, 1.0), 0)
        found, labels = sample(warp, image, target)
        expected, expected_labels = warp.sample(image, target, (0, 0, 0), whole)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        assert torch.equal(labels, expected_labels)


def test_labels_are_never_mixed():
    image, target = volume((20, 20, 20))
    target = (target > 1).to(torch.uint8) * 3  # 0 and 3: a mixture would be 1 or 2
    for seed in range(10):
        rng = np.random.default_rng(seed)
        warp = draw_warp(rng, AugmentationConfig(), (8, 16, 16), (9.5, 9.5, 9.5), CUBIC, 0)
        assert set(sample(warp, image, target)[1].unique().tolist()) == {0, 3}


@pytest.mark.parametrize("voxel_size", [CUBIC, (4.0, 1.0, 1.0), (1.0, 0.5, 2.0)])
def test_rotation_keeps_distances_in_space(voxel_size):
    """In voxels an anisotropic rotation is no rotation; in micrometers it is."""
    config = NOTHING.model_copy(update={"rotation": 180.0, "tilt": 30.0, "spatial_share": 1.0})
    size = np.diag(voxel_size)
    turned = 0
    for seed in range(10):
        warp = draw_warp(np.random.default_rng(seed), config, SHAPE, (3, 4, 5), voxel_size, 0)
        physical = size @ warp.matrix @ np.linalg.inv(size)
        np.testing.assert_allclose(physical @ physical.T, np.eye(3), atol=1e-9)
        turned += not np.allclose(physical, np.eye(3), atol=0.05)
    assert turned > 5


def test_large_rotations_turn_around_the_thin_axis_only():
    config = NOTHING.model_copy(update={"rotation": 180.0, "tilt": 5.0, "spatial_share": 1.0})
    for axis in range(3):
        around, away = [], []
        for seed in range(30):
            warp = draw_warp(np.random.default_rng(seed), config, SHAPE, (3, 4, 5), CUBIC, axis)
            away.append(np.degrees(np.arccos(np.clip(warp.matrix[axis, axis], -1, 1))))
            other = (axis + 1) % 3
            around.append(np.degrees(np.arccos(np.clip(warp.matrix[other, other], -1, 1))))
        assert max(away) < 10
        assert max(around) > 90


def test_spatial_share_0_leaves_the_place_alone():
    config = AugmentationConfig(spatial_share=0, flips=False)
    warp = draw_warp(np.random.default_rng(0), config, SHAPE, (3, 4, 5), CUBIC, 0)
    np.testing.assert_array_equal(warp.matrix, np.eye(3))
    assert warp.controls is None


# --- the paper's deformation ----------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 16, 33, 132])
@pytest.mark.parametrize("spacing", [4.0, 17.3, 32.0])
def test_spline_basis_is_a_partition_of_unity(n, spacing):
    n_controls = int((n - 1) // spacing) + 4
    basis = spline_basis(n, spacing, n_controls)
    assert basis.shape == (n, n_controls)
    assert basis.min() >= 0
    np.testing.assert_allclose(basis.sum(1), 1)
    assert (np.count_nonzero(basis, 1) <= 4).all()


def test_spline_basis_of_the_paper():
    """At a knot, an approximation takes 1/6, 4/6, 1/6; an interpolation would take 1."""
    np.testing.assert_allclose(spline_basis(64, 32, 5)[0], [1 / 6, 4 / 6, 1 / 6, 0, 0])
    np.testing.assert_allclose(spline_basis(64, 32, 5)[32], [0, 1 / 6, 4 / 6, 1 / 6, 0])
    x = 0.25
    expected = [(1 - x) ** 3, 3 * x**3 - 6 * x**2 + 4, -3 * x**3 + 3 * x**2 + 3 * x + 1, x**3]
    np.testing.assert_allclose(spline_basis(64, 32, 5)[8, :4], np.array(expected) / 6)


def test_deformation_has_the_std_of_the_paper():
    """σ = 4 voxels every 32 voxels moves voxels by 1.25 to 1.41; interpolating, by 3 to 4."""
    config = NOTHING.model_copy(update={"deformation": 4.0, "spatial_share": 1.0})
    shape = (32, 64, 64)
    center = tuple((n - 1) / 2 for n in shape)
    plain = Warp(shape, center, np.eye(3)).coordinates(CPU)
    rng = np.random.default_rng(0)
    moved = [
        draw_warp(rng, config, shape, center, CUBIC, 0).coordinates(CPU)[:, ::4, ::4, ::4]
        - plain[:, ::4, ::4, ::4]
        for _ in range(150)
    ]
    assert 1.25 < torch.stack(moved).std().item() < 1.41


def test_deformation_is_smooth():
    config = NOTHING.model_copy(update={"deformation": 4.0, "spatial_share": 1.0})
    rng = np.random.default_rng(0)
    where = draw_warp(rng, config, (64, 64, 64), (31.5,) * 3, CUBIC, 0).coordinates(CPU)
    for axis in range(3):
        step = where.diff(dim=axis + 1)
        assert (step[axis] > 0.3).all(), "the image folds"


def test_deformation_of_coarse_voxels_is_smaller_in_voxels():
    config = NOTHING.model_copy(update={"deformation": 4.0, "spatial_share": 1.0})
    rng = np.random.default_rng(0)
    controls = [
        draw_warp(rng, config, (16, 64, 64), (8, 32, 32), (4.0, 1.0, 1.0), 0).controls
        for _ in range(30)
    ]
    z, y, x = np.concatenate([c.reshape(3, -1) for c in controls], 1).std(1)
    assert y == pytest.approx(4, rel=0.1)
    assert x == pytest.approx(4, rel=0.1)
    assert z == pytest.approx(1, rel=0.1)


# --- gray values ----------------------------------------------------------------------------


def change(config: AugmentationConfig, seed: int = 0, channels: int = 1) -> torch.Tensor:
    image, _ = volume((8, 16, 16), channels)
    noise = torch.Generator().manual_seed(seed)
    return change_gray_values(image, config, np.random.default_rng(seed), noise)


def test_no_change_is_no_change():
    image, _ = volume((8, 16, 16))
    torch.testing.assert_close(change(NOTHING), image)


@pytest.mark.parametrize("name", ["contrast", "brightness", "gamma", "noise"])
def test_each_change_does_something_and_not_too_much(name):
    image, _ = volume((8, 16, 16))
    config = NOTHING.model_copy(update={name: 0.2})
    found = [change(config, seed) for seed in range(8)]
    differences = [(f - image).abs().max().item() for f in found]
    assert max(differences) > 0.05
    assert len(set(differences)) > 1
    for f in found:
        assert f.isfinite().all()
        assert (f - image).abs().mean() < 0.7
        order = np.corrcoef(f.flatten(), image.flatten())[0, 1]
        assert order > 0.9


def test_channels_change_on_their_own():
    image, _ = volume((8, 16, 16), 2)
    shift = change(NOTHING.model_copy(update={"brightness": 1.0}), channels=2) - image
    first, second = (s.mean().item() for s in shift)
    assert abs(first - second) > 0.01


def test_constant_patch_stays_finite():
    noise = torch.Generator().manual_seed(0)
    image = torch.zeros(1, 4, 4, 4)
    found = change_gray_values(image, AugmentationConfig(), np.random.default_rng(0), noise)
    assert found.isfinite().all()


# --- a voxel in the patch, computed without the patch ---------------------------------------


@pytest.mark.parametrize("margin", [(0, 0, 0), (4, 8, 8)], ids=["padded", "unpadded"])
@pytest.mark.parametrize("deformation", [0.0, 4.0])
def test_covers_agrees_with_the_patch(margin, deformation):
    """A block of 3³ labelled voxels is seen in the patch where its middle is covered."""
    config = AugmentationConfig(spatial_share=1.0, deformation=deformation)
    size, shape, voxel = (60, 60, 60), (12, 24, 24), np.array([30, 30, 30])
    image, target = torch.zeros(1, *size), torch.zeros(size, dtype=torch.uint8)
    target[29:32, 29:32, 29:32] = 1
    rng = np.random.default_rng(0)
    covered, seen = [], []
    for _ in range(200):
        center = tuple(voxel + rng.uniform(-0.6, 0.6, 3) * shape)
        warp = draw_warp(rng, config, shape, center, (2.0, 1.0, 1.0), 0)
        _, labels = sample(warp, image, target)
        for axis, m in enumerate(margin):
            labels = labels.narrow(axis, m // 2, labels.shape[axis] - m)
        covered.append(warp.covers(voxel, margin))
        seen.append(bool(labels.any()))
    assert 20 < sum(covered) < 180, "precondition: both cases occur"
    missed = sum(c and not s for c, s in zip(covered, seen, strict=True))
    assert missed <= 2
    grazed = sum(s and not c for c, s in zip(covered, seen, strict=True))
    assert grazed <= 40  # an edge of the block only
