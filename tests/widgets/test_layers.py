"""Layers and core; no viewer."""

from __future__ import annotations

from typing import Any

import dask.array
import numpy as np
import pytest
import zarr
from napari.layers import Image, Labels

from napari_unet3d.config import ClassInfo, default_class
from napari_unet3d.data.io.file_metadata import common_unit
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.viewer import layers, placement
from napari_unet3d.widgets.viewer.axes import FirstAxis, labels_shape
from napari_unet3d.widgets.viewer.image_volume import image_volume

pytestmark = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
TRANSFORM = {
    "scale": (2.0, 0.5, 0.25),
    "translate": (1, 2, 3),
    "rotate": (10, 20, 30),
    "shear": (0.1, 0.2, 0.3),
    "affine": np.diag([1, 2, 3, 1.0]),
    "units": ("um",) * 3,
    "axis_labels": ("z", "y", "x"),
}
DATA = np.random.default_rng(0).random((4, 8, 9), np.float32)


def assert_same_place(one: Labels | Image, other: Image) -> None:
    for name in ("scale", "translate", "rotate", "shear"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-12)
    np.testing.assert_allclose(one.affine.affine_matrix, other.affine.affine_matrix)
    assert one.units == other.units
    assert one.axis_labels == other.axis_labels


def test_voxel_size_and_unit_come_from_the_layer() -> None:
    volume, notes = image_volume(Image(DATA, name="a", **TRANSFORM))
    assert volume.axes == "ZYX"
    assert volume.voxel_size == (2.0, 0.5, 0.25)
    assert volume.unit == "µm"
    assert notes == ()


def test_units_that_differ_are_made_the_same() -> None:
    image = Image(DATA, scale=(2, 500, 500), units=("um", "nm", "nm"))
    volume, _ = image_volume(image)
    assert volume.voxel_size == pytest.approx((2000, 500, 500))
    assert volume.unit == "nm"


def test_units_the_core_does_not_know_become_micrometers() -> None:
    volume, _ = image_volume(Image(DATA, scale=(1, 1, 1), units=("cm",) * 3))
    assert volume.voxel_size == pytest.approx((1e4, 1e4, 1e4))
    assert volume.unit == "µm"


def test_the_finest_level_of_a_multiscale_image_is_used_and_said() -> None:
    image = Image([DATA, DATA[:, ::2, ::2]], name="big", multiscale=True)
    volume, notes = image_volume(image)
    assert volume.shape == DATA.shape
    assert "finest" in notes[0]


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (Image(np.zeros((4, 5, 6, 3), np.uint8), rgb=True), "RGB"),
        (Image(np.zeros((5, 6))), "two-dimensional"),
        (Image(np.zeros((2, 2, 4, 5, 6))), "Split Stack"),
    ],
)
def test_images_that_cannot_be_used_are_refused_with_the_cure(image: Image, text: str) -> None:
    with pytest.raises(BadInputError, match=text):
        image_volume(image)


def test_a_flip_is_no_error() -> None:
    image = Image(DATA, scale=(2, -0.5, 0.5), units=("um",) * 3)
    volume, notes = image_volume(image)
    assert volume.voxel_size == (2, 0.5, 0.5)
    assert notes == ()
    annotation = layers.new_annotation_layer(image, "time")
    assert placement.lies_on(annotation, image)
    assert annotation.scale[1] == -0.5


def test_a_voxel_size_that_is_no_number_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"voxel size \(1, nan, 1\).*'Voxel'"):
        image_volume(Image(DATA, scale=(1, np.nan, 1)))


def test_units_that_do_not_go_together_are_as_in_files() -> None:
    image = Image(DATA, name="im", scale=(2, 0.5, 0.5), units=("pixel", "um", "um"))
    volume, notes = image_volume(image)
    sizes, unit = common_unit((2, 0.5, 0.5), (None, "um", "um"))  # an OME-Zarr without z's unit
    assert (volume.voxel_size, volume.unit) == (sizes, unit)
    assert "pixel, micrometer, micrometer" in notes[0]


@pytest.mark.parametrize("leading", [(1,), (1, 1), (1, 1, 1)])
@pytest.mark.parametrize("lazy", ["numpy", "dask", "zarr"])
def test_leading_axes_of_length_1_are_dropped(leading: tuple[int, ...], lazy: str) -> None:
    data: Any = DATA.reshape(leading + DATA.shape)
    if lazy == "dask":
        data = dask.array.from_array(data)
    if lazy == "zarr":
        stored = zarr.create_array({}, shape=data.shape, dtype=data.dtype)
        stored[...] = data
        data = stored
    image = Image(data, scale=(*(1.0,) * len(leading), 2, 0.5, 0.25), contrast_limits=(0, 1))
    volume, _ = image_volume(image)
    assert volume.axes == "ZYX"
    assert volume.voxel_size == (2, 0.5, 0.25)
    assert lazy == "numpy" or not isinstance(volume.data, np.ndarray)
    np.testing.assert_array_equal(volume.crop(0, (0, 0, 0), DATA.shape)[0], DATA)
    annotation = layers.new_annotation_layer(image, "time")
    assert annotation.data.shape == DATA.shape
    assert placement.lies_on(annotation, image)


def test_channels_behind_an_axis_of_length_1() -> None:
    image = Image(np.stack([DATA] * 2)[None])
    volume, _ = image_volume(image, "channels")
    assert (volume.axes, volume.n_channels) == ("CZYX", 2)
    assert labels_shape(image, "channels") == DATA.shape


