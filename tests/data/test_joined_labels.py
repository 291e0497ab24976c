"""Slices laid over labels that are not written."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet3d.data.joined_labels import JoinedLabels, SlicePaint, check_paint
from napari_unet3d.data.slices import SliceRef, read_slice
from napari_unet3d.data.sparse_labels import SparseLabels

SHAPE = (2, 5, 6, 7)
SLICES = (
    SliceRef(0, 3, 1),
    SliceRef(1, 2, 0),
    SliceRef(2, 6, 1),
    SliceRef(0, 0, 0),
    SliceRef(0, 3, 1),
)
BOXES = (
    (slice(None),) * 4,
    (1, slice(2, 5), slice(1, 4), slice(3, 7)),
    (slice(0, 1), slice(0, 1), slice(None), slice(None)),
    (slice(1, 2), slice(4, 5), slice(0, 0), slice(None)),
    (-1, slice(3, 4)),
)


@pytest.mark.parametrize("kind", ["array", "sparse"])
def test_reads_as_an_array_that_was_written(kind: str) -> None:
    rng = np.random.default_rng(0)
    expected = rng.integers(0, 4, SHAPE).astype(np.uint8)
    below = expected.copy()
    if kind == "sparse":
        expected[:] = 0
        below = SparseLabels.create(SHAPE)
    joined = JoinedLabels(below)
    for ref in SLICES:
        plane = rng.integers(0, 4, read_slice(expected, ref).shape)
        where = [slice(None)] * 3
        where[ref.axis] = ref.index
        expected[(ref.time, *where)] = plane
        joined.lay(ref, plane)
        for box in BOXES:
            assert np.array_equal(joined[box], expected[box])
    assert not np.array_equal(np.asarray(below[:]), expected)
    if kind == "sparse":
        planes = [joined.painted_planes(t) for t in range(2)]
        assert planes == [np.flatnonzero(e.any((1, 2))).tolist() for e in expected]
    else:
        assert not hasattr(joined, "painted_planes")


@pytest.mark.parametrize(
    ("ref", "labels", "fits"),
    [
        (SliceRef(1, 5, 1), np.zeros((5, 7), np.int64), True),
        (SliceRef(1, 6), np.zeros((5, 7), np.int64), False),
        (SliceRef(1, 5, 2), np.zeros((5, 7), np.int64), False),
        (SliceRef(1, 5), np.zeros((6, 7), np.int64), False),
        (SliceRef(1, 5), np.zeros((5, 7)), False),
    ],
)
def test_slices_of_another_stack_are_recognized(
    ref: SliceRef, labels: np.ndarray, fits: bool
) -> None:
    assert check_paint(SlicePaint(ref, labels), np.zeros(SHAPE, np.uint8)) is fits
