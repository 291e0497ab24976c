"""An array of which one slice holds values reads as the full array would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_unet3d.data.one_slice import OneSlice
from napari_unet3d.data.slices import SliceRef


def filled(shape: tuple[int, ...], ref: SliceRef) -> tuple[OneSlice, np.ndarray]:
    """Values on a part of a slice, and the numpy array that equals them."""
    one, full = OneSlice(shape, np.uint8), np.zeros(shape, np.uint8)
    one.clear(ref)
    sides = [n for axis, n in enumerate(shape[-3:]) if axis != ref.axis]
    values = np.random.default_rng(0).integers(1, 9, (sides[0] - 1, sides[1] - 2)).astype(np.uint8)
    one.write((1, 2), values)
    stack = full[ref.time] if len(shape) == 4 else full
    plane = np.moveaxis(stack, ref.axis, 0)[ref.index]
    plane[1:, 2:] = values
    return one, full


KEYS: list[Any] = [
    np.s_[3],
    np.s_[:, 4],
    np.s_[..., 5],
    np.s_[2:5, ::2, 1:-1],
    np.s_[:],
    np.s_[-1, 2, 3],
    np.s_[[3, 3, 0], [4, 4, 1], [5, 2, 5]],
    np.s_[5:5],
]


@pytest.mark.parametrize("ref", [SliceRef(0, 3), SliceRef(1, 4), SliceRef(2, 5)], ids=str)
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_it_reads_as_numpy(key: Any, ref: SliceRef) -> None:
    one, full = filled((6, 7, 8), ref)
    assert np.array_equal(one[key], full[key])
    assert one[key].shape == full[key].shape


@pytest.mark.parametrize("key", [np.s_[1], np.s_[0], np.s_[1, 3], np.s_[:, :, 2], np.s_[...]])
def test_it_reads_as_numpy_with_a_time_axis(key: Any) -> None:
    one, full = filled((2, 6, 7, 8), SliceRef(0, 3, 1))
    assert np.array_equal(one[key], full[key])


def test_another_slice_begins_empty() -> None:
    one, _ = filled((6, 7, 8), SliceRef(0, 3))
    one.clear(SliceRef(1, 2))
    assert not np.asarray(one).any()
    one.clear()
    assert one.ref is None and not one[3].any()
