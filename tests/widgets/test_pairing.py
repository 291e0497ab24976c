"""Image and annotation: which belong together, and what is said of them. No window is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Image, Labels
from napari.layers._source import layer_source

from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.widgets.annotator import Annotator
from napari_unet3d.widgets.pairing import Pairing
from napari_unet3d.widgets.parts.class_table import ClassTable
from napari_unet3d.widgets.parts.slice_table import SliceTable
from napari_unet3d.widgets.run.background import Background
from napari_unet3d.widgets.viewer import layers
from napari_unet3d.widgets.viewer.axes import REOPEN
from napari_unet3d.widgets.viewer.belonging import belongs_to, bind
from napari_unet3d.widgets.viewer.layer_choice import LayerChoice
from napari_unet3d.widgets.viewer.placement import lies_on


class Desk:
    """The parts of the dock that choose layers, and a viewer without a window."""

    def __init__(self, qtbot: Any) -> None:
        self.qtbot, self.viewer = qtbot, ViewerModel()
        self.choice, self.slices, self.classes = LayerChoice(), SliceTable(), ClassTable()
        for widget in (self.choice, self.slices, self.classes):
            qtbot.addWidget(widget)
        self.annotator = Annotator(self.viewer, self.classes, self.slices)
        self.background = Background(self.choice)
        self.pairing = Pairing(
            self.viewer, self.choice, self.choice, self.annotator, self.background
        )
        qtbot.addWidget(self.pairing.notice)
        self.errors: list[str] = []
        self.pairing.failed.connect(self.errors.append)
        events = self.viewer.layers.events
        events.inserted.connect(lambda event: self.pairing.inserted(event.value))
        for emitter in (events.removed, events.reordered, events.renamed):
            emitter.connect(self.pairing.sync)

    def open(self, data: Any, name: str = "cells", **options: Any) -> Image:
        image = self.viewer.add_image(data, name=name, **options)
        self.settle()
        assert isinstance(image, Image)
        return image

    def settle(self) -> None:
        self.qtbot.waitUntil(
            lambda: not (self.pairing._start_timer.isActive() or self.background.is_busy())
        )

    def choose(self, box: Any, layer: Any) -> None:
        """As the user does with a combo box."""
        (index,) = [i for i in range(box.count()) if box.itemData(i) is layer]
        box.setCurrentIndex(index)
        self.settle()

    @property
    def annotation(self) -> Labels:
        found = self.choice.value()[1]
        assert found is not None
        return found

    @property
    def said(self) -> str:
        notice = self.pairing.notice.value()
        return "" if notice is None else notice.text

    def press(self, text: str) -> None:
        (button,) = [b for b in self.pairing.notice.buttons if b.text() == text]
        button.click()
        self.settle()

    def paint(self, layer: Labels | None = None) -> Labels:
        layer = self.annotation if layer is None else layer
        layer.data_setitem((np.array([1, 1]), np.array([2, 3]), np.array([4, 4])), 2)
        self.annotator.rescan()
        return layer


@pytest.fixture
def desk(qtbot: Any) -> Iterator[Desk]:
    desk = Desk(qtbot)
    yield desk
    desk.background.cleanup()
    desk.pairing.cleanup()
    desk.annotator.cleanup()
    vars(desk).clear()


# ---- A stroke lands where it is seen


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", (4, 0.5, 0.5)),
        ("translate", (10, 20, 30)),
        ("rotate", (30, 0, 0)),
        ("shear", (0.1, 0.2, 0.3)),
        ("affine", np.array([[1, 0, 0, 3], [0, 1, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])),
        ("units", ("um", "um", "um")),
        ("axis_labels", ("z", "y", "x")),
    ],
)
@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
def test_what_belongs_to_an_image_moves_with_it(
    desk: Desk, stack: np.ndarray, name: str, value: Any
) -> None:
    image = desk.open(stack)
    annotation = desk.annotation
    prediction = layers.prediction_layer(np.zeros(stack.shape, np.uint8), "p", (), {})
    bind(prediction, image)
    own = Labels(np.zeros(stack.shape, np.uint8), name="own")
    for layer in (prediction, own):
        desk.viewer.add_layer(layer)
    setattr(image, name, value)
    for layer in (annotation, prediction):
        assert lies_on(layer, image)
        assert layer.units == image.units
        assert layer.axis_labels == image.axis_labels
    if name not in ("units", "axis_labels"):
        assert not lies_on(own, image)  # the user's layer is left alone
    assert desk.said == ""


def test_an_annotation_that_the_user_moved_stays_and_is_named_with_the_cure(
    desk: Desk, stack: np.ndarray
) -> None:
    image = desk.open(stack, scale=(2, 0.5, 0.5), units=("um",) * 3)
    desk.annotation.translate = (2, 0, 0)
    assert "'cells annotation' does not lie on 'cells'" in desk.said
    assert desk.pairing.blocks()
    image.scale = (4, 0.5, 0.5)
    np.testing.assert_array_equal(desk.annotation.scale, (2, 0.5, 0.5))
    desk.press("Move it onto the image")
    assert desk.said == ""
    assert lies_on(desk.annotation, image)
    image.scale = (5, 0.5, 0.5)  # and from now on it follows again
    assert lies_on(desk.annotation, image)


def test_the_same_lengths_in_other_units_are_the_same_place(desk: Desk, stack: np.ndarray) -> None:
    image = desk.open(stack, scale=(2, 0.5, 0.5), units=("um",) * 3)
    own = Labels(np.zeros(stack.shape, "u1"), scale=(2000, 500, 500), units=("nm",) * 3)
    assert lies_on(own, image)
    own.scale = (2000, 500, 504)  # less than a voxel each, but two at the far end
    assert not lies_on(own, image)


def test_a_chosen_layer_with_another_transform_is_named(desk: Desk, stack: np.ndarray) -> None:
    image = desk.open(stack, scale=(2, 0.5, 0.5))
    own = desk.viewer.add_labels(np.zeros(stack.shape, np.uint8), name="own")
    desk.choose(desk.choice.annotation, own)
    assert desk.annotation is own
    assert "'own' does not lie on 'cells'" in desk.said
    desk.press("Move it onto the image")
    assert lies_on(own, image)


def test_a_time_series_is_followed_too(desk: Desk, stack: np.ndarray) -> None:
    series = desk.open(np.stack([stack] * 3), name="series")
    desk.pairing.add_annotation()
    assert desk.annotation.ndim == 4
    series.scale = (60, 2, 0.5, 0.5)
    assert lies_on(desk.annotation, series)
    desk.choice.first_axis.setCurrentIndex(desk.choice.first_axis.findData("channels"))
    assert "does not fit" in desk.said
    desk.press("New annotation")
    assert desk.annotation.ndim == 3
    series.scale = (60, 3, 0.5, 0.5)
    assert lies_on(desk.annotation, series)


# ---- The axes of a file that another reader opened


@pytest.fixture
def plugins() -> None:
    """Readers can be named, as they can in napari's window."""
    from napari.plugins import _initialize_plugins

    _initialize_plugins()


