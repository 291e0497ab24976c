"""Results in files: complete under their name or not at all, and nothing older is lost."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections import namedtuple
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
import zarr

from limits import largest_file
from napari_unet3d.config import ClassInfo
from napari_unet3d.data.io.outputs import check_output, check_paths, create_output
from napari_unet3d.data.io.reading import read_volume
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


@pytest.mark.parametrize("name", ["a.tif", "a.ome.zarr"])
def test_result_that_cannot_be_moved_has_another_name(tmp_path, monkeypatch, name):
    path = tmp_path / name
    with create_output(path, SHAPE, "uint8") as out:
        out[:] = 1
    rename = os.rename

    def locked(source, target):
        if path in (source, target):
            raise PermissionError(errno.EACCES, "used by another process")
        rename(source, target)

    with (
        pytest.raises(RunFailedError, match=r"used by another process.*another name: '.*a-1\."),
        create_output(path, SHAPE, "uint8") as out,
    ):
        out[:] = 2
        monkeypatch.setattr(os, "replace", locked)
        monkeypatch.setattr(os, "rename", locked)
    kept = tmp_path / name.replace("a", "a-1", 1)
    assert sorted(tmp_path.iterdir()) == sorted([path, kept])
    assert (whole(read_volume(path)) == 1).all()
    assert (whole(read_volume(kept)) == 2).all()


def test_axes_must_fit_the_shape(tmp_path):
    with (
        pytest.raises(ValueError, match="do not fit"),
        create_output(tmp_path / "a.tif", SHAPE, "uint8", "TZYX"),
    ):
        pass


def test_big_files_are_bigtiff(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_unet3d.data.io.tiff_output._BIG", 100)
    with create_output(tmp_path / "a.tif", SHAPE, "uint8") as out:
        out[:] = 3
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.is_bigtiff
    assert (whole(read_volume(tmp_path / "a.tif")) == 3).all()


# --- what may be replaced, and what is looked at before it is called written -----------------


@pytest.mark.parametrize("name", NAMES)
def test_an_older_result_stays_unless_it_may_be_replaced(tmp_path, name):
    path = tmp_path / name
    write(path, 1, overwrite=False)
    with (
        pytest.raises(BadInputError, match=r"already.*--overwrite"),
        create_output(path, SHAPE, "uint8", overwrite=False),
    ):
        pytest.fail("must not start")
    assert (whole(read_volume(path)) == 1).all()


def write(path, value, **options):
    with create_output(path, SHAPE, "uint8", **options) as out:
        out[:] = value


def test_a_zarr_that_appears_meanwhile_stays(tmp_path):
    path = tmp_path / "a.ome.zarr"
    with (
        pytest.raises(RunFailedError, match=r"has appeared.*a-1\.ome\.zarr"),
        create_output(path, SHAPE, "uint8") as out,
    ):
        out[:] = 2
        path.mkdir()
        (path / "notes.txt").write_text("precious")
    assert (path / "notes.txt").read_text() == "precious"
    assert (whole(read_volume(tmp_path / "a-1.ome.zarr")) == 2).all()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("lost", ["all", "description", "chunk"])
@pytest.mark.parametrize("older", [False, True])
def test_a_zarr_is_opened_before_it_is_called_written(tmp_path, lost, older):
    path = tmp_path / "a.ome.zarr"
    if older:
        write(path, 1)
    with (
        pytest.raises(RunFailedError, match=r"was not written.*removed or changed"),
        create_output(path, (2, 8, 6), "uint8") as out,
    ):
        out[0] = 2
        (partial,) = tmp_path.glob(".*.partial")
        if lost == "all":
            shutil.rmtree(partial)
        elif lost == "description":
            (partial / "0" / ".zarray").unlink()
        else:
            (partial / "0" / "0" / "0" / "0").unlink()
        if lost != "chunk":
            out[1] = 2
    assert [p.name for p in tmp_path.iterdir()] == ([path.name] if older else [])
    if older:
        assert (whole(read_volume(path)) == 1).all()


def test_a_tiff_that_is_removed_meanwhile_is_not_called_written(tmp_path):
    with (
        pytest.raises(RunFailedError, match="was removed while"),
        create_output(tmp_path / "a.tif", SHAPE, "uint8") as out,
    ):
        next(tmp_path.iterdir()).unlink()
        out[:] = 2
    assert list(tmp_path.iterdir()) == []


def test_chunks_of_zeros_are_stored(tmp_path):
    """So a reader can tell a lost chunk from one that holds nothing."""
    with create_output(tmp_path / "a.zarr", (130, 8, 6), "uint8") as out:
        for z in range(0, 130, 10):
            out[z : z + 10] = 0
    names = {p.name for p in (tmp_path / "a.zarr" / "0").iterdir()}
    assert names - {".zarray", ".zattrs"} == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("key", "chunks"),
    [
        ((0,), 2),
        ((-1,), 2),
        ((np.int64(64), ...), 2),
        ((slice(63, 65),), 4),
        ((slice(5, 5),), 0),
        ((..., slice(0, 1)), 3),
        ((..., 256), 3),
        (..., 6),
        ((slice(None), 3, 3), 3),
    ],
)
def test_written_chunks_are_counted(tmp_path, key, chunks):
    with create_output(tmp_path / "a.zarr", (130, 8, 257), "uint8") as out:
        out[key] = 1
        assert out.chunks_written == chunks


def test_unusual_indices_are_not_counted(tmp_path):
    with create_output(tmp_path / "a.zarr", (130, 8, 257), "uint8") as out:
        out[::65] = 1
        assert out.chunks_written is None
    assert whole(read_volume(tmp_path / "a.zarr")).sum() == 2 * 8 * 257


def test_a_finished_output_survives_what_fails_later(tmp_path):
    with (
        pytest.raises(KeyError),
        create_output(tmp_path / "a.tif", SHAPE, "uint8") as a,
        create_output(tmp_path / "b.tif", SHAPE, "uint8") as b,
    ):
        a[:] = b[:] = 1
        a.finish()
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]
    assert (whole(read_volume(tmp_path / "a.tif")) == 1).all()


def test_a_limit_on_files_is_known_before(tmp_path):
    with (
        largest_file(3000),
        pytest.raises(BadInputError, match=r"needs 4\.0 kB.*files of 3\.0 kB only.*ulimit -f"),
        create_output(tmp_path / "a.tif", (10, 20, 20), "uint8"),
    ):
        pytest.fail("must not start")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "shape"), [("a.tif", (5, 20, 20)), ("a.zarr", (5, 40, 40))])
def test_a_limit_on_files_that_is_met_while_writing(tmp_path, name, shape):
    noise = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    with (
        largest_file(3000),
        pytest.raises(RunFailedError, match=r"could not be written.*large.*ulimit -f"),
        create_output(tmp_path / name, shape, "uint8") as out,
    ):
        out[:] = noise
    assert list(tmp_path.iterdir()) == []


def test_who_writes_is_told_which_file_is_too_large(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (5, 40, 40), np.uint8)
    with (
        largest_file(3000),
        create_output(tmp_path / "a.zarr", noise.shape, "uint8") as out,
        pytest.raises(RunFailedError, match=r"a\.zarr could not be written.*ulimit -f"),
    ):
        out[:] = noise


# --- inputs and outputs ----------------------------------------------------------------------


@pytest.fixture
def image(tmp_path):
    """An OME-Zarr image with a group for labels, and a TIFF; the current folder is theirs."""
    write(tmp_path / "raw.ome.zarr", 1)
    (tmp_path / "raw.ome.zarr" / "labels").mkdir()
    write(tmp_path / "raw.ome.zarr" / "labels" / "painted.zarr", 1)
    write(tmp_path / "raw.tif", 1)
    (tmp_path / "link.ome.zarr").symlink_to(tmp_path / "raw.ome.zarr")
    return tmp_path


@pytest.mark.parametrize("source", ["raw.ome.zarr", "raw.ome.zarr/0", "link.ome.zarr/0"])
@pytest.mark.parametrize(
    "output",
    [
        "raw.ome.zarr",
        "raw.ome.zarr/../raw.ome.zarr",
        "link.ome.zarr",
        "raw.ome.zarr/0",
        "raw.ome.zarr/0/a.tif",
        "raw.ome.zarr/1.zarr",
        "raw.ome.zarr/labels",
        "link.ome.zarr/a.tif",
        ".",
    ],
)
def test_outputs_that_touch_the_image_are_refused(image, source, output):
    with pytest.raises(BadInputError, match=r"is an input|would replace the input|lies in"):
        check_paths([image / output], [image / source])


@pytest.mark.parametrize("source", ["raw.ome.zarr", "raw.ome.zarr/0", "link.ome.zarr/0"])
@pytest.mark.parametrize(
    "output",
    ["raw.ome.zarr/labels/a", "link.ome.zarr/labels/a.zarr", "b.zarr", "raw.tif", "labels/a"],
)
def test_outputs_that_do_not_touch_the_image_are_allowed(image, source, output):
    check_paths([image / output], [image / source])


def test_label_images_that_are_read_are_refused(image):
    painted = image / "raw.ome.zarr" / "labels" / "painted.zarr"
    for source in (painted, painted / "0"):
        for output in (painted, image / "raw.ome.zarr"):
            with pytest.raises(BadInputError, match=r"is an input|would replace"):
                check_paths([output], [source])
        check_paths([painted.with_name("other.zarr")], [source])


def test_a_group_called_labels_is_no_way_into_another_array(tmp_path):
    group = zarr.open_group(tmp_path / "plain.zarr", mode="w")
    group.create_array("labels", shape=(2, 2), dtype="uint8")
    with pytest.raises(BadInputError, match="lies in"):
        check_paths([tmp_path / "plain.zarr" / "labels" / "a.zarr"], [tmp_path / "plain.zarr"])


def test_outputs_do_not_touch_each_other(tmp_path):
    a = tmp_path / "a.zarr"
    for other in (a, tmp_path / "b" / ".." / "a.zarr", a / "b.tif"):
        with pytest.raises(BadInputError, match="another output"):
            check_paths([a, other], [])
        with pytest.raises(BadInputError, match="another output"):
            check_paths([other, a], [])
    check_paths([a, tmp_path / "a.zarr.tif"], [])


def test_a_hard_link_to_the_input_is_the_input(image):
    os.link(image / "raw.tif", image / "other.tif")
    with pytest.raises(BadInputError, match="is an input"):
        check_paths([image / "other.tif"], [image / "raw.tif"])


def test_labels_of_an_image_need_no_ending(image):
    place = image / "raw.ome.zarr" / "labels" / "cells"
    write(place, 2)
    assert (whole(read_volume(place)) == 2).all()
    assert (whole(read_volume(image / "raw.ome.zarr")) == 1).all()
    with pytest.raises(BadInputError, match="cannot be written"):
        check_output(image / "cells")


# --- what the file says ----------------------------------------------------------------------

CLASSES = (
    ClassInfo(value=2, name="nucleus <µ>", color="#e69f00"),
    ClassInfo(value=5, name="tab\there", color="#56b4e9", output=1),
)
ABOUT = {"voxel_size": (2, 0.5, 0.25), "unit": "µm", "translation": (10, -20.5, 30.25)}


def ome(path):
    with tifffile.TiffFile(path) as tif:
        return ElementTree.fromstring(tif.ome_metadata)


def test_tiff_tells_position_time_and_classes_of_labels(tmp_path):
    path = tmp_path / "a.ome.tif"
    shape = (2, *SHAPE)
    with create_output(path, shape, "uint8", "TZYX", **ABOUT, time_step=1.5, classes=CLASSES):
        pass
    root = ome(path)
    pixels = root.find(".//{*}Pixels")
    assert pixels.get("TimeIncrement") == "1.5"
    assert pixels.get("TimeIncrementUnit") == "s"
    planes = pixels.findall("{*}Plane")
    assert len(planes) == 10
    for plane in planes:
        assert float(plane.get("PositionZ")) == 10 + 2 * int(plane.get("TheZ"))
        assert float(plane.get("PositionY")) == -20.5
        assert float(plane.get("PositionX")) == 30.25
        assert {plane.get(f"Position{a}Unit") for a in "ZYX"} == {"µm"}
    maps = [
        {m.get("K"): m.text for m in found.findall(".//{*}M")}
        for found in root.findall(".//{*}MapAnnotation")
    ]
    assert maps == [
        {"0": "background", "2": "nucleus <µ>", "1": "tab\N{REPLACEMENT CHARACTER}here"},
        {"2": "#e69f00", "1": "#56b4e9"},
    ]
    volume = read_volume(path)
    assert volume.axes == "TZYX"
    assert volume.voxel_size == (2, 0.5, 0.25)


@pytest.mark.parametrize("axes", ["CZYX", "TCZYX"])
def test_tiff_names_and_colors_the_channels_of_probabilities(tmp_path, axes):
    path = tmp_path / "a.ome.tif"
    shape = (2,) * (len(axes) - 4) + (3, *SHAPE)
    with create_output(path, shape, "float32", axes, **ABOUT, classes=CLASSES):
        pass
    channels = ome(path).findall(".//{*}Channel")
    names = [c.get("Name") for c in channels]
    assert names == ["background", "nucleus <µ>", "tab\N{REPLACEMENT CHARACTER}here"]
    colors = [int(c.get("Color")).to_bytes(4, "big", signed=True).hex() for c in channels]
    assert colors == ["808080ff", "e69f00ff", "56b4e9ff"]
    assert read_volume(path).n_channels == 3


def test_what_is_not_known_is_not_told(tmp_path):
    write(tmp_path / "a.ome.tif", 1)
    pixels = ome(tmp_path / "a.ome.tif").find(".//{*}Pixels")
    assert pixels.find("{*}Plane") is None
    assert not {"PhysicalSizeX", "TimeIncrement"} & set(pixels.attrib)
    write(tmp_path / "a.ome.zarr", 1)
    attributes = json.loads((tmp_path / "a.ome.zarr" / ".zattrs").read_text())
    assert set(attributes) == {"multiscales"}
    (dataset,) = attributes["multiscales"][0]["datasets"]
    assert [t["type"] for t in dataset["coordinateTransformations"]] == ["scale"]


@pytest.mark.parametrize("step", [0, -1, float("nan"), float("inf")])
def test_what_makes_no_sense_is_not_told(tmp_path, step):
    nowhere = {"translation": (0, float("nan"), 0), "time_step": step}
    for name in ("a.ome.tif", "a.ome.zarr"):
        with create_output(tmp_path / name, (2, *SHAPE), "uint8", "TZYX", **nowhere):
            pass
    pixels = ome(tmp_path / "a.ome.tif").find(".//{*}Pixels")
    assert pixels.find("{*}Plane") is None
    assert "TimeIncrement" not in pixels.attrib
    attributes = json.loads((tmp_path / "a.ome.zarr" / ".zattrs").read_text())
    (dataset,) = attributes["multiscales"][0]["datasets"]
    assert dataset["coordinateTransformations"] == [{"type": "scale", "scale": [1, 1, 1, 1]}]


def test_one_name_for_an_image_without_channels(tmp_path):
    write(tmp_path / "a.ome.tif", 1, channel_names=("uncertainty",))
    assert ome(tmp_path / "a.ome.tif").find(".//{*}Channel").get("Name") == "uncertainty"
    with pytest.raises(ValueError, match="2 names do not fit 1 channels"):
        write(tmp_path / "b.ome.tif", 1, channel_names=("a", "b"))


def test_zarr_labels_open_as_labels(tmp_path):
    path = tmp_path / "a.ome.zarr"
    shape = (2, *SHAPE)
    with create_output(path, shape, "uint8", "TZYX", **ABOUT, time_step=60, classes=CLASSES):
        pass
    attributes = json.loads((path / ".zattrs").read_text())
    (multiscale,) = attributes["multiscales"]
    assert multiscale["axes"][0] == {"name": "t", "type": "time", "unit": "second"}
    (dataset,) = multiscale["datasets"]
    assert dataset["coordinateTransformations"] == [
        {"type": "scale", "scale": [60.0, 2.0, 0.5, 0.25]},
        {"type": "translation", "translation": [0.0, 10.0, -20.5, 30.25]},
    ]
    label = attributes["image-label"]
    assert {c["label-value"]: c["rgba"] for c in label["colors"]} == {
        0: [0, 0, 0, 0],
        2: [0xE6, 0x9F, 0, 255],
        1: [0x56, 0xB4, 0xE9, 255],
    }
    assert {p["label-value"]: p["class"] for p in label["properties"]} == {
        0: "background",
        2: "nucleus <µ>",
        1: "tab\N{REPLACEMENT CHARACTER}here",
    }
    assert read_volume(path).voxel_size == (2, 0.5, 0.25)


def test_zarr_names_and_colors_the_channels_of_probabilities(tmp_path):
    path = tmp_path / "a.ome.zarr"
    with create_output(path, (3, *SHAPE), "float32", "CZYX", **ABOUT, classes=CLASSES):
        pass
    attributes = json.loads((path / ".zattrs").read_text())
    assert "image-label" not in attributes
    channels = attributes["omero"]["channels"]
    assert [c["label"] for c in channels][:2] == ["background", "nucleus <µ>"]
    assert [c["color"] for c in channels] == ["808080", "E69F00", "56B4E9"]
    assert {(c["window"]["start"], c["window"]["end"]) for c in channels} == {(0, 1)}
    (dataset,) = attributes["multiscales"][0]["datasets"]
    moved = dataset["coordinateTransformations"][1]["translation"]
    assert moved == [0.0, 10.0, -20.5, 30.25]
