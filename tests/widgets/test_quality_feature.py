"""Is it good enough? The part of the dock that answers, in a true window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_unet3d.data.slices import SliceRef
from napari_unet3d.model.evidence import Evidence
from napari_unet3d.widgets.features.quality import Quality
from napari_unet3d.widgets.viewer.layers import write_held_out
from napari_unet3d.widgets.viewer.mistakes import shows_mistakes
from napari_unet3d.widgets.viewer.window_session import session_of

pytestmark = pytest.mark.needs_window
WAIT = 60_000


def panel_of(dock: Any) -> Any:
    (feature,) = (f for f in dock.features if isinstance(f, Quality))
    return feature.panel


@pytest.fixture
def measurable(ready: Any, hands: Any, qtbot: Any) -> Any:
    """The tiny stack with three complete slices, and the section of the results unfolded."""
    layer = ready.choice.value()[1]
    plane = np.ones(layer.data.shape[1:], np.uint8)
    plane[10:30, 12:32] = 2
    layer.data_setitem(
        (np.full(plane.size, 4), *(i.ravel() for i in np.indices(plane.shape))), plane.ravel()
    )
    ready.annotator.rescan()
    ready.annotate_section.setExpanded(False)
    ready.train_section.setExpanded(False)
    ready.results_section.setExpanded(True)
    ready.form.setValue(ready.form.value().model_copy(update={"pixel_classifier": False}))
    qtbot.wait(50)
    return ready


def hold_out(dock: Any, z: int) -> None:
    write_held_out(dock.choice.value()[1], [SliceRef(0, z)])
    dock.annotator.rescan()


def finish(dock: Any, qtbot: Any) -> None:
    qtbot.waitUntil(lambda: not dock.runner.is_running(), timeout=WAIT)
    assert not dock.run_bar.is_error(), dock.run_bar.message.text()


def mistakes(dock: Any) -> Any:
    return next((x for x in dock._viewer.layers if shows_mistakes(x)), None)


def test_before_anything_is_measured_it_says_what_to_do(dock: Any) -> None:
    panel = panel_of(dock)
    assert panel.hint.text() == "Hold out a slice to measure, or cross-validate."
    assert not panel.hint.isHidden()
    assert panel.table.isHidden()
    for button in (panel.errors, panel.cross_validation, panel.learning_curve, panel.report):
        assert not button.isEnabled()
        assert button.toolTip()


def test_a_run_shows_scores_mistakes_and_both_again_in_a_new_dock(
    measurable: Any, hands: Any, qtbot: Any, viewer: Any
) -> None:
    from napari_unet3d.widgets.dock import SegmentationDock

    dock, panel = measurable, panel_of(measurable)
    hold_out(dock, 4)
    hands.press(dock.run_bar.start_button)
    finish(dock, qtbot)
    assert "Measured on 100 % of the painted voxels of z=4" in dock.results.text.text()
    assert "One slice: no interval." in dock.results.text.text()
    (row,) = dock.results.table.value()
    assert dock.results.table.item(0, 1).text() == f"{row.iou.value:.2f}"
    hands.press(panel.errors)
    qtbot.waitUntil(lambda: mistakes(dock) is not None, timeout=WAIT)
    layer, annotation = mistakes(dock), dock.choice.value()[1]
    (prediction,) = (x for x in viewer.layers if x.name == "cells prediction")
    truth = np.where(annotation.data[4] == 2, 2, 0)
    np.testing.assert_array_equal(layer.data[4] > 0, prediction.data[4] != truth)
    assert not np.delete(layer.data, 4, 0).any()
    assert dock.annotator.shown() == SliceRef(0, 4)
    np.testing.assert_allclose(layer.scale, (2, 0.5, 0.5))
    assert viewer.layers.selection.active is annotation
    assert not panel.legend.isHidden()
    assert layer.features["mistake"].tolist() == ["none", "missed", "false", "confused"]
    hands.press(panel.errors)
    assert not layer.visible
    assert panel.legend.isHidden()

    rows = dock.results.table.value()
    viewer.window.remove_dock_widget(dock)
    qtbot.wait(200)
    layer.visible = True  # the dock is gone: nobody is told
    again = SegmentationDock(viewer)
    viewer.window.add_dock_widget(again, name="again", area="right")
    assert again.results.table.value() == rows
    assert "Measured on 100 %" in again.results.text.text()
    assert not panel_of(again).legend.isHidden()
    again.cleanup()


def test_cross_validation_fills_the_table_and_keeps_everything_else(
    measurable: Any, hands: Any, qtbot: Any, viewer: Any
) -> None:
    dock, panel = measurable, panel_of(measurable)
    layers, before = list(viewer.layers), dock.choice.value()[1].data.copy()
    iterations = dock.form.advanced.editors["iterations"]
    iterations.setValue(100_000)
    hands.press(panel.cross_validation)
    qtbot.waitUntil(lambda: "model 1 of 3" in dock.run_bar.status.text(), timeout=WAIT)
    hands.press(dock.run_bar.cancel_button)
    finish(dock, qtbot)
    assert "Cancelled" in dock.run_bar.status.text()
    assert panel.table.isHidden()
    iterations.setValue(4)
    hands.press(panel.cross_validation)
    assert dock.runner.is_running()
    assert not panel.cross_validation.isEnabled()
    assert not dock.run_bar.stop_button.isVisible() or not dock.run_bar.stop_button.isEnabled()
    finish(dock, qtbot)
    assert "3 models" in panel.explanation.text()
    (row,) = panel.table.value()
    assert row.iou.slices == 3 and row.iou.low is not None
    assert "[" in panel.table.item(0, 1).text()
    assert panel.hint.isHidden()
    assert list(viewer.layers) == layers
    assert (dock.choice.value()[1].data == before).all()
    assert not (dock.run_actions.bundle is not None)
    assert dock.run_bar.start_button.isVisible()
    dock.add_annotation()  # the evidence is about the other annotation
    qtbot.waitUntil(lambda: panel.table.isHidden(), timeout=WAIT)
    assert session_of(viewer).value().evidence == Evidence()


def test_a_learning_curve_ends_in_a_sentence(measurable: Any, hands: Any, qtbot: Any) -> None:
    dock, panel = measurable, panel_of(measurable)
    hold_out(dock, 4)
    hands.press(panel.learning_curve)
    finish(dock, qtbot)
    assert "From 1 to 2 slices IoU" in panel.sentence.text()


def test_too_few_slices_are_said_at_the_button(ready: Any, hands: Any, qtbot: Any) -> None:
    ready.results_section.setExpanded(True)
    hold_out(ready, 6)
    qtbot.wait(50)
    panel_of(ready).cross_validation.click()
    qtbot.waitUntil(lambda: ready.run_bar.is_error(), timeout=WAIT)
    assert "two slices or more" in ready.run_bar.message.text()


def test_the_report_is_written_in_the_background(
    measurable: Any, hands: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cells report.html"
    monkeypatch.setattr(
        "napari_unet3d.widgets.features.quality.ask_report", lambda parent, name: path
    )
    hands.press(panel_of(measurable).report)
    qtbot.waitUntil(lambda: "Saved" in measurable.run_bar.status.text(), timeout=WAIT)
    text = path.read_text("utf-8")
    assert "2 × 0.5 × 0.5 µm" in text
    assert "z=4" in text


def test_without_held_out_slices_it_tells_what_to_expect(
    measurable: Any, hands: Any, qtbot: Any
) -> None:
    dock, panel = measurable, panel_of(measurable)
    dock.form.setValue(dock.form.value().model_copy(update={"pixel_classifier": True}))
    hands.press(dock.run_bar.start_button)
    finish(dock, qtbot)
    assert panel.hint.text().startswith("Expected IoU: ")
    assert "from 3 annotated slices. Hold out a slice" in panel.hint.text()
    hold_out(dock, 4)
    assert panel.hint.isHidden()
