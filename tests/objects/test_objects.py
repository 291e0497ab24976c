"""Objects from classes: what touches is separated, wherever the stack is cut into blocks."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import zarr
from scipy import ndimage

from napari_unet3d.config import ObjectsConfig
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import ObjectsProgress, drain
from napari_unet3d.objects.finding import Objects, find_objects, number_objects
from napari_unet3d.objects.scratch import Scratch
from napari_unet3d.objects.table import ObjectTable

BLOCKS = [(16, 16, 16), (7, 60, 11), (5, 9, 80), (40, 25, 33)]


def ball(shape, center, radius, voxel_size=(1, 1, 1)) -> np.ndarray:
    z, y, x = np.indices(shape)
    squared = sum(((a - c) * s) ** 2 for a, c, s in zip((z, y, x), center, voxel_size, strict=True))
    return squared <= radius**2


def two_balls(shape=(40, 60, 80), value=2) -> np.ndarray:
    r"""Two balls that overlap, and a small one with a cavity, seen along z.

     .--. .--.
    (    X    )   ( o )
     '--' '--'
    """
    labels = np.zeros(shape, np.uint8)
    labels[ball(shape, (20, 30, 20), 12)] = value
    labels[ball(shape, (20, 30, 40), 12)] = value
    labels[ball(shape, (20, 30, 66), 7)] = value
    labels[20, 30, 66] = 0
    return labels


def blobs(seed=0, shape=(30, 44, 52)) -> np.ndarray:
    """Smooth noise above a threshold: shapes of every kind, many of which touch."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = ndimage.gaussian_filter(noise, 2.2)
    return np.where(smooth > np.quantile(smooth, 0.62), 2, 0).astype(np.uint8)


def found(labels, block=None, volume=None, image=None, **settings) -> Objects:
    volume = volume or Volume(labels)
    config = ObjectsConfig(**{"min_voxels": 1, **settings})
    return drain(find_objects(volume, config, block=block, image=image))


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two numberings differ by the numbers only."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]), axis=1)
    return all(len(np.unique(row)) == len(row) for row in pairs)


# --- separation -----------------------------------------------------------------------------


def test_two_touching_balls_are_one_piece_and_two_objects() -> None:
    labels = two_balls()
    assert len(found(labels, method="connected").table) == 2
    objects = found(labels, method="necks")
    assert len(objects.table) == 3
    left, right = objects.numbers[20, 30, 20], objects.numbers[20, 30, 40]
    assert left != right
    # They are cut half-way between the centers.
    row = objects.numbers[20, 30, 8:53]
    assert abs(int((row == left).sum()) - int((row == right).sum())) <= 1
    assert len(found(labels, method="necks", separation=0).table) == 2


def test_a_thick_neck_is_no_neck() -> None:
    labels = np.zeros((30, 30, 50), np.uint8)
    labels[ball(labels.shape, (15, 15, 15), 10)] = labels[ball(labels.shape, (15, 15, 23), 10)] = 1
    assert len(found(labels).table) == 1
    assert len(found(labels, separation=1).table) == 2


def test_cavities_are_filled_or_kept() -> None:
    r"""A ring of three dimensions: a cavity is filled, a tunnel is none.

     .---.
    ( (o) )
     '---'
    """
    labels = two_balls()
    assert found(labels).numbers[20, 30, 66] > 0
    assert found(labels, fill_holes=False).numbers[20, 30, 66] == 0
    labels[20, 30, 66:] = 0  # a way out to the border
    assert found(labels).numbers[20, 30, 66] == 0


def test_a_cavity_of_another_class_stays_that_class() -> None:
    labels = two_balls()
    labels[20, 30, 66] = 3
    objects = found(labels)
    table = objects.table
    inside = objects.numbers[20, 30, 66]
    assert table.values[table.labels == inside] == 3
    assert table.voxels[table.labels == inside] == 1


@pytest.mark.parametrize("touching", [True, False])
def test_anisotropic_voxels(touching) -> None:
    """Balls in space are cut as balls, though they are flat in voxels: z is 4 times as long."""
    size, shape = (4.0, 1.0, 1.0), (12, 44, 70)
    labels = np.zeros(shape, np.uint8)
    centers = (6, 22, 22), (6, 22, 42 if touching else 50)
    for center in centers:
        labels[ball(shape, center, 12, size)] = 1
    objects = found(labels, volume=Volume(labels, voxel_size=size, unit="µm"))
    assert len(objects.table) == 2
    expected = 4 / 3 * np.pi * 12**3
    np.testing.assert_allclose(objects.table.volumes, expected, rtol=0.12)
    one = np.zeros(shape, np.uint8)
    one[ball(shape, (6, 22, 30), 18, size)] = 1
    for separation in (0.85, 1):
        objects = found(one, volume=Volume(one, voxel_size=size), separation=separation)
        assert len(objects.table) == 1


