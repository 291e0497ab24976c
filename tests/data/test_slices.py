"""Slices of a stack, and which of them hold paint.

Most tests use a stack of 6 × 8 × 10 voxels.
"""

from __future__ import annotations

import time

import numpy as np
import pytest
import zarr

from napari_unet3d.data.ledger import find_painted_slices
from napari_unet3d.data.slices import SliceRef, parse_slices
from napari_unet3d.errors import BadInputError

SHAPE = (6, 8, 10)


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


# --- references -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("z=12", [(0, 12, 0)]),
        ("z=12,30 x=4", [(0, 12, 0), (0, 30, 0), (2, 4, 0)]),
        (" Z = 12, 30;x=4 ", [(0, 12, 0), (0, 30, 0), (2, 4, 0)]),
        ("y=1 z=2 y=1", [(1, 1, 0), (0, 2, 0)]),
        ("z=1 t=3 z=1,2; t=0 y=5", [(0, 1, 0), (0, 1, 3), (0, 2, 3), (1, 5, 0)]),
    ],
)
def test_parse_slices(text, expected):
    assert parse_slices(text) == tuple(SliceRef(*e) for e in expected)


@pytest.mark.parametrize("text", ["12", "z=", "z=-1", "w=3", "z=1.5", "z=1,", "z:3", "t=1,2 z=3"])
def test_parse_slices_refuses(text):
    with pytest.raises(BadInputError, match=r"names no slice.*z=12,30 x=4"):
        parse_slices(text)


def test_reference_prints_as_it_is_parsed():
    refs = (SliceRef(0, 12), SliceRef(1, 3, 2), SliceRef(2, 0, 1))
    assert [str(r) for r in refs] == ["z=12", "t=2 y=3", "t=1 x=0"]
    assert [r.plane for r in refs] == ["xy", "xz", "yz"]
    for ref in refs:
        assert parse_slices(str(ref)) == (ref,)


# --- painted slices -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int8", ">u2", "int32", "int64", "uint64"])
@pytest.mark.parametrize("kind", ["numpy", "zarr", "dask", "not contiguous"])
def test_painted_xy_slices(dtype, kind):
    labels = two_slices().astype(dtype)
    given = {
        "numpy": lambda: labels,
        "zarr": lambda: zarr.array(labels.astype(labels.dtype.newbyteorder("=")), chunks=(2, 3, 4)),
        "dask": lambda: pytest.importorskip("dask.array").from_array(labels, chunks=(2, 3, 4)),
        "not contiguous": lambda: np.asfortranarray(labels),
    }[kind]()

    rows = find_painted_slices(given)

    assert [str(r.ref) for r in rows] == ["z=1", "z=4"]
    assert rows[0].counts == {1: 74, 2: 6}
    assert rows[1].counts == {1: 10, 3: 6}
    assert [r.state for r in rows] == ["complete", "partial"]
    assert [r.n_voxels for r in rows] == [80, 80]


def test_crossing_slices_of_all_orientations():
    labels = empty()
    labels[2] = 1
    labels[:, 3] = 2
    labels[:, :, 4] = 3

    rows = find_painted_slices(labels)

    assert [str(r.ref) for r in rows] == ["z=2", "y=3", "x=4"]
    assert all(r.state == "complete" for r in rows)
    assert [r.n_voxels for r in rows] == [80, 60, 48]
    # Each voxel is counted once, by the slice that was claimed first.
    assert sum(sum(r.counts.values()) for r in rows) == np.count_nonzero(labels)
    assert sum(rows[0].counts.values()) == 80
    assert sum(rows[1].counts.values()) == 50
    assert sum(rows[2].counts.values()) == 35


def test_scribbles_in_several_orientations():
    labels = empty()
    labels[0, 1:4, 1:4] = 1
    labels[2:6, 6, 2:9] = 2
    rows = find_painted_slices(labels)
    assert [str(r.ref) for r in rows] == ["z=0", "y=6"]


def test_ties_are_xy_slices():
    labels = empty()
    labels[3, 4, 5] = 1
    assert [str(r.ref) for r in find_painted_slices(labels)] == ["z=3"]
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1:3, 1:3, 1:3] = 1
    assert [str(r.ref) for r in find_painted_slices(labels)] == ["z=1", "z=2"]


def test_strokes_at_one_place_of_separate_xy_slices_stay_xy():
    labels = np.zeros((40, 8, 10), np.uint8)
    labels[::4, 3:5, 2:7] = 1  # y=3 holds more of it than any xy slice
    assert {r.ref.plane for r in find_painted_slices(labels)} == {"xy"}


def test_dense_labels_are_xy_slices():
    labels = empty()
    labels[:, :, :9] = 2
    labels[:, :, 0] = 1
    labels[0] = 1
    rows = find_painted_slices(labels)
    assert [r.ref for r in rows] == [SliceRef(0, z) for z in range(6)]
    assert [r.state for r in rows] == ["complete"] + ["partial"] * 5
    assert rows[1].counts == {1: 8, 2: 64}


def test_time_points_have_slices_of_their_own():
    labels = empty(3)
    labels[0, 1] = 1
    labels[2, :, 5] = 2
    rows = find_painted_slices(labels)
    assert [str(r.ref) for r in rows] == ["z=1", "t=2 y=5"]


def test_random_paint_is_attributed_as_the_definition_says():
    """Compare with a direct, slow claim of voxels."""
    rng = np.random.default_rng(0)
    labels = (rng.random((9, 11, 10)) < 0.2).astype(np.uint8)
    labels[4, 2:9] = 2
    labels[:, :, 7] = 2
    labels[1:8, 5] = 1

    def slow(free):
        taken = [np.zeros(n) for n in free.shape]
        while free.any():
            counts = [free.sum(tuple({0, 1, 2} - {a})) for a in range(3)]
            for axis in range(3):
                c = counts[axis]
                around = np.pad(c + taken[axis], 1)
                alone = np.where((around[:-2] == 0) & (around[2:] == 0), c, 0)
                if alone.any():
                    break
            else:
                axis = int(np.argmax([c.max() for c in counts]))
                alone = counts[axis]
            index = int(alone.argmax())
            at = (slice(None),) * axis + (index,)
            yield SliceRef(axis, index), int(free[at].sum())
            free[at] = False
            taken[axis][index] = 1

    expected = dict(slow(labels > 0))
    assert {r.ref: sum(r.counts.values()) for r in find_painted_slices(labels)} == expected
    assert {ref.axis for ref in expected} == {0, 1, 2}


def test_finding_slices_of_a_big_stack_is_quick():
    labels = np.zeros((256, 512, 512), np.uint8)
    for i in (50, 200):
        labels[i] = labels[:, i] = labels[:, :, i] = 1
    start = time.perf_counter()
    rows = find_painted_slices(labels)
    seconds = time.perf_counter() - start
    assert len(rows) == 6
    assert seconds < 1.0  # about 0.06 s on an idle core; slow machines must pass too


def test_nothing_painted_is_no_slice():
    assert find_painted_slices(empty()) == []
    assert find_painted_slices(np.zeros((4, 0, 5), np.uint8)) == []
