"""Labels larger than the memory behave as numpy's, and read only what is painted."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.data.ledger import find_painted_slices
from napari_unet3d.data.marks import Marks
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.data.state_changes import complete

SHAPE = (5, 700, 1100)
HUGE = (2000, 20_000, 20_000)

KEYS: list[Any] = [
    (2, slice(None), slice(None)),
    (slice(1, 4), slice(500, 530), slice(0, 3)),
    (slice(None), 520, slice(None, None, 7)),
    (np.int64(1), np.int64(511), np.int64(1023)),
    (slice(None, None, 2),),
    (..., 5),
    (-1, -2),
    (np.array([1, 1, 4]), np.array([510, 513, 0]), np.array([0, 1099, 520])),
    slice(3, 3),
]


@pytest.fixture
def pair() -> tuple[SparseLabels, np.ndarray]:
    """The same paint in both."""
    sparse, plain = SparseLabels.create(SHAPE), np.zeros(SHAPE, np.uint8)
    values = np.random.default_rng(0).integers(0, 4, (1, 60, 60), np.uint8)
    for array in (sparse, plain):
        array[1:2, 490:550, 480:540] = values
        array[4, 3] = 2
        array[np.array([0, 1, 1]), np.array([9, 511, 512]), np.array([9, 1023, 1024])] = 3
    return sparse, plain


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_reading_is_as_in_numpy(pair: tuple[SparseLabels, np.ndarray], key: Any) -> None:
    sparse, plain = pair
    assert plain.any()
    read = sparse[key]
    np.testing.assert_array_equal(read, plain[key])
    assert read.dtype == np.uint8


@pytest.mark.parametrize("key", [k for k in KEYS if "7" not in str(k) and "2)" not in str(k)])
def test_writing_is_as_in_numpy(pair: tuple[SparseLabels, np.ndarray], key: Any) -> None:
    sparse, plain = pair
    for array in (sparse, plain):
        array[key] = 7
    np.testing.assert_array_equal(sparse[...], plain)


def test_more_chunks_than_are_kept_unpacked_are_read_as_written() -> None:
    sparse, plain = SparseLabels.create((90, 8, 600)), np.zeros((90, 8, 600), np.uint8)
    for z in range(90):
        for array in (sparse, plain):
            array[z, :, z : z + 500] = 1 + z
    for array in (sparse, plain):
        array[:, 3, 100:520] = 200
    np.testing.assert_array_equal(sparse[...], plain)


def test_what_was_read_is_no_view_of_the_labels(pair: tuple[SparseLabels, np.ndarray]) -> None:
    sparse, plain = pair
    sparse[1][:] = 9
    sparse[1, 490:550, 480:540][:] = 9
    np.testing.assert_array_equal(sparse[...], plain)


def test_what_a_thread_reads_replaces_no_newer_paint() -> None:
    sparse = SparseLabels.create((1, 64, 64))
    sparse[0, 0, 0] = 255
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            with sparse._lock:
                sparse._kept.clear()  # so that the next reading asks zarr
            sparse[0, 0, 0]

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for value in range(1, 200):
            sparse[0, 0, 0] = value
            assert sparse[0, 0, 0] == value
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("key", [(5, 0, 0), (np.array([0]), np.array([700]), np.array([0]))])
def test_outside_is_outside(pair: tuple[SparseLabels, np.ndarray], key: Any) -> None:
    with pytest.raises(IndexError):
        pair[0][key]


def test_erased_paint_is_no_paint(pair: tuple[SparseLabels, np.ndarray]) -> None:
    sparse, _ = pair
    assert find_painted_slices(sparse)
    sparse[...] = 0
    assert not find_painted_slices(sparse)


def test_800_gb_of_labels_are_painted_found_completed_and_trained_on(tmp_path: Path) -> None:
    sparse = SparseLabels.create(HUGE, tmp_path / "a.zarr")
    sparse[700:701, 10_000:10_040, 10_000:10_040] = 1
    sparse[700:701, 10_010:10_020, 10_010:10_020] = 2
    (painted,) = find_painted_slices(sparse)
    assert painted.ref == SliceRef(0, 700)
    assert painted.counts == {1: 1500, 2: 100}
    annotation = SparseAnnotation.from_labels(sparse.snapshot())
    assert [c.value for c in annotation.classes] == [2]
    crop = annotation.training_crop(0, (699, 10_000, 10_000), (702, 10_040, 10_040))
    assert (crop == 2).sum() == 100
    assert sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file()) < 100_000
    opened = read_labels(tmp_path / "a.zarr")  # as the command line does
    assert opened.axes == "ZYX"
    assert opened.shape == HUGE
    assert find_painted_slices(opened.data) == [painted]


def test_a_snapshot_stays_as_it_was(pair: tuple[SparseLabels, np.ndarray]) -> None:
    sparse, plain = pair
    copy = sparse.snapshot()
    sparse[1] = 9
    np.testing.assert_array_equal(copy[...], plain)
    assert copy.path is None


def test_a_slice_is_completed_as_in_numpy(pair: tuple[SparseLabels, np.ndarray]) -> None:
    ref = SliceRef(1, 510)
    (ours,), (expected,) = (complete(labels, Marks(), ref)[0] for labels in pair)
    np.testing.assert_array_equal(ours.mask, expected.mask)
    np.testing.assert_array_equal(ours.values(), expected.values())


def test_time_points_have_their_own_paint() -> None:
    sparse = SparseLabels.create((3, 4, 30, 40))
    sparse[2, 1, 5:9, 5:9] = 2
    assert sparse.painted_planes(0) == []
    assert sparse.painted_planes(2) == [1]
    assert [s.ref for s in find_painted_slices(sparse)] == [SliceRef(0, 1, 2)]
