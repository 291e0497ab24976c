"""Sparse annotations: which voxels are learned from, and checks that name the cure.

Most tests use a stack of 6 × 8 × 10 voxels.
"""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.slices import SliceRef, parse_slices
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError

SHAPE = (6, 8, 10)
VOLUME = Volume(np.arange(480, dtype=np.uint16).reshape(SHAPE))


def empty(*front: int, dtype: str = "uint8") -> np.ndarray:
    return np.zeros((*front, *SHAPE), dtype)


def two_slices() -> np.ndarray:
    """Background and class 2 on all of z=1, class 3 and background on part of z=4."""
    labels = empty()
    labels[1] = 1
    labels[1, 2:4, 3:6] = 2
    labels[4, 2:4, 3:6] = 3
    labels[4, 6] = 1
    return labels


# --- what is learned ------------------------------------------------------------------------


def annotation(labels: np.ndarray, held_out: str = "", values=(3, 2)) -> SparseAnnotation:
    """The table names class 3 first: its output index is 1."""
    classes = [ClassInfo(value=v, name=f"c{v}", color="#ffffff") for v in values]
    return SparseAnnotation.from_labels(labels, classes, parse_slices(held_out))


def test_classes_are_found():
    found = SparseAnnotation.from_labels(two_slices()).classes
    assert [(c.value, c.name) for c in found] == [(2, "class 2"), (3, "class 3")]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int64"])
def test_training_crop_codes(dtype):
    labels = two_slices().astype(dtype)
    crop = annotation(labels).training_crop(0, (1, 2, 0), (5, 7, 10))
    codes = np.array([0, 1, 3, 2], np.uint8)  # unlabelled, background, class 2, class 3
    assert crop.dtype == np.uint8
    np.testing.assert_array_equal(crop, codes[two_slices()][1:5, 2:7])


def test_training_crop_hides_held_out_slices():
    labels = empty(2)
    labels[:] = 1
    a = annotation(labels, "z=2 x=9 t=1 y=0")

    first = a.training_crop(0, (1, 0, 5), (6, 8, 10))
    second = a.training_crop(1, (1, 0, 5), (6, 8, 10))

    expected = np.ones((5, 8, 5), np.uint8)
    expected[1] = 0
    expected[:, :, 4] = 0
    np.testing.assert_array_equal(first, expected)
    expected[:] = 1
    expected[:, 0] = 0
    np.testing.assert_array_equal(second, expected)
    assert (labels == 1).all()
    np.testing.assert_array_equal(a.held_out_target(SliceRef(0, 2)), np.ones((8, 10)))


def test_paint_outside_the_table_is_unlabelled():
    labels = empty(dtype="int32")
    labels[0] = np.array([0, 1, 2, 3, 4, 255, 256, 70000, -1, -300])
    crop = annotation(labels).training_crop(0, (0, 0, 0), (1, 1, 10))
    assert crop.ravel().tolist() == [0, 1, 3, 2, 0, 0, 0, 0, 0, 0]


def test_paint_added_later_is_seen():
    labels = two_slices()
    a = annotation(labels)
    labels[0, 0, 0] = 2
    assert a.training_crop(0, (0, 0, 0), (1, 1, 1)).item() == 3


def test_training_crop_outside_is_refused():
    with pytest.raises(IndexError):
        annotation(two_slices()).training_crop(0, (0, 0, 0), (7, 8, 10))


def test_held_out_target_of_each_axis():
    labels = two_slices()
    a = annotation(labels, "z=1")
    codes = np.array([0, 1, 3, 2])
    for axis in range(3):
        target = a.held_out_target(SliceRef(axis, 4))
        np.testing.assert_array_equal(target, codes[np.take(labels, 4, axis)])


def test_labelled_voxels():
    labels = two_slices()
    labels[:, 0] = 1
    a = annotation(labels, "z=4")

    first, second = a.labelled_voxels()

    assert (first.ref, second.ref) == (SliceRef(0, 1), SliceRef(1, 0))
    assert first.counts == {1: 74, 3: 6}
    assert second.counts == {1: 40}  # without the held-out z=4 and z=1, which has them already
    for voxels in (first, second):
        assert voxels.coordinates.dtype == np.int32
        assert voxels.codes.dtype == np.uint8
        whole = a.training_crop(0, (0, 0, 0), SHAPE)
        np.testing.assert_array_equal(whole[tuple(voxels.coordinates.T)], voxels.codes)
        assert (voxels.coordinates[:, voxels.ref.axis] == voxels.ref.index).all()
        assert (voxels.coordinates[:, 0] != 4).all()
    assert len(first.of_class(3)) == 6
    assert len(first.of_class(2)) == 0