def test_a_boundary_class_separates_and_is_shared_out() -> None:
    """Three cells in a row behind walls of class 1; the outer walls belong to the nearest cell."""
    labels = np.full((12, 20, 40), 2, np.uint8)
    for x in (12, 13, 26, 27):
        labels[:, :, x] = 1
    objects = found(labels, method="boundary", boundary=1)
    assert len(objects.table) == 3
    assert (objects.numbers > 0).all()
    assert objects.table.voxels.sum() == labels.size
    assert set(objects.table.values) == {2}
    row = objects.numbers[6, 10]
    assert row[12] == row[0] != row[13] == row[20]
    alone = found(labels, method="connected", classes=(2,))
    assert (alone.numbers[:, :, 12] == 0).all()


def test_background_may_be_the_class_of_objects_between_boundaries() -> None:
    labels = np.zeros((10, 16, 16), np.uint8)
    labels[:, :, 8] = 1
    objects = found(labels, method="boundary", boundary=1, classes=(0,))
    assert len(objects.table) == 2


def test_small_parts_join_their_neighbor_and_small_pieces_go() -> None:
    labels = np.zeros((30, 30, 60), np.uint8)
    labels[ball(labels.shape, (15, 15, 14), 10)] = 1
    labels[ball(labels.shape, (15, 15, 28), 5)] = 1  # touches the first
    labels[ball(labels.shape, (15, 15, 50), 5)] = 1
    assert len(found(labels, min_voxels=1).table) == 3
    objects = found(labels, min_voxels=600)
    assert len(objects.table) == 1
    assert objects.numbers[15, 15, 28] == objects.numbers[15, 15, 14] == 1
    assert objects.numbers[15, 15, 50] == 0


def test_the_smallest_volume_counts_in_the_unit_of_the_stack() -> None:
    labels = two_balls()
    volume = Volume(labels, voxel_size=(0.5, 0.5, 0.5), unit="µm")
    small = int((labels[:, :, 55:] > 0).sum()) + 1
    assert len(found(labels, volume=volume, min_volume=small / 8).table) == 3
    assert len(found(labels, volume=volume, min_volume=(small + 1) / 8).table) == 2
    with pytest.raises(BadInputError, match="no voxel size"):
        found(labels, min_volume=1.0)


def test_smoothing_removes_roughness_and_leaves_other_classes() -> None:
    labels = two_balls()
    labels[20, 30, 53:58] = 2  # a thorn
    labels[ball(labels.shape, (20, 45, 66), 6)] = 3
    objects = found(labels, smoothing=1.5)
    assert objects.numbers[20, 30, 54] == 0
    of_class = np.append(0, objects.table.values)[objects.numbers]
    assert not (of_class[labels == 3] == 2).any()


# --- blocks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    "settings",
    [
        {"method": "connected"},
        {"method": "necks"},
        {"method": "necks", "separation": 1.0},
        {"method": "necks", "smoothing": 1.2, "min_voxels": 40},
    ],
    ids=str,
)
def test_blocks_give_what_the_whole_gives(block, settings) -> None:
    labels = blobs()
    size = (2.0, 1.0, 1.0)
    whole = found(labels, volume=Volume(labels, voxel_size=size), **settings)
    blocks = found(labels, block, Volume(labels, voxel_size=size), **settings)
    assert len(whole.table) == len(blocks.table) > 3
    np.testing.assert_array_equal(whole.numbers, blocks.numbers)
    np.testing.assert_array_equal(whole.table.boxes, blocks.table.boxes)
    np.testing.assert_allclose(whole.table.centroids, blocks.table.centroids)


def test_objects_larger_than_every_block_are_whole() -> None:
    """A cone gets thicker over many blocks: no block sees its maximum but the last."""
    z, y, x = np.indices((26, 28, 100))
    labels = ((z - 13) ** 2 + (y - 14) ** 2 <= (2 + x / 10) ** 2).astype(np.uint8)
    for separation in (0.85, 1.0):
        objects = found(labels, (13, 14, 12), separation=separation)
        whole = found(labels, separation=separation)
        np.testing.assert_array_equal(objects.numbers, whole.numbers)
    assert len(found(labels, (13, 14, 12)).table) == 1