@pytest.mark.parametrize(("first_axis", "axes"), [("time", "TZYX"), ("channels", "CZYX")])
def test_the_first_of_four_axes(first_axis: FirstAxis, axes: str) -> None:
    image = Image(np.stack([DATA] * 3), scale=(5, 2, 1, 1))
    volume, _ = image_volume(image, first_axis)
    assert volume.axes == axes
    annotation = layers.new_annotation_layer(image, first_axis)
    expected = (3, *DATA.shape) if first_axis == "time" else DATA.shape
    assert annotation.data.shape == expected
    np.testing.assert_array_equal(annotation.scale[-3:], (2, 1, 1))


def test_an_annotation_lies_on_its_image() -> None:
    image = Image(DATA, name="a", **TRANSFORM)
    annotation = layers.new_annotation_layer(image, "time", taken=["a annotation"])
    assert_same_place(annotation, image)
    assert annotation.name == "a annotation 2"
    assert annotation.data.dtype == np.uint8
    assert [c.value for c in layers.read_classes(annotation)] == [2]


def test_labels_without_the_channels_lie_on_the_image_too() -> None:
    rotate = np.eye(4)
    rotate[2:, 2:] = [[0.8, -0.6], [0.6, 0.8]]
    shear = np.eye(4)
    shear[1, 3] = 0.3
    image = Image(np.stack([DATA] * 2), scale=(1, 2, 3, 4), rotate=rotate, shear=shear)
    labels = Labels(np.zeros(DATA.shape, np.uint8), **placement.spatial_transform(image, 3))
    point = np.array([1, 2, 3.0])
    world = image.data_to_world((0, *point))[1:]
    np.testing.assert_allclose(labels.data_to_world(point), world)


def test_what_is_remembered_survives_in_the_layer() -> None:
    layer = layers.new_annotation_layer(Image(DATA), "time")
    layer.metadata = {**layer.metadata, "other": 1}
    classes = (default_class(2, "cell"), default_class(5, "wall"))
    held_out = frozenset({SliceRef(0, 3), SliceRef(2, 1, time=4)})
    layers.write_classes(layer, classes)
    layers.write_held_out(layer, held_out)
    assert layers.read_classes(layer) == classes
    assert layers.read_held_out(layer) == held_out
    assert layer.metadata["other"] == 1
    assert layer.get_color(5) is not None


def test_damaged_metadata_is_forgotten() -> None:
    layer = Labels(np.zeros(DATA.shape, np.uint8))
    layer.metadata = {layers.METADATA_KEY: {"classes": [{"value": -1}], "held_out": ["x"]}}
    assert layers.read_classes(layer) == ()
    assert layers.read_held_out(layer) == frozenset()


def test_a_prediction_keeps_colors_and_names() -> None:
    image = Image(DATA, **TRANSFORM)
    classes = (ClassInfo(value=3, name="lumen", color="#102030"),)
    array = np.full(DATA.shape, 3, np.uint8)
    layer = layers.prediction_layer(array, "p", classes, placement.spatial_transform(image, 3))
    assert_same_place(layer, image)
    assert layer.data is array
    np.testing.assert_allclose(layer.get_color(3)[:3], np.array([16, 32, 48]) / 255, atol=0.01)
    assert layer.get_color(0) is None or layer.get_color(0)[3] == 0
    assert list(layer.features["class"]) == ["background", "lumen"]
    assert layers.role_of(layer) == "prediction"


def test_a_prediction_shows_the_numbers_of_the_segmentation() -> None:
    info = ClassInfo(value=3, name="lumen", color="#102030", output=200)
    transform = layers.spatial_transform(Image(DATA, **TRANSFORM), 3)
    layer = layers.prediction_layer(np.zeros(DATA.shape, np.uint8), "p", [info], transform)
    np.testing.assert_allclose(layer.get_color(200)[:3], np.array([16, 32, 48]) / 255, atol=0.01)
    assert list(layer.features["index"]) == [0, 200]
    assert layers.class_features([info], annotation=True)["index"] == [0, 1, 3]


def test_companions_lie_on_the_image() -> None:
    image = Image(DATA, **TRANSFORM)
    made = layers.companion_layers(
        "p",
        (default_class(2, "cell"),),
        placement.spatial_transform(image, 3),
        {
            "labels": np.zeros(DATA.shape, np.uint8),
            "probabilities": np.zeros((2, *DATA.shape), np.float32),
            "uncertainty": np.zeros(DATA.shape, np.float32),
        },
    )
    assert [x.name for x in made] == ["p: probability of cell", "p: uncertainty"]
    for layer in made:
        assert_same_place(layer, image)
        assert not layer.visible


def test_features_of_somebody_else_stay() -> None:
    layer = Labels(np.zeros(DATA.shape, np.uint8), features={"index": [2], "area": [17.5]})
    layers.write_classes(layer, layers.starting_classes())
    layers.write_classes(layer, (default_class(2, "cell"), default_class(3)))
    assert layer.features.to_dict("list") == {"index": [2], "area": [17.5]}
    ours = Labels(np.zeros(DATA.shape, np.uint8))
    layers.write_classes(ours, layers.starting_classes())
    layers.write_classes(ours, (default_class(2, "cell"),))
    assert list(ours.features["class"]) == ["unlabelled", "background", "cell"]


def test_further_layers_are_channels() -> None:
    first, second = Image(DATA, name="a", **TRANSFORM), Image(2 * DATA, name="b", **TRANSFORM)
    volume, _ = image_volume(first, channels=[second])
    assert (volume.axes, volume.n_channels, volume.name) == ("CZYX", 2, "a")
    np.testing.assert_array_equal(volume.data[...], [DATA, 2 * DATA])
