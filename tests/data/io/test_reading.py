"""Files keep voxels and voxel size, and a broken file is refused with a reason."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import warnings

import numpy as np
import pytest
import tifffile
import zarr

from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.io.file_metadata import common_unit, parse_unit
from napari_unet3d.data.io.reading import read_geometry, read_labels, read_volume
from napari_unet3d.data.io.zarr_chunks import GuardedZarr
from napari_unet3d.data.lazy import RawPlanes
from napari_unet3d.data.ledger import find_painted_slices
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
        ("in", "mm", 25.4),
        ("thou", "mm", 0.0254),
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


@pytest.mark.parametrize(
    ("spacing", "z", "note"),
    [
        (-2.0, 2.0, r"along z is -2 micron: the axis is flipped, and 2 is taken"),
        (0.0, 0.5, r"voxel size of 0 along z: that along x is taken, 0\.5 micron"),
        (None, 1.0, r"no spacing along z: 1 micron is taken"),
        (float("nan"), 0.5, r"no voxel size along z: that along x is taken"),
    ],
)
def test_imagej_spacing_that_is_no_length(tmp_path, spacing, z, note):
    metadata = {"axes": "ZYX", "unit": "micron"}
    metadata |= {} if spacing is None else {"spacing": spacing}
    tifffile.imwrite(tmp_path / "a.tif", ZYX, imagej=True, resolution=(2, 4), metadata=metadata)
    volume = read_volume(tmp_path / "a.tif")
    assert volume.voxel_size == (z, 0.25, 0.5)
    assert len(volume.notes) == 1
    assert re.search(note, volume.notes[0])
    volume.check()
    assert read_labels(tmp_path / "a.tif").notes == ()  # whose voxel size is not used


def imagej_by_hand(path, description, **options):
    """A stack with an ImageJ description, page by page as ImageJ writes it."""
    text = f"ImageJ=1.54f\nimages=5\nslices=5\n{description}loop=false\n"
    with tifffile.TiffWriter(path) as tif:
        for z, plane in enumerate(ZYX):
            tif.write(
                plane,
                photometric="minisblack",
                metadata=None,
                description=text if z == 0 else None,
                resolutionunit=1,
                **options,
            )


@pytest.mark.parametrize(
    ("units", "spacing", "resolution", "size", "unit"),
    [
        ("unit=micron\nzunit=nm\n", 500.0, (2, 2), (0.5, 0.5, 0.5), "µm"),
        ("unit=nm\nzunit=micron\n", 0.05, (0.1, 0.1), (50, 10, 10), "nm"),
        ("unit=micron\nyunit=nm\n", 2.0, (2, 0.002), (2, 0.5, 0.5), "µm"),
        ("unit=mm\nyunit=cm\nzunit=\\u00B5m\n", 40.0, (10, 1), (0.04, 10, 0.1), "mm"),
    ],
)
def test_imagej_units_go_by_axis(tmp_path, units, spacing, resolution, size, unit):
    imagej_by_hand(tmp_path / "a.tif", f"{units}spacing={spacing}\n", resolution=resolution)
    volume = read_volume(tmp_path / "a.tif")
    assert volume.voxel_size == pytest.approx(size)
    assert volume.unit == unit


def test_improbable_voxels_are_noted(tmp_path):
    imagej_by_hand(tmp_path / "a.tif", "unit=micron\nspacing=500.0\n", resolution=(2, 2))
    imagej_by_hand(tmp_path / "b.tif", "unit=micron\nspacing=20.0\n", resolution=(2, 2))
    (note,) = read_volume(tmp_path / "a.tif").notes
    assert "500 × 0.5 × 0.5 µm" in note
    assert "1000 times longer along z than along x, which is improbable" in note
    assert read_volume(tmp_path / "b.tif").notes == ()


def test_imagej_origin_and_time_step(tmp_path):
    data = np.stack([ZYX] * 3)
    text = (
        "ImageJ=1.54f\nimages=15\nslices=5\nframes=3\nhyperstack=true\nunit=micron\n"
        "spacing=2.0\nfinterval=250.0\ntunit=ms\nxorigin=4.0\nyorigin=-2.0\nzorigin=1.0\n"
    )
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for i, plane in enumerate(data.reshape(-1, 8, 6)):
            description = text if i == 0 else None
            tif.write(
                plane,
                photometric="minisblack",
                metadata=None,
                description=description,
                resolution=(2, 4),
                resolutionunit=1,
            )
    volume = read_volume(tmp_path / "a.tif")
    same(volume, "TZYX", data)
    assert volume.time_step == pytest.approx(0.25)
    assert volume.translation == pytest.approx((-2, 0.5, -2))


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


def test_uncompressed_tiff_is_read_when_it_is_asked_for(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ZYX)
    tifffile.imwrite(tmp_path / "b.tif", ZYX, compression="zlib")
    lazy, read = read_volume(tmp_path / "a.tif"), read_volume(tmp_path / "b.tif")
    assert isinstance(lazy.data, RawPlanes)
    assert isinstance(read.data, np.ndarray)
    same(lazy, "ZYX", ZYX)
    same(read, "ZYX", ZYX)


def test_pyramid_gives_the_finest_level(tmp_path):
    data = np.arange(4 * 64 * 64, dtype=np.uint16).reshape(4, 64, 64)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        tif.write(data, subifds=1, metadata={"axes": "ZYX"})
        tif.write(data[:, ::2, ::2], subfiletype=1)
    volume = read_volume(tmp_path / "a.ome.tif")
    same(volume, "ZYX", data)
    assert "'a.ome.tif' has 2 resolutions: the finest is used." in volume.notes


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


def test_file_without_the_description_at_its_end(tmp_path):
    data = np.random.default_rng(0).integers(0, 255, (6, 64, 64)).astype(np.uint8)
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(data, subifds=1, metadata={"axes": "ZYX", "PhysicalSizeZ": 2.0})
        tif.write(data[:, ::2, ::2], subfiletype=1)
    assert read_volume(path).voxel_size[0] == 2
    content = path.read_bytes()
    assert content.rstrip(b"\0").endswith(b"</OME>")  # so its voxels are there without its end
    path.write_bytes(content[:-100])
    with pytest.raises(BadInputError, match=r"damaged, or is not complete.*description.*again"):
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
    assert isinstance(volume.data, GuardedZarr)
    assert volume.data.chunks == zarr.open_array(str(path / "0"), mode="r").chunks


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
    write_ngff(tmp_path / "other.zarr", [ZYX], "dhw", [[1.0] * 3])
    write_ngff(tmp_path / "twice.zarr", [ZYX], "zyy", [[1.0] * 3])
    write_ngff(tmp_path / "broken.zarr", [ZYX], "zyx", [[1.0] * 3])
    (tmp_path / "broken.zarr" / ".zattrs").write_text("{")
    zarr.create_array(str(tmp_path / "nothing.zarr"), shape=(0, 5, 5), dtype="u1")
    for name, message in {
        "empty.zarr": "empty zarr group",
        "group.zarr": "without multiscales.*group.zarr/raw",
        "flat.zarr": "2D image",
        "lost.zarr": "cannot be read as OME-Zarr",
        "axes.zarr": "names 4 axes, but its array has 3",
        "other.zarr": r"has axes '\?\?\?'.*Give its axes \(such as ZYX\)",
        "twice.zarr": "has axes 'ZYY'",
        "broken.zarr": "cannot be read as OME-Zarr",
        "nothing.zarr": "is empty",
    }.items():
        with pytest.raises(BadInputError, match=message):
            read_volume(tmp_path / name).check()


# --- what the caller says, and what a file says of its place -----------------------------------


@pytest.mark.parametrize(
    ("axes", "shape", "expected"),
    [
        ("TZYX", (2, 5, 8, 6), "TZYX"),
        ("czyx", (2, 5, 8, 6), "CZYX"),
        ("ZYXC", (5, 8, 6, 2), "CZYX"),
        ("ZYX", (1, 5, 8, 6), "ZYX"),
        ("XYZ", (6, 8, 5), "ZYX"),
    ],
)
@pytest.mark.parametrize("kind", ["tif", "zarr"])
def test_axes_that_are_given(tmp_path, axes, shape, expected, kind):
    data = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    path = tmp_path / f"a.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, data, photometric="minisblack")
    else:
        zarr.create_array(str(path), data=data)
    volume = read_volume(path, axes=axes)
    letters = axes.upper() if len(axes) == len(shape) else "T" + axes
    order = [letters.index(a) for a in ("T" + expected)[-len(shape) :] if a in letters]
    assert volume.axes == expected
    kept = data.transpose(order).reshape(volume.data.shape)
    np.testing.assert_array_equal(whole(volume), kept)


def test_axes_name_the_colors_of_a_color_image(tmp_path):
    data = np.arange(5 * 20 * 18 * 3, dtype=np.uint8).reshape(5, 20, 18, 3)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb")
    with pytest.raises(BadInputError, match=r"color \(RGB\).*give its axes, such as ZYXC"):
        read_volume(tmp_path / "a.tif")
    same(read_volume(tmp_path / "a.tif", axes="ZYXC"), "CZYX", np.moveaxis(data, -1, 0))


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"axes": "ZYQ"}, r"'ZYQ' are no axes.*TZYX"),
        ({"axes": "ZZYX"}, "are no axes"),
        ({"axes": "TYX"}, "are no axes"),
        ({"axes": ""}, "are no axes"),
        ({"axes": "CZYX"}, r"5 × 8 × 6\) has 3 axes, but 'CZYX' names 4"),
        ({"voxel_size": (1, 2)}, r"\(1, 2\) is no voxel size\. Give three"),
        ({"voxel_size": (0, 1, 1)}, "above zero"),
        ({"voxel_size": (1, -1, 1)}, "above zero"),
        ({"voxel_size": (1, 1, float("inf"))}, "above zero"),
        ({"voxel_size": ("a", 1, 1)}, "is no voxel size"),
    ],
)
@pytest.mark.parametrize("read", [read_volume, read_labels])
def test_wishes_that_cannot_be(tmp_path, wishes, message, read):
    tifffile.imwrite(tmp_path / "a.tif", ZYX)
    with pytest.raises(BadInputError, match=message):
        read(tmp_path / "a.tif", **wishes)


def test_voxel_size_that_is_given(tmp_path):
    tifffile.imwrite(tmp_path / "plain.tif", ZYX)
    imagej_by_hand(tmp_path / "nm.tif", "unit=nm\nspacing=0.0\n", resolution=(0.1, 0.1))
    for name, unit in (("plain.tif", "µm"), ("nm.tif", "nm")):
        volume = read_volume(tmp_path / name, voxel_size=[2, 0.5, 0.25])
        assert (volume.voxel_size, volume.unit) == ((2.0, 0.5, 0.25), unit)
        assert volume.notes == ()


def ome_with(**more):
    return {"axes": "TZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0} | more


def test_ome_position_and_time_step(tmp_path):
    data = np.stack([ZYX] * 2)
    plane = {f"Position{a}": [float(n)] * 10 for a, n in zip("XYZ", (30, 20, 10), strict=True)}
    plane |= {f"Position{a}Unit": ["nm"] * 10 for a in "XYZ"}
    metadata = ome_with(TimeIncrement=2.0, TimeIncrementUnit="min", Plane=plane)
    tifffile.imwrite(tmp_path / "a.ome.tif", data, metadata=metadata)
    volume = read_volume(tmp_path / "a.ome.tif")
    same(volume, "TZYX", data)
    assert volume.translation == pytest.approx((0.01, 0.02, 0.03))
    assert volume.time_step == pytest.approx(120)


def test_zarr_position_and_time_step(tmp_path):
    path = write_ngff(tmp_path / "a.zarr", [np.stack([ZYX] * 2)], "tzyx", [[0.5, 2.0, 0.5, 0.5]])
    attributes = json.loads((path / ".zattrs").read_text())
    (multiscale,) = attributes["multiscales"]
    for axis, unit in zip(multiscale["axes"], ["minute", *["micrometer"] * 3], strict=True):
        axis["unit"] = unit
    steps = multiscale["datasets"][0]["coordinateTransformations"]
    steps.append({"type": "translation", "translation": [0, 10, 20, 30]})
    multiscale["coordinateTransformations"] = [{"type": "scale", "scale": [1, 2, 1, 1]}]
    (path / ".zattrs").write_text(json.dumps(attributes))
    volume = read_volume(path)
    assert volume.voxel_size == (4, 0.5, 0.5)
    assert volume.translation == (20, 20, 30)
    assert volume.time_step == 30


@pytest.mark.parametrize("name", ["a.tif", "z.tif", "a.ome.zarr"])
def test_geometry_is_that_of_the_volume(tmp_path, name, monkeypatch):
    path = tmp_path / name
    if name == "a.ome.zarr":
        write_ngff(path, [ZYX], "zyx", [[2.0, 0.5, 0.5]], units=dict.fromkeys("zyx", "nanometer"))
    else:
        tifffile.imwrite(
            path,
            ZYX,
            imagej=True,
            resolution=(2, 2),
            metadata={"axes": "ZYX", "spacing": 2.0, "unit": "um"},
            compression="zlib" if name == "z.tif" else None,
        )
    volume = read_volume(path)

    def decode(*args, **kwargs):
        pytest.fail("voxels are read")

    monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", decode)
    geometry = read_geometry(path)
    assert geometry is not None
    assert geometry.axes == volume.axes
    assert geometry.shape == SHAPE
    assert geometry.voxel_size == volume.voxel_size == (2, 0.5, 0.5)
    assert geometry.unit == volume.unit
    assert geometry.translation == (0, 0, 0)
    assert geometry.time_step is None


def test_no_geometry_of_what_cannot_be_read(tmp_path):
    (tmp_path / "a.tif").write_text("no image")
    (tmp_path / "b.czi").write_text("")
    for name in ("a.tif", "b.czi", "c.tif", ""):
        assert read_geometry(tmp_path / name) is None


# --- arrays that were saved without names of their axes ----------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_three_or_four_slices_are_no_colors(tmp_path, dtype, n, compression):
    data = np.arange(n * 20 * 24).reshape(n, 20, 24).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tifffile warns that it guesses
        tifffile.imwrite(tmp_path / "a.tif", data, compression=compression)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.series[0].axes == "SYX"
    volume = read_volume(tmp_path / "a.tif")
    same(volume, "ZYX", data)
    assert f"marks its {n} planes as colors" in volume.notes[0]
    same(read_labels(tmp_path / "a.tif"), "ZYX", data)


def test_time_series_without_names(tmp_path):
    data = np.arange(6 * 3 * 20 * 24, dtype=np.uint16).reshape(6, 3, 20, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tifffile.imwrite(tmp_path / "a.tif", data, compression="zlib")
        tifffile.imwrite(tmp_path / "b.tif", data[:2])
    volume = read_volume(tmp_path / "a.tif")
    same(volume, "TZYX", data)
    assert "taken for 6 time points" in " ".join(volume.notes)
    same(read_labels(tmp_path / "b.tif"), "TZYX", data[:2])  # labels have no channels
    with pytest.raises(BadInputError, match=r"Give its axes \(such as CZYX or TZYX\)"):
        read_volume(tmp_path / "b.tif")
    same(read_volume(tmp_path / "b.tif", axes="CZYX"), "CZYX", data[:2])


@pytest.mark.parametrize(("axes", "word"), [("TYX", "time points"), ("CYX", "channels")])
def test_axes_taken_for_slices_are_noted(tmp_path, axes, word):
    tifffile.imwrite(tmp_path / "a.tif", np.tile(ZYX, (2, 1, 1)), metadata={"axes": axes})
    volume = read_volume(tmp_path / "a.tif")
    assert volume.axes == "ZYX"
    assert any(f"10 {word} are taken for slices" in note for note in volume.notes)


@pytest.mark.parametrize("compression", ["lzw", "zstd", "jpeg2000"])
def test_compressions_of_other_programs(tmp_path, compression):
    tifffile.imwrite(tmp_path / "a.tif", ZYX, compression=compression)
    same(read_volume(tmp_path / "a.tif"), "ZYX", ZYX)


# --- paths -------------------------------------------------------------------------------------


def test_paths_that_lead_nowhere(tmp_path):
    (tmp_path / "loop.tif").symlink_to(tmp_path / "loop.tif")
    (tmp_path / "dangling.tif").symlink_to(tmp_path / "gone.tif")
    (tmp_path / "file").write_text("")
    for path, message in {
        "~nosuchuser/a.tif": "no home folder of 'nosuchuser'",
        str(tmp_path / "loop.tif"): "link that leads back to itself",
        str(tmp_path / "dangling.tif"): "There is no",
        str(tmp_path / ("x" * 300 + ".tif")): "304 bytes, more than the system allows",
        str(tmp_path / "file" / "a.tif"): "is a file, no folder",
        "a\0b.tif": "is no path",
    }.items():
        for read in (read_volume, read_labels):
            with pytest.raises(BadInputError, match=message):
                read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(BadInputError, match="a pipe or a device"):
        read_volume(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["iterdir", "is_file"])
def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch, name):
    def refuse(self, *args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(f"pathlib.Path.{name}", refuse)
    with pytest.raises(BadInputError, match=r"cannot be opened \(Permission denied\)"):
        read_volume(tmp_path)


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
            micrometers = {"nm": 1e-3, "µm": 1.0, "mm": 1e3}[volume.unit]
            sizes = [size * micrometers for size in volume.voxel_size]
            assert sizes == pytest.approx(meta["voxel_size_um_zyx"], rel=1e-3)
        labels = read_labels(path.with_name("labels.tif"))
        assert labels.shape == volume.shape
