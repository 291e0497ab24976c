"""Nothing is lost: what is painted is on the disk, and there again when its image opens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import QCoreApplication, QEvent
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox

from bundles import random_bundle
from napari_unet3d.config import default_class
from napari_unet3d.data import samples
from napari_unet3d.data.slice_summary import StackSummary
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.model.evidence import Evidence, LearningCurve
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.layout import MODEL
from napari_unet3d.session.recent import recent_sessions
from napari_unet3d.session.session import NamedModel
from napari_unet3d.session.summary_file import SUMMARY, read_summary
from napari_unet3d.widgets.dock import SegmentationDock
from napari_unet3d.widgets.features import continuing
from napari_unet3d.widgets.features.keeping import Keeping
from napari_unet3d.widgets.features.objects import ObjectsFeature
from napari_unet3d.widgets.features.suggest import NextSlice
from napari_unet3d.widgets.parts.suggestion_box import SuggestionBox
from napari_unet3d.widgets.viewer.belonging import bind
from napari_unet3d.widgets.viewer.keeper import Keeper
from napari_unet3d.widgets.viewer.layers import (
    prediction_layer,
    read_classes,
    read_held_out,
    role_of,
    write_classes,
    write_held_out,
)
from napari_unet3d.widgets.viewer.objects_layer import table_of
from napari_unet3d.widgets.viewer.placement import spatial_transform

SUFFIX = ".unet3d-session"
NETWORK = UNetConfig(widths=(4, 8), strides=((2, 2, 2),), kernels=((3, 3, 3),) * 2, padding="same")


@pytest.fixture
def image_file(tmp_path: Path, stack: np.ndarray) -> Path:
    path = tmp_path / "cells.tif"
    metadata = {"axes": "ZYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(path, stack, imagej=True, resolution=(2, 2), metadata=metadata)
    return path


def keeping_of(dock: Any) -> Keeping:
    (feature,) = [f for f in dock.features if isinstance(f, Keeping)]
    return feature


def suggestions(dock: Any) -> SuggestionBox:
    (feature,) = [f for f in dock.features if isinstance(f, NextSlice)]
    return feature.box


def test_without_a_stored_summary_words_say_that_a_run_is_needed(
    window: Window, image_file: Path, painted: np.ndarray
) -> None:
    window.paint(window.open_image(image_file), painted)
    dock = window.dock
    dock.run_bar.start_button.click()
    window.qtbot.waitUntil(lambda: not dock.runner.is_running(), timeout=60_000)
    folder = window.saved().path
    window.close_dock()
    window.viewer.layers.clear()
    (folder / SUMMARY).unlink()  # as in a session of an older version
    window.open_dock()
    window.open_image(image_file)
    window.continued()
    box = suggestions(window.dock)
    assert box.value() and not any("unsure" in s.brief for s in box.value())
    assert "a run tells it" in box.note.text()


def buttons(keeping: Keeping) -> dict[str, Any]:
    return {b.text(): b for b in keeping.notice.buttons}


class Window:
    """One napari window in which docks are opened and closed."""

    def __init__(self, viewer: Any, qtbot: Any) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        self.dock: Any = None

    def open_dock(self) -> Keeping:
        self.dock = SegmentationDock(self.viewer)
        self.viewer.window.add_dock_widget(self.dock, name="Annotate & train", area="right")
        self.dock.form.advanced.editors["iterations"].setValue(4)
        self.dock.form.advanced.editors["patch_shape"].setValue((8, 24, 24))
        return keeping_of(self.dock)

    def open_image(self, path: Path) -> Any:
        """Open an image as File ▸ Open does; return its annotation layer."""
        self.viewer.open(str(path), plugin="napari-unet3d")
        self.qtbot.waitUntil(lambda: self.dock.choice.value()[1] is not None, timeout=5000)
        return self.dock.choice.value()[1]

    def paint(self, layer: Any, labels: np.ndarray) -> Keeper:
        """Paint, and wait until all is on the disk."""
        where = np.nonzero(labels)
        layer.data_setitem(where, labels[where])
        return self.saved()

    def saved(self) -> Keeper:
        keeping = keeping_of(self.dock)
        self.qtbot.waitUntil(lambda: keeping.keeper() is not None, timeout=10_000)
        keeper = keeping.keeper()
        assert keeper is not None
        self.qtbot.waitUntil(lambda: not keeper.waits(), timeout=10_000)
        return keeper

    def continued(self) -> Keeper:
        keeping = keeping_of(self.dock)
        self.qtbot.waitUntil(lambda: keeping.keeper() is not None, timeout=10_000)
        keeper = keeping.keeper()
        assert keeper is not None
        return keeper

    def close_dock(self) -> None:
        dock, self.dock = self.dock, None
        self.viewer.window.remove_dock_widget(dock)
        dock.cleanup()
        dock.deleteLater()
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)

    def restart(self) -> Keeping:
        """Do what ending napari and starting it again does, but for the window itself."""
        self.close_dock()
        self.viewer.layers.clear()
        return self.open_dock()


@pytest.fixture
def window(make_napari_viewer: Callable[..., Any], qtbot: Any) -> Any:
    """A window that draws nothing, which is quicker: Mesa's OpenGL crashes when layers go."""
    window = Window(make_napari_viewer(), qtbot)
    window.open_dock()
    yield window
    if window.dock is not None:
        window.dock.cleanup()
        vars(window.dock).clear()
    vars(window).clear()