def test_channels_behind_z_are_opened_again_in_one_click(
    desk: Desk, stack: np.ndarray, tmp_path: Path, plugins: None
) -> None:
    path = tmp_path / "cells.tif"
    both = np.stack([stack, stack[::-1]], axis=1)
    labels = ["DNA", "actin"] * len(stack)
    tifffile.imwrite(path, both, imagej=True, metadata={"axes": "ZCYX", "Labels": labels})
    desk.viewer.open(str(path), plugin="napari")
    desk.settle()
    assert "has the axes z, c, y, x" in desk.said
    assert desk.choice.value()[1] is None
    assert desk.pairing.blocks()
    desk.press(REOPEN)
    assert desk.said == ""
    assert [x.name for x in desk.viewer.layers[:2]] == ["cells.tif DNA", "cells.tif actin"]
    assert desk.annotation.data.shape == stack.shape
    assert desk.choice.channels_value() == (desk.viewer.layers[1],)
    np.testing.assert_array_equal(desk.viewer.layers[1].data, stack[::-1])


def test_channels_in_front_are_taken_for_channels_unasked(
    desk: Desk, stack: np.ndarray, tmp_path: Path, plugins: None
) -> None:
    path = tmp_path / "cells.ome.tif"
    tifffile.imwrite(path, np.stack([stack] * 2), metadata={"axes": "CZYX"})
    desk.viewer.open(str(path), plugin="napari")
    desk.settle()
    assert desk.choice.first_axis_value() == "channels"
    assert desk.choice.first_axis.currentData() == "channels"
    assert "channels, as the file says" in desk.choice.note.text()
    assert desk.annotation.data.shape == stack.shape


