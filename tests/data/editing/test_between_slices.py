"""Labels that come from other slices: interpolated, copied, taken from a prediction."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.editing.interpolation import Interpolation
from napari_unet3d.data.editing.neighbors import around, neighbors
from napari_unet3d.data.editing.taking import label_map, translated, unlabelled_edit
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef


def disk(radius: float, center: tuple[int, int] = (40, 40), value: int = 2) -> np.ndarray:
    rows, columns = np.indices((80, 84))
    inside = np.hypot(rows - center[0], columns - center[1]) <= radius
    return np.where(inside, value, 1).astype(np.uint8)


def cell(name: str, value: int, output: int | None = None) -> ClassInfo:
    return ClassInfo(value=value, name=name, color="#112233", output=output)


# --- interpolation --------------------------------------------------------------------------


def test_a_disk_between_two_disks_has_the_radius_between_theirs() -> None:
    interpolation = Interpolation(disk(10), disk(20), (1, 1))
    for share, radius in ((0.25, 12.5), (0.5, 15), (0.75, 17.5)):
        area = (interpolation.at(share) == 2).sum()
        assert area == pytest.approx(np.pi * radius**2, rel=0.06)
    assert (interpolation.at(0) == disk(10)).all()
    assert (interpolation.at(1) == disk(20)).all()


def test_a_shape_that_moves_is_in_the_middle_half_way() -> None:
    middle = Interpolation(disk(14, (40, 34)), disk(14, (40, 46)), (1, 1)).at(0.5) == 2
    assert np.argwhere(middle).mean(0) == pytest.approx((40, 40), abs=0.3)


def test_a_class_that_ends_shrinks() -> None:
    nothing = np.ones_like(disk(1))
    interpolation = Interpolation(disk(20), nothing, (1, 1))
    areas = [int((interpolation.at(share) == 2).sum()) for share in (0, 0.25, 0.5, 0.75, 1)]
    assert areas == sorted(areas, reverse=True)
    assert areas[1] == pytest.approx(np.pi * 13.3**2, rel=0.1)
    assert areas[2:] == [0, 0, 0]


def test_an_object_that_ends_does_not_vanish_since_another_one_is_far_away() -> None:
    first, last = disk(12, (40, 15)), disk(12, (40, 70))
    first[disk(12, (40, 70)) == 2] = 2
    interpolation = Interpolation(first, last, (1, 1))
    assert (interpolation.at(0.25) == 2)[:, :30].sum() == pytest.approx(np.pi * 8**2, rel=0.15)


def test_several_classes_and_unlabelled_voxels() -> None:
    first, last = disk(18), disk(24)
    first[36:45, 36:45] = last[34:47, 34:47] = 3
    first[:10] = last[:10] = 0
    middle = Interpolation(first, last, (1, 1)).at(0.5)
    assert (middle[:10] == 0).all()
    assert set(np.unique(middle)) == {0, 1, 2, 3}
    assert (middle == 3).sum() == pytest.approx(11**2, rel=0.1)


def test_equal_slices_and_large_ones() -> None:
    assert (Interpolation(disk(10), disk(10), (1, 1)).at(0.5) == disk(10)).all()
    rows, columns = np.indices((900, 900))
    distance = np.hypot(rows - 450, columns - 450)
    first, last = ((1 + (distance <= r)).astype(np.uint8) for r in (200, 400))
    area = (Interpolation(first, last, (1, 1)).at(0.5) == 2).sum()
    assert area == pytest.approx(np.pi * 300**2, rel=0.02)


def test_slices_are_yielded_with_their_share() -> None:
    refs = [SliceRef(0, z) for z in (4, 5)]
    planes = dict(Interpolation.planes(disk(10), disk(16), (1, 1), (3, 6), refs))
    assert list(planes) == refs
    assert (planes[refs[0]] == 2).sum() == pytest.approx(np.pi * 12**2, rel=0.06)


# --- neighbors ------------------------------------------------------------------------------


def test_neighbors_are_of_the_same_orientation_and_never_held_out() -> None:
    refs = [SliceRef(0, z) for z in (2, 5, 9)] + [SliceRef(1, 6), SliceRef(0, 7, 1)]
    painted = [PaintedSlice(ref, {1: 1}, "partial", 10) for ref in refs]
    shown = SliceRef(0, 6)
    near = neighbors(painted, shown, held_out=())
    assert near == [SliceRef(0, 5), SliceRef(0, 9), SliceRef(0, 2)]
    assert around(near, shown) == (SliceRef(0, 5), SliceRef(0, 9))
    assert neighbors(painted, shown, {SliceRef(0, 5)})[0] == SliceRef(0, 9)
    assert around(neighbors(painted, SliceRef(0, 9), ()), SliceRef(0, 9))[1] is None


# --- taking ---------------------------------------------------------------------------------


def test_classes_are_matched_by_name_then_by_value() -> None:
    annotated = (cell("nuclei", 3), cell("walls", 2))
    mapping, missing = label_map((cell("walls", 3), cell("nuclei", 2)), annotated)
    assert mapping == {3: 2, 2: 3}
    assert missing == ()
    # One that was renamed keeps its value, unless a class of the model has that name.
    assert label_map((cell("old name", 3),), annotated) == ({3: 3}, ())
    mapping, missing = label_map((cell("walls", 2), cell("vessels", 4)), annotated)
    assert (mapping, [c.name for c in missing]) == ({2: 2}, ["vessels"])
    assert label_map((cell("nuclei", 2, output=255),), annotated)[0] == {255: 3}


def test_a_prediction_becomes_labels_and_unknown_numbers_stay_unlabelled() -> None:
    plane = np.array([[0, 2, 7, 255]], np.uint8)
    assert translated(plane, {2: 3, 255: 4}).tolist() == [[1, 3, 0, 4]]
    assert translated(plane.astype(np.int64) * 10, {20: 5}).tolist() == [[1, 5, 0, 0]]
    assert translated(plane, {}).tolist() == [[1, 0, 0, 0]]


def test_paint_wins_over_what_is_taken() -> None:
    plane = np.array([[0, 2], [1, 0]], np.uint8)
    edit = unlabelled_edit(SliceRef(0, 0), plane, np.full((2, 2), 3, np.uint8))
    assert edit is not None
    assert edit.on(plane).tolist() == [[3, 2], [1, 3]]
    assert unlabelled_edit(SliceRef(0, 0), np.ones((2, 2), np.uint8), plane) is None
