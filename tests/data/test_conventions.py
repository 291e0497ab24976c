"""Which convention an annotation follows, and a dense segmentation seen as an annotation."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from scipy.ndimage import gaussian_filter

from napari_unet3d.config import default_class
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.conventions import (
    DenseLabels,
    dense_classes,
    describe_values,
    from_dense,
    looks_dense,
    read_convention,
)
from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.data.samples import tubules
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.errors import BadInputError

SHAPE = (24, 64, 72)


def dense(seed: int = 0, share: float = 0.25) -> np.ndarray:
    """Blobs of class 1 and class 2 beside 0, as everybody else numbers them."""
    smooth = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 3)
    high, low = np.quantile(smooth, [1 - share, share / 2])
    return np.where(smooth > high, 1, np.where(smooth < low, 2, 0)).astype(np.uint8)


def strokes(planes, radius: float = 3, number: int = 3) -> np.ndarray:
    """Strokes of background (1) and class (2) at random places of some slices."""
    rng = np.random.default_rng(1)
    labels = np.zeros(SHAPE, np.uint8)
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    for z in planes:
        for value in (1, 2) * number:
            at, direction = rng.uniform(0, SHAPE[1:]), rng.uniform(0, 2 * np.pi)
            for _ in range(12):
                labels[z][(y - at[0]) ** 2 + (x - at[1]) ** 2 <= radius**2] = value
                direction += rng.normal(0, 0.3)
                at = at + radius * np.array([np.sin(direction), np.cos(direction)])
    return labels


def ours(truth: np.ndarray, *slices) -> np.ndarray:
    """Our annotation of a dense segmentation: complete slices, 1 is background."""
    labels = np.zeros_like(truth)
    for where in slices:
        labels[where] = truth[where] + 1
    return labels


ALL = slice(None)
DENSE = {
    "two classes": dense(),
    "rare": dense(share=0.02),
    "only the middle of the stack": np.where(np.arange(24)[:, None, None] // 8 == 1, dense(), 0),
    "own numbers": np.where(dense() > 0, dense() + 1, 0),
    "in a time series": np.stack([dense(), dense(1)]),
    "64 bits": dense().astype(np.int64),
    "mask": (dense() == 1).astype(np.uint8),
    "mask of single voxels": (np.random.default_rng(0).random(SHAPE) < 1e-3).astype(np.uint8),
    "mask of one slice": ours(0 * dense(), 3),
    "mask of 255": np.where(dense() == 1, 255, 0).astype(np.uint8),
}
SPARSE = {
    "nothing": np.zeros(SHAPE, np.uint8),
    "complete slices": ours(dense(), 2, 12, 20),
    "complete neighboring slices": ours(dense(), *range(4, 14)),
    "every slice complete": dense() + 1,
    "slices of three orientations": ours(dense(), 12, (ALL, 30), (ALL, ALL, 40)),
    "one yz slice": ours(dense(), (ALL, ALL, 40)),
    "a complete part of the stack": ours(dense(), (slice(3, 20), slice(10, 40), slice(20, 60))),
    "strokes on three slices": strokes((3, 12, 20)),
    "strokes on neighboring slices": strokes((10, 11, 12, 13)),
    "strokes on all slices": strokes(range(24)),
    "thick strokes on all slices": strokes(range(24), radius=5, number=2),
    "classes on four slices, no background": np.where(
        (np.arange(24) // 4 == 2)[:, None, None] & (dense() > 0), dense() + 1, 0
    ),
}


@pytest.mark.parametrize("name", DENSE)
def test_dense_labels_are_recognized(name: str) -> None:
    report = looks_dense(DENSE[name])
    assert report is not None, read_convention(DENSE[name])
    assert "0 background" in report.text


@pytest.mark.parametrize("name", SPARSE)
def test_sparse_annotations_are_not_called_dense(name: str) -> None:
    assert looks_dense(SPARSE[name]) is None, read_convention(SPARSE[name])


def test_a_mask_is_named_by_its_value() -> None:
    for value in (1, 255):
        report = looks_dense(np.where(dense() == 1, value, 0))
        assert report is not None
        assert f"{value} the class" in report.text


def test_a_stack_read_in_chunks_gives_the_same_report() -> None:
    array = zarr.array(dense(), chunks=(7, 30, 30))
    assert read_convention(array).solid == read_convention(dense()).solid
    assert looks_dense(array) == looks_dense(dense())


def test_samples_truth_is_dense_and_its_annotation_is_not() -> None:
    sample = tubules((24, 64, 64))
    assert looks_dense(np.asarray(sample.truth)) is not None
    assert looks_dense(sample.annotate(sample.training_slices)) is None


NO_BACKGROUND = "fluo_cells_arabidopsis_ovule"
"""All but one of its voxels belong to a class: nothing tells it from a stack that somebody
painted completely in our convention, and it loses nothing when it is read so."""


def test_real_stacks(shared_data) -> None:
    paths = sorted(shared_data.glob("*/labels.tif"))
    assert len(paths) >= 14
    for path in paths:
        truth = np.asarray(read_labels(path).data)
        recognized = looks_dense(truth) is not None
        assert recognized == (path.parent.name != NO_BACKGROUND), path
        for k in (1, 3, 5):
            slices = np.linspace(0, len(truth) - 1, 2 * k + 1).round()[1::2].astype(int)
            assert looks_dense(ours(truth, *slices)) is None, (path, k)


# --- conversion -----------------------------------------------------------------------------


def converted(labels: np.ndarray) -> np.ndarray:
    """What `from_dense` should give, written down in another way."""
    painted = (labels != 0).any((-1, -2), keepdims=True)
    return np.where(painted, labels.astype(int) + 1, 0).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_zero_becomes_background_on_slices_with_paint_only(dtype) -> None:
    labels = dense().astype(dtype)
    labels[[0, 7]] = 0
    found = from_dense(labels)
    assert found.dtype == np.uint8
    assert not found[[0, 7]].any()
    np.testing.assert_array_equal(found, converted(labels))


@pytest.mark.parametrize("kind", ["numpy", "zarr", "memmap"])
@pytest.mark.parametrize("times", [0, 2])
def test_any_box_is_that_of_the_converted_copy(kind, times, tmp_path) -> None:
    labels = dense() if not times else np.stack([dense(), dense(1)])
    labels[..., 5, :, :] = 0
    source = labels
    if kind == "zarr":
        source = zarr.array(labels, chunks=(*(1,) * bool(times), 7, 30, 30))
    elif kind == "memmap":
        np.save(tmp_path / "labels.npy", labels)
        source = np.load(tmp_path / "labels.npy", mmap_mode="r")
    view, copy = DenseLabels(source), converted(labels)
    assert view.shape == copy.shape
    assert view.dtype == np.uint8
    assert view.chunks == getattr(source, "chunks", None)
    boxes = [
        ...,
        (..., slice(3, 9), slice(0, 20), slice(5, 6)),
        (..., 5, slice(None), slice(None)),
        (..., 6, slice(4, 9), slice(None)),
        (..., slice(None), 7, slice(None)),
        (..., slice(2, 8), slice(None), 9),
        (..., 6, 7, 8),
        slice(1, 2),
        0,
    ]
    for box in boxes:
        np.testing.assert_array_equal(view[box], copy[box], err_msg=str(box))
    np.testing.assert_array_equal(np.asarray(view), copy)


def test_classes_keep_the_users_numbers_as_output() -> None:
    classes = dense_classes(dense(), {2: "wall"})
    assert [(c.value, c.name, c.output_value) for c in classes] == [
        (2, "class 1", 1),
        (3, "wall", 2),
    ]


def test_255_finds_a_place() -> None:
    labels = np.where(dense() == 2, 255, dense())
    classes = dense_classes(labels)
    assert sorted((c.value, c.output_value) for c in classes) == [(2, 1), (3, 255)]
    for info in classes:
        np.testing.assert_array_equal(from_dense(labels) == info.value, labels == info.output)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros(SHAPE, np.uint8), "no class"),
        (dense().astype(np.int16) - 1, "-1"),
        (dense().astype(np.uint16) * 300, "300"),
        (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 60, "numbered objects"),
        (dense().astype(float), "float64"),
        (dense()[0], "2 axes"),
    ],
)
def test_what_cannot_be_converted_is_refused(labels, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        from_dense(labels)


def test_an_annotation_from_dense_labels_equals_one_painted_in_our_convention() -> None:
    labels = np.zeros_like(dense())
    labels[[4, 12, 19]] = dense()[[4, 12, 19]]
    held_out = [SliceRef(0, 12)]
    found = SparseAnnotation.from_labels(labels, held_out=held_out, convention="dense")
    expected = SparseAnnotation.from_labels(ours(dense(), 4, 12, 19), held_out=held_out)
    assert [c.value for c in found.classes] == [c.value for c in expected.classes]
    assert found.slices() == expected.slices()
    for a, b in zip(found.labelled_voxels(), expected.labelled_voxels(), strict=True):
        np.testing.assert_array_equal(a.coordinates, b.coordinates)
        np.testing.assert_array_equal(a.codes, b.codes)


def test_from_labels_asks_what_0_means() -> None:
    for labels in (DENSE["two classes"], DENSE["mask"]):
        with pytest.raises(BadInputError, match="convention='dense'"):
            SparseAnnotation.from_labels(labels)
    sparse = SparseAnnotation.from_labels(dense(), convention="sparse")
    assert [(c.value, c.output_value) for c in sparse.classes] == [(2, 2)]
    given = SparseAnnotation.from_labels(dense(), [default_class(2)])
    assert given.classes == (default_class(2),), "who knows the classes knows the convention"
    found = SparseAnnotation.from_labels(dense(), convention="dense")
    assert [c.output_value for c in found.classes] == [1, 2]


# --- words ----------------------------------------------------------------------------------


def test_every_value_is_named_with_its_voxels() -> None:
    labels = ours(dense(), 4)
    n = [int((labels == value).sum()) for value in range(4)]
    classes = (default_class(2, "nucleus"), default_class(3))
    assert describe_values(read_convention(labels), classes, dense=False) == (
        f"0 unlabelled ({n[0]:,} voxels, ignored); 1 background ({n[1]:,} voxels); "
        f"2 'nucleus' ({n[2]:,} voxels); 3 'class 3' ({n[3]:,} voxels)"
    )


def test_dense_values_are_named_as_the_user_numbered_them() -> None:
    labels = dense()
    labels[0] = 0
    n = [int((labels[1:] == value).sum()) for value in range(3)]
    text = describe_values(
        read_convention(labels), dense_classes(labels, {1: "nucleus"}), dense=True
    )
    assert text == (
        f"0 background ({n[0]:,} voxels, and {64 * 72:,} on slices without paint, ignored); "
        f"1 'nucleus' ({n[1]:,} voxels); 2 'class 2' ({n[2]:,} voxels)"
    )
