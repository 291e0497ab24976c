"""The true window, real mouse events, real (tiny) trainings."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtCore import Qt

from napari_unet3d.data.slices import SliceRef
from napari_unet3d.errors import RunFailedError
from napari_unet3d.events import SlicesJoined
from napari_unet3d.widgets.features.earlier_result import EarlierResult

pytestmark = pytest.mark.needs_window
WAIT = 60_000


def predictions(dock: Any) -> list[Labels]:
    return [
        x for x in dock._viewer.layers if x.name.endswith("prediction") or "prediction " in x.name
    ]


def wait_ready(dock: Any, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: not dock.runner.is_running(), timeout=WAIT)


def state(viewer: Any) -> list[tuple[Any, ...]]:
    return [(x.name, x.visible, x.data.copy().tobytes()) for x in viewer.layers]


def test_sample_strokes_button_dense_layer(
    dock: Any, hands: Any, qtbot: Any, monkeypatch: Any
) -> None:
    from napari_unet3d.data import samples
    from napari_unet3d.widgets.viewer.samples import tubules

    small = samples.tubules((12, 64, 64))
    monkeypatch.setattr(samples, "tubules", lambda: small)
    viewer = dock._viewer
    for data, options, kind in tubules():
        getattr(viewer, f"add_{kind}")(data, **options)
    qtbot.waitUntil(lambda: dock.choice.value()[1] is not None, timeout=3000)
    layer = dock.choice.value()[1]
    assert [c.name for c in dock.class_table.value()] == ["tubule wall", "lumen"]
    assert dock.run_bar.message.text().startswith("Choose a class")

    dock.form.advanced.editors["patch_shape"].setValue((8, 32, 32))  # of isotropic voxels
    viewer.reset_view()
    qtbot.wait(200)
    for z, label in ((3, 1), (3, 2), (8, 3), (8, 1)):
        viewer.dims.set_point(0, z)
        dock.annotator.choose_label(label)
        hands.stroke((4 + 5 * label, 5), (4 + 5 * label, 25))
    qtbot.waitUntil(lambda: len(dock.slice_table.slices()) == 2, timeout=3000)
    assert set(np.unique(layer.data)) == {0, 1, 2, 3}
    strokes = layer.data.copy()

    hands.press(dock.run_bar.start_button)
    assert dock.runner.is_running()
    wait_ready(dock, qtbot)
    (prediction,) = predictions(dock)
    assert prediction.data.shape == layer.data.shape
    assert set(np.unique(prediction.data)) <= {0, 2, 3}
    assert not dock.run_bar.is_error()
    np.testing.assert_array_equal(layer.data, strokes)
    for name in ("scale", "translate", "rotate"):
        np.testing.assert_array_equal(getattr(prediction, name), getattr(layer, name))
    assert prediction.units == layer.units
    assert prediction.axis_labels == ("z", "y", "x")
    assert viewer.layers.selection.active is layer
    assert dock.run_actions.bundle is not None


def test_opening_the_dock_leaves_the_users_own_labels_alone(
    viewer: Any, dock: Any, qtbot: Any, stack: np.ndarray, painted: np.ndarray
) -> None:
    features = {"index": [1, 2], "area": [3.5, 4.5]}
    own = viewer.add_labels(painted.copy(), name="own", features=features)
    colormap, metadata = own.colormap, dict(own.metadata)
    viewer.add_image(stack, name="cells")
    qtbot.waitUntil(lambda: dock.choice.value()[1] is not None, timeout=3000)
    image, annotation = dock.choice.value()
    assert annotation is not own
    assert annotation.name == "cells annotation"
    assert own.colormap is colormap
    assert own.metadata == metadata
    dock.choice.setValue(image, own)  # the user's wish
    assert [c.value for c in dock.class_table.value()] == [2]
    assert own.features.to_dict("list") == features
    np.testing.assert_array_equal(own.data, painted)


def test_numbered_objects_are_refused_and_the_choice_stays(
    viewer: Any, dock: Any, qtbot: Any, stack: np.ndarray
) -> None:
    viewer.add_image(stack, name="cells")
    qtbot.waitUntil(lambda: dock.choice.value()[1] is not None, timeout=3000)
    image, annotation = dock.choice.value()
    objects = np.arange(stack.size, dtype=np.int32).reshape(stack.shape)
    own = viewer.add_labels(objects, name="nuclei")
    colormap = own.colormap
    dock.choice.setValue(image, own)
    assert dock.choice.value()[1] is annotation
    assert dock.annotator.layer() is annotation
    assert "numbered objects" in dock.run_bar.message.text()
    assert dock.run_bar.is_error()
    assert own.colormap is colormap
    assert own.metadata == {}


def test_nothing_open_and_nothing_painted_are_said_at_the_button(
    dock: Any, hands: Any, qtbot: Any, stack: np.ndarray
) -> None:
    hands.press(dock.run_bar.start_button)
    assert "No image is open" in dock.run_bar.message.text()
    dock._viewer.add_image(stack)
    qtbot.waitUntil(lambda: dock.choice.value()[1] is not None, timeout=3000)
    hands.press(dock.run_bar.start_button)
    wait_ready(dock, qtbot)
    assert "Nothing is painted" in dock.run_bar.message.text()
    assert dock.run_bar.is_error()
    assert len(dock._viewer.layers) == 2


def test_an_error_goes_when_its_cause_is_mended_in_the_tables(
    ready: Any, hands: Any, qtbot: Any
) -> None:
    for z in (3, 6):
        ready.annotator.jump(SliceRef(0, z))
        hands.press(ready.slice_table.hold_out_button)
    hands.press(ready.run_bar.start_button)
    wait_ready(ready, qtbot)
    assert ready.run_bar.is_error()
    assert "All paint is on held-out slices" in ready.run_bar.message.text()
    hands.press(ready.slice_table.hold_out_button)
    assert not ready.run_bar.is_error()
    assert "Ready to train on 1 slice" in ready.run_bar.message.text()


def test_cancel_leaves_everything_as_it_was(ready: Any, hands: Any, qtbot: Any) -> None:
    ready.form.advanced.editors["iterations"].setValue(100_000)
    before = state(ready._viewer)
    hands.press(ready.run_bar.start_button)
    qtbot.waitUntil(lambda: len(predictions(ready)) == 1, timeout=WAIT)
    hands.press(ready.run_bar.cancel_button)
    wait_ready(ready, qtbot)
    assert state(ready._viewer) == before
    assert "Cancelled" in ready.run_bar.status.text()
    assert not (ready.run_actions.bundle is not None)
    assert ready.curve.points() == ([], [])
    assert ready.run_bar.start_button.isVisible()


def test_cancel_keeps_model_scores_and_curve_of_the_run_before(
    ready: Any, hands: Any, qtbot: Any
) -> None:
    ready.annotator.jump(SliceRef(0, 6))
    hands.press(ready.slice_table.hold_out_button)
    hands.press(ready.run_bar.start_button)
    wait_ready(ready, qtbot)
    before = ready.run_actions.bundle, ready.results.state(), ready.curve.state()
    assert before[0] is not None
    assert before[1][1]
    assert before[2].loss
    assert ready.results.table.item(0, 0).text() == "structure"
    assert 0 <= float(ready.results.table.item(0, 1).text()) <= 1
    assert "z=6" in ready.results.text.text()
    assert "no independent evidence" in ready.results.text.text()
    ready.annotator.jump(SliceRef(0, 6))
    hands.press(ready.slice_table.hold_out_button)  # now nothing is measured
    for iterations, phase in ((100_000, "training"), (2, "segmenting")):
        ready.form.advanced.editors["iterations"].setValue(iterations)
        hands.press(ready.run_bar.start_button)
        seen: list[str] = []
        ready.runner.phaseChanged.connect(seen.append)
        if phase == "segmenting":
            ready.runner.trained.connect(ready.run_actions.cancel)  # as early as one can
        else:
            qtbot.waitUntil(lambda: bool(ready.curve.points()[0]), timeout=WAIT)
            hands.press(ready.run_bar.cancel_button)
        wait_ready(ready, qtbot)
        assert phase in seen or phase == "training"
        assert "Cancelled" in ready.run_bar.status.text()
        assert (ready.run_actions.bundle, ready.results.state(), ready.curve.state()) == before
        assert len(predictions(ready)) == 1


def test_each_run_replaces_the_result_and_continues_from_the_last(
    ready: Any, hands: Any, qtbot: Any
) -> None:
    hands.press(ready.run_bar.start_button)
    wait_ready(ready, qtbot)
    ready.form.start_from.setCurrentIndex(ready.form.start_from.findData("last"))
    ready.form.outputs["probabilities"].setChecked(True)
    ready.form.outputs["uncertainty"].setChecked(True)
    hands.press(ready.run_bar.start_button)
    wait_ready(ready, qtbot)
    assert not ready.run_bar.is_error(), ready.run_bar.message.text()
    (result,) = predictions(ready)
    assert (result.name, result.visible) == ("cells prediction", True)
    probability = ready._viewer.layers["cells prediction: probability of structure"]
    uncertainty = ready._viewer.layers["cells prediction: uncertainty"]
    assert 0 <= probability.data.min() < probability.data.max() <= 1
    assert uncertainty.data.shape == result.data.shape
    earlier = next(f for f in ready.features if isinstance(f, EarlierResult))
    earlier.button.click()
    assert [x.name for x in predictions(ready) if x.visible] == ["cells prediction (earlier)"]
    assert earlier.button.isHidden()
    assert ready.choice.image.count() == 1  # companions are not offered as images


def test_an_error_in_the_thread_reaches_the_user(
    ready: Any, hands: Any, qtbot: Any, monkeypatch: Any
) -> None:
    from napari_unet3d.training.learner import Learner

    def fail(*_: Any) -> float:
        raise RuntimeError("the device fell asleep")

    shown: list[str] = []
    monkeypatch.setattr("napari_unet3d.widgets.run.report.show_error", shown.append)
    monkeypatch.setattr(Learner, "step", fail)
    before = state(ready._viewer)
    hands.press(ready.run_bar.start_button)
    wait_ready(ready, qtbot)
    assert "the device fell asleep" in ready.run_bar.message.text()
    assert shown
    assert state(ready._viewer) == before
    assert ready.run_bar.start_button.isVisible()


def test_a_training_that_fails_on_the_way_leaves_its_model(
    ready: Any, hands: Any, qtbot: Any, monkeypatch: Any
) -> None:
    from napari_unet3d.training.learner import Learner

    step, done = Learner.step, []

    def fail(self: Any, *arguments: Any) -> float:
        if len(done) == 1:
            raise RuntimeError("the device fell asleep")
        done.append(1)
        return step(self, *arguments)

    monkeypatch.setattr("napari_unet3d.widgets.run.report.show_error", lambda text: None)
    monkeypatch.setattr(Learner, "step", fail)
    ready.form.advanced.editors["iterations"].setValue(5)
    hands.press(ready.run_bar.start_button)
    wait_ready(ready, qtbot)
    assert "the device fell asleep" in ready.run_bar.message.text()
    assert "is kept" in ready.run_bar.message.text()
    assert ready.run_actions.bundle.record.iterations == 1


def test_another_stack_that_is_opened_meanwhile_stays_apart(
    ready: Any, hands: Any, qtbot: Any, stack: np.ndarray, annotate_anew: Any
) -> None:
    ready.form.advanced.editors["iterations"].setValue(100_000)
    viewer, first = ready._viewer, ready.choice.value()[1]
    before = first.data.copy()
    events: list[Any] = []
    ready.runner.eventsArrived.connect(events.extend)
    hands.press(ready.run_bar.start_button)
    qtbot.waitUntil(lambda: len(predictions(ready)) == 1, timeout=WAIT)
    assert ready.runner._control.watched is not None
    big = viewer.add_image(np.tile(stack, (5, 1, 1)), name="big")
    ready.choice.setValue(big, None)
    annotate_anew()
    second = ready.choice.value()[1]
    viewer.dims.set_point(0, 45)
    assert ready.annotator.shown() == SliceRef(0, 45)
    assert ready.runner._control.watched is None
    ready.annotator.complete(SliceRef(0, 45))
    ready.annotator.complete(SliceRef(0, 3))  # the first stack has this slice too
    ready.annotator.hold_out(SliceRef(0, 3), True)
    qtbot.wait(1200)  # slices are handed over after a second
    hands.press(ready.run_bar.stop_button)
    wait_ready(ready, qtbot)
    assert not ready.run_bar.is_error(), ready.run_bar.message.text()
    assert not [e for e in events if isinstance(e, SlicesJoined)]
    (prediction,) = predictions(ready)
    assert prediction.name == "cells prediction"
    assert prediction.data.shape == stack.shape
    assert ready.run_actions.bundle.record.trained_slices == ("z=3", "z=6")
    np.testing.assert_array_equal(first.data, before)
    assert set(np.unique(np.nonzero(second.data)[0])) == {3, 45}
    assert ready.choice.value() == (big, second)


def test_a_layer_deleted_while_training_comes_back_with_the_result(
    ready: Any, hands: Any, qtbot: Any
) -> None:
    ready.form.advanced.editors["iterations"].setValue(30)
    ready.annotator.choose_label(2)  # without the brush, napari 0.9.2 crashes as layers go
    hands.press(ready.run_bar.start_button)
    qtbot.waitUntil(lambda: len(predictions(ready)) == 1, timeout=WAIT)
    viewer = ready._viewer
    viewer.layers.remove(predictions(ready)[0])
    viewer.layers.remove("cells")
    viewer.layers["cells annotation"].name = "renamed"
    wait_ready(ready, qtbot)
    assert len(predictions(ready)) == 1
    assert not ready.run_bar.is_error()


def test_painting_goes_on_while_the_shown_slice_is_predicted(
    ready: Any, hands: Any, qtbot: Any
) -> None:
    ready.form.advanced.editors["iterations"].setValue(100_000)
    viewer = ready._viewer
    layer = ready.choice.value()[1]
    layer.mode = "pan_zoom"
    layer.selected_label = 1
    viewer.reset_view()
    viewer.dims.set_point(0, 8)  # z index 4 at 2 µm a slice: not painted
    hands.press(ready.run_bar.start_button)
    qtbot.waitUntil(lambda: len(predictions(ready)) == 1, timeout=WAIT)
    qtbot.waitUntil(lambda: predictions(ready)[0].data[4].any(), timeout=WAIT)
    assert not predictions(ready)[0].data[3].any()
    viewer.dims.set_point(0, 2)
    qtbot.keyClick(hands.canvas, Qt.Key.Key_2, Qt.KeyboardModifier.AltModifier)
    hands.stroke((5, 5), (5, 15))
    assert (layer.data[1] == 2).any()
    qtbot.waitUntil(lambda: len(ready.slice_table.slices()) == 3, timeout=WAIT)
    assert ready.runner.is_running()
    hands.press(ready.run_bar.cancel_button)
    wait_ready(ready, qtbot)


def test_closing_while_training_takes_less_than_two_seconds(
    ready: Any, hands: Any, qtbot: Any
) -> None:
    ready.form.advanced.editors["iterations"].setValue(100_000)
    hands.press(ready.run_bar.start_button)
    qtbot.waitUntil(
        lambda: ready.runner.phase == "training" and bool(ready.curve.points()[0]), timeout=WAIT
    )
    ready._viewer.close()
    qtbot.waitUntil(
        lambda: not [t for t in threading.enumerate() if t.name == "unet3d"], timeout=2000
    )
    assert ready._cleaned


def test_what_fails_at_the_end_keeps_nothing_else_from_it(dock: Any, monkeypatch: Any) -> None:
    ended = []

    def end(feature: Any) -> Any:
        cleanup = feature.cleanup
        return lambda: (cleanup(), ended.append(feature))

    first, *others = dock.features
    with monkeypatch.context() as patch:
        for feature in others:
            patch.setattr(feature, "cleanup", end(feature))
        patch.setattr(first, "cleanup", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            dock.cleanup()
    first.cleanup()
    assert ended == others


def test_applying_a_saved_model_to_another_image(
    ready: Any, hands: Any, qtbot: Any, tmp_path: Any, stack: np.ndarray
) -> None:
    hands.press(ready.run_bar.start_button)
    wait_ready(ready, qtbot)
    path = ready.run_actions.bundle.save(tmp_path / "m.unet3d")
    ready.file_actions.use_model(path)
    assert "Current model: m.unet3d." in ready.results.text.text()
    other = ready._viewer.add_image(stack[:, ::-1], name="other", scale=(2, 1, 1))
    ready.choice.setValue(other, None)
    ready.form.advanced.editors["patch_shape"].line.setText("concerns training only")
    ready.form.advanced.editors["precision"].setValue("fp32")
    assert ready.form.prediction_config().precision == "fp32"
    ready.results_section.setExpanded(True)
    qtbot.wait(100)
    hands.press(ready.results.apply)
    wait_ready(ready, qtbot)
    assert not ready.run_bar.is_error(), ready.run_bar.message.text()
    np.testing.assert_array_equal(ready._viewer.layers["other prediction"].scale, (2, 1, 1))
    assert "'other' was segmented with the model m.unet3d" in ready.results.text.text()
    assert not ready.results.table.isVisible()


def test_a_run_that_fails_for_lack_of_memory_says_so(
    ready: Any, hands: Any, qtbot: Any, monkeypatch: Any
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RunFailedError("memory does not suffice; close other programs")
        yield

    monkeypatch.setattr("napari_unet3d.session.job.predict", fail)
    monkeypatch.setattr("napari_unet3d.widgets.run.report.show_error", lambda _: None)
    hands.press(ready.run_bar.start_button)
    wait_ready(ready, qtbot)
    assert "close other programs" in ready.run_bar.message.text()
    assert ready.run_actions.bundle is not None  # the training is not lost
    assert "its model is kept" in ready.run_bar.message.text()
    assert not predictions(ready)


def test_a_result_that_cannot_be_shown_ends_the_run_all_the_same(
    ready: Any, hands: Any, qtbot: Any, monkeypatch: Any
) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError("the viewer takes no layers today")

    monkeypatch.setattr("napari_unet3d.widgets.run.prediction_view.companion_layers", refuse)
    monkeypatch.setattr("napari_unet3d.widgets.run.report.show_error", lambda _: None)
    hands.press(ready.run_bar.start_button)
    wait_ready(ready, qtbot)
    assert "takes no layers today" in ready.run_bar.message.text()
    assert "its model is kept" in ready.run_bar.message.text()
    assert ready.run_bar.start_button.isVisible()
    assert ready.run_actions.bundle is not None


def test_saving_names_a_missing_folder_and_keeps_the_voxel_size(
    ready: Any, hands: Any, qtbot: Any, tmp_path: Any, monkeypatch: Any
) -> None:
    from qtpy.QtWidgets import QFileDialog

    from napari_unet3d.data.io.reading import read_labels
    from napari_unet3d.model.bundle import ModelBundle

    hands.press(ready.run_bar.start_button)
    wait_ready(ready, qtbot)
    missing = str(tmp_path / "missing" / "out.ome.tif"), ""
    chosen = [(str(tmp_path / "out"), "OME-TIFF (*.ome.tif)"), (str(tmp_path / "m"), "")]
    chosen = [missing, missing, *chosen]
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: chosen.pop(0))
    for save in (ready.file_actions.save_segmentation, ready.file_actions.save_model):
        ready.run_bar.set_message("")
        save()
        wait_ready(ready, qtbot)
        assert ready.run_bar.is_error()
        assert "missing" in ready.run_bar.message.text()
    ready.file_actions.save_segmentation()
    wait_ready(ready, qtbot)
    assert "Saved" in ready.run_bar.status.text()
    saved = read_labels(tmp_path / "out.ome.tif")
    np.testing.assert_array_equal(saved.data, predictions(ready)[0].data)
    assert saved.voxel_size == (2, 0.5, 0.5)
    assert saved.unit == "µm"
    ready.file_actions.save_model()
    assert ModelBundle.load(tmp_path / "m.unet3d").classes == ready.class_table.value()


class SlowLabels:
    """A stack that takes its time to be read."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels, self.shape, self.dtype, self.ndim = labels, labels.shape, labels.dtype, 3

    def __getitem__(self, index: Any) -> np.ndarray:
        time.sleep(0.15)
        return self.labels[index]


