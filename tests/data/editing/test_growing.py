"""Regions that grow from a click: to the border, not into the neighbor, in voxels of any shape."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet3d.data.editing.growing import Growth, grow
from napari_unet3d.data.editing.planes import VolumePlane
from napari_unet3d.data.editing.region import Region
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume


def disk(shape: tuple[int, int], center: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return np.hypot(rows - center[0], columns - center[1]) <= radius


def noisy(mask: np.ndarray, contrast: float = 60, noise: float = 8) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (100 + contrast * mask + rng.normal(0, noise, mask.shape)).astype(np.float32)


def full(region: Region, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[region.box] = region.mask
    return mask


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("contrast", [60, -60], ids=["bright", "dark"])
@pytest.mark.parametrize("radius", [6, 15, 40, 150])
def test_a_disk_is_found_whatever_its_size(radius: int, contrast: float) -> None:
    mask = disk((400, 420), (200, 210), radius)
    region = grow(noisy(mask, contrast), (200, 208), (1, 1)).region()
    assert iou(full(region, mask.shape), mask) > 0.8


def test_a_gap_in_the_stain_is_filled() -> None:
    ring = disk((90, 90), (45, 45), 20) & ~disk((90, 90), (45, 45), 6)
    region = grow(noisy(ring), (45, 30), (1, 1)).region()
    assert iou(full(region, ring.shape), disk((90, 90), (45, 45), 20)) > 0.85


def test_touching_disks_are_cut_at_their_neck() -> None:
    first, second = disk((90, 120), (45, 40), 16), disk((90, 120), (45, 70), 16)
    plane = noisy(first | second)
    found = full(grow(plane, (45, 38), (1, 1)).region(), plane.shape)
    assert iou(found, first) > 0.8
    assert (found & second & ~first).sum() < 0.1 * second.sum()


def test_a_drag_bounds_the_region_in_units_of_the_finer_axis() -> None:
    mask = disk((300, 300), (150, 150), 80)
    growth = grow(noisy(mask), (150, 150), (4, 2), reach=20)
    small = growth.region(radius=20)
    rows, columns = small.mask.shape
    # The unit is a column; a row is two of them high.
    assert abs(columns - 41) <= 2
    assert abs(rows - 21) <= 2
    assert small.voxels < growth.region().voxels


def test_a_higher_tolerance_takes_in_more() -> None:
    rows, columns = np.indices((101, 101))
    cone = (100 - np.hypot(rows - 50, columns - 50)).clip(40).astype(np.float32)
    growth = grow(cone, (50, 50), (1, 1))
    sizes = [growth.region(t).voxels for t in (0.2, 0.4, 0.6, 0.8)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_flat_voxels_make_no_difference_to_what_is_found() -> None:
    """A ball in slices that are 4 voxels apart: 4 times flatter in voxels, the same object."""
    rows, columns = np.indices((40, 160))
    mask = np.hypot(4 * (rows - 20), columns - 80) <= 30
    region = grow(noisy(mask), (20, 80), (4, 1)).region()
    assert iou(full(region, mask.shape), mask) > 0.8


@pytest.mark.parametrize("click", [(0, 0), (0, 79), (59, 0), (59, 79)])
def test_corners_can_be_clicked(click: tuple[int, int]) -> None:
    mask = disk((60, 80), click, 15)
    region = grow(noisy(mask), click, (1, 1)).region()
    assert iou(full(region, mask.shape), mask) > 0.75


def test_a_constant_image_grows_everywhere_and_nan_does_not_stop_it() -> None:
    growth = grow(np.full((30, 30), 7, np.uint16), (4, 5), (1, 1))
    assert isinstance(growth, Growth)
    assert growth.region().voxels == 900
    holed = noisy(disk((60, 60), (30, 30), 12))
    holed[3, 3], holed[4, 4] = np.nan, np.inf
    found = full(grow(holed, (30, 30), (1, 1)).region(), holed.shape)
    assert iou(found, disk((60, 60), (30, 30), 12)) > 0.8


def test_a_click_outside_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"\(30, 5\) is outside"):
        grow(np.zeros((30, 30)), (30, 5), (1, 1))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_a_volume_are_read_box_by_box(axis: int) -> None:
    data = np.random.default_rng(1).integers(0, 255, (2, 3, 7, 9, 11), np.uint8)
    volume = Volume.from_array(data[:, 0], axes="TZYX")
    plane = VolumePlane(volume, SliceRef(axis, 5, time=1))
    expected = np.take(data[1, 0], 5, axis)
    assert plane.shape == expected.shape
    assert (plane[2:4, 1:6] == expected[None, 2:4, 1:6]).all()


def test_channels_count_alike() -> None:
    mask = disk((60, 60), (30, 30), 12)
    dim = noisy(mask) / 1000  # what shows the object has the smaller range
    bright = np.random.default_rng(2).normal(0, 5, mask.shape) * 100
    volume = Volume.from_array(np.stack([bright, dim])[:, None].repeat(2, 1), axes="CZYX")
    region = grow(VolumePlane(volume, SliceRef(0, 0)), (30, 30), (1, 1)).region()
    assert iou(full(region, mask.shape), mask) > 0.6
