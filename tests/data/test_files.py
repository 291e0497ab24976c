"""Files: what goes in comes out, voxel size included, and what is broken says so."""

from __future__ import annotations

import errno
import json
import shutil

import numpy as np
import pytest
import tifffile
import zarr

from napari_unet3d.data.annotation import SparseAnnotation, find_painted_slices
from napari_unet3d.data.file_metadata import common_unit, parse_unit
from napari_unet3d.data.files import read_labels, read_volume
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError

SHAPE = (5, 8, 6)
ZYX = np.arange(240, dtype=np.uint16).reshape(SHAPE)


def whole(volume: Volume) -> np.ndarray:
    return np.asarray(volume.data[...])


def same(volume: Volume, axes: str, data: np.ndarray) -> None:
    assert volume.axes == axes
    assert volume.dtype == data.dtype
    np.testing.assert_array_equal(whole(volume), data)


# --- units ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "unit", "factor"),
    [
        ("µm", "µm", 1),
        ("\u03bcm", "µm", 1),
        ("\\u00B5m", "µm", 1),
        ("micron", "µm", 1),
        ("Microns", "µm", 1),
        ("um", "µm", 1),
        ("micrometre", "µm", 1),
        ("nanometers", "nm", 1),
        ("angstrom", "nm", 0.1),
        ("cm", "mm", 10),
        ("inches", "mm", 25.4),
        ("pixels", "pixel", 1),
        ("", "pixel", 1),
        (None, "pixel", 1),
        ("furlong", "pixel", 1),
    ],
)
def test_units(text, unit, factor):
    assert parse_unit(text) == (unit, factor)


def test_axes_with_different_units_get_that_of_x():
    sizes, unit = common_unit((0.5, 200, 0.0002), ("µm", "nm", "mm"))
    assert unit == "mm"
    assert sizes == pytest.approx((0.0005, 0.0002, 0.0002))
    assert common_unit((2, 1, 1), ("µm", None, None)) == ((2, 1, 1), "pixel")


# --- reading TIFF ---------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["micron", "um", "\\u00B5m"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_imagej_voxel_size(tmp_path, unit, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        ZYX,
        imagej=True,
        resolution=(1 / 0.15, 1 / 0.2),
        metadata={"axes": "ZYX", "spacing": 0.5, "unit": unit},
        compression=compression,
    )
    volume = read_volume(path)
    np.testing.assert_array_equal(whole(volume), ZYX)
    assert volume.voxel_size == pytest.approx((0.5, 0.2, 0.15))
    assert volume.unit == "µm"
    assert volume.name == "a.tif"


def test_imagej_inch_means_dots_only_without_unit(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        ZYX,
        imagej=True,
        resolution=(72, 72),
        resolutionunit="INCH",
        metadata={"axes": "ZYX"},
    )
    assert read_volume(path).voxel_size == (1, 1, 1)
    assert read_volume(path).unit == "pixel"


def test_voxel_size_of_zero_is_left_for_the_check(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ZYX, imagej=True, metadata={"axes": "ZYX", "spacing": -2.0})
    with pytest.raises(BadInputError, match=r"voxel size \(-2, 1, 1\)"):
        read_volume(path).check()


def test_ome_voxel_size(tmp_path):
    path = tmp_path / "a.ome.tif"
    metadata = {
        "axes": "ZYX",
        "PhysicalSizeX": 250,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 250,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 1.5,
    }
    tifffile.imwrite(path, ZYX, metadata=metadata)
    volume = read_volume(path)
    assert volume.voxel_size == pytest.approx((1500, 250, 250))
    assert volume.unit == "nm"


def test_plain_tiff_has_voxels_of_one_pixel(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ZYX, resolution=(72, 72))
    volume = read_volume(tmp_path / "a.tif")
    assert (volume.voxel_size, volume.unit) == ((1, 1, 1), "pixel")