def test_what_nothing_names_is_said_and_changed_by_the_user(desk: Desk, stack: np.ndarray) -> None:
    image = desk.open(np.stack([stack] * 3))
    assert "taken for time (3 time points)" in desk.choice.axis_note.text()
    other = desk.open(np.stack([stack] * 2), name="other")
    desk.choice.set_first_axis("channels")
    assert desk.choice.axis_note.text() == ""
    desk.choose(desk.choice.image, other)  # each image has an axis of its own
    assert desk.choice.first_axis_value() == "time"
    desk.choose(desk.choice.image, image)
    assert desk.choice.first_axis_value() == "channels"
    assert desk.choice.first_axis.currentData() == "channels"


# ---- An annotation knows its image


def test_each_image_has_its_own_annotation(desk: Desk, stack: np.ndarray) -> None:
    first, second = desk.open(stack, "first"), desk.open(stack[::-1], "second")
    painted = desk.paint()
    assert desk.choice.value() == (first, painted)
    desk.choose(desk.choice.image, second)
    assert desk.annotation is not painted
    assert desk.annotation.name == "second annotation"
    assert desk.slices.slices() == []
    desk.choose(desk.choice.image, first)
    assert desk.annotation is painted
    assert len(desk.slices.slices()) == 1
    assert desk.viewer.layers.index(second) >= 0
    assert len(desk.viewer.layers) == 4


def test_the_paint_of_another_image_is_used_by_choice_only(desk: Desk, stack: np.ndarray) -> None:
    first, filtered = desk.open(stack, "first"), desk.open(stack + 1, "filtered")
    painted = desk.paint()
    desk.choose(desk.choice.image, filtered)
    texts = [desk.choice.annotation.itemText(i) for i in range(desk.choice.annotation.count())]
    assert "first annotation — of 'first'" in texts
    desk.choose(desk.choice.annotation, painted)
    assert desk.annotation is painted
    assert "was painted on 'first'" in desk.said
    assert not desk.pairing.blocks()
    desk.press("OK")
    assert desk.said == ""
    for image in (first, filtered, first):  # from now on it belongs to both
        desk.choose(desk.choice.image, image)
        assert desk.annotation is painted


def test_a_duplicated_image_does_not_take_the_annotation(desk: Desk, stack: np.ndarray) -> None:
    from napari.layers._layer_actions import _duplicate_layer

    image = desk.open(stack)
    painted = desk.paint()
    desk.viewer.layers.selection = {image}
    _duplicate_layer(desk.viewer.layers)
    desk.settle()
    copy = desk.viewer.layers["cells copy"]
    assert belongs_to(painted, image)
    assert not belongs_to(painted, copy)
    desk.choose(desk.choice.image, copy)
    assert desk.annotation is not painted


def test_an_annotation_finds_its_image_again(desk: Desk, stack: np.ndarray) -> None:
    image = desk.open(stack, "first")
    painted = desk.paint()
    desk.viewer.layers.remove(image)
    desk.open(stack, "other")  # another stack of the same shape
    assert desk.annotation is not painted
    for layer in [x for x in desk.viewer.layers if x is not painted]:
        desk.viewer.layers.remove(layer)
    desk.open(stack, "first")
    assert desk.annotation is painted
    assert desk.said == ""