def test_components_are_those_of_scipy() -> None:
    labels = blobs(3)
    expected, n = ndimage.label(labels > 0, np.ones((3, 3, 3)))
    objects = found(labels, (9, 10, 11), method="connected", fill_holes=False)
    assert len(objects.table) == n
    assert same_partition(objects.numbers, expected)
    np.testing.assert_array_equal(np.unique(objects.numbers), np.arange(n + 1))
    _, firsts = np.unique(objects.numbers, return_index=True)
    assert (np.diff(firsts[1:]) > 0).all()  # numbered as one reads


@pytest.mark.parametrize("block", [None, (9, 10, 11)])
def test_cavities_are_those_of_scipy(block) -> None:
    noise = np.random.default_rng(1).standard_normal((24, 26, 28))
    labels = (ndimage.gaussian_filter(noise, 0.8) > -0.15).astype(np.uint8)
    expected = ndimage.binary_fill_holes(labels)
    assert (expected != labels).sum() > 5
    objects = found(labels, block, method="connected")
    np.testing.assert_array_equal(objects.numbers > 0, expected)


def test_zarr_to_zarr_through_a_temporary_folder(tmp_path) -> None:
    labels = blobs()
    source = zarr.create_array(store=str(tmp_path / "in.zarr"), data=labels, chunks=(8, 16, 16))
    made = []

    def make(shape, dtype):
        made.append(zarr.create_array(store=str(tmp_path / "out.zarr"), shape=shape, dtype=dtype))
        return made[0]

    scratch = Scratch(tmp_path, in_memory=0)
    config = ObjectsConfig(min_voxels=1)
    drain(find_objects(Volume(source), config, make, scratch=scratch, block=(16, 16, 32)))
    assert made[0].dtype == np.uint16
    np.testing.assert_array_equal(np.asarray(made[0]), found(labels).numbers)
    scratch.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.zarr", "out.zarr"]


def test_time_points_are_numbered_one_after_the_other() -> None:
    labels = np.stack([two_balls(), np.zeros((40, 60, 80), np.uint8), two_balls()])
    objects = found(labels, volume=Volume(labels, "TZYX"))
    assert objects.table.labels.tolist() == [1, 2, 3, 4, 5, 6]
    assert objects.table.times.tolist() == [0, 0, 0, 2, 2, 2]
    assert set(np.unique(objects.numbers[2])) == {0, 4, 5, 6}
    assert objects.table.columns()["time"].tolist() == [0, 0, 0, 2, 2, 2]


def test_pieces_are_cut_once_and_joined_again() -> None:
    labels = two_balls()
    objects = found(labels)
    config = ObjectsConfig(min_voxels=1, separation=0)
    again = drain(number_objects(objects.separation, Volume(labels), config))
    assert (len(objects.table), len(again.table)) == (3, 2)
    assert objects.separation.numbers(0.85, 1)[1] == 3


# --- properties -----------------------------------------------------------------------------


@pytest.mark.parametrize("block", [None, (9, 25, 33)])
def test_properties_of_a_box(block) -> None:
    labels = np.zeros((20, 30, 40), np.uint8)
    labels[2:6, 10:20, 12:24] = 2
    labels[10:13, 0:5, 30:36] = 3
    image = np.random.default_rng(0).random((2, 20, 30, 40)).astype(np.float32)
    volume = Volume(labels, voxel_size=(2.0, 0.5, 0.5), unit="µm", translation=(100.0, 0.0, 0.0))
    objects = drain(
        find_objects(
            volume,
            ObjectsConfig(),
            image=Volume(image, "CZYX"),
            names={2: "nucleus", 3: "Zellkern µ"},
            block=block,
        )
    )
    table = objects.table
    first, second = (int(np.flatnonzero(table.values == v)[0]) for v in (2, 3))
    assert table.voxels[first] == 4 * 10 * 12
    assert table.volumes[first] == pytest.approx(4 * 10 * 12 * 0.5)
    np.testing.assert_allclose(table.centroids[first], (100 + 3.5 * 2, 14.5 * 0.5, 17.5 * 0.5))
    assert table.boxes[first].tolist() == [2, 10, 12, 6, 20, 24]
    assert table.at_border.tolist().count(True) == 1 and table.at_border[second]
    np.testing.assert_allclose(
        table.gray[first], image[:, 2:6, 10:20, 12:24].mean((1, 2, 3)), rtol=1e-5
    )
    diameter = (6 * 240 / np.pi) ** (1 / 3)
    assert table.diameters[first] == pytest.approx(diameter)
    assert table.sentence() == ("2 objects, median volume 142 µm³; 1 at the border of the stack")


