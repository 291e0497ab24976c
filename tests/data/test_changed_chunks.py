"""Every change is found, nothing that did not change is, and huge labels are not read."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet3d.data.changed_chunks import ChangedChunks, checksums
from napari_unet3d.data.sparse_labels import SparseLabels

SHAPE, CHUNKS = (10, 30, 44), (4, 16, 16)


@pytest.fixture
def labels() -> np.ndarray:
    return np.zeros(SHAPE, np.uint8)


def copy_of(changed: ChangedChunks, into: np.ndarray) -> int:
    """Apply what changed to a copy, as a file would; return how many chunks that were."""
    n = 0
    for box, part in changed.take():
        into[tuple(slice(a, b) for a, b in box)] = part
        n += 1
    return n


def test_random_edits_that_are_told_reach_the_copy(labels: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    changed, saved = ChangedChunks(labels, CHUNKS), np.zeros_like(labels)
    for _ in range(60):
        if rng.random() < 0.5:
            start = [int(rng.integers(0, n)) for n in SHAPE]
            box = tuple(slice(a, min(a + 9, n)) for a, n in zip(start, SHAPE, strict=True))
            labels[box] = rng.integers(0, 4)
            changed.change(box)
        else:
            points = tuple(
                rng.integers(-n, n, 30) for n in SHAPE
            )  # negative ones count from the end
            labels[points] = rng.integers(0, 4)
            changed.change_at(points)
        if rng.random() < 0.3:
            copy_of(changed, saved)
            np.testing.assert_array_equal(saved, labels)
    assert changed.is_done() or copy_of(changed, saved) >= 0
    np.testing.assert_array_equal(saved, labels)


def test_only_the_chunks_that_differ_are_taken(labels: np.ndarray) -> None:
    changed, saved = ChangedChunks(labels, CHUNKS), np.zeros_like(labels)
    labels[5, 20, 20] = 2
    changed.change((slice(0, 10), slice(0, 30), slice(0, 44)))  # told too much
    assert copy_of(changed, saved) == 1
    labels[5, 20, 20] = 0  # painted and undone
    labels[5, 20, 20] = 2
    changed.change_at((np.array([5]), np.array([20]), np.array([20])))
    assert copy_of(changed, saved) == 0
    labels[5, 20, 20] = 0
    changed.change_at((np.array([5]), np.array([20]), np.array([20])))
    assert copy_of(changed, saved) == 1
    assert not saved.any()


def test_what_nobody_told_is_found_by_doubt(labels: np.ndarray) -> None:
    changed, saved = ChangedChunks(labels, CHUNKS), np.zeros_like(labels)
    labels[9, 29, 43] = 3
    assert copy_of(changed, saved) == 0
    changed.doubt()
    assert copy_of(changed, saved) == 1
    np.testing.assert_array_equal(saved, labels)


def test_many_voxels_are_told_by_their_bounding_box() -> None:
    labels = np.zeros((2, 500, 500), np.uint8)
    changed, saved = ChangedChunks(labels, (1, 100, 100)), np.zeros_like(labels)
    rows, columns = np.nonzero(np.ones((400, 400)))
    labels[1, rows, columns] = 2
    changed.change_at((np.ones_like(rows), rows, columns))
    assert copy_of(changed, saved) == 16
    np.testing.assert_array_equal(saved, labels)


def test_a_step_ends_and_the_next_goes_on(labels: np.ndarray) -> None:
    labels[:] = 1
    changed, saved = ChangedChunks(labels, CHUNKS), np.zeros_like(labels)
    changed.doubt()
    steps = 0
    while not changed.is_done():
        for box, part in changed.take(0.0):
            saved[tuple(slice(a, b) for a, b in box)] = part
        steps += 1
    assert steps > 10
    np.testing.assert_array_equal(saved, labels)


def test_what_is_saved_already_is_known_by_its_checksums(labels: np.ndarray) -> None:
    labels[3, 3, 3] = 2
    known = checksums(labels.copy(), CHUNKS)
    changed = ChangedChunks(labels, CHUNKS, known)
    changed.doubt()
    assert not list(changed.take())
    labels[3, 3, 3] = 0  # erased since: this must reach the file too
    changed.doubt()
    ((box, part),) = changed.take()
    assert box == ((0, 4), (0, 16), (0, 16))
    assert not part.any()


def test_huge_labels_are_read_where_paint_is() -> None:
    labels = SparseLabels.create((2_000, 20_000, 20_000))
    labels[7, 3_000, 4_000] = 2
    changed = ChangedChunks(labels, (16, 128, 128))
    changed.doubt()
    ((box, part),) = changed.take()
    assert box == ((0, 16), (2_944, 3_072), (3_968, 4_096))
    assert part[7, 56, 32] == 2
    labels[7, 3_000, 4_000] = 0
    changed.doubt()
    ((_, part),) = changed.take()
    assert not part.any()