@pytest.mark.parametrize("how", ["dock", "window"])
def test_closing_while_saving_finishes_the_file(
    ready: Any, qtbot: Any, tmp_path: Any, painted: np.ndarray, how: str
) -> None:
    from napari_unet3d.data.io.reading import read_labels
    from napari_unet3d.widgets.viewer.saving import save_labels

    path = tmp_path / "out.ome.tif"
    ready.runner.save(save_labels(SlowLabels(painted), path, (2, 0.5, 0.5), "µm"))
    qtbot.wait(300)
    assert not path.exists()
    if how == "dock":
        ready._viewer.window.remove_dock_widget(ready)
    else:
        ready._viewer.close()
    qtbot.waitUntil(path.exists, timeout=WAIT)
    qtbot.waitUntil(
        lambda: not [t for t in threading.enumerate() if t.name == "unet3d"], timeout=2000
    )
    qtbot.wait(300)  # the last word is heard
    np.testing.assert_array_equal(read_labels(path).data, painted)


def test_a_new_dock_finds_the_model_of_the_one_that_was_closed(
    ready: Any, hands: Any, qtbot: Any
) -> None:
    from napari_unet3d.widgets.dock import SegmentationDock

    hands.press(ready.run_bar.start_button)
    wait_ready(ready, qtbot)
    viewer, bundle = ready._viewer, ready.run_actions.bundle
    viewer.window.remove_dock_widget(ready)
    qtbot.wait(200)
    dock = SegmentationDock(viewer)
    viewer.window.add_dock_widget(dock, name="again", area="right")
    assert dock.run_actions.bundle is bundle
    assert "Current model: trained on 'cells'. Classes: structure." in dock.results.text.text()
    assert dock.results.save_model.isEnabled()
    assert dock.results.save_segmentation.isEnabled()
    dock.results_section.setExpanded(True)
    dock.form.start_from.setCurrentIndex(dock.form.start_from.findData("last"))
    assert dock.form.starting_point() == "last"
    assert dock.run_actions._starting_model().bundle is bundle
    qtbot.wait(100)
    hands.press(dock.results.apply)
    wait_ready(dock, qtbot)
    assert not dock.run_bar.is_error(), dock.run_bar.message.text()
    assert len(predictions(dock)) == 1  # the new result took the place of the last one
    dock.cleanup()