def labels_in(folder: Path) -> np.ndarray:
    with SessionFolder.open(folder) as opened:
        return np.asarray(opened.labels())


def test_all_that_one_does_is_there_again(
    window: Window,
    image_file: Path,
    painted: np.ndarray,
    make_napari_viewer: Callable[..., Any],
) -> None:
    layer = window.open_image(image_file)
    keeping, dock = keeping_of(window.dock), window.dock
    assert keeping.line.value().text == "Saved from the first stroke on"
    keeper = window.paint(layer, painted)
    assert keeper.path == image_file.with_name(f"cells.tif{SUFFIX}")
    window.qtbot.waitUntil(lambda: keeping.line.value().text.startswith("Saved "), timeout=5000)
    classes = (default_class(2, "cell wall").model_copy(update={"color": "#123456"}),)
    write_classes(layer, classes)
    write_held_out(layer, {SliceRef(0, 6)})
    dock.annotator.jump(SliceRef(0, 3))
    dock.run_bar.start_button.click()
    window.qtbot.waitUntil(lambda: not dock.runner.is_running(), timeout=60_000)
    assert dock.run_actions.bundle is not None
    prediction = next(x for x in window.viewer.layers if role_of(x) == "prediction")
    segmented = np.array(prediction.data)
    scores = dock.run_actions._session.value().scores
    assert scores is not None
    window.saved()
    suggested = suggestions(window.dock).value()
    assert any("unsure" in s.brief for s in suggested)
    window.close_dock()
    window.open_dock()  # in the same window
    window.continued()
    window.qtbot.waitUntil(lambda: suggestions(window.dock).value() == suggested, timeout=5000)

    window.close_dock()
    window.viewer = make_napari_viewer()  # a new window, which has no model
    keeping = window.open_dock()
    layer = window.open_image(image_file)
    window.continued()
    np.testing.assert_array_equal(layer.data, painted)
    assert read_classes(layer) == classes == window.dock.class_table.value()
    assert read_held_out(layer) == {SliceRef(0, 6)}
    assert window.viewer.dims.current_step[0] == 3
    assert window.dock.form.advanced.editors["iterations"].value() == 4
    session = keeping.bench.session.value()
    assert session.model is not None
    assert session.model.name == "trained on 'cells.tif'"
    assert session.scores == scores
    prediction = next(x for x in window.viewer.layers if role_of(x) == "prediction")
    np.testing.assert_array_equal(prediction.data, segmented)
    assert window.dock.results.save_segmentation.isEnabled()
    assert suggestions(window.dock).value() == suggested
    assert not suggestions(window.dock).note.text()
    notice = keeping.notice.value()
    assert notice is not None
    assert notice.text.startswith("Continued your session of ")
    assert notice.text.endswith(": 2 slices, model, prediction.")
    assert not notice.blocks
    assert len(list(image_file.parent.glob(f"*{SUFFIX}"))) == 1
    window.viewer.layers.remove(prediction)
    assert not window.dock.results.save_segmentation.isEnabled()


