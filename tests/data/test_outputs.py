"""Results in files: complete under their name or not at all, and nothing older is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple

import numpy as np
import pytest
import tifffile

from napari_unet3d.data import atomic
from napari_unet3d.data.files import read_volume
from napari_unet3d.data.outputs import create_output
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError

SHAPE = (5, 8, 6)
ZYX = np.arange(240, dtype=np.uint16).reshape(SHAPE)


def whole(volume: Volume) -> np.ndarray:
    return np.asarray(volume.data[...])


def same(volume: Volume, axes: str, data: np.ndarray) -> None:
    assert volume.axes == axes
    assert volume.dtype == data.dtype
    np.testing.assert_array_equal(whole(volume), data)


# --- writing --------------------------------------------------------------------------------

NAMES = ["a.tif", "a.ome.tiff", "a.ome.zarr", "a.zarr"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("axes", "shape"), [("ZYX", SHAPE), ("CZYX", (2, *SHAPE)), ("TCZYX", (3, 2, *SHAPE))]
)
@pytest.mark.parametrize(("unit", "dtype"), [("µm", "uint8"), ("nm", "float32"), ("mm", "uint16")])
def test_written_is_read(tmp_path, name, axes, shape, unit, dtype):
    data = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    path = tmp_path / name
    with create_output(path, shape, dtype, axes, (2, 0.5, 0.25), unit) as out:
        assert out.shape == shape
        assert out.dtype == dtype
        out[..., :3] = data[..., :3]
        out[..., 3:] = data[..., 3:]
        assert not path.exists()
        np.testing.assert_array_equal(out[..., 1], data[..., 1])
    volume = read_volume(path)
    same(volume, axes, data)
    assert volume.voxel_size == (2, 0.5, 0.25)
    assert volume.unit == unit
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 1, 1), (3, 1, 1)])
def test_voxels_of_pixels_come_back(tmp_path, name, size):
    with create_output(tmp_path / name, SHAPE, "uint8", voxel_size=size) as out:
        out[0] = 1
    volume = read_volume(tmp_path / name)
    assert volume.voxel_size == size
    assert volume.unit == "pixel"
    assert whole(volume)[1:].max() == 0  # what is not written is 0


def test_zarr_is_version_2_in_small_chunks(tmp_path):
    with create_output(tmp_path / "a.zarr", (2, 70, 300, 20), "uint8", "TZYX") as out:
        out[1, 69, 299, 19] = 1
    metadata = json.loads((tmp_path / "a.zarr" / "0" / ".zarray").read_text())
    assert metadata["zarr_format"] == 2
    assert metadata["dimension_separator"] == "/"
    assert metadata["chunks"] == [1, 64, 256, 20]
    assert metadata["compressor"]["id"] == "blosc"
    attributes = json.loads((tmp_path / "a.zarr" / ".zattrs").read_text())
    (multiscale,) = attributes["multiscales"]
    assert multiscale["version"] == "0.4"
    assert [a["name"] for a in multiscale["axes"]] == ["t", "z", "y", "x"]
    assert (tmp_path / "a.zarr" / "0" / "1" / "1" / "1" / "0").is_file()


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no posix_fallocate here")
def test_tiff_has_its_disk_space_from_the_start(tmp_path):
    with create_output(tmp_path / "a.tif", (40, 128, 128), "uint8"):
        (partial,) = tmp_path.iterdir()
        assert partial.stat().st_blocks * 512 >= 40 * 128 * 128


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_failure_leaves_the_old_result(tmp_path, name, error):
    path = tmp_path / name
    with create_output(path, SHAPE, "uint16") as out:
        out[:] = ZYX
    with pytest.raises(error), create_output(path, SHAPE, "uint16") as out:
        out[:] = 0
        raise error
    same(read_volume(path), "ZYX", ZYX)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_success_replaces_the_old_result(tmp_path, name):
    for value in (1, 2):
        with create_output(tmp_path / name, SHAPE, "uint8") as out:
            out[:] = value
    assert (whole(read_volume(tmp_path / name)) == 2).all()
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_result_may_replace_the_image_it_came_from(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ZYX)
    volume = read_volume(tmp_path / "a.tif")
    with create_output(tmp_path / "a.tif", SHAPE, "uint16") as out:
        for z in range(5):
            out[z] = volume.crop(0, (z, 0, 0), (z + 1, 8, 6))[0, 0] + 1
    same(read_volume(tmp_path / "a.tif"), "ZYX", ZYX + 1)


def test_closed_output_says_so(tmp_path):
    with create_output(tmp_path / "a.tif", SHAPE, "uint8") as out:
        pass
    with pytest.raises(ValueError, match="closed"):
        out[0] = 1


def refused(path, message, **options):
    before = sorted(path.parent.iterdir()) if path.parent.is_dir() else None
    with (
        pytest.raises(BadInputError, match=message),
        create_output(path, SHAPE, options.get("dtype", "uint8")),
    ):
        pytest.fail("must not start")
    if before is not None:
        assert sorted(path.parent.iterdir()) == before


def test_outputs_that_are_refused(tmp_path):
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "file.zarr").write_text("precious")
    (tmp_path / "photos.zarr").mkdir()
    (tmp_path / "photos.zarr" / "me.jpg").write_text("precious")
    refused(tmp_path / "a.png", r"'.png' cannot be written.*\.tif or \.ome\.zarr")
    refused(tmp_path / "a", "cannot be written")
    refused(tmp_path / "no" / "a.tif", "There is no folder")
    refused(tmp_path / "folder.tif", "is a folder")
    refused(tmp_path / "file.zarr", "is no zarr: it is not overwritten")
    refused(tmp_path / "photos.zarr", "is no zarr: it is not overwritten")
    refused(tmp_path / "a.tif", "float16.*OME-Zarr", dtype="float16")


def test_read_only_folder(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    refused(tmp_path / "a.tif", r"cannot be written to \(Permission denied\)")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_truly_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    refused(tmp_path / "a.tif", "cannot be written to")


@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_too_little_space_is_seen_before(tmp_path, monkeypatch, name):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda p: usage(10**9, 10**9 - 2000, 2000))
    with (
        pytest.raises(BadInputError, match=r"it needs .* kB, and 2\.0 kB are free"),
        create_output(tmp_path / name, (100, 20, 20), "uint8"),
    ):
        pytest.fail("must not start")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_disk_that_gets_full(tmp_path, name):
    with (
        pytest.raises(RunFailedError, match=r"disk got full.*Free some space"),
        create_output(tmp_path / name, SHAPE, "uint8"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no posix_fallocate here")
def test_disk_that_is_full_when_space_is_reserved(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        pytest.raises(RunFailedError, match="disk got full"),
        create_output(tmp_path / "a.tif", SHAPE, "uint8"),
    ):
        pytest.fail("must not start")
    assert list(tmp_path.iterdir()) == []


def test_result_that_cannot_be_moved(tmp_path, monkeypatch):
    def locked(*args):
        raise PermissionError(errno.EACCES, "used by another process")

    with (
        pytest.raises(RunFailedError, match=r"used by another process.*another name"),
        create_output(tmp_path / "a.tif", SHAPE, "uint8"),
    ):
        monkeypatch.setattr(atomic.os, "replace", locked)
    assert list(tmp_path.iterdir()) == []


def test_axes_must_fit_the_shape(tmp_path):
    with (
        pytest.raises(ValueError, match="do not fit"),
        create_output(tmp_path / "a.tif", SHAPE, "uint8", "TZYX"),
    ):
        pass


def test_big_files_are_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_unet3d.data.tiff_files._BIG", 100)
    with create_output(tmp_path / "a.tif", SHAPE, "uint8") as out:
        out[:] = 3
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff
    assert (whole(read_volume(tmp_path / "a.tif")) == 3).all()