@pytest.mark.parametrize(
    ("given", "shape", "axes", "expected"),
    [
        ("ZYX", (5, 8, 6), "ZYX", (5, 8, 6)),
        ("CZYX", (2, 5, 8, 6), "CZYX", (2, 5, 8, 6)),
        ("ZCYX", (5, 2, 8, 6), "CZYX", (2, 5, 8, 6)),
        ("TZYX", (3, 5, 8, 6), "TZYX", (3, 5, 8, 6)),
        ("TZCYX", (3, 5, 2, 8, 6), "TCZYX", (3, 2, 5, 8, 6)),
        ("TZCYX", (1, 5, 1, 8, 6), "ZYX", (5, 8, 6)),
        ("TYX", (9, 8, 6), "ZYX", (9, 8, 6)),
        ("CYX", (9, 8, 6), "ZYX", (9, 8, 6)),
    ],
)
@pytest.mark.parametrize("kind", ["imagej", "ome", "plain"])
def test_tiff_axes(tmp_path, given, shape, axes, expected, kind):
    if kind == "imagej" and given != "".join(a for a in "TZCYX" if a in given):
        pytest.skip("ImageJ has another order")
    data = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    tifffile.imwrite(
        tmp_path / "a.tif",
        data,
        imagej=kind == "imagej",
        ome=kind == "ome",
        metadata={"axes": given},
    )
    volume = read_volume(tmp_path / "a.tif")
    assert volume.axes == axes
    if set(axes) == set(given):
        data = data.transpose([given.index(a) for a in axes])
    np.testing.assert_array_equal(whole(volume), data.reshape(expected))
    volume.check()


def test_imagej_stack_without_axes_is_a_z_stack(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ZYX, imagej=True)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.series[0].axes == "CYX"
    assert read_volume(tmp_path / "a.tif").axes == "ZYX"


def test_pages_written_one_by_one_are_a_stack(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for plane in ZYX:
            tif.write(plane)
    same(read_volume(tmp_path / "a.tif"), "ZYX", ZYX)


def test_uncompressed_tiff_is_memory_mapped(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ZYX)
    tifffile.imwrite(tmp_path / "b.tif", ZYX, compression="zlib")
    mapped, read = read_volume(tmp_path / "a.tif"), read_volume(tmp_path / "b.tif")
    assert isinstance(mapped.data, np.memmap)
    assert not isinstance(read.data, np.memmap)
    same(mapped, "ZYX", ZYX)
    same(read, "ZYX", ZYX)
    with pytest.raises(ValueError, match="read-only"):
        mapped.data[0, 0, 0] = 1


def test_pyramid_gives_the_finest_level(tmp_path, caplog):
    data = np.arange(4 * 64 * 64, dtype=np.uint16).reshape(4, 64, 64)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        tif.write(data, subifds=1, metadata={"axes": "ZYX"})
        tif.write(data[:, ::2, ::2], subfiletype=1)
    with caplog.at_level("INFO"):
        same(read_volume(tmp_path / "a.ome.tif"), "ZYX", data)
    assert "the finest is used" in caplog.text


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (np.zeros((64, 64), "u1"), {}, "64 × 64.*2D image"),
        (np.zeros((64, 64, 3), "u1"), {"photometric": "rgb"}, r"\(RGB\).*gray"),
        (np.zeros((9, 64, 64, 3), "u1"), {"photometric": "rgb"}, r"\(RGB\).*gray"),
        (np.zeros((3, 64, 64), "u1"), {"imagej": True}, "2D image with 3 channels"),
        (np.zeros((2, 5, 64, 64), "u1"), {}, "axes 'QQYX'.*OME-TIFF"),
    ],
)
def test_tiff_that_is_no_stack(tmp_path, data, options, message):
    tifffile.imwrite(tmp_path / "a.tif", data, **options)
    with pytest.raises(BadInputError, match=message):
        read_volume(tmp_path / "a.tif")


