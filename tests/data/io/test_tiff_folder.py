"""A folder of single slices is a stack, in the order people number them."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from napari_unet3d.data.io.reading import read_geometry, read_labels, read_volume
from napari_unet3d.data.lazy import RawPlanes
from napari_unet3d.errors import BadInputError

ZYX = np.random.default_rng(0).integers(0, 60_000, (12, 20, 24)).astype(np.uint16)


def write(folder, numbers=range(12), name="im_{}.tif", **options):
    folder.mkdir(exist_ok=True)
    for i, number in enumerate(numbers):
        tifffile.imwrite(folder / name.format(number), ZYX[i], **options)
    return folder


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_slices_in_natural_order(tmp_path, compression):
    folder = write(tmp_path / "my slices", compression=compression)
    (folder / "notes.txt").write_text("other files are no slices")
    (folder / ".hidden.tif").write_text("")
    (folder / "sub").mkdir()
    volume = read_volume(folder)
    assert (volume.axes, volume.name) == ("ZYX", "my slices")
    np.testing.assert_array_equal(np.asarray(volume.data), ZYX)
    np.testing.assert_array_equal(volume.crop(0, (9, 2, 3), (12, 7, 9))[0], ZYX[9:, 2:7, 3:9])
    assert isinstance(volume.data, np.ndarray if compression else RawPlanes)
    volume.check()
    geometry = read_geometry(folder)
    assert geometry is not None
    assert (geometry.axes, geometry.shape) == ("ZYX", ZYX.shape)
    np.testing.assert_array_equal(np.asarray(read_labels(folder).data), ZYX)


def test_byte_orders_and_compressions_may_be_mixed(tmp_path):
    folder = write(tmp_path / "a")
    tifffile.imwrite(folder / "im_3.tif", ZYX[3], byteorder=">")
    tifffile.imwrite(folder / "im_4.tif", ZYX[4], compression="zlib")
    volume = read_volume(folder)
    np.testing.assert_array_equal(np.asarray(volume.data), ZYX)
    assert volume.dtype == np.uint16


def test_voxel_size_of_the_slices(tmp_path):
    options = {"imagej": True, "resolution": (2, 4), "metadata": {"unit": "um", "axes": "YX"}}
    folder = write(tmp_path / "a", **options)
    volume = read_volume(folder)
    assert (volume.voxel_size, volume.unit) == ((1, 0.25, 0.5), "µm")
    assert any("no spacing along z" in note for note in volume.notes)
    volume = read_volume(folder, voxel_size=(3, 0.25, 0.5))
    assert (volume.voxel_size, volume.notes) == ((3, 0.25, 0.5), ())


def test_numbers_that_are_left_out_are_noted(tmp_path):
    gap = read_volume(write(tmp_path / "a", [*range(5), *range(7, 14)]))
    assert any("leave out 5, 6:" in note for note in gap.notes)
    steps = read_volume(write(tmp_path / "b", range(0, 120, 10)))
    assert not any("leave out" in note for note in steps.notes)
    mixed = write(tmp_path / "c", name="left_{}.tif")
    write(mixed, name="right_{}.tif")
    assert any("'left_…', 'right_…'" in note for note in read_volume(mixed).notes)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (ZYX[0, :-1], r"im_3\.tif' has 19 × 24 voxels, but 'im_0\.tif' has 20 × 24"),
        (
            ZYX[0].astype("uint8"),
            r"im_3\.tif' has numbers of type uint8, but 'im_0",
        ),
        (ZYX[:5], r"im_3\.tif' is not a single 2D gray image \(5 × 20 × 24\)"),
        (np.zeros((20, 24, 3), np.uint8), r"im_3\.tif' is not a single 2D gray image"),
        (b"no image", r"im_3\.tif' is no TIFF file"),
    ],
)
def test_the_odd_file_is_named(tmp_path, odd, message):
    folder = write(tmp_path / "a")
    if isinstance(odd, bytes):
        (folder / "im_3.tif").write_bytes(odd)
    else:
        photometric = "rgb" if odd.shape[-1] == 3 else "minisblack"
        tifffile.imwrite(folder / "im_3.tif", odd, photometric=photometric)
    with pytest.raises(BadInputError, match=message):
        read_volume(folder)
    assert read_geometry(folder) is None


def test_truncated_slice(tmp_path):
    folder = write(tmp_path / "a")
    path = folder / "im_3.tif"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(BadInputError, match=r"im_3\.tif' .*complete"):
        read_volume(folder)


def test_folder_with_a_single_stack(tmp_path):
    (tmp_path / "a").mkdir()
    tifffile.imwrite(tmp_path / "a" / "stack.tif", ZYX)
    with pytest.raises(BadInputError, match=r"single TIFF.*give its path: .*stack\.tif"):
        read_volume(tmp_path / "a")
    with pytest.raises(BadInputError, match="without a zarr image or TIFF slices"):
        read_volume(tmp_path / "a" / "..")


def test_folder_with_two_stacks(tmp_path):
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(tmp_path / name, ZYX)
    with pytest.raises(BadInputError, match=r"a\.tif' is not a single 2D .*path of the file"):
        read_volume(tmp_path)