def test_table_as_text_and_as_features() -> None:
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[3:6, 3:6, 3:6] = 2
    volume = Volume(labels, voxel_size=(0.5, 0.25, 0.25), unit="µm")
    table = found(labels, volume=volume, image=Volume(labels * 7)).table
    (row,) = csv.DictReader(io.StringIO(table.csv()))
    assert row["label"] == "1"
    assert row["class"] == "class 2"
    assert float(row["volume (µm³)"]) == pytest.approx(27 / 32, abs=1e-5)
    assert row["touches border"] == "no"
    assert row["mean gray value"] == "14"
    assert row["last z (voxel)"] == "5"
    assert table.features()["index"].tolist() == [1]
    assert "label" not in table.features()
    voxels = found(labels).table
    assert voxels.sentence() == "1 object, volume 27 voxels"
    assert not any("³" in title for title in voxels.columns())


@pytest.mark.parametrize("unit", ["µm", "pixel"])
def test_a_table_is_read_as_it_was_written(unit) -> None:
    labels = np.stack([two_balls(), two_balls()[:, ::-1]])
    size = (2.0, 0.5, 0.25) if unit == "µm" else (1.0, 1.0, 1.0)
    image = Volume(np.stack([labels, 255 - labels], 1), "TCZYX", size, unit)
    table = found(labels, volume=Volume(labels, "TZYX", size, unit), image=image).table
    again = ObjectTable.from_csv(table.csv(), size, unit)
    assert again.csv() == table.csv()
    assert again.sentence() == table.sentence()
    for name in ("labels", "times", "values", "voxels", "boxes", "at_border"):
        values = getattr(again, name)
        np.testing.assert_array_equal(values, getattr(table, name))
        assert values.dtype == getattr(table, name).dtype, name
    assert again.gray.shape == (len(table), 2)
    np.testing.assert_allclose(again.centroids, table.centroids, rtol=1e-5)


def test_an_empty_table_is_read_and_what_is_none_is_refused() -> None:
    table = found(two_balls(), min_voxels=10**9).table
    assert len(ObjectTable.from_csv(table.csv(), (1.0, 1.0, 1.0), "pixel")) == 0
    for text in ("", "a,b\n1,2\n", "label,class\n1\n", table.csv() + "x\n"):
        with pytest.raises(BadInputError, match="no table of objects"):
            ObjectTable.from_csv(text, (1.0, 1.0, 1.0), "pixel")


def test_progress_counts_up_to_the_end() -> None:
    events: list[ObjectsProgress] = []
    drain(find_objects(Volume(blobs()), ObjectsConfig(), block=(16, 22, 26)), events.append)
    for step in ("Reading", "Separating", "Measuring"):
        of_step = [e for e in events if e.step == step]
        assert [e.done for e in of_step] == list(range(1, of_step[0].total + 1))


# --- errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "settings", "text"),
    [
        (two_balls(), {"classes": (5,)}, "Class 5 does not occur.*classes: 2"),
        (np.zeros((9, 9, 9), np.uint8), {}, "no object to find"),
        (two_balls(value=1), {"method": "boundary", "boundary": 1}, "Only the boundary"),
        (two_balls(), {"method": "boundary"}, "needs the class"),
        (two_balls(), {"method": "boundary", "boundary": 2, "classes": (2,)}, "at once"),
        (two_balls().astype(float), {}, "integers"),
    ],
)
def test_what_cannot_be_done_is_said(labels, settings, text) -> None:
    with pytest.raises(BadInputError, match=text):
        found(labels, **settings)


def test_the_image_must_be_that_of_the_labels() -> None:
    with pytest.raises(BadInputError, match=r"9 × 9 × 9 voxels.*40 × 60 × 80"):
        found(two_balls(), image=Volume(np.zeros((9, 9, 9))))


def test_nothing_large_enough_is_an_empty_table() -> None:
    objects = found(two_balls(), min_voxels=10**6)
    assert len(objects.table) == 0
    assert objects.table.sentence() == "No objects"
    assert not objects.numbers.any()
    assert objects.table.csv().startswith("label,class")