@pytest.mark.parametrize("share", [0.02, 0.5, 0.8, 0.98])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"metadata": None},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"imagej": True, "compression": "zlib", "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "compression": "zlib", "metadata": {"axes": "ZYX"}},
    ],
)
def test_truncated_tiff(tmp_path, options, share):
    data = np.random.default_rng(0).integers(0, 255, (12, 64, 50)).astype(np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, data, **options)
    read_volume(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(BadInputError, match=r"damaged, or is not complete.*again"):
        read_volume(path)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "a.tif").write_text("no image")
    (tmp_path / "b.tif").write_bytes(b"")
    (tmp_path / "c.czi").write_text("")
    (tmp_path / "folder.tif").mkdir()
    for name, message in {
        "a.tif": "no TIFF file",
        "b.tif": "no TIFF file",
        "c.czi": "'.czi' cannot be read. Save",
        "folder.tif": "is a folder without a zarr",
        "missing.tif": "There is no .*Check the path",
    }.items():
        with pytest.raises(BadInputError, match=message):
            read_volume(tmp_path / name)


def test_permission_is_named(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", ZYX)

    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tifffile, "TiffFile", refuse)
    with pytest.raises(BadInputError, match=r"cannot be opened \(Permission denied\)"):
        read_volume(tmp_path / "a.tif")


# --- reading zarr ---------------------------------------------------------------------------


def write_ngff(path, arrays, axes, scales, *, version="0.4", units=None, overall=None):
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for i, (array, scale) in enumerate(zip(arrays, scales, strict=True)):
        group.create_array(str(i), data=array)
        transformation = {"type": "scale", "scale": scale}
        datasets.append({"path": str(i), "coordinateTransformations": [transformation]})
    multiscale = {
        "axes": [
            {"name": a, "type": "space"} | ({"unit": units[a]} if units and a in units else {})
            for a in axes
        ],
        "datasets": datasets,
    }
    if overall:
        multiscale["coordinateTransformations"] = [{"type": "scale", "scale": overall}]
    if version == "0.4":
        group.attrs["multiscales"] = [multiscale | {"version": "0.4"}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [multiscale]}
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_zarr_takes_the_finest_level_and_all_scales(tmp_path, version):
    path = write_ngff(
        tmp_path / "a.ome.zarr",
        [ZYX, ZYX[:, ::2, ::2]],
        "zyx",
        [[2.0, 0.5, 0.5], [2.0, 1.0, 1.0]],
        version=version,
        units=dict.fromkeys("zyx", "micrometer"),
        overall=[1.0, 0.5, 0.5],
    )
    volume = read_volume(path)
    same(volume, "ZYX", ZYX)
    assert volume.voxel_size == (2, 0.25, 0.25)
    assert volume.unit == "µm"
    assert isinstance(volume.data, zarr.Array)


def test_zarr_axes_of_length_one_are_dropped(tmp_path):
    data = ZYX[None, None]
    path = write_ngff(tmp_path / "a.zarr", [data], "tczyx", [[9.0, 1.0, 3.0, 2.0, 1.0]])
    volume = read_volume(path)
    same(volume, "ZYX", ZYX)
    assert volume.voxel_size == (3, 2, 1)
    np.testing.assert_array_equal(volume.crop(0, (1, 2, 3), (2, 4, 5))[0], ZYX[1:2, 2:4, 3:5])


def test_zarr_axes_are_reordered(tmp_path):
    data = np.arange(3 * 240, dtype=np.uint16).reshape(6, 5, 3, 8)
    path = write_ngff(tmp_path / "a.zarr", [data], "xzcy", [[1.0, 3.0, 1.0, 2.0]])
    volume = read_volume(path)
    expected = data.transpose(2, 1, 3, 0)
    same(volume, "CZYX", expected)
    assert volume.voxel_size == (3, 2, 1)
    np.testing.assert_array_equal(volume.data[1, ..., 2], expected[1, ..., 2])
    np.testing.assert_array_equal(volume.data[1:, 4], expected[1:, 4])
    np.testing.assert_array_equal(volume.crop(0, (1, 2, 3), (2, 4, 5)), expected[:, 1:2, 2:4, 3:5])


