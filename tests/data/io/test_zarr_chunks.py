"""Chunks that are damaged or lost: which one, and in words."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from napari_unet3d.data.io.reading import read_labels, read_volume
from napari_unet3d.errors import BadInputError, RunFailedError

DATA = np.random.default_rng(0).integers(1, 60_000, (8, 32, 32)).astype(np.uint16)


def write(path, zarr_format, **options):
    zarr.create_array(str(path), data=DATA, chunks=(4, 16, 16), zarr_format=zarr_format, **options)
    return path


def chunk(path, zarr_format):
    return path / "1.0.1" if zarr_format == 2 else path / "c" / "1" / "0" / "1"


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("damage", [b"", b"abc", "half"])
@pytest.mark.parametrize("order", [None, "XYZ"])
def test_damaged_chunk_is_named(tmp_path, zarr_format, damage, order):
    path = write(tmp_path / "a.zarr", zarr_format)
    broken = chunk(path, zarr_format)
    assert broken.is_file()
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2] if damage == "half" else damage)
    volume = read_volume(path, axes=order)
    whole = tuple(volume.shape)
    name = "1.0.1" if zarr_format == 2 else "c/1/0/1"
    message = rf"a\.zarr' cannot be read: its chunk {name} is damaged.*Copy or export"
    with pytest.raises(RunFailedError, match=message):
        volume.crop(0, (0, 0, 0), whole)
    with pytest.raises(RunFailedError, match=message):
        volume.in_memory(10**9)
    if order is None:
        np.testing.assert_array_equal(volume.crop(0, (0, 0, 0), (4, 32, 32))[0], DATA[:4])


def test_damaged_chunk_is_bad_input_before_the_start(tmp_path):
    data = DATA.astype(np.float32)
    path = tmp_path / "a.zarr"
    zarr.create_array(str(path), data=data, chunks=(4, 16, 16), zarr_format=2)
    (path / "0.0.0").write_bytes(b"abc")
    with pytest.raises(BadInputError, match=r"its chunk 0\.0\.0 is damaged"):
        read_volume(path).check()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_missing_chunks_are_counted(tmp_path, zarr_format):
    path = write(tmp_path / "a.zarr", zarr_format)
    assert not any("chunks" in note for note in read_volume(path).notes)
    chunk(path, zarr_format).unlink()
    (note,) = (n for n in read_volume(path).notes if "chunks" in n)
    assert "1 of the 8 chunks of 'a.zarr' are not stored and are read as 0" in note
    assert not any("chunks" in n for n in read_labels(path).notes)  # most of it is empty


def test_missing_shards_are_counted(tmp_path):
    path = write(tmp_path / "a.zarr", 3, shards=(8, 16, 16))
    np.testing.assert_array_equal(np.asarray(read_volume(path).data), DATA)
    (path / "c" / "0" / "1" / "0").unlink()
    (path / "c" / "0" / "0" / "0").write_bytes(b"")
    (note,) = (n for n in read_volume(path).notes if "chunks" in n)
    assert "2 of the 4 chunks" in note


def test_damaged_shard_is_named(tmp_path):
    path = write(tmp_path / "a.zarr", 3, shards=(8, 16, 16))
    (path / "c" / "0" / "1" / "0").write_bytes(b"abc")
    with pytest.raises(RunFailedError, match="its chunk c/0/1/0 is damaged"):
        np.asarray(read_volume(path).data)


def test_indices_outside_stay_index_errors(tmp_path):
    volume = read_volume(write(tmp_path / "a.zarr", 2))
    with pytest.raises(IndexError):
        volume.data[99]
