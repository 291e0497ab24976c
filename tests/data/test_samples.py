"""Tests of the sample stacks. The default tubules are simulated once for the whole module."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.filters import threshold_otsu

from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.samples import Sample, nuclei, tubules
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.errors import BadInputError

SMALL = (16, 48, 48)


@pytest.fixture(scope="module")
def default() -> Sample:
    return tubules()


@pytest.fixture(scope="module")
def small() -> Sample:
    return tubules(SMALL)


def best_band_iou(image: np.ndarray, mask: np.ndarray) -> float:
    """Largest IoU with `mask` of any "low <= gray value < high", in 256 steps."""
    level = np.digitize(image, np.quantile(image, np.linspace(0, 1, 257)[1:-1]))
    hits, chosen = (
        np.tril(np.subtract.outer(below, below))  # rows: high, columns: low
        for values in (level[mask], level.ravel())
        for below in [np.append(0, np.bincount(values, minlength=256).cumsum())]
    )
    return float(np.max(hits / (chosen + mask.sum() - hits)))


def test_band_search_finds_what_a_threshold_can_do() -> None:
    image = np.arange(1000).reshape(10, 10, 10)
    assert best_band_iou(image, (image > 300) & (image < 600)) > 0.97
    assert best_band_iou(image, image % 2 == 0) == pytest.approx(0.5, abs=0.01)


def test_tubules_are_a_volume_with_dense_truth(default: Sample) -> None:
    default.image.check()
    assert default.image.shape == default.truth.shape == (64, 160, 160)
    assert (default.image.data.dtype, default.truth.dtype) == (np.uint16, np.uint8)
    assert (default.image.voxel_size, default.image.unit) == ((1.0, 0.5, 0.5), "µm")
    assert [(c.value, c.name) for c in default.classes] == [(2, "tubule wall"), (3, "lumen")]
    share = np.bincount(default.truth.ravel()) / default.truth.size
    assert share[1] == 0
    assert share[0] > 0.3
    assert share[2] > 0.2
    assert share[3] > 0.1


def test_walls_enclose_lumens(default: Sample) -> None:
    lumen, outside = default.truth == 3, default.truth == 0
    for axis in range(3):
        ahead, behind = [slice(None)] * 3, [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        assert not (lumen[tuple(ahead)] & outside[tuple(behind)]).any()
        assert not (outside[tuple(ahead)] & lumen[tuple(behind)]).any()


def test_no_threshold_segments_the_tubules(default: Sample) -> None:
    image, truth = default.image.data, default.truth
    assert best_band_iou(image, truth == 2) < 0.6
    assert best_band_iou(image, truth == 3) < 0.6
    bright = image > threshold_otsu(image)
    assert (bright & (truth > 0)).sum() / (bright | (truth > 0)).sum() < 0.5


def test_walls_stand_out_at_every_depth_although_light_is_lost(default: Sample) -> None:
    image, truth = default.image.data.astype(float), default.truth
    wall, lumen, rest = (
        np.array(
            [plane[labels == value].mean() for plane, labels in zip(image, truth, strict=True)]
        )
        for value in (2, 3, 0)
    )
    assert wall[-8:].mean() < 0.6 * wall[:8].mean()
    assert (wall > 1.3 * lumen).all()
    assert (wall > 1.2 * rest).all()


def test_the_seed_decides(small: Sample) -> None:
    again, other = tubules(SMALL), tubules(SMALL, seed=1)
    np.testing.assert_array_equal(small.image.data, again.image.data)
    np.testing.assert_array_equal(small.truth, again.truth)
    assert (small.truth != other.truth).any()


@pytest.mark.parametrize("seed", range(6))
def test_even_the_smallest_stack_has_every_class(seed: int) -> None:
    sample = tubules((8, 32, 32), seed)
    assert set(np.unique(sample.truth)) == {0, 2, 3}
    assert len({*sample.training_slices, *sample.held_out_slices}) == 7


@pytest.mark.parametrize("shape", [(7, 32, 32), (8, 31, 32), (64, 160)])
def test_too_small_a_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInputError, match="at least"):
        tubules(shape)  # type: ignore[arg-type]


def test_slices_for_a_demonstration(default: Sample) -> None:
    training, held_out = default.training_slices, default.held_out_slices
    assert [ref.plane for ref in training] == ["xy", "xy", "xy", "xz", "yz"]
    assert [ref.plane for ref in held_out] == ["xy", "xy"]
    assert not set(training) & set(held_out)
    for ref in (*training, *held_out):
        plane = np.take(default.truth, ref.index, axis=ref.axis)
        assert set(np.unique(plane)) == {0, 2, 3}


def test_annotation_is_complete_on_its_slices_and_empty_elsewhere(small: Sample) -> None:
    annotation = small.annotate([SliceRef(0, 3), SliceRef(2, 20)])
    assert annotation.dtype == np.uint8
    there = np.zeros(SMALL, bool)
    there[3] = there[:, :, 20] = True
    np.testing.assert_array_equal(annotation > 0, there)
    dense = np.where(small.truth == 0, 1, small.truth)
    np.testing.assert_array_equal(annotation[there], dense[there])
    assert not small.annotate([]).any()


def test_annotation_suits_the_image(small: Sample) -> None:
    refs = (*small.training_slices, *small.held_out_slices)
    held_out = frozenset(small.held_out_slices)
    annotation = SparseAnnotation(small.annotate(refs), small.classes, held_out)
    annotation.check(small.image)


@pytest.mark.parametrize("ref", [SliceRef(0, 16), SliceRef(1, -1), SliceRef(0, 3, time=1)])
def test_slice_outside_is_refused(small: Sample, ref: SliceRef) -> None:
    with pytest.raises(BadInputError, match="from 0 to"):
        small.annotate([ref])


@pytest.fixture(scope="module")
def cells() -> Sample:
    return nuclei((24, 96, 96))


def test_nuclei_are_a_volume_with_dense_truth(cells: Sample) -> None:
    cells.image.check()
    assert cells.image.shape == cells.truth.shape == (24, 96, 96)
    assert (cells.image.data.dtype, cells.truth.dtype) == (np.uint16, np.uint8)
    assert (cells.image.voxel_size, cells.image.unit) == ((1.0, 0.5, 0.5), "µm")
    assert [(c.value, c.name) for c in cells.classes] == [(2, "nucleus")]
    assert set(np.unique(cells.truth)) == {0, 2}
    assert 0.25 < (cells.truth == 2).mean() < 0.6


def test_nuclei_are_many_roundish_bright_things(cells: Sample) -> None:
    parts, n = ndimage.label(ndimage.binary_erosion(cells.truth == 2))
    sizes = np.bincount(parts.ravel())[1:]
    assert n > 10
    assert np.median(sizes[sizes > 20]) * 0.25 < 4 / 3 * np.pi * 8**3  # µm³
    image, inside = cells.image.data.astype(float), cells.truth == 2
    assert image[inside].mean() > 1.5 * image[~inside].mean()
    threshold = image > threshold_otsu(image)
    iou = (threshold & inside).sum() / (threshold | inside).sum()
    assert 0.4 < iou < 0.9  # a network has something to do


def test_nuclei_are_the_same_for_a_seed_and_fit_small_stacks() -> None:
    one, again, other = nuclei(SMALL, 1), nuclei(SMALL, 1), nuclei(SMALL, 2)
    np.testing.assert_array_equal(one.image.data, again.image.data)
    assert (one.truth != other.truth).any()
    for sample in (one, nuclei((8, 32, 32))):
        assert set(np.unique(sample.truth)) == {0, 2}
    with pytest.raises(BadInputError, match="at least"):
        nuclei((4, 32, 32))


def test_nuclei_can_be_trained_on(cells: Sample) -> None:
    labels = cells.annotate(cells.training_slices)
    SparseAnnotation(labels, cells.classes, frozenset()).check(cells.image)
