"""OME-Zarr's descriptions, version by version."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import zarr

from napari_unet3d.data.io.ngff import axis_letters
from napari_unet3d.data.io.reading import read_geometry, read_labels, read_volume
from napari_unet3d.errors import BadInputError

ZYX = np.arange(240, dtype=np.uint16).reshape(5, 8, 6)
UNITS = {"t": "second", "c": None, "z": "micrometer", "y": "micrometer", "x": "micrometer"}


def axes_of(names):
    kinds = {"t": "time", "c": "channel"}
    return [
        {"name": n, "type": kinds.get(n, "space")} | ({"unit": UNITS[n]} if UNITS[n] else {})
        for n in names
    ]


def write_06(path, data, names, transformations, *, version="0.6", systems=None, overall=None):
    group = zarr.open_group(str(path), mode="w", zarr_format=3)
    group.create_array("0", data=data)
    multiscale = {
        "name": "image",
        "coordinateSystems": systems or [{"name": "physical", "axes": axes_of(names)}],
        "datasets": [{"path": "0", "coordinateTransformations": transformations}],
    }
    if overall:
        multiscale["coordinateTransformations"] = overall
    group.attrs["ome"] = {"version": version, "multiscales": [multiscale]}
    return path


def scale(*numbers, output="physical"):
    return {"type": "scale", "scale": list(numbers), "input": "0", "output": output}


def sequence(*steps):
    return {
        "type": "sequence",
        "input": "0",
        "output": "physical",
        "transformations": list(steps),
    }


@pytest.mark.parametrize("version", ["0.6", "0.6.dev2", "0.6-rc1"])
def test_version_06(tmp_path, version):
    path = write_06(tmp_path / "a.ome.zarr", ZYX, "zyx", [scale(2, 0.5, 0.25)], version=version)
    volume = read_volume(path)
    assert (volume.axes, volume.voxel_size, volume.unit) == ("ZYX", (2, 0.5, 0.25), "µm")
    np.testing.assert_array_equal(np.asarray(volume.data), ZYX)


@pytest.mark.parametrize(
    ("names", "front", "axes"),
    [("czyx", (2,), "CZYX"), ("tzyx", (3,), "TZYX"), ("tczyx", (1, 1), "ZYX")],
)
def test_version_06_with_more_axes(tmp_path, names, front, axes):
    data = np.broadcast_to(ZYX, (*front, *ZYX.shape)).copy()
    ones = [1.5] * len(front)
    moved = {"type": "translation", "translation": [0] * len(front) + [1, 2, 3]}
    step = sequence(scale(*ones, 2, 0.5, 0.25), moved)
    volume = read_volume(write_06(tmp_path / "a.ome.zarr", data, names, [step]))
    assert (volume.axes, volume.voxel_size, volume.unit) == (axes, (2, 0.5, 0.25), "µm")
    assert volume.translation == (1, 2, 3)
    assert volume.time_step == (1.5 if "T" in axes else None)
    geometry = read_geometry(tmp_path / "a.ome.zarr")
    assert geometry is not None
    assert geometry.translation == (1, 2, 3)


def test_version_06_takes_the_system_that_the_levels_lie_in(tmp_path):
    systems = [
        {"name": "atlas", "axes": [a | {"unit": "millimeter"} for a in axes_of("zyx")]},
        {"name": "physical", "axes": axes_of("zyx")},
    ]
    overall = [{"type": "scale", "scale": [9, 9, 9], "input": "physical", "output": "atlas"}]
    path = write_06(
        tmp_path / "a.zarr", ZYX, "zyx", [scale(2, 1, 1)], systems=systems, overall=overall
    )
    volume = read_volume(path)
    assert (volume.voxel_size, volume.unit) == ((2, 1, 1), "µm")


@pytest.mark.parametrize(
    ("steps", "size", "place"),
    [
        ([{"type": "identity"}], (1, 1, 1), (0, 0, 0)),
        (
            [
                {"type": "translation", "translation": [1, 1, 1]},
                {"type": "scale", "scale": [2, 3, 4]},
            ],
            (2, 3, 4),
            (2, 3, 4),
        ),
        (
            [{"type": "affine", "affine": [[2, 0, 0, 5], [0, -3, 0, 6], [0, 0, 4, 7]]}],
            (2, 3, 4),
            (5, 6, 7),
        ),
    ],
)
def test_transformations(tmp_path, steps, size, place):
    volume = read_volume(write_06(tmp_path / "a.zarr", ZYX, "zyx", [sequence(*steps)]))
    assert volume.voxel_size == size
    assert volume.translation == place


@pytest.mark.parametrize(
    "step",
    [
        {"type": "rotation", "rotation": [[0, 1, 0], [1, 0, 0], [0, 0, 1]]},
        {"type": "affine", "affine": [[2, 1, 0, 5], [0, 3, 0, 6], [0, 0, 4, 7]]},
        {"type": "scale", "path": "scales"},
        {"type": "displacements", "path": "field"},
    ],
)
def test_transformations_that_are_no_voxel_size(tmp_path, step):
    path = write_06(tmp_path / "a.zarr", ZYX, "zyx", [step | {"output": "physical"}])
    with pytest.raises(BadInputError, match=r"cannot be used.*Give the voxel size"):
        read_volume(path)
    assert read_volume(path, voxel_size=(2, 1, 1)).voxel_size == (2, 1, 1)


@pytest.mark.parametrize("version", ["0.7", "1.0", "2", "0.61", "new"])
def test_versions_that_are_not_known(tmp_path, version):
    path = write_06(tmp_path / "a.zarr", ZYX, "zyx", [scale(2, 1, 1)], version=version)
    with pytest.raises(BadInputError, match=rf"version {version}; versions 0.1 to 0.6.*0.4 or 0.5"):
        read_volume(path)


def write_04(path, shapes=((5, 8, 6), (5, 4, 3)), factor=(1, 1)):
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    datasets = []
    for i, shape in enumerate(shapes):
        group.create_array(str(i), shape=shape, dtype="uint8")[...] = 1 + i
        steps = [{"type": "scale", "scale": [factor[0] * 2.0, 0.5 * 2**i, factor[1] * 0.5 * 2**i]}]
        datasets.append({"path": str(i), "coordinateTransformations": steps})
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes_of("zyx"), "datasets": datasets}]
    return path


def test_levels_that_are_missing(tmp_path):
    coarse, fine = write_04(tmp_path / "a.zarr"), write_04(tmp_path / "b.zarr")
    shutil.rmtree(coarse / "1")
    shutil.rmtree(fine / "0")
    volume = read_volume(coarse)
    assert volume.shape == (5, 8, 6)
    assert "'a.zarr' lacks its coarser level '1', which is not needed." in volume.notes
    with pytest.raises(BadInputError, match="its finest level, '0', is missing"):
        read_volume(fine)
    shutil.rmtree(fine / "1")
    with pytest.raises(BadInputError, match="its arrays '0', '1' are missing"):
        read_volume(fine)


@pytest.mark.parametrize(
    ("factor", "size", "note"),
    [
        ((-1, 1), (2, 0.5, 0.5), "flipped, and 2 is taken"),
        ((1, -1), (2, 0.5, 0.5), "flipped, and 0.5 is taken"),
        ((0, 1), (0.5, 0.5, 0.5), "voxel size of 0 along z: that along x"),
    ],
)
def test_flips_and_sizes_of_zero(tmp_path, factor, size, note):
    volume = read_volume(write_04(tmp_path / "a.zarr", factor=factor))
    assert volume.voxel_size == size
    assert any(note in text for text in volume.notes)


def test_images_that_are_ignored_are_noted(tmp_path):
    root = tmp_path / "a.zarr"
    zarr.open_group(str(root), mode="w", zarr_format=2)
    for name in "012":
        write_04(root / name, shapes=((5, 8, 6),))
    assert "'a.zarr' holds 3 images: the first one is used." in read_volume(root).notes
    plate = tmp_path / "plate.zarr"
    zarr.open_group(str(plate), mode="w", zarr_format=2).create_group("A").create_group("1")
    write_04(plate / "A" / "1" / "0")
    with pytest.raises(BadInputError, match=r"as in .*plate\.zarr/A/1/0"):
        read_volume(plate)


def test_names_of_axes_of_a_plain_array(tmp_path):
    data = np.stack([ZYX, ZYX])
    names = ("channel", "z", "y", "x")
    zarr.create_array(str(tmp_path / "a.zarr"), data=data, dimension_names=names)
    assert read_volume(tmp_path / "a.zarr").axes == "CZYX"
    zarr.create_array(str(tmp_path / "b.zarr"), data=data[:1])
    assert read_volume(tmp_path / "b.zarr").axes == "ZYX"
    zarr.create_array(str(tmp_path / "c.zarr"), data=data)
    with pytest.raises(BadInputError, match=r"axes='CZYX'.*axes='TZYX'"):
        read_volume(tmp_path / "c.zarr")
    assert read_volume(tmp_path / "c.zarr", axes="czyx").axes == "CZYX"
    assert read_labels(tmp_path / "c.zarr").axes == "TZYX"
    zarr.create_array(str(tmp_path / "d.zarr"), data=np.stack([ZYX] * 6))
    volume = read_volume(tmp_path / "d.zarr")
    assert volume.axes == "TZYX"
    assert any("taken for 6 time points" in note for note in volume.notes)
    assert axis_letters(("time", "Z", "y", "x")) == "TZYX"
    assert axis_letters(("angle", "z", "y", "x")) is None
    assert axis_letters(None) is None
