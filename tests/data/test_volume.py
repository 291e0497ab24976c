"""Volumes: boxes of voxels in any order of axes, and checks that name the cure."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError

SHAPE = (5, 7, 6)


def stack(*front: int, dtype: str = "uint16") -> np.ndarray:
    """Voxels that are all different."""
    shape = (*front, *SHAPE)
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


@pytest.mark.parametrize(
    ("axes", "front", "expected"),
    [
        ("ZYX", (), lambda a: a[None]),
        ("CZYX", (2,), lambda a: a),
        ("TZYX", (3,), lambda a: a[1][None]),
        ("TCZYX", (3, 2), lambda a: a[1]),
    ],
)
@pytest.mark.parametrize("kind", ["numpy", "zarr", "dask"])
def test_crop_has_channels_in_front(axes, front, expected, kind):
    data = stack(*front)
    lazy = {
        "numpy": lambda: data,
        "zarr": lambda: zarr.array(data, chunks=(1,) * len(front) + (2, 3, 4)),
        "dask": lambda: pytest.importorskip("dask.array").from_array(data, chunks=2),
    }[kind]()
    volume = Volume(lazy, axes)

    crop = volume.crop(1 if "T" in axes else 0, (1, 2, 0), (4, 3, 6))

    assert isinstance(crop, np.ndarray)
    assert crop.dtype == np.uint16
    np.testing.assert_array_equal(crop, expected(data)[:, 1:4, 2:3, 0:6])
    assert volume.shape == SHAPE
    assert volume.n_channels == (2 if "C" in axes else 1)
    assert volume.n_times == (3 if "T" in axes else 1)


@pytest.mark.parametrize(
    ("time", "start", "stop"),
    [
        (0, (-1, 0, 0), (1, 1, 1)),
        (0, (0, 0, 0), (6, 1, 1)),
        (0, (2, 0, 0), (2, 1, 1)),
        (1, (0, 0, 0), (1, 1, 1)),
        (-1, (0, 0, 0), (1, 1, 1)),
    ],
)
def test_crop_outside_is_refused(time, start, stop):
    with pytest.raises(IndexError):
        Volume(stack()).crop(time, start, stop)


@pytest.mark.parametrize(("front", "axes"), [((), "ZYX"), ((2, 3), "TCZYX")])
def test_from_array_finds_axes(front, axes):
    volume = Volume.from_array(stack(*front), voxel_size=(2, 1, 1), unit="µm")
    assert volume.axes == axes
    assert volume.voxel_size == (2.0, 1.0, 1.0)
    volume.check()


@pytest.mark.parametrize(
    ("front", "axes", "kept"),
    [
        ((1,), "ZYX", ()),
        ((1, 1), "ZYX", ()),
        ((1, 1, 1), "ZYX", ()),
        ((1, 4), "CZYX", (4,)),
        ((4, 1), "TCZYX", (4, 1)),
        ((1, 4, 2), "TCZYX", (4, 2)),
    ],
)
@pytest.mark.parametrize("kind", ["numpy", "zarr", "dask"])
def test_from_array_drops_leading_axes_of_length_one(front, axes, kept, kind):
    data = stack(*front)
    lazy = {
        "numpy": lambda: data,
        "zarr": lambda: zarr.array(data),
        "dask": lambda: pytest.importorskip("dask.array").from_array(data, chunks=2),
    }[kind]()
    volume = Volume.from_array(lazy)
    assert volume.axes == axes
    assert tuple(volume.data.shape) == (*kept, *SHAPE)
    np.testing.assert_array_equal(np.asarray(volume.data), data.reshape(*kept, *SHAPE))
    volume.check()


def test_from_array_asks_what_a_fourth_axis_is():
    with pytest.raises(BadInputError, match=r"axes='CZYX'.*axes='TZYX'"):
        Volume.from_array(stack(2))
    assert Volume.from_array(stack(2), "czyx").n_channels == 2


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((64, 64), "2D image.*stack"),
        ((64, 64, 3), "RGB.*gray"),
        ((10, 64, 64, 4), "RGB.*gray"),
        ((2,) * 6, "6 axes"),
    ],
)
def test_from_array_refuses(shape, message):
    with pytest.raises(BadInputError, match=message):
        Volume.from_array(np.zeros(shape, np.uint8))


def test_good_images_pass():
    Volume(stack()).check()
    Volume(stack() > 3).check()
    Volume(stack(2, 2, dtype="float32"), "TCZYX").check()
    Volume(stack()[:, :, :3]).check()  # narrow, but no colors
    Volume(zarr.array(stack(dtype="float32"))).check()


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (Volume(np.eye(64)), "64 × 64.*2D image"),
        (Volume(np.eye(64)[None]), "2D image"),
        (Volume(np.ones((64, 60, 3), "uint8")), r"RGB\).*3 values.*gray"),
        (Volume(np.ones((9, 64, 60, 4), "uint8"), "TZYX"), "RGB"),
        (Volume(np.ones((0, 5, 5))), "0 × 5 × 5.*is empty"),
        (Volume(np.full((5, 5, 5), 7)), "same value .7."),
        (Volume(np.ones((2, 5, 5, 5)), "CZYX"), "same value"),
        (Volume(stack().astype(complex)), "complex128.*Convert"),
        (Volume(stack().astype(object)), "object.*Convert"),
        (Volume(stack().astype(str)), "<U5.*Convert"),
        (Volume(stack(), "CZYX"), "3 axes.*'CZYX' names 4"),
        (Volume(stack(2), "ZYX"), "4 axes.*'ZYX' names 3"),
        (Volume(stack(), "XYZ"), "'XYZ'.*none of"),
        (Volume(stack(), voxel_size=(0, 1, 1)), r"voxel size \(0, 1, 1\).*scale"),
        (Volume(stack(), voxel_size=(1, -0.5, 1)), r"voxel size \(1, -0.5, 1\)"),
        (Volume(stack(), voxel_size=(1, 1, float("nan"))), "voxel size"),
        (Volume(stack(), voxel_size=(1, 1)), "voxel size"),
    ],
)
def test_check_names_value_and_cure(volume, message):
    with pytest.raises(BadInputError, match=message):
        volume.check()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("lazy", [False, True])
def test_check_finds_one_bad_voxel(bad, lazy):
    data = stack(2, dtype="float32")
    data[1, 3, 2, 1] = bad
    volume = Volume(zarr.array(data) if lazy else data, "TZYX")
    with pytest.raises(BadInputError, match=r"z=3, y=2, x=1.*nan_to_num"):
        volume.check()


def test_the_bad_voxel_of_a_wide_image_is_found(monkeypatch):
    monkeypatch.setattr("napari_unet3d.data.volume._BLOCK_VOXELS", 100)
    data = stack(2, dtype="float32")
    data[1, 3, 6, 5] = np.nan
    with pytest.raises(BadInputError, match=r"z=3, y=6, x=5"):
        Volume(np.repeat(data, 20, axis=3)[..., ::20], "CZYX").check()


def test_constant_is_judged_on_all_voxels():
    data = np.zeros((40, 8, 8), np.uint8)
    data[1, 0, 0] = 1
    Volume(data).check()


def test_sampled_planes_see_all_depths_of_all_times():
    data = np.zeros((4, 50, 8, 6), np.uint16)
    data += (np.arange(4)[:, None] * 100 + np.arange(50))[:, :, None, None].astype(np.uint16)

    planes = list(Volume(data, "TZYX").sample_planes(40 * 48))

    seen = np.array([int(p.flat[0]) for p in planes])
    assert all(p.shape == (1, 8, 6) for p in planes)
    assert len(set(seen)) == 40
    np.testing.assert_array_equal(np.bincount(seen // 100), [10] * 4)
    for time in range(4):
        assert np.diff(seen[seen // 100 == time]).max() <= 6


def test_sampled_planes_stay_in_their_budget():
    planes = list(Volume(np.zeros((20, 100, 100))).sample_planes(8_000))
    assert len(planes) == 8
    assert 4_000 < sum(p.size for p in planes) <= 8_000


@pytest.mark.parametrize(("axes", "front"), [("ZYX", ()), ("TCZYX", (2, 3))])
def test_sampled_boxes_are_the_whole_of_a_small_stack(monkeypatch, axes, front):
    monkeypatch.setattr("napari_unet3d.data.volume._SAMPLE_BOX", (2, 4, 4))
    data = stack(*front)
    boxes = list(Volume(data, axes).sample_boxes(data.size))
    assert len(boxes) > 4
    found = np.concatenate([box.ravel() for box in boxes])
    np.testing.assert_array_equal(np.sort(found), data.ravel())


def test_sampled_boxes_are_the_same_however_voxels_are_stored(monkeypatch):
    monkeypatch.setattr("napari_unet3d.data.volume._SAMPLE_BOX", (2, 4, 4))
    data = np.arange(40 * 32 * 32, dtype=np.int32).reshape(40, 32, 32)
    memory, lazy = (
        list(Volume(d).sample_boxes(data.size // 10))
        for d in (data, zarr.array(data, chunks=(7, 9, 5)))
    )
    assert sum(b.size for b in memory) == pytest.approx(data.size / 10, rel=0.1)
    for a, b in zip(memory, lazy, strict=True):
        np.testing.assert_array_equal(a, b)
    seen = np.concatenate([box.ravel() for box in memory])
    for axis, n in enumerate(data.shape):
        index = np.unravel_index(seen, data.shape)[axis]
        assert len(np.unique(index)) == n  # all depths, rows and columns


@pytest.mark.parametrize("axes", ["ZYX", "TCZYX"])
def test_a_lazy_image_is_read_where_it_fits_into_memory(axes):
    data = stack(*(2, 2) if axes == "TCZYX" else ())
    lazy = Volume(zarr.array(data, chunks=2), axes, (3.0, 1.0, 1.0), "µm", "cells")
    read = lazy.in_memory(data.nbytes)
    assert isinstance(read.data, np.ndarray)
    np.testing.assert_array_equal(read.data, data)
    assert (read.axes, read.voxel_size, read.name) == (axes, (3.0, 1.0, 1.0), "cells")
    assert lazy.in_memory(data.nbytes - 1) is lazy
    assert read.in_memory(0) is read  # nothing is gained by a copy