def test_closing_the_dock_ends_the_run_and_keeps_the_annotation(
    ready: Any, hands: Any, qtbot: Any
) -> None:
    from napari_unet3d.widgets.viewer.layers import read_classes

    ready.form.advanced.editors["iterations"].setValue(100_000)
    viewer = ready._viewer
    layer = ready.choice.value()[1]
    hands.press(ready.run_bar.start_button)
    qtbot.waitUntil(lambda: len(predictions(ready)) == 1, timeout=WAIT)
    viewer.window.remove_dock_widget(ready)
    qtbot.waitUntil(
        lambda: not [t for t in threading.enumerate() if t.name == "unet3d"], timeout=3000
    )
    assert read_classes(layer)
    assert not [x for x in viewer.layers if "prediction" in x.name]


@pytest.mark.parametrize("first_axis", ["time", "channels"])
def test_images_with_four_axes(
    dock: Any, hands: Any, qtbot: Any, stack: np.ndarray, painted: np.ndarray, first_axis: str
) -> None:
    image = dock._viewer.add_image(np.stack([stack, stack[::-1]]), name="four")
    qtbot.waitUntil(dock.choice.first_axis.isVisible, timeout=3000)
    assert dock.choice.value() == (image, None)  # first the user says what the axis is
    dock.choice.first_axis.setCurrentIndex(dock.choice.first_axis.findData(first_axis))
    hands.press(dock.choice.new_button)
    layer = dock.choice.value()[1]
    index = np.nonzero(painted)
    where = (np.ones_like(index[0]), *index) if first_axis == "time" else index
    layer.data_setitem(where, painted[index])
    dock.form.advanced.editors["iterations"].setValue(2)
    dock.form.outputs["uncertainty"].setChecked(True)
    if first_axis == "time":
        dock.choice.times.setText("1-2")
        hands.press(dock.run_bar.start_button)
        assert "from 0 to 1" in dock.run_bar.message.text()
        assert not dock.runner.is_running()
        dock.choice.times.setText("1")
    hands.press(dock.run_bar.start_button)
    wait_ready(dock, qtbot)
    assert not dock.run_bar.is_error(), dock.run_bar.message.text()
    uncertainty = dock._viewer.layers["four prediction: uncertainty"].data
    if first_axis == "time":
        assert not uncertainty[0].any()
        assert uncertainty[1].any()
    (prediction,) = predictions(dock)
    assert prediction.data.shape == ((2, *stack.shape) if first_axis == "time" else stack.shape)
