"""Training patches: around labelled voxels, and never with a held-out one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet3d.config import AugmentationConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.sampling import patches
from napari_unet3d.sampling.patches import PatchSampler
from napari_unet3d.sampling.source import Source

CPU = torch.device("cpu")
SHAPE = (20, 30, 40)
PATCH = (6, 12, 14)
WARPED = AugmentationConfig(spatial_share=1.0)
TURNED = AugmentationConfig(spatial_share=1.0, deformation=0)
"""All but the deformation, which moves the center of a patch, by a voxel or so."""


def stack(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 20, SHAPE).astype(np.float32)


def painted(*refs: SliceRef, rare: bool = False) -> np.ndarray:
    """Stripes of 1 and 2 on whole slices; one voxel in 200 is 3 when `rare`."""
    labels = np.zeros(SHAPE, np.uint8)
    rng = np.random.default_rng(0)
    for ref in refs:
        plane = np.swapaxes(labels, 0, ref.axis)[ref.index]
        plane[:] = rng.integers(1, 3, plane.shape)
        if rare:
            plane[rng.random(plane.shape) < 0.005] = 3
    return labels


class Drawing:
    """A sampler, and the shapes of the patches that it is asked for."""

    def __init__(self, sampler: PatchSampler, shapes) -> None:
        self.sampler = sampler
        self.shapes = dict.fromkeys(range(3), shapes) if isinstance(shapes, tuple) else shapes

    def batch(self, number, size, augmentation):
        return self.sampler.batch(number, size, self.shapes, augmentation)


def source(
    volume: Volume, intensity: IntensityNormalization | None = None, device: torch.device = CPU
) -> Source:
    return Source(volume, intensity or IntensityNormalization.estimate(volume), device)


def sampler(labels, image=None, held_out=(), shapes=PATCH, device=CPU, **more) -> Drawing:
    volume = Volume(stack() if image is None else image)
    annotation = SparseAnnotation.from_labels(labels, held_out=held_out)
    return Drawing(PatchSampler(source(volume, device=device), annotation, **more), shapes)


ONE_OF_EACH = (SliceRef(0, 4), SliceRef(0, 13), SliceRef(1, 10), SliceRef(2, 33))


# --- where patches lie ----------------------------------------------------------------------


@pytest.mark.parametrize("margin", [(2, 4, 4), (0, 0, 0)], ids=["unpadded", "padded"])
@pytest.mark.parametrize("augmentation", [None, TURNED], ids=["plain", "turned"])
@pytest.mark.parametrize("shape", [PATCH, (5, 11, 13), (1, 12, 12), (8, 30, 30)], ids=str)
def test_every_patch_holds_labelled_voxels(margin, augmentation, shape, device):
    if margin != (0, 0, 0):
        shape = tuple(n + m for n, m in zip(shape, margin, strict=True))
    found = sampler(painted(*ONE_OF_EACH), shapes=shape, margin=margin, device=device)
    for number in range(60):
        _, target = found.batch(number, 1, augmentation)
        assert (target > 0).any(), number


def test_deformed_patches_rarely_miss_the_slice():
    found = sampler(painted(SliceRef(0, 10)), shapes=(8, 30, 30))
    empty = [not (found.batch(n, 1, WARPED)[1] > 0).any() for n in range(100)]
    assert sum(empty) <= 3


@pytest.mark.parametrize(
    ("augmentation", "shape"),
    [(None, (9, 17, 19)), (None, (8, 16, 18)), (TURNED, (9, 17, 19))],
    ids=["odd", "even", "odd-turned"],  # turned about a corner, single voxels may get lost
)
def test_unpadded_patch_is_centered_on_a_labelled_voxel(augmentation, shape):
    """As in the authors' code, the voxel is in the center: a small output would miss others."""
    labels = np.zeros(SHAPE, np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(40):  # single voxels: to hit one by chance is not likely
        labels[tuple(rng.integers(0, SHAPE))] = rng.integers(1, 3)
    margin = (4, 8, 8)
    found = sampler(labels, shapes=shape, margin=margin)
    for number in range(60):
        _, target = found.batch(number, 1, augmentation)
        assert tuple(target.shape[1:]) == tuple(n - m for n, m in zip(shape, margin, strict=True))
        middle = tuple(slice((n - 1) // 2, n // 2 + 1) for n in target.shape[1:])
        assert (target[0][middle] > 0).any(), number


def test_without_augmentation_a_patch_is_a_plain_crop():
    image, labels = stack(), painted(*ONE_OF_EACH)
    found = sampler(labels, image)
    normalized = found.sampler.source.intensity.apply(image[None])[0]
    windows = np.lib.stride_tricks.sliding_window_view(normalized, PATCH)
    codes = np.lib.stride_tricks.sliding_window_view(labels, PATCH)
    for number in range(20):
        patch, target = found.batch(number, 1, None)
        patch = patch[0, 0].numpy()
        at = np.argwhere(np.abs(windows[..., 0, 0, 0] - patch[0, 0, 0]) < 1e-4)
        places = [tuple(p) for p in at if np.allclose(windows[tuple(p)], patch, atol=1e-4)]
        assert len(places) == 1
        np.testing.assert_array_equal(target[0].numpy(), codes[places[0]])


def test_padded_patch_stays_inside_of_the_volume():
    """At the border, too, all of the patch is used; outside everything is unlabelled."""
    labels = np.ones(SHAPE, np.uint8)
    labels[0, 0, 0] = 2
    found = sampler(labels)
    for number in range(30):
        assert (found.batch(number, 1, None)[1] > 0).all()


def test_patch_larger_than_the_volume():
    labels = painted(SliceRef(0, 4))
    found = sampler(labels, shapes=(32, 48, 56))
    patch, target = found.batch(0, 1, None)
    assert patch.isfinite().all()
    assert int((target > 0).sum()) == int((labels > 0).sum())
    assert int((target == 0).sum()) == 32 * 48 * 56 - int((labels > 0).sum())


def test_the_labelled_voxel_may_lie_anywhere_near_the_middle():
    """Patches shift to both sides alike: else a network learns where labels lie in a patch."""
    found = sampler(painted(SliceRef(0, 10)), shapes=(7, 13, 13))
    at = [int((found.batch(n, 1, None)[1][0] > 0).any((1, 2)).int().argmax()) for n in range(300)]
    assert len(set(at)) > 2
    assert np.mean(at) == pytest.approx(3, abs=0.25)


def test_patches_follow_the_orientation_of_the_slice():
    shapes = {0: (4, 16, 16), 1: (12, 4, 16), 2: (12, 16, 4)}
    found = sampler(painted(*ONE_OF_EACH), shapes=shapes)
    seen = set()
    for number in range(60):
        image, target = found.batch(number, 2, None)
        seen.add(tuple(image.shape[2:]))
        assert target.shape[1:] == image.shape[2:]
    assert seen == set(shapes.values())


# --- what is drawn --------------------------------------------------------------------------


@pytest.mark.parametrize(("rare_share", "low", "high"), [(0.0, 0, 0.08), (1.0, 0.2, 0.5)])
def test_rare_class_is_drawn_as_often_as_asked_for(rare_share, low, high):
    labels = painted(SliceRef(0, 4), SliceRef(0, 13), rare=True)
    assert (labels == 3).sum() < 0.01 * (labels > 0).sum()
    found = sampler(labels, shapes=(9, 17, 17), margin=(8, 16, 16), rare_share=rare_share)
    drawn = [int(found.batch(n, 1, None)[1][0, 0, 0, 0]) for n in range(200)]
    assert 0 not in drawn
    assert low <= drawn.count(3) / 200 <= high


def test_class_counts_leave_held_out_slices_out():
    labels = painted(SliceRef(0, 4), SliceRef(0, 13))
    found = sampler(labels, held_out=[SliceRef(0, 13)])
    expected = [(labels[4] == v).sum() for v in (1, 2)]
    np.testing.assert_array_equal(found.sampler.class_counts, expected)


@pytest.mark.parametrize("augmentation", [None, WARPED], ids=["plain", "warped"])
@pytest.mark.parametrize(
    "held_out", [SliceRef(0, 13), SliceRef(0, 12), SliceRef(1, 10), SliceRef(2, 33)], ids=str
)
def test_held_out_voxels_never_reach_a_target(held_out, augmentation):
    """Also where another slice crosses them, or a patch of a neighbor covers them.

    They alone are painted as class 4, so that one in a target would show.
    """
    labels = painted(*ONE_OF_EACH, SliceRef(0, 12))
    plane = np.swapaxes(labels, 0, held_out.axis)[held_out.index]
    plane[plane > 0] = 4
    assert (labels == 4).any()
    annotation = SparseAnnotation.from_labels(labels, held_out=[held_out])
    code = 1 + [1, *(c.value for c in annotation.classes)].index(4)

    def seen(held: bool) -> bool:
        found = sampler(labels, held_out=[held_out] if held else [])
        return any((found.batch(n, 2, augmentation)[1] == code).any().item() for n in range(30))

    assert seen(held=False), "precondition: not held out, it is found"
    assert not seen(held=True)


def test_targets_are_output_index_plus_1():
    labels = painted(SliceRef(0, 4))
    labels[labels == 2] = 200
    found = sampler(labels)
    values = {int(v) for n in range(10) for v in found.batch(n, 1, None)[1].unique()}
    assert values == {0, 1, 2}


# --- repeatable -----------------------------------------------------------------------------


def test_same_seed_and_number_give_the_same_batch(device):
    labels = painted(*ONE_OF_EACH)
    one, same, other = (sampler(labels, seed=s, device=device) for s in (3, 3, 4))
    one.batch(0, 2, WARPED)  # what was drawn before does not matter
    for number in (5, 2**40):
        a, b = one.batch(number, 2, WARPED), same.batch(number, 2, WARPED)
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    image = one.batch(5, 2, WARPED)[0]
    for batch in (one.batch(6, 2, WARPED), other.batch(5, 2, WARPED)):
        assert image.shape != batch[0].shape or not torch.equal(image, batch[0])


@pytest.mark.parametrize("augmentation", [None, TURNED], ids=["plain", "turned"])
def test_a_device_gets_the_patches_of_the_cpu(augmentation, device):
    labels = painted(*ONE_OF_EACH)
    quiet = augmentation and augmentation.model_copy(update={"noise": 0.0})
    here, there = (sampler(labels, device=d) for d in (CPU, device))
    for number in range(20):
        image, target = here.batch(number, 2, quiet)
        other_image, other_target = there.batch(number, 2, quiet)
        torch.testing.assert_close(other_image.cpu(), image, rtol=1e-3, atol=1e-3)
        assert (other_target.cpu() == target).float().mean() > 0.999


# --- kinds of stacks ------------------------------------------------------------------------


def test_channels():
    image = np.stack([stack(0), stack(1)])
    volume = Volume(image, "CZYX")
    annotation = SparseAnnotation.from_labels(painted(SliceRef(0, 4)))
    found = Drawing(PatchSampler(source(volume), annotation), PATCH)
    batch, _ = found.batch(0, 2, WARPED)
    assert batch.shape == (2, 2, *PATCH)
    assert not torch.equal(batch[:, 0], batch[:, 1])


def test_time_points_do_not_mix():
    """Each time point has a gray value of its own, and paint of a class of its own."""
    image = np.stack([np.full(SHAPE, 10.0 * t, np.float32) for t in range(3)])
    labels = np.zeros((3, *SHAPE), np.uint8)
    labels[0, 4], labels[2, 9] = 1, 2
    volume = Volume(image, "TZYX")
    intensity = IntensityNormalization.estimate(volume)
    annotation = SparseAnnotation.from_labels(labels)
    found = Drawing(PatchSampler(source(volume, intensity), annotation), PATCH)
    seen = set()
    for number in range(30):
        batch, target = found.batch(number, 1, None)
        gray = round(float(batch.mean() * intensity.std[0] + intensity.mean[0]) / 10)
        classes = set(target.unique().tolist()) - {0}
        seen.add((gray, *classes))
    assert seen == {(0, 1), (2, 2)}


def test_lazy_arrays():
    import zarr

    image, labels = stack(), painted(SliceRef(0, 4))
    plain = sampler(labels, image).batch(3, 2, WARPED)
    lazy = sampler(zarr.array(labels), zarr.array(image)).batch(3, 2, WARPED)
    assert all(torch.equal(x, y) for x, y in zip(plain, lazy, strict=True))


def test_a_patch_that_lost_its_label_is_drawn_again(monkeypatch):
    labels = np.zeros(SHAPE, np.uint8)
    labels[0, 0, 0], labels[0, 1, 1] = 1, 2

    def empty(trials: int) -> int:
        monkeypatch.setattr(patches, "_TRIALS", trials)
        found = sampler(labels)
        return sum(not found.batch(n, 1, WARPED)[1].any() for n in range(60))

    assert empty(1) > 10
    assert empty(6) <= empty(1) // 3
