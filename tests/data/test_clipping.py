"""Painted classes are never clipped, and the same stack gives the same percentiles."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import zarr

from napari_unet3d.data import clipping
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.clipping import painted_values
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume

SHAPE = (30, 96, 100)


def beads(seed=0, n=60, shape=SHAPE):
    """Single voxels of 300…4000 on noise of 100 ± 5, and where they are."""
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 5, shape)
    truth = np.zeros(shape, bool)
    truth.flat[rng.choice(truth.size, n, replace=False)] = True
    truth[4, 5:15:3, 5] = truth[20, 5:15:3, 7] = True
    image[truth] = rng.uniform(300, 4000, truth.sum())
    return image.astype(np.uint16), truth


def painted_on(truth, *slices, held_out=()):
    labels = np.zeros(truth.shape, np.uint8)
    for ref in (*slices, *held_out):
        where = (slice(None),) * ref.axis + (ref.index,)
        labels[where] = np.where(truth[where], 2, 1)
    return SparseAnnotation.from_labels(labels, held_out=held_out)


def estimate(image, annotation, axes="ZYX"):
    return IntensityNormalization.estimate(
        Volume(image, axes), painted=annotation.labelled_voxels()
    )


SLICES = (SliceRef(0, 4), SliceRef(0, 20))


def test_beads_stay_distinguishable():
    image, truth = beads()
    assert truth.mean() < 1e-3
    inside = sorted(image[4][truth[4]])
    blind = IntensityNormalization.estimate(Volume(image))
    assert len(np.unique(blind.apply(image[None])[0][truth])) == 1  # the fault: all the same
    seen = estimate(image, painted_on(truth, *SLICES))
    normalized = seen.apply(image[None])[0]
    painted = normalized[4][truth[4]]
    assert len(np.unique(painted)) >= len(inside) - 1
    assert painted.min() > np.quantile(normalized[~truth], 0.9999)
    assert seen.clip[0][0] == 0.1  # nothing dark was painted
    assert 99.9 < seen.clip[0][1] <= 100


@pytest.mark.parametrize("kind", ["numpy", "zarr"])
@pytest.mark.parametrize("dtype", ["uint16", "float32", "int32"])
def test_the_same_stack_has_the_same_numbers_when_it_is_predicted(kind, dtype):
    image, truth = beads()
    image = image.astype(dtype)
    data = image if kind == "numpy" else zarr.array(image, chunks=(8, 32, 32))
    trained = estimate(data, painted_on(truth, *SLICES))
    assert trained.clip != ((0.1, 99.9),)
    assert IntensityNormalization.estimate(Volume(data), trained.clip) == trained


def test_another_stack_is_clipped_at_the_same_percentiles():
    image, truth = beads()
    trained = estimate(image, painted_on(truth, *SLICES))
    other, other_truth = beads(seed=1)
    numbers = IntensityNormalization.estimate(Volume(other), trained.clip)
    assert numbers.clip == trained.clip
    normalized = numbers.apply(other[None])[0]
    assert len(np.unique(normalized[other_truth])) > 0.5 * other_truth.sum()


def test_dark_structures_are_kept_too():
    image, truth = beads()
    dark = (5000 - image.astype(int)).astype(np.int32)
    numbers = estimate(dark, painted_on(truth, *SLICES))
    bright = estimate(image, painted_on(truth, *SLICES))
    assert numbers.low[0] == 5000 - bright.high[0]
    assert numbers.clip[0][1] == 99.9
    assert IntensityNormalization.estimate(Volume(dark), numbers.clip) == numbers


@pytest.mark.parametrize("hot", [0, 1, 2])
def test_ordinary_structures_and_hot_pixels_change_nothing(hot):
    rng = np.random.default_rng(0)
    truth = np.zeros(SHAPE, bool)
    truth[:, 20:60, 20:60] = True
    image = (rng.normal(100, 5, SHAPE) + 50 * truth).astype(np.uint16)
    image[4].ravel()[np.flatnonzero(truth[4])[:hot]] = 60_000
    assert estimate(image, painted_on(truth, SLICES[0])) == IntensityNormalization.estimate(
        Volume(image)
    )


def test_a_hot_pixel_among_the_beads_does_not_decide():
    image, truth = beads()
    honest = estimate(image, painted_on(truth, *SLICES))
    z, y, x = np.argwhere(truth & (np.arange(30) == 4)[:, None, None])[0]
    image[z, y, x] = 60_000
    assert estimate(image, painted_on(truth, *SLICES)).high[0] < 4000
    assert honest.high[0] < 4000


def test_held_out_slices_decide_nothing():
    image, truth = beads()
    image[20][truth[20]] = 4000
    image[4][truth[4]] = np.minimum(image[4][truth[4]], 900)
    only = estimate(image, painted_on(truth, SLICES[0]))
    held_out = estimate(image, painted_on(truth, SLICES[0], held_out=[SLICES[1]]))
    assert held_out == only
    assert only.high[0] < 4000


def test_each_channel_has_its_own_percentiles():
    image, truth = beads()
    plain = np.random.default_rng(1).normal(1000, 50, SHAPE).astype(np.uint16)
    data = np.stack([plain, image])
    numbers = estimate(data, painted_on(truth, *SLICES), "CZYX")
    assert numbers.clip[0] == (0.1, 99.9)
    assert numbers.clip[1][1] > 99.9
    assert IntensityNormalization.estimate(Volume(data, "CZYX"), numbers.clip) == numbers


def test_bright_voxels_that_a_sample_does_not_hold(monkeypatch):
    """Signal in few planes of a stack that is too large to be looked at as a whole."""
    monkeypatch.setattr("napari_unet3d.data.intensity._SAMPLE_VOXELS", 4 * 96 * 100)
    image = np.random.default_rng(0).normal(100, 5, SHAPE).astype(np.uint16)
    truth = np.zeros(SHAPE, bool)
    truth[4, 10:30, 10] = True
    image[truth] = 3000 + np.arange(20)
    sampled = np.concatenate([p.ravel() for p in Volume(image).sample_planes(4 * 96 * 100)])
    assert sampled.max() < 200  # the precondition
    numbers = estimate(image, painted_on(truth, SLICES[0]))
    assert 3015 <= numbers.high[0] <= 3019
    assert IntensityNormalization.estimate(Volume(image), numbers.clip) == numbers

    monkeypatch.setattr(clipping, "_TAIL_VOXELS", 4 * 96 * 100)
    assert estimate(image, painted_on(truth, SLICES[0])).high[0] >= 3015


@pytest.mark.parametrize("percentiles", [(0, 100), (0.01, 99.99), (1, 99), (25, 75)])
def test_percentiles_that_are_set(percentiles):
    data = np.random.default_rng(0).permutation(30 * 100 * 100).reshape(30, 100, 100)
    numbers = IntensityNormalization.estimate(Volume(data.astype(np.int32)), percentiles)
    assert numbers.clip == (tuple(map(float, percentiles)),)
    low, high = (p / 100 * data.size for p in percentiles)
    assert numbers.low[0] == pytest.approx(low, abs=2)
    assert numbers.high[0] == pytest.approx(high, abs=2)


def test_values_that_are_not_finite_do_no_harm_in_the_tails():
    image, truth = beads()
    data = image.astype(np.float32)
    data[0, 0, :3] = np.nan, np.inf, -np.inf
    clean = estimate(image.astype(np.float32), painted_on(truth, *SLICES))
    numbers = estimate(data, painted_on(truth, *SLICES))
    assert numbers.high == clean.high
    assert IntensityNormalization.estimate(Volume(data), numbers.clip) == numbers


def test_gray_values_are_looked_up_in_small_boxes(monkeypatch):
    monkeypatch.setattr(clipping, "_BOX_VOXELS", 500)
    image, truth = beads(n=3000)
    annotation = painted_on(truth, *SLICES, SliceRef(2, 50))
    sizes = []
    crop = Volume.crop

    def counted(self, time, start, stop):
        found = crop(self, time, start, stop)
        sizes.append(found.size)
        return found

    monkeypatch.setattr(Volume, "crop", counted)
    values = painted_values(Volume(image), annotation.labelled_voxels())
    assert max(sizes) <= 500
    labels = annotation.labels
    assert sorted(values) == [2]
    np.testing.assert_array_equal(np.sort(values[2][0]), np.sort(image[labels == 2]))


class Wide:
    """A lazy image of large planes that counts the voxels of each reading."""

    chunks: tuple[int, ...] | None = None

    def __init__(self, dtype="uint8", chunks=None, side=16384):
        self.shape, self.dtype = (4, side, side), np.dtype(dtype)
        if chunks:
            self.chunks = chunks
        self.largest = self.total = 0

    def __getitem__(self, key):
        z, _, x = key
        shape = [len(range(*k.indices(n))) for k, n in zip(key, self.shape, strict=True)]
        block = np.empty(shape, self.dtype)
        block[...] = np.arange(x.start, x.stop) % 251
        block += z.start
        self.largest = max(self.largest, block.nbytes)
        self.total += block.size
        return block


@pytest.mark.parametrize(
    ("dtype", "chunks", "side"),
    [
        ("uint8", None, 16384),
        ("uint8", (1, 512, 512), 16384),
        ("uint8", (1, 16384, 16384), 16384),
        ("float32", None, 8192),
    ],
)
@pytest.mark.parametrize("what", ["estimate", "check"])
def test_wide_images_are_looked_at_in_rows(dtype, chunks, side, what):
    data = Wide(dtype, chunks, side)
    volume = Volume(data)
    tracemalloc.start()
    if what == "check":
        volume.check()
    else:
        IntensityNormalization.estimate(volume)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data.total >= 2**22
    assert data.largest <= 2**25
    assert peak < 200e6


def test_samples_keep_no_planes_alive():
    planes = list(Volume(np.zeros((20, 300, 300), np.uint8)).sample_planes(10_000))
    assert all(plane.base is None or plane.base.size <= plane.size for plane in planes)


def test_thinned_planes_have_the_voxels_of_the_plane(monkeypatch):
    monkeypatch.setattr("napari_unet3d.data.volume._BLOCK_VOXELS", 2500)
    data = np.arange(9 * 101 * 97, dtype=np.int32).reshape(9, 101, 97)
    for most in (300, 5000, 10**6):
        for plane in Volume(data).sample_planes(most):
            z = int(plane.flat[0]) // (101 * 97)
            step = -(-101 // plane.shape[1])
            np.testing.assert_array_equal(plane[0], data[z, ::step, ::step])