def test_an_annotation_without_an_image_is_taken_where_there_is_no_doubt(
    desk: Desk, stack: np.ndarray
) -> None:
    saved = layers.new_annotation_layer(Image(stack), "time")
    saved.data[1, 2, 3] = 2
    desk.viewer.add_layer(saved)
    image = desk.open(stack)
    assert desk.choice.value() == (image, saved)
    assert belongs_to(saved, image)


def test_with_two_images_an_annotation_without_an_image_is_left_alone(
    desk: Desk, stack: np.ndarray
) -> None:
    saved = layers.new_annotation_layer(Image(stack), "time")
    saved.data[1, 2, 3] = 2
    desk.viewer.layers.extend([saved, Image(stack, name="a"), Image(stack, name="b")])
    desk.settle()
    assert desk.annotation is not saved
    assert not belongs_to(saved, desk.viewer.layers["a"])


# ---- What is wrong is said when the image is chosen


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda s: (np.stack([s.astype("u1")] * 3, -1), {"rgb": True}), "Split RGB"),
        (lambda s: (np.stack([np.stack([s] * 2)] * 2), {}), "Split Stack"),
        (lambda s: (s[0], {}), "two-dimensional"),
        (lambda s: (s[:1], {}), "2D image"),
        (lambda s: (np.where(s > 100, np.nan, s), {}), "nan_to_num"),
        (lambda s: (np.zeros_like(s), {}), "same value"),
    ],
    ids=["rgb", "5D", "2D", "one slice", "nan", "constant"],
)
@pytest.mark.filterwarnings("ignore")
def test_images_that_cannot_be_used(desk: Desk, stack: np.ndarray, make: Any, text: str) -> None:
    data, options = make(stack)
    desk.open(data, **options)
    assert text in desk.said
    assert desk.pairing.blocks()
    if text not in ("nan_to_num", "same value"):  # New says the same, and raises nothing
        assert desk.choice.value()[1] is None
        desk.pairing.add_annotation()
        assert text in desk.errors[0]


def test_data_that_become_right_are_looked_at_again(desk: Desk, stack: np.ndarray) -> None:
    image = desk.open(np.where(stack > 100, np.nan, stack))
    assert desk.pairing.blocks()
    image.data = stack
    desk.settle()
    assert desk.said == ""
    image.data = stack[:5]
    desk.settle()
    assert "(10 × 40 × 44) does not fit 'cells' (5 × 40 × 44)" in desk.said


# ---- Voxel size


def test_the_voxel_size_is_shown_and_edited(desk: Desk, stack: np.ndarray) -> None:
    image = desk.open(stack, scale=(2, -0.5, 0.123456789), units=("um",) * 3)
    edit = desk.choice.voxel_size
    assert edit.value() == ((2, 0.5, 0.123456789), "µm")
    desk.qtbot.keyClicks(edit.edits[0], "")
    edit.edits[0].selectAll()
    desk.qtbot.keyClicks(edit.edits[0], "3,5\r")
    # The flip stays, and what was not typed keeps all its digits.
    np.testing.assert_array_equal(image.scale, (3.5, -0.5, 0.123456789))
    assert lies_on(desk.annotation, image)
    edit.unit.setCurrentText("nm")
    assert [str(u) for u in image.units] == ["nanometer"] * 3
    for wrong in ("0", "-1", "abc", "nan"):
        edit.edits[0].selectAll()
        desk.qtbot.keyClicks(edit.edits[0], f"{wrong}\r")
        assert edit.value()[0][0] == 3.5
        assert edit.edits[0].text() == "3.5"
    image.scale = (7, 1, 1)
    assert edit.edits[0].text() == "7"