def test_undo_and_what_nobody_told_reach_the_disk(
    window: Window, image_file: Path, painted: np.ndarray
) -> None:
    layer = window.open_image(image_file)
    keeper = window.paint(layer, painted)
    layer.data_setitem((np.array([1]), np.array([1]), np.array([1])), 2)
    layer.undo()
    layer.undo()
    window.qtbot.waitUntil(lambda: not keeper.folder.annotation[:].any(), timeout=5000)
    layer.redo()
    window.qtbot.waitUntil(
        lambda: np.array_equal(keeper.folder.annotation[:], painted), timeout=5000
    )
    layer.data[9, 5:9, 5:9] = 1  # as a script does, which then redraws
    layer.refresh()
    window.qtbot.waitUntil(lambda: bool(keeper.folder.annotation[9].any()), timeout=5000)


def test_an_image_in_no_file_is_kept_too(
    window: Window, stack: np.ndarray, painted: np.ndarray, own_data_folder: Path
) -> None:
    window.viewer.add_image(stack, name="cells")
    window.qtbot.waitUntil(lambda: window.dock.choice.value()[1] is not None, timeout=5000)
    keeper = window.paint(window.dock.choice.value()[1], painted)
    assert own_data_folder in keeper.path.parents
    window.restart()
    keeping = keeping_of(window.dock)
    keeping.open(keeper.path)  # the image comes from its copy in the folder
    window.continued()
    assert next(x.name for x in window.viewer.layers) == "cells"
    np.testing.assert_array_equal(window.viewer.layers[0].data, stack)
    np.testing.assert_array_equal(window.dock.choice.value()[1].data, painted)