def test_zarr_array_and_nested_images(tmp_path):
    zarr.create_array(str(tmp_path / "plain.zarr"), data=ZYX)
    same(read_volume(tmp_path / "plain.zarr"), "ZYX", ZYX)
    root = tmp_path / "series.zarr"
    zarr.open_group(str(root), mode="w", zarr_format=2)
    write_ngff(root / "0", [ZYX], "zyx", [[1.0, 1.0, 1.0]])
    same(read_volume(root), "ZYX", ZYX)
    same(read_volume(root / "0" / "0"), "ZYX", ZYX)


def test_zarr_errors(tmp_path):
    zarr.open_group(str(tmp_path / "empty.zarr"), mode="w")
    zarr.open_group(str(tmp_path / "group.zarr"), mode="w").create_array("raw", data=ZYX)
    write_ngff(tmp_path / "flat.zarr", [ZYX[0]], "yx", [[1.0, 1.0]])
    write_ngff(tmp_path / "lost.zarr", [ZYX], "zyx", [[1.0, 1.0, 1.0]])
    shutil.rmtree(tmp_path / "lost.zarr" / "0")
    write_ngff(tmp_path / "axes.zarr", [ZYX], "czyx", [[1.0] * 4])
    write_ngff(tmp_path / "broken.zarr", [ZYX], "zyx", [[1.0] * 3])
    (tmp_path / "broken.zarr" / ".zattrs").write_text("{")
    zarr.create_array(str(tmp_path / "nothing.zarr"), shape=(0, 5, 5), dtype="u1")
    for name, message in {
        "empty.zarr": "empty zarr group",
        "group.zarr": "without multiscales.*group.zarr/raw",
        "flat.zarr": "2D image",
        "lost.zarr": "cannot be read as OME-Zarr",
        "axes.zarr": "names 4 axes, but its array has 3",
        "broken.zarr": "cannot be read as OME-Zarr",
        "nothing.zarr": "is empty",
    }.items():
        with pytest.raises(BadInputError, match=message):
            read_volume(tmp_path / name).check()


# --- labels ---------------------------------------------------------------------------------


def test_labels(tmp_path):
    labels = np.zeros((1, *SHAPE), np.uint8)
    labels[0, 2] = 1
    labels[0, :, 3] = 2
    path = write_ngff(tmp_path / "a.zarr", [labels], "czyx", [[1.0] * 4])
    volume = read_labels(path)
    assert [str(row.ref) for row in find_painted_slices(volume.data)] == ["z=2", "y=3"]
    SparseAnnotation.from_labels(volume.data).check(Volume(ZYX))


@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_labels_are_integers(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "a.tif", (ZYX > 3).astype(dtype))
    with pytest.raises(BadInputError, match=r"labels are integers\. Convert"):
        read_labels(tmp_path / "a.tif")


def test_labels_have_no_channels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([ZYX, ZYX]), metadata={"axes": "CZYX"})
    with pytest.raises(BadInputError, match="2 channels"):
        read_labels(tmp_path / "a.tif")


def test_real_stacks_have_the_voxel_size_of_their_description(shared_data):
    described = sorted(shared_data.glob("*/meta.json"))
    assert described
    for path in described:
        meta = json.loads(path.read_text())
        volume = read_volume(path.with_name("image.tif"))
        volume.check()
        assert volume.axes == "ZYX"
        assert list(volume.shape) == meta["shape_zyx"]
        if all(meta["voxel_size_um_zyx"] or [None]):
            assert volume.unit == "µm"
            assert volume.voxel_size == pytest.approx(meta["voxel_size_um_zyx"], rel=1e-3)
        labels = read_labels(path.with_name("labels.tif"))
        assert labels.shape == volume.shape