def test_units_that_do_not_go_together_are_said_at_once(desk: Desk, stack: np.ndarray) -> None:
    image = desk.open(stack, scale=(2, 0.5, 0.5), units=("pixel", "um", "um"))
    assert "units that do not go together" in desk.choice.note.text()
    assert desk.choice.voxel_size.value() == ((2, 0.5, 0.5), "pixel")
    assert not desk.pairing.blocks()
    desk.choice.voxel_size.unit.setCurrentText("µm")
    assert desk.choice.note.text() == ""
    assert [str(u) for u in image.units] == ["micrometer"] * 3
    np.testing.assert_array_equal(image.scale, (2, 0.5, 0.5))


def open_with_napari(desk: Desk, path: Path, **options: Any) -> Image:
    """As napari's own reader does: with the path, without the voxel size."""
    with layer_source(path=str(path), reader_plugin="napari"):
        image = Image(tifffile.imread(path), name=path.stem, **options)
    desk.viewer.add_layer(image)
    return image


def imagej(path: Path, stack: np.ndarray) -> Path:
    metadata = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(path, stack, imagej=True, resolution=(2, 2), metadata=metadata)
    return path


@pytest.fixture
def tiff(tmp_path: Path, stack: np.ndarray) -> Path:
    return imagej(tmp_path / "cells.tif", stack)


def test_a_voxel_size_that_napari_dropped_is_read_from_the_file(desk: Desk, tiff: Path) -> None:
    image = open_with_napari(desk, tiff)
    assert set(image.scale) == {1}
    middle = desk.viewer.dims.current_step
    desk.settle()
    np.testing.assert_allclose(image.scale, (2, 0.5, 0.5))
    assert desk.viewer.dims.current_step == middle  # not the last slice, which is often empty
    assert lies_on(desk.annotation, image)
    assert desk.choice.note.text() == "Voxel size 2 × 0.5 × 0.5 µm taken from the file."
    # Set back by hand: never overwritten again.
    desk.choice.voxel_size.edits[0].selectAll()
    desk.qtbot.keyClicks(desk.choice.voxel_size.edits[0], "1\r")
    assert desk.choice.note.text() == ""
    image.scale, image.units = (1, 1, 1), ("pixel",) * 3
    desk.choose(desk.choice.image, desk.open(np.array(image.data), "other"))
    desk.choose(desk.choice.image, image)
    np.testing.assert_array_equal(image.scale, (1, 1, 1))


def test_a_scale_that_is_there_and_a_cropped_stack_are_left_alone(desk: Desk, tiff: Path) -> None:
    scaled = open_with_napari(desk, tiff, scale=(3, 1, 1))
    desk.settle()
    np.testing.assert_array_equal(scaled.scale, (3, 1, 1))
    cropped = open_with_napari(desk, tiff)
    cropped.data = cropped.data[2:]
    desk.choose(desk.choice.image, cropped)
    np.testing.assert_array_equal(cropped.scale, (1, 1, 1))


# ---- Labels of others


def dense(stack: np.ndarray) -> np.ndarray:
    _, y, x = np.ogrid[tuple(map(slice, stack.shape))]
    labels = np.zeros(stack.shape, np.uint8)
    labels[1:9][:, ((y - 20) ** 2 + (x - 22) ** 2 < 100)[0]] = 1
    labels[:, 2:8, 2:8] = 2
    return labels


def test_dense_labels_are_converted_into_a_copy(desk: Desk, stack: np.ndarray) -> None:
    image = desk.open(stack)
    before = desk.annotation
    own = desk.viewer.add_labels(dense(stack), name="truth")
    metadata, colormap = dict(own.metadata), own.colormap
    desk.choose(desk.choice.annotation, own)
    assert "truth" in desk.said
    assert desk.annotation is before
    desk.press("0 is background: convert a copy")
    made = desk.annotation
    assert made not in (before, own)
    assert belongs_to(made, image)
    assert desk.said == ""
    np.testing.assert_array_equal(np.asarray(made.data), dense(stack) + 1)
    assert [c.value for c in desk.annotator.classes()] == [2, 3]
    np.testing.assert_array_equal(own.data, dense(stack))
    assert own.metadata == metadata
    assert own.colormap is colormap