def test_labelled_voxels_keep_rare_classes_when_thinned():
    labels = np.zeros((4, 64, 64), np.uint8)
    labels[1] = 1
    labels[1, :8, :8] = 2
    labels[1, 20, :5] = 3
    a = annotation(labels)

    (voxels,) = a.labelled_voxels(300, np.random.default_rng(1))

    assert voxels.counts == {1: 64 * 64 - 69, 3: 64, 2: 5}
    assert np.bincount(voxels.codes).tolist() == [0, 300 - 69, 5, 64]
    assert len(np.unique(voxels.coordinates, axis=0)) == 300
    (again,) = a.labelled_voxels(300, np.random.default_rng(1))
    np.testing.assert_array_equal(voxels.coordinates, again.coordinates)


def test_labelled_voxels_of_dense_labels():
    labels = np.ones(SHAPE, np.uint8)
    labels[:, 2] = 2
    slices = annotation(labels, "z=3 x=0").labelled_voxels()
    assert [v.ref.index for v in slices] == [0, 1, 2, 4, 5]
    assert all(v.counts == {1: 63, 3: 9} for v in slices)
    assert all((v.coordinates[:, 2] > 0).all() for v in slices)


def test_labelled_voxels_of_time_points():
    labels = empty(3)
    labels[2, 4] = 1
    (voxels,) = annotation(labels).labelled_voxels()
    assert voxels.ref == SliceRef(0, 4, 2)


# --- checks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("lazy", [False, True])
def test_good_annotations_pass(lazy):
    labels = two_slices()
    given = zarr.array(labels) if lazy else labels
    SparseAnnotation.from_labels(given).check(VOLUME)
    annotation(given, "z=4 y=3").check(VOLUME)
    annotation(labels[None]).check(VOLUME)
    annotation(np.stack([labels] * 2)).check(Volume(np.stack([VOLUME.data] * 2), "TZYX"))
    annotation(labels).check(Volume(np.stack([VOLUME.data] * 2), "CZYX"))


def painted(*values: int, dtype: str = "uint8") -> np.ndarray:
    labels = empty(dtype=dtype)
    for i, value in enumerate(values):
        labels[i, 2, :5] = value
    return labels


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (annotation(empty()), "Nothing is painted.*background"),
        (annotation(painted(1)), r"Only background \(1\) is painted.*Paint a class"),
        (annotation(painted(2)), r"Only c2 \(2\) is painted.*Complete slice"),
        (annotation(painted(1), values=()), "Only background.*no class.*Add a class"),
        (
            annotation(painted(1, 5, 5, 9)),
            r"5: 10 voxels, first on slice z=1; 9: 5 voxels, first on slice z=3.*3 c3, 2 c2",
        ),
        (annotation(painted(1, 2).astype(bool)), "type bool.*Convert data type"),
        (annotation(painted(1, 2).astype(float)), "type float64.*Convert data type"),
        (annotation(painted(1, 2, -1, dtype="int16")), "negative value -1 .5 voxels.*z=2"),
        (annotation(painted(1, 2, 300, dtype="int16")), "value 300 .*255 is the largest"),
        (annotation(painted(1, 2)[:5]), "5 × 8 × 10.*6 × 8 × 10"),
        (annotation(painted(1, 2)[0]), "2 axes"),
        (annotation(np.stack([painted(1, 2)] * 2)), "2 × 6 × 8 × 10.*6 × 8 × 10"),
        (annotation(painted(1, 2), values=(2, 2)), "value 2 more than once"),
        (annotation(painted(1, 2), "z=6"), "z=6 is outside of the stack.*z=0 to 5"),
        (annotation(painted(1, 2), "t=1 z=0"), "t=1 z=0 is outside of the time series"),
        (annotation(painted(1, 2), "z=5"), "z=5 has no paint"),
        (annotation(painted(1, 2), "y=2"), r"held-out slices \(y=2\): nothing is left"),
        (annotation(painted(1, 2), "z=0"), r"\(z=0\) only c2 \(2\) is painted.*Hold out fewer"),
        (annotation(painted(1, 2), "z=1"), r"\(z=1\) only background \(1\) is painted"),
    ],
)
def test_check_names_value_and_cure(bad, message):
    with pytest.raises(BadInputError, match=message):
        bad.check(VOLUME)


def test_time_series_needs_labels_of_all_time_points():
    volume = Volume(np.stack([VOLUME.data] * 2), "TZYX")
    with pytest.raises(BadInputError, match="2 × 6 × 8 × 10"):
        annotation(painted(1, 2)).check(volume)


@pytest.mark.parametrize("labels", [painted(1, 300, dtype="int32"), painted(1, 2) > 0])
def test_classes_cannot_be_found_in_bad_labels(labels):
    with pytest.raises(BadInputError):
        SparseAnnotation.from_labels(labels)


def test_numbered_objects_are_not_taken_for_classes():
    labels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    with pytest.raises(BadInputError, match=r"59 different labels.*numbered objects"):
        SparseAnnotation.from_labels(labels)