def test_a_sample_that_is_opened_again_has_one_annotation(
    window: Window, own_data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = samples.sparse_nuclei((12, 48, 48))
    monkeypatch.setattr(samples, "sparse_nuclei", lambda: small)

    def open_sample() -> Keeper:
        window.viewer.open_sample("napari-unet3d", "first_steps")
        keeper = window.continued()
        window.qtbot.waitUntil(lambda: not keeper.waits(), timeout=10_000)
        return keeper

    first = open_sample()
    first.layer.data_setitem((np.array([5]), np.array([9]), np.array([9])), 2)
    labels = np.asarray(window.saved().layer.data).copy()
    window.restart()
    again = open_sample()
    assert again.path == first.path
    roles = [role_of(layer) for layer in window.viewer.layers]
    assert roles.count("annotation") == 1
    np.testing.assert_array_equal(again.layer.data, labels)
    assert len(read_held_out(again.layer)) == 1
    assert len(list(own_data_folder.rglob(f"*{SUFFIX}"))) == 1


def test_closing_asks_nothing_and_loses_nothing(
    window: Window, image_file: Path, painted: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(QMessageBox, "exec", lambda box: asked.append(box.text()))
    layer = window.open_image(image_file)
    window.paint(layer, painted)
    layer.data_setitem((np.array([9]), np.array([9]), np.array([9])), 2)  # and at once:
    assert not window.dock._unsaved()
    layer.data_setitem((np.array([9]), np.array([9]), np.array([10])), 2)
    window.close_dock()
    assert not asked
    expected = painted.copy()
    expected[9, 9, 9:11] = 2
    np.testing.assert_array_equal(labels_in(image_file.with_name(f"cells.tif{SUFFIX}")), expected)


def test_a_dock_that_is_closed_and_opened_goes_on(
    window: Window, image_file: Path, painted: np.ndarray
) -> None:
    layer = window.open_image(image_file)
    path = window.paint(layer, painted).path
    window.close_dock()
    layer.data_setitem((np.array([9]), np.array([9]), np.array([9])), 2)  # no dock sees this
    window.open_dock()
    window.qtbot.waitUntil(lambda: window.dock.choice.value()[1] is layer, timeout=5000)
    keeper = window.continued()
    assert keeper.path == path
    window.qtbot.waitUntil(lambda: keeper.folder.annotation[9, 9, 9].item() == 2, timeout=5000)


def test_a_session_that_others_hold_is_refused_and_a_new_one_made(
    window: Window, image_file: Path, painted: np.ndarray
) -> None:
    path = window.paint(window.open_image(image_file), painted).path
    keeping = window.restart()
    other = SessionFolder.open(path, holder="another window")
    try:
        layer = window.open_image(image_file)
        window.qtbot.waitUntil(lambda: keeping.notice.value() is not None, timeout=5000)
        text = keeping.notice.value().text
        assert "is open in another window (process" in text
        assert "What you paint here is saved as a new session." in text
        assert not layer.data.any()
        keeper = window.paint(layer, painted)
        assert keeper.path == image_file.with_name(f"cells 2.tif{SUFFIX}") or (
            keeper.path == image_file.with_name(f"cells.tif 2{SUFFIX}")
        )
    finally:
        other.close()
    window.close_dock()
    np.testing.assert_array_equal(labels_in(path), painted)  # untouched


def test_after_a_crash_the_session_is_offered_with_its_image(
    window: Window, image_file: Path, painted: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = window.paint(window.open_image(image_file), painted)
    with monkeypatch.context() as patch:  # the process ends here
        patch.setattr(SessionFolder, "close", lambda folder: folder._lock.release())
        keeping = window.restart()
    assert recent_sessions()[0].crashed
    window.qtbot.waitUntil(lambda: keeping.notice.value() is not None, timeout=5000)
    assert keeping.notice.value().text.startswith(
        "napari ended unexpectedly while 'cells.tif' was open. Everything up to "
    )
    buttons(keeping)["Continue"].click()
    assert window.continued().path == keeper.path
    np.testing.assert_array_equal(window.dock.choice.value()[1].data, painted)
    assert window.dock.choice.value()[0].source.path == str(image_file)
    np.testing.assert_allclose(window.dock.choice.value()[0].scale, (2, 0.5, 0.5))


def test_put_off_it_is_not_offered_again(
    window: Window, image_file: Path, painted: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    window.paint(window.open_image(image_file), painted)
    with monkeypatch.context() as patch:
        patch.setattr(SessionFolder, "close", lambda folder: folder._lock.release())
        keeping = window.restart()
    window.qtbot.waitUntil(lambda: "Not now" in buttons(keeping), timeout=5000)
    buttons(keeping)["Not now"].click()
    assert keeping.notice.value() is None
    window.qtbot.waitUntil(lambda: not recent_sessions()[0].crashed, timeout=5000)
    assert len(recent_sessions()) == 1  # it is still in the menu


def test_a_moved_image_is_asked_for(
    window: Window, image_file: Path, painted: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = window.paint(window.open_image(image_file), painted).path
    keeping = window.restart()
    elsewhere = image_file.parent / "elsewhere"
    elsewhere.mkdir()
    moved = elsewhere / "cells.tif"
    image_file.rename(moved)
    keeping.open(path)
    window.qtbot.waitUntil(lambda: keeping.notice.value() is not None, timeout=5000)
    assert "is not at" in keeping.notice.value().text.replace("\u200b", "")
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_: (str(moved), ""))
    buttons(keeping)["Choose the image…"].click()
    assert window.continued().path == path
    np.testing.assert_array_equal(window.dock.choice.value()[1].data, painted)


def test_another_image_under_the_name_is_noticed(
    window: Window, image_file: Path, painted: np.ndarray, stack: np.ndarray
) -> None:
    path = window.paint(window.open_image(image_file), painted).path
    keeping = window.restart()
    tifffile.imwrite(image_file, stack[::-1].copy())
    layer = window.open_image(image_file)
    window.qtbot.waitUntil(lambda: keeping.notice.value() is not None, timeout=5000)
    assert "its gray values are others now" in keeping.notice.value().text
    assert not layer.data.any()
    buttons(keeping)["Use it anyway"].click()
    assert window.continued().path == path
    np.testing.assert_array_equal(window.dock.choice.value()[1].data, painted)


def test_starting_anew_keeps_what_was_there(
    window: Window, image_file: Path, painted: np.ndarray
) -> None:
    window.paint(window.open_image(image_file), painted)
    keeping = window.restart()
    window.open_image(image_file)
    window.continued()
    keeping.start_anew()
    window.qtbot.waitUntil(lambda: window.dock.choice.value()[1] is not None, timeout=5000)
    layer = window.dock.choice.value()[1]
    assert not layer.data.any()
    own = image_file.with_name(f"cells.tif{SUFFIX}")  # may be there already: it is made at once
    (aside,) = set(image_file.parent.glob(f"*{SUFFIX}")) - {own}
    new = np.zeros_like(painted)
    new[2, 5, 5] = 2
    keeper = window.paint(layer, new)
    assert keeper.path == own
    window.close_dock()
    np.testing.assert_array_equal(labels_in(aside), painted)
    np.testing.assert_array_equal(labels_in(keeper.path), new)


def test_a_sample_that_was_started_anew_stays_empty(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = samples.sparse_nuclei((12, 48, 48))
    monkeypatch.setattr(samples, "sparse_nuclei", lambda: small)
    window.viewer.open_sample("napari-unet3d", "first_steps")
    ready = window.continued().layer
    assert ready.data.any()
    keeping_of(window.dock).start_anew()
    assert not window.continued().layer.data.any()
    window.saved()
    window.restart()
    window.viewer.open_sample("napari-unet3d", "first_steps")
    keeper = window.continued()
    assert keeper.path.name == f"sparse nuclei{SUFFIX}"
    assert not keeper.layer.data.any()
    roles = [role_of(layer) for layer in window.viewer.layers]
    assert roles.count("annotation") == 1


def test_nobody_paints_while_a_session_is_opened(
    window: Window, image_file: Path, painted: np.ndarray
) -> None:
    path = window.paint(window.open_image(image_file), painted).path
    keeping = window.restart()
    keeping.open(path)
    holding = window.dock.annotator.holding
    assert "being opened" in holding.reason()
    assert "being opened" in window.dock.run_bar.remark.text()
    window.continued()
    assert holding.reason() == ""
    assert window.dock.run_bar.remark.text() == ""
    roles = [role_of(layer) for layer in window.viewer.layers]
    assert roles.count("annotation") == 1


def test_one_paints_and_saves_where_looking_for_a_session_fails(
    window: Window, image_file: Path, painted: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> list[Path]:
        raise RuntimeError("a loop of symbolic links")

    monkeypatch.setattr(continuing, "sessions_of", fail)
    layer = window.open_image(image_file)
    window.qtbot.waitUntil(lambda: window.dock.annotator.holding.reason() == "", timeout=5000)
    assert window.paint(layer, painted).path.exists()


def test_no_session_is_opened_during_a_run(
    window: Window, image_file: Path, painted: np.ndarray, tmp_path: Path
) -> None:
    keeper = window.paint(window.open_image(image_file), painted)
    dock, keeping = window.dock, keeping_of(window.dock)
    dock.run_bar.start_button.click()
    keeping.open(tmp_path / f"other{SUFFIX}")
    assert keeping.continuing.path() is None
    assert "is not opened during a run" in keeping.notice.value().text.replace("\u200b", "")
    dock.run_bar.cancel_button.click()
    window.qtbot.waitUntil(lambda: not dock.runner.is_running(), timeout=60_000)
    assert keeping.keeper() is keeper


def test_keep_in_moves_the_session(
    window: Window, image_file: Path, painted: np.ndarray, tmp_path: Path
) -> None:
    layer = window.open_image(image_file)
    old = window.paint(layer, painted).path
    place = tmp_path / "project"
    place.mkdir()
    keeping = keeping_of(window.dock)
    keeping.keep_in(layer, place)
    layer.data_setitem((np.array([9]), np.array([9]), np.array([9])), 2)  # while it moves
    keeper = window.continued()
    assert keeper.path == place / old.name
    window.qtbot.waitUntil(lambda: keeper.folder.annotation[9, 9, 9].item() == 2, timeout=5000)
    assert not old.exists()
    window.restart()
    window.open_image(image_file)  # found among the recent ones
    assert window.continued().path == keeper.path


def test_a_model_that_is_in_the_folder_is_not_written_again(
    window: Window, image_file: Path, painted: np.ndarray, tmp_path: Path
) -> None:
    keeper = window.paint(window.open_image(image_file), painted)
    session = keeping_of(window.dock).bench.session
    session.update(model=NamedModel(random_bundle(NETWORK, [2]), "its own"))
    path = window.saved().path
    written = (path / MODEL).stat().st_mtime_ns
    window.close_dock()
    window.viewer.layers.clear()
    session.update(model=NamedModel(random_bundle(NETWORK, [2]), "of another image"))
    window.open_dock()
    window.open_image(image_file)
    window.continued()
    assert window.saved().path == path
    assert (path / MODEL).stat().st_mtime_ns == written
    assert session.value().model.name == "its own"
    (tmp_path / "elsewhere").mkdir()
    keeping_of(window.dock).keep_in(window.dock.annotator.layer(), tmp_path / "elsewhere")
    keeper = window.continued()
    assert keeper.path.parent == tmp_path / "elsewhere"
    assert (window.saved().path / MODEL).stat().st_mtime_ns == written
    assert keeper.contents().lost == ()


def test_a_folder_that_vanishes_is_said_and_survived(
    window: Window, image_file: Path, painted: np.ndarray
) -> None:
    layer = window.open_image(image_file)
    keeper = window.paint(layer, painted)
    keeping = keeping_of(window.dock)
    away = keeper.path.with_name("away")
    keeper.path.rename(away)
    layer.data_setitem((np.array([9]), np.array([9]), np.array([9])), 2)
    window.qtbot.waitUntil(lambda: keeping.line.value().problem, timeout=10_000)
    assert keeping.line.value().text == "Not saved"
    assert "Bring it back" in keeping.trouble.value().text
    assert keeping.line.label.objectName() == "problem"
    layer.data_setitem((np.array([9]), np.array([9]), np.array([10])), 2)  # one goes on painting
    away.rename(keeper.path)
    window.qtbot.waitUntil(lambda: not keeping.line.value().problem, timeout=15_000)
    assert keeping.trouble.value() is None
    window.saved()
    assert keeper.folder.annotation[9, 9, 9:11].tolist() == [2, 2]


def segmented(window: Window, keeper: Keeper, image: Any) -> np.ndarray:
    """Show and save a segmentation of two cubes, as a run does; return it."""
    labels = np.zeros(keeper.layer.data.shape, np.uint8)
    labels[1:4, 4:12, 4:12] = labels[5:8, 20:30, 20:30] = 2
    classes = read_classes(keeper.layer)
    layer = prediction_layer(labels, "cells prediction", classes, spatial_transform(image, 3))
    bind(layer, image)
    window.viewer.add_layer(layer)
    source = next(f for f in window.dock.features if isinstance(f, ObjectsFeature)).source
    source.setCurrentIndex(source.findText(layer.name))
    keeper.put_outputs({"labels": labels}, classes)
    return labels


def find_objects(window: Window) -> Any:
    """Press Find objects; return the layer of the objects."""
    feature = next(f for f in window.dock.features if isinstance(f, ObjectsFeature))
    feature.find()
    window.qtbot.waitUntil(lambda: not feature.run.is_running(), timeout=20_000)
    return next(x for x in window.viewer.layers if table_of(x) is not None)


def test_objects_are_saved_and_come_back(
    window: Window, image_file: Path, painted: np.ndarray
) -> None:
    keeper = window.paint(window.open_image(image_file), painted)
    segmented(window, keeper, window.dock.choice.value()[0])
    feature = next(f for f in window.dock.features if isinstance(f, ObjectsFeature))
    feature.form.setValue(feature.form.value().model_copy(update={"separation": 0.5}))
    layer = find_objects(window)
    numbers, columns = np.array(layer.data), dict(layer.features)
    assert np.unique(numbers).size == 3
    evidence = Evidence(learning_curve=LearningCurve((), on_held_out=True))
    session = feature.bench.session
    session.update(evidence=evidence)  # measured without a model
    window.saved()
    window.close_dock()
    window.viewer.layers.clear()
    session.update(evidence=Evidence())
    window.open_dock()
    window.open_image(image_file)
    window.continued()
    assert session.value().evidence == evidence
    again = next(x for x in window.viewer.layers if table_of(x) is not None)
    np.testing.assert_array_equal(again.data, numbers)
    assert list(again.features) == list(columns)
    assert again.features["voxels"].tolist() == [192, 300]
    feature = next(f for f in window.dock.features if isinstance(f, ObjectsFeature))
    assert feature.save_table.isEnabled()
    assert feature.form.value().separation == 0.5
    notice = keeping_of(window.dock).notice.value()
    assert notice.text.endswith(": 2 slices, prediction, objects.")


def test_work_of_a_folder_that_is_gone_goes_to_another_place(
    window: Window, image_file: Path, painted: np.ndarray, tmp_path: Path
) -> None:
    layer = window.open_image(image_file)
    keeper = window.paint(layer, painted)
    keeping = keeping_of(window.dock)
    labels = segmented(window, keeper, window.dock.choice.value()[0])
    bundle = random_bundle(NETWORK, [2])
    keeping.bench.session.update(model=NamedModel(bundle, "number 1"))
    numbers = np.array(find_objects(window).data)
    keeper.put_outputs({"uncertainty": np.zeros(painted.shape, np.float32)}, ())  # in no layer
    keeper.put_summary(StackSummary(("cell",), {}))
    window.saved()
    keeper.path.rename(tmp_path / "deleted")
    layer.data_setitem((np.array([9]), np.array([9]), np.array([9])), 2)
    window.qtbot.waitUntil(lambda: keeping.line.value().problem, timeout=10_000)
    (tmp_path / "elsewhere").mkdir()
    keeping.keep_in(layer, tmp_path / "elsewhere")
    window.qtbot.waitUntil(lambda: keeping.keeper() not in (None, keeper), timeout=10_000)
    new = window.saved()
    assert new.path.parent == tmp_path / "elsewhere"
    text = keeping.notice.value().text.replace("\u200b", "")
    assert f"Not brought along: uncertainty, which is only in '{keeper.path}'." in text
    window.close_dock()
    with SessionFolder.open(new.path) as folder:
        found, objects = folder.load(), folder.objects()
    assert found.annotation is not None
    assert found.annotation.labels[9, 9, 9] == 2
    assert read_summary(new.path) is not None
    assert found.model is not None
    assert (found.model.name, found.model.bundle.classes) == ("number 1", bundle.classes)
    np.testing.assert_array_equal(found.segmentation, labels)
    assert objects is not None
    np.testing.assert_array_equal(objects.numbers, numbers)


def test_the_file_menu_lists_the_sessions_and_is_left_as_it_was(
    window: Window, image_file: Path, painted: np.ndarray
) -> None:
    path = window.paint(window.open_image(image_file), painted).path
    keeping = window.restart()
    file_menu = window.viewer.window.file_menu
    titles = lambda: [a.text().replace("&", "") for a in file_menu.actions()]  # noqa: E731
    window.qtbot.waitUntil(lambda: bool(keeping._recent), timeout=5000)
    assert titles().index("Open Recent Session") == titles().index("Open Sample") + 1
    keeping._menu.menu.aboutToShow.emit()
    (action,) = keeping._menu.menu.actions()
    assert action.text().startswith("cells.tif · ")
    assert action.toolTip() == str(path)
    action.trigger()
    window.continued()
    window.close_dock()
    QApplication.processEvents()
    assert "Open Recent Session" not in titles()


def test_a_folder_is_opened_by_the_reader(
    window: Window, image_file: Path, painted: np.ndarray
) -> None:
    from napari_unet3d.widgets.viewer.reader import get_reader, read_session

    path = window.paint(window.open_image(image_file), painted).path
    window.restart()
    assert get_reader(str(path)) is read_session
    window.dock.run_actions._session.request(path)
    window.continued()
    np.testing.assert_array_equal(window.dock.choice.value()[1].data, painted)


@pytest.mark.parametrize("shape", [(10, 40, 44)])
def test_paint_of_a_long_stroke_is_saved_before_its_end(
    qtbot: Any, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari.layers import Labels

    from napari_unet3d.widgets.viewer import paint_watch

    monkeypatch.setattr(paint_watch, "_LONG_STROKE", 0.2)
    layer, put = Labels(np.zeros(shape, np.uint8)), list[Any]()
    watch = paint_watch.PaintWatch(layer, (1, 40, 44), {}, lambda *part: put.append(part))
    layer._begin_stroke()
    layer.data_setitem((np.array([3]), np.array([4]), np.array([5])), 2)
    qtbot.waitUntil(lambda: bool(put), timeout=5000)
    ((box, labels),) = put
    assert box == ((3, 4), (0, 40), (0, 44))
    assert labels[0, 4, 5] == 2
    layer._commit_stroke()
    watch.stop()


def test_a_label_that_cannot_be_saved_is_said(
    window: Window, image_file: Path, painted: np.ndarray, make_layer: Callable[..., Any]
) -> None:
    window.open_image(image_file)
    layer = make_layer(window, painted)
    keeper = window.saved()
    layer.data_setitem((np.array([9]), np.array([9]), np.array([9])), 300)
    window.qtbot.waitUntil(lambda: "label 300" in keeper.problem(), timeout=5000)
    layer.undo()
    window.qtbot.waitUntil(lambda: not keeper.problem(), timeout=5000)


@pytest.fixture
def make_layer() -> Callable[..., Any]:
    def make(window: Window, painted: np.ndarray) -> Any:
        """Choose a layer of the user with wide integers as the annotation."""
        viewer, image = window.viewer, window.dock.choice.value()[0]
        layer = viewer.add_labels(
            painted.astype(np.int32), name="mine", scale=image.scale, units=image.units
        )
        window.dock.choice.setValue(image, layer)
        for _, action in (
            window.dock.pairing.notice.value().answers[1:2]
            if (window.dock.pairing.notice.value())
            else ()
        ):
            action()
        assert window.dock.annotator.layer() is layer
        return layer

    return make