def test_dense_labels_are_used_as_they_are_on_demand(desk: Desk, stack: np.ndarray) -> None:
    desk.open(stack)
    own = desk.viewer.add_labels(dense(stack), name="truth")
    desk.choose(desk.choice.annotation, own)
    desk.press("0 is unlabelled: use as it is")
    assert desk.annotation is own
    assert desk.said == ""
    assert [c.value for c in desk.annotator.classes()] == [2]


def test_sixty_numbered_objects_are_no_classes(desk: Desk, stack: np.ndarray) -> None:
    desk.open(stack)
    labels = np.zeros(stack.shape, np.uint8)
    labels[4].ravel()[:600] = np.repeat(np.arange(1, 61), 10)
    own = desk.viewer.add_labels(labels, name="nuclei")
    before = desk.annotation
    desk.choose(desk.choice.annotation, own)
    assert desk.annotation is before
    assert "60 different labels" in desk.errors[0]


def test_paint_that_does_not_count_is_named(desk: Desk, stack: np.ndarray) -> None:
    image = desk.open(stack)
    prediction = layers.prediction_layer(np.zeros(stack.shape, np.uint8), "p", (), {})
    bind(prediction, image)
    desk.viewer.add_layer(prediction)
    prediction.paint((3, 20, 20), 2)
    assert "'p' is a prediction: paint there is not trained on" in desk.said
    assert not desk.pairing.blocks()
    desk.press("Select the annotation")
    assert desk.viewer.layers.selection.active is desk.annotation
    assert desk.annotation.mode == "paint"
    assert desk.said == ""
    prediction.paint((3, 20, 20), 3)
    assert desk.said != ""
    desk.viewer.layers.remove(prediction)
    assert desk.said == ""


# ---- Size


def test_a_stack_larger_than_the_memory_can_be_painted(desk: Desk) -> None:
    lazy = dask.array.zeros((2000, 20_000, 20_000), chunks=(1, 2000, 2000), dtype=np.uint8)
    desk.open(lazy, "huge", contrast_limits=(0, 1))
    data = desk.annotation.data
    assert isinstance(data, SparseLabels)
    assert data.path is None  # the session folder is the only one that holds paint
    assert "takes 800 GB" in desk.said
    assert "command line" in desk.said
    assert "kept in the session folder, which both commands take" in desk.said
    desk.annotation.paint((7, 100, 100), 2)
    assert desk.annotation.data[7, 100, 100] == 2
    desk.annotation.undo()
    assert desk.annotation.data[7, 100, 100] == 0


def test_the_channels_of_one_file_are_used_together(desk: Desk, tmp_path: Path) -> None:
    data = np.random.default_rng(0).random((4, 6, 7)).astype(np.float32)
    with layer_source(path=str(tmp_path / "cells.tif")):
        for name in ("dapi", "actin"):
            desk.viewer.add_image(data, name=name)
    desk.settle()
    volume, _ = desk.choice.volume()
    assert (volume.axes, volume.n_channels) == ("CZYX", 2)
    assert desk.choice.channels.text() == "dapi + actin"
    desk.choice.channels.menu().actions()[0].trigger()
    assert desk.choice.volume()[0].n_channels == 1
    desk.viewer.layers.remove("actin")
    assert desk.choice.channels_value() == ()


def test_another_stack_becomes_a_channel_only_when_it_is_ticked(desk: Desk) -> None:
    data = np.random.default_rng(0).random((4, 6, 7)).astype(np.float32)
    desk.open(data)
    desk.open(data[1:], "shorter")
    desk.open(data, "moved", translate=(0, 3, 0))
    filtered = desk.open(data**2, "filtered")
    assert desk.choice.volume()[0].n_channels == 1
    assert [a.text() for a in desk.choice.channels.menu().actions()] == ["filtered"]
    desk.choice.channels.menu().actions()[0].trigger()
    assert desk.choice.channels_value() == (filtered,)
    assert desk.choice.volume()[0].n_channels == 2
