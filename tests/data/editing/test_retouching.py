"""Holes, smooth borders, connected parts and outlines of painted slices."""

from __future__ import annotations

import numpy as np

from napari_unet3d.data.editing.components import component_at, count_components
from napari_unet3d.data.editing.region import Region
from napari_unet3d.data.editing.retouching import fill_holes, smooth
from napari_unet3d.data.slices import SliceRef


def square(value: int = 2, shape: tuple[int, int] = (40, 44)) -> np.ndarray:
    plane = np.zeros(shape, np.uint8)
    plane[8:30, 10:34] = value
    return plane


# --- holes ----------------------------------------------------------------------------------


def test_holes_are_filled_and_bays_are_not() -> None:
    plane = square()
    plane[12:16, 14:18] = 0
    plane[20:22, 20:22] = 1
    plane[8:12, 25:28] = 0  # open to the outside
    filled = fill_holes(plane, [2])
    assert (filled[12:16, 14:18] == 2).all()
    assert (filled[20:22, 20:22] == 2).all()
    assert (filled[8:12, 25:28] == 0).all()
    assert (plane[12:16, 14:18] == 0).all()  # the input stays


def test_another_class_inside_is_no_hole() -> None:
    plane = square()
    plane[12:16, 14:18] = 3
    assert (fill_holes(plane, [2]) == plane).all()


def test_a_hole_at_the_border_of_the_slice_is_open() -> None:
    plane = np.full((10, 10), 2, np.uint8)
    plane[0, 3:6] = 0
    assert (fill_holes(plane, [2]) == plane).all()


def test_only_the_chosen_classes_are_filled() -> None:
    plane = square(3)
    plane[12, 14] = 0
    assert (fill_holes(plane, [2]) == plane).all()
    assert fill_holes(plane, [2, 3])[12, 14] == 3


# --- smoothing ------------------------------------------------------------------------------


def test_spikes_and_notches_go_and_the_shape_stays() -> None:
    plane = square()
    plane[20, 34:39] = 2  # a spike
    plane[8:12, 20] = 0  # a notch
    after = smooth(plane, [2], (1, 1))
    assert not after[20, 35:].any()
    assert (after[9:12, 20] == 2).all()
    assert (after[12:26, 14:30] == 2).all()
    assert abs(int((after == 2).sum()) - (square() == 2).sum()) < 12


def test_smoothing_leaves_the_border_of_other_classes_alone() -> None:
    plane = np.ones((40, 60), np.uint8)
    plane[5:20, 5:20] = 2
    plane[5:20, 35:50] = 3
    plane[10, 50:54] = 3
    after = smooth(plane, [2], (1, 1))
    assert (after[:, 30:] == plane[:, 30:]).all()
    assert (smooth(plane, [2, 3], (1, 1))[10, 51:54] == 1).all()


def test_smoothing_of_flat_voxels_reaches_less_far_along_them() -> None:
    plane = square()
    plane[20, 34:39] = 2
    # Rows that are ten times as far apart are no neighbors: the spike is a long object.
    assert (smooth(plane, [2], (10, 1))[20, 34:38] == 2).all()


def test_what_is_not_there_changes_nothing() -> None:
    assert (smooth(square(), [5], (1, 1)) == square()).all()
    assert (fill_holes(square(), [5]) == square()).all()


# --- parts ----------------------------------------------------------------------------------


def test_a_component_is_found_beyond_the_first_window() -> None:
    plane = np.zeros((600, 700), np.uint8)
    plane[300, 5:695] = 2
    plane[301:580, 400] = 2
    plane[10:20, 10:20] = 2
    label, region = component_at(plane, (300, 350))
    assert label == 2
    assert region.voxels == 690 + 279
    mask = np.zeros(plane.shape, bool)
    mask[region.box] = region.mask
    assert (mask == ((plane == 2) & (np.indices(plane.shape)[0] >= 300))).all()


def test_corners_join_and_other_labels_do_not() -> None:
    plane = np.array([[2, 0, 3], [0, 2, 3], [0, 0, 2]], np.uint8)
    assert component_at(plane, (0, 0))[1].voxels == 3
    assert count_components(plane, 2) == 1
    assert component_at(plane, (0, 2))[1].start == (0, 2)


def test_an_outline_runs_along_the_edges_of_the_voxels() -> None:
    mask = np.zeros((6, 7), bool)
    mask[2:4, 3:6] = True
    region = Region.of(mask)
    assert region is not None
    edges = region.outline()
    assert len(edges) == 2 * (2 + 3)
    assert edges[..., 0].min() == 1.5
    assert edges[..., 0].max() == 3.5
    assert edges[..., 1].min() == 2.5
    assert edges[..., 1].max() == 5.5
    assert (np.abs(edges[:, 0] - edges[:, 1]).sum(1) == 1).all()


def test_a_region_bounded_by_a_radius_and_its_edit() -> None:
    region = Region.of(np.ones((20, 20), bool))
    assert region is not None
    bounded = region.within((10, 10), 3, (1, 1))
    assert bounded.start == (7, 7)
    assert bounded.voxels == 29
    edit = bounded.edit(SliceRef(1, 4), 3)
    indices = edit.indices()
    assert set(indices[1]) == {4}
    assert edit.voxels == 29
    assert Region.of(np.zeros((3, 3), bool)) is None
