"""The section "Objects" in the true window, with real clicks and keys."""

from __future__ import annotations

import csv
import threading
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from napari_unet3d.config import ClassInfo, ObjectsConfig
from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.parts.objects_form import ClassChoice, ObjectsForm
from napari_unet3d.widgets.viewer.layers import prediction_layer
from napari_unet3d.widgets.viewer.objects_layer import classes_in

SHAPE = (24, 40, 60)
NUCLEUS = ClassInfo(value=2, name="nucleus", color="#e69f00")
WALL = ClassInfo(value=3, name="cell wall", color="#56b4e9")
PLACE = {"scale": (1.0, 0.5, 0.5), "units": ("um", "um", "um"), "axis_labels": ("z", "y", "x")}


def balls() -> np.ndarray:
    """Two balls that touch, and one alone."""
    z, y, x = np.indices(SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    for center, radius in (((12, 20, 12), 9), ((12, 20, 27), 9), ((12, 20, 50), 6)):
        distance = (2 * (z - center[0])) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2
        labels[distance <= radius**2] = 2
    return labels


# --- the form, without a window of napari ----------------------------------------------------


@pytest.fixture
def form(qtbot: Any) -> ObjectsForm:
    form = ObjectsForm()
    qtbot.addWidget(form)
    return form


def test_the_form_edits_every_setting(form: ObjectsForm) -> None:
    classes = [ClassChoice(2, "nucleus", "#e69f00"), ClassChoice(3, "cell wall")]
    classes += [ClassChoice(4, "other")]
    form.set_labels([*classes, ClassChoice(0, "background")], "µm", 0.25)
    config = ObjectsConfig(
        method="boundary",
        classes=(2,),
        boundary=3,
        separation=0.6,
        min_voxels=1,
        min_volume=7.5,
        fill_holes=False,
        smoothing=1.5,
    )
    form.setValue(config)
    assert form.value() == config


def test_a_wall_by_its_name_is_proposed_as_boundary(form: ObjectsForm) -> None:
    form.set_labels([ClassChoice(2, "lumen"), ClassChoice(3, "tubule wall")], "pixel")
    form.method.setCurrentIndex(form.method.findData("boundary"))
    assert form.value().boundary == 3
    assert form.value().classes == ()
    assert form.value().min_voxels == 20


def test_a_form_that_cannot_be_used_says_why(form: ObjectsForm) -> None:
    form.set_labels([ClassChoice(2, "nucleus"), ClassChoice(0, "background")], "µm")
    form.class_boxes[2].setChecked(False)
    with pytest.raises(BadInputError, match="Tick the class"):
        form.value()
    form.class_boxes[2].setChecked(True)
    form.set_labels((), "pixel")
    form.method.setCurrentIndex(form.method.findData("boundary"))
    with pytest.raises(BadInputError, match="no class between"):
        form.value()


def test_classes_of_the_users_own_labels() -> None:
    assert [c.value for c in classes_in(balls())] == [2, 0]
    assert classes_in(np.arange(24 * 40 * 60).reshape(SHAPE)) == ()


# --- the section, in napari ------------------------------------------------------------------


@pytest.fixture
def section(dock: Any, viewer: Any, qtbot: Any) -> Any:
    """The feature, unfolded, beside an image and its prediction."""
    viewer.add_image(np.random.default_rng(0).random(SHAPE).astype("f4"), name="cells", **PLACE)
    viewer.add_layer(prediction_layer(balls(), "cells prediction", (NUCLEUS, WALL), PLACE))
    feature = next(f for f in dock.features if f.title.endswith("Objects"))
    dock.feature_sections[feature.title].setExpanded(True)
    for other in (dock.annotate_section, dock.train_section):
        other.setExpanded(False)
    qtbot.wait(300)
    yield feature
    vars(feature).pop("bench", None)


def click(qtbot: Any, button: Any) -> None:
    assert button.isVisible() and button.isEnabled(), button.text()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def found(qtbot: Any, section: Any) -> None:
    click(qtbot, section.find_button)
    qtbot.waitUntil(lambda: section.find_button.isVisible(), timeout=20_000)


@pytest.mark.needs_window
def test_find_change_find_again_and_save(
    section: Any, dock: Any, viewer: Any, qtbot: Any, tmp_path: Any, monkeypatch: Any
) -> None:
    assert section.source.currentText() == "cells prediction"
    assert not section.save_table.isEnabled()
    active = viewer.layers.selection.active
    found(qtbot, section)
    layer = viewer.layers["cells prediction objects"]
    assert dock.run_bar.message.text()  # the next step is shown again
    assert sorted(np.unique(layer.data)) == [0, 1, 2, 3]
    assert layer.data.dtype == np.uint16
    assert layer.features["index"].tolist() == [1, 2, 3]
    assert set(layer.features["class"]) == {"nucleus"}
    assert "volume (µm³)" in layer.features
    assert "mean gray value" in layer.features
    assert section.count.text().startswith("3 objects, median volume")
    np.testing.assert_array_equal(layer.scale, PLACE["scale"])
    assert viewer.layers.selection.active is active
    assert not viewer.layers["cells prediction"].visible

    # The count follows the slider; the layer follows the button.
    section.form.separation.setFocus()
    for _ in range(20):
        qtbot.keyClick(section.form.separation, Qt.Key.Key_PageDown)
    qtbot.waitUntil(lambda: section.count.text() == "2 objects with these settings.", timeout=3000)
    assert len(np.unique(layer.data)) == 4
    found(qtbot, section)
    assert len(np.unique(layer.data)) == 3
    assert [x.name for x in viewer.layers].count("cells prediction objects") == 1

    # What the user painted on is never written to.
    layer.data_setitem((np.array([0]), np.array([0]), np.array([0])), 9)
    found(qtbot, section)
    assert layer.data[0, 0, 0] == 9
    assert "cells prediction objects 2" in viewer.layers

    monkeypatch.setattr(
        QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "nuclei"), "Table (*.csv)")
    )
    click(qtbot, section.save_table)
    with open(tmp_path / "nuclei.csv", encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2
    path = tmp_path / "nuclei.ome.tif"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    click(qtbot, section.save_objects)
    qtbot.waitUntil(lambda: not dock.runner.is_running(), timeout=20_000)
    assert read_labels(path).voxel_size == (1.0, 0.5, 0.5)


@pytest.mark.needs_window
def test_cancel_changes_nothing_and_closing_ends_the_thread(
    section: Any, dock: Any, viewer: Any, qtbot: Any
) -> None:
    names = [x.name for x in viewer.layers]
    gate = threading.Event()

    class Slow(np.ndarray):
        """Labels whose reading waits, as those in a large file."""

        def __getitem__(self, key: Any) -> Any:
            if threading.current_thread().name == "unet3d":
                gate.wait(10)
            return super().__getitem__(key)

    layer = viewer.layers["cells prediction"]
    layer.data = balls().view(Slow)
    click(qtbot, section.find_button)
    click(qtbot, section.run.cancel_button)
    gate.set()
    qtbot.waitUntil(lambda: section.find_button.isVisible(), timeout=10_000)
    assert [x.name for x in viewer.layers] == names
    assert "Cancelled" in dock.run_bar.status.text()
    gate.clear()
    click(qtbot, section.find_button)
    dock.cleanup()
    gate.set()


@pytest.mark.needs_window
def test_nothing_segmented_is_said_at_the_button(dock: Any, qtbot: Any) -> None:
    feature = next(f for f in dock.features if f.title.endswith("Objects"))
    dock.feature_sections[feature.title].setExpanded(True)
    qtbot.wait(100)
    click(qtbot, feature.find_button)
    assert "no segmentation yet" in dock.run_bar.message.text()


@pytest.mark.needs_window
def test_errors_are_said_at_the_button(section: Any, dock: Any, viewer: Any, qtbot: Any) -> None:
    viewer.layers["cells prediction"].data = np.zeros(SHAPE, np.uint8)
    click(qtbot, section.find_button)
    qtbot.waitUntil(lambda: section.find_button.isVisible(), timeout=20_000)
    assert "no object to find" in dock.run_bar.message.text()
    assert dock.run_bar.is_error()
