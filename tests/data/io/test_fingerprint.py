"""An image is the same wherever and however it is stored, and not when it differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
import zarr

from napari_unet3d.data.io.fingerprint import Fingerprint
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.volume import Volume

IMAGE = np.random.default_rng(0).integers(0, 1000, (6, 200, 150), np.uint16)


def test_the_same_in_any_file(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", IMAGE)
    tifffile.imwrite(tmp_path / "b.tif", IMAGE, byteorder=">", compression="zlib")
    zarr.create_array(tmp_path / "c.zarr", data=IMAGE, chunks=(2, 64, 64))
    memory = Fingerprint.of(Volume(IMAGE))
    for name in ("a.tif", "b.tif", "c.zarr"):
        path = tmp_path / name
        found = Fingerprint.of(read_volume(path), path)
        assert memory.differences(found) == (), name
        assert found == Fingerprint.model_validate_json(found.model_dump_json())
    assert Fingerprint.of(read_volume(tmp_path / "a.tif"), tmp_path / "a.tif").file_bytes


def test_differences_in_words(tmp_path: Path) -> None:
    was = Fingerprint.of(Volume(IMAGE))
    other = IMAGE.copy()
    other[3, 100, 75] += 1
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, other)
    (text,) = was.differences(Fingerprint.of(read_volume(path), path))
    assert text.startswith("its gray values are others now (the file was written on 20")
    (text,) = was.differences(Fingerprint.of(Volume(IMAGE[:5])))
    assert text == "it had 6 × 200 × 150 voxels and has 5 × 200 × 150 now"
    (text,) = was.differences(Fingerprint.of(Volume(IMAGE.astype(np.float32))))
    assert text == "its numbers were uint16 and are float32 now"
    (text,) = Fingerprint.of(Volume(IMAGE[None], "TZYX")).differences(
        Fingerprint.of(Volume(IMAGE[None], "CZYX"))
    )
    assert text == "its axes were TZYX and are CZYX now"


def test_voxel_size_and_name_do_not_count() -> None:
    volume = Volume(IMAGE)
    other = replace(volume, voxel_size=(2.0, 1.0, 1.0), unit="µm", name="b")
    assert Fingerprint.of(volume) == Fingerprint.of(other)


def test_every_time_point_end_counts() -> None:
    series = np.stack([IMAGE, IMAGE, IMAGE])
    was = Fingerprint.of(Volume(series, "TZYX"))
    series[2, 0, 100, 75] += 1
    assert was.differences(Fingerprint.of(Volume(series, "TZYX")))
