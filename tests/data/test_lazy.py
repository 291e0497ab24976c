"""Lazy arrays: they give what numpy gives, and fail in words."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tifffile

from napari_unet3d.data import lazy
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.lazy import RawPlanes, Rearranged, Stacked, as_bad_input, rearranged
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError

KEYS = [
    ...,
    0,
    (slice(None), slice(2, 5)),
    (1, slice(None), slice(3, 9), slice(2, 20)),
    (slice(None), -1, ..., 3),
    (slice(1, 2), slice(0, 4, 2), slice(None, None, 3), slice(1, None, 4)),
    (0, 2, 5),
    (0, 2, 5, 7),
    (..., slice(8, 2, -1), slice(9, None, -2)),
    (slice(3, 3), slice(None)),
    (np.int64(1), np.uint8(2)),
]


def raw(tmp_path, data, *, byteorder="<", files=1):
    """The planes of `data`, spread over some files, with something in between."""
    stored = data.astype(data.dtype.newbyteorder(byteorder))
    planes = stored.reshape(-1, *data.shape[-2:])
    places = []
    for i, plane in enumerate(planes):
        path = tmp_path / f"{i % files}.raw"
        with path.open("ab") as file:
            file.write(b"between")
            places.append((path, file.tell()))
            file.write(plane.tobytes())
    return RawPlanes(data.shape, stored.dtype, places)


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("detour", [0, 2**14])
def test_planes_in_a_file_are_indexed_like_numpy(tmp_path, monkeypatch, key, byteorder, detour):
    monkeypatch.setattr(lazy, "_LARGEST_DETOUR", detour)
    data = np.random.default_rng(0).integers(0, 60_000, (2, 5, 11, 23)).astype(np.uint16)
    array = raw(tmp_path, data, byteorder=byteorder)
    assert array.dtype == np.uint16
    assert (array.shape, array.ndim, array.size, array.nbytes) == (
        data.shape,
        data.ndim,
        data.size,
        data.nbytes,
    )
    np.testing.assert_array_equal(array[key], data[key])
    assert array[key].dtype == np.uint16
    np.testing.assert_array_equal(np.asarray(array), data)


@pytest.mark.parametrize("key", [(0, 5), (0, 0, 0, -24), (0,) * 5, (..., ...)])
def test_indices_outside_are_refused(tmp_path, key):
    array = raw(tmp_path, np.zeros((2, 5, 11, 23), np.uint8))
    with pytest.raises(IndexError):
        array[key]


def test_many_files_are_not_all_open(tmp_path):
    data = np.arange(60 * 4 * 5, dtype=np.float32).reshape(60, 4, 5)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    array = raw(tmp_path, data, files=60)
    np.testing.assert_array_equal(array[...], data)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_crop_reads_little_of_a_wide_image(tmp_path, monkeypatch):
    array = raw(tmp_path, np.zeros((3, 50, 100_000), np.uint8))
    read = []
    monkeypatch.setattr(
        lazy._OpenFile, "read_into", lambda self, start, out: read.append(out.nbytes)
    )
    array[:, 10:20, 500:600]
    assert sum(read) == 3 * 10 * 100
    read.clear()
    array[1, 10:20]
    assert read == [10 * 100_000]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_rearranged_axes_are_indexed_like_numpy(key):
    source = np.arange(2 * 11 * 1 * 23 * 5).reshape(11, 2, 1, 23, 5)
    order = (1, 4, 0, 3)
    np.testing.assert_array_equal(
        Rearranged(source, order)[key], source[:, :, 0].transpose(1, 3, 0, 2)[key]
    )
    assert rearranged(source, range(5)) is source
    assert np.shares_memory(rearranged(source, order), source)


def test_file_that_gets_shorter_while_it_is_read(tmp_path):
    data = np.arange(12 * 40 * 50, dtype=np.float32).reshape(12, 40, 50)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, data)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.crop(0, (11, 0, 0), (12, 40, 50))[0], data[11:])
    os.truncate(path, path.stat().st_size // 2)
    np.testing.assert_array_equal(volume.crop(0, (1, 0, 0), (2, 40, 50))[0], data[1:2])
    with pytest.raises(RunFailedError, match=r"a\.tif' can no longer be read \(it ends before"):
        volume.crop(0, (11, 0, 0), (12, 40, 50))
    with pytest.raises(BadInputError, match="can no longer be read"):
        volume.check()


def test_file_that_is_replaced_stays_what_it_was(tmp_path):
    data = np.arange(12 * 40 * 50, dtype=np.uint16).reshape(12, 40, 50)
    tifffile.imwrite(tmp_path / "a.tif", data)
    volume = read_volume(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", data + 1)
    try:
        os.replace(tmp_path / "b.tif", tmp_path / "a.tif")
    except PermissionError:
        pytest.skip("an open file cannot be replaced here")
    np.testing.assert_array_equal(np.asarray(volume.data), data)


def test_disk_that_fails(tmp_path, monkeypatch):
    array = raw(tmp_path, np.zeros((3, 5, 6), np.uint8))

    def fail(*args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(lazy._OpenFile, "_read", fail)
    with pytest.raises(RunFailedError, match=r"0\.raw' can no longer be read \(Input/output"):
        array[1]


def test_file_that_is_gone(tmp_path):
    array = raw(tmp_path, np.zeros((20, 5, 6), np.uint8), files=20)
    (tmp_path / "7.raw").unlink()
    array[6]
    with pytest.raises(RunFailedError, match=r"7\.raw' can no longer be read"):
        array[7]


def test_reading_without_positions(tmp_path, monkeypatch):
    """As on Windows, which has no pread."""
    data = np.arange(3 * 5 * 6, dtype=np.uint16).reshape(3, 5, 6)
    array = raw(tmp_path, data)
    monkeypatch.delattr(os, "preadv", raising=False)
    np.testing.assert_array_equal(array[1:, 2], data[1:, 2])
    with pytest.raises(RunFailedError):
        RawPlanes((1, 50, 60), np.uint16, [(tmp_path / "0.raw", 0)])[...]


def test_bad_input_before_the_start():
    with pytest.raises(BadInputError, match="gone"), as_bad_input():
        raise RunFailedError("gone")


class Broken:
    """A lazy array whose reading fails, as dask's and others' may."""

    def __init__(self, error):
        self.shape, self.dtype, self.error = (5, 8, 8), np.dtype("uint8"), error

    def __getitem__(self, key):
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyError("x"), OSError("x"), ValueError("x")])
def test_whatever_a_lazy_array_raises_is_told_in_words(error):
    volume = Volume(Broken(error), name="cells")
    with pytest.raises(RunFailedError, match="'cells' cannot be read"):
        volume.crop(0, (0, 0, 0), (1, 1, 1))
    with pytest.raises(RunFailedError, match="'cells' cannot be read"):
        volume.in_memory(10**6)
    with pytest.raises(BadInputError, match="'cells' cannot be read"):
        volume.check()


def test_lack_of_memory_stays_what_it_is():
    with pytest.raises(MemoryError):
        Volume(Broken(MemoryError())).crop(0, (0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_stacked_arrays_are_indexed_like_numpy(key, axis):
    data = np.random.default_rng(0).integers(0, 200, (2, 5, 11, 23)).astype(np.uint16)
    parts = [part.astype(t) for part, t in zip(np.moveaxis(data, axis, 0), "BHBHB", strict=False)]
    array = Stacked(parts, axis)
    assert (array.shape, array.dtype) == (data.shape, np.uint16)
    np.testing.assert_array_equal(array[key], data[key])
    assert array[key].dtype == np.uint16
