"""The suggested slice, the uncertainty and the quick answer, in the true window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_unet3d.data.slice_summary import SliceSummary
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.events import SlicesSummarized
from napari_unet3d.session import quick
from napari_unet3d.session.suggestions import Suggestion
from napari_unet3d.widgets.features.quick_answer import QuickAnswering
from napari_unet3d.widgets.features.suggest import NextSlice
from napari_unet3d.widgets.features.uncertainty import WhereUnsure
from napari_unet3d.widgets.parts.suggestion_box import SuggestionBox, sentence
from napari_unet3d.widgets.viewer.layers import role_of

FOUND = (
    Suggestion(SliceRef(0, 7), "'wall' is unsure here", "'wall' unsure"),
    Suggestion(SliceRef(1, 3), "no xz slice is painted yet", "No xz slice yet"),
    Suggestion(SliceRef(0, 2), "no slice is held out", "To measure on", "measure"),
)


def feature(dock: Any, kind: type) -> Any:
    return next(f for f in dock.features if isinstance(f, kind))


# --- the part -------------------------------------------------------------------------------


def test_the_box_says_why_and_steps_through_the_list(qtbot: Any) -> None:
    box = SuggestionBox()
    qtbot.addWidget(box)
    box.setValue(FOUND)
    asked: list[SliceRef] = []
    box.jumpRequested.connect(asked.append)
    assert box.sentence.text() == "Next: z=7, because 'wall' is unsure here."
    box.another_button.click()
    assert box.sentence.text() == "Next: y=3, because no xz slice is painted yet."
    box.go_button.click()
    box.another_button.click()
    assert box.sentence.text().startswith("To measure: z=2,")
    box.another_button.click()  # the first one again
    box.go_button.click()
    box.table.cellClicked.emit(1, 0)
    assert asked == [SliceRef(1, 3), SliceRef(0, 7), SliceRef(1, 3)]
    assert [box.table.item(r, 0).text() for r in range(3)] == ["z=7", "y=3", "z=2"]
    box.setValue(())
    assert box.isHidden() and box.current() is None


# --- the window -----------------------------------------------------------------------------


def test_n_goes_to_the_suggested_slice_in_any_orientation(ready: Any, qtbot: Any) -> None:
    suggest = feature(ready, NextSlice)
    box = suggest.box
    qtbot.waitUntil(lambda: "much varies" in box.sentence.text(), timeout=5000)
    assert not {s.ref for s in box.value()} & {SliceRef(0, 3), SliceRef(0, 6)}
    box.strategy.setCurrentIndex(1)
    box.strategy.activated.emit(1)
    first = box.current().ref
    canvas = ready._viewer.window._qt_viewer.canvas.native
    canvas.setFocus()
    ready.annotate_section.setExpanded(False)  # the reason is said where it can be seen
    qtbot.keyClick(canvas, Qt.Key.Key_N)
    assert ready.annotator.shown() == first
    assert ready.run_bar.remark.text() == sentence(box.value()[0])
    qtbot.keyClick(canvas, Qt.Key.Key_N)  # it is in view: the next one
    assert ready.annotator.shown() == box.value()[1].ref
    across = next(i for i, s in enumerate(box.value()) if s.ref.axis != 0)
    box.table.cellClicked.emit(across, 0)
    assert ready.annotator.shown() == box.value()[across].ref


def test_after_a_run_the_message_says_where_to_look(ready: Any, qtbot: Any) -> None:
    suggest, unsure = feature(ready, NextSlice), feature(ready, WhereUnsure)
    assert not unsure.check_box.isEnabled() and not unsure.jump_button.isEnabled()
    events: list[Any] = []
    ready.runner.eventsArrived.connect(events.extend)
    ready.run_bar.start_button.click()
    qtbot.waitUntil(lambda: not ready.runner.is_running(), timeout=60_000)
    (told,) = [e for e in events if isinstance(e, SlicesSummarized)]
    assert isinstance(told.summaries[0], SliceSummary)
    text = ready.run_bar.message.text()
    assert text.startswith(suggest.box.sentence.text()) and "press Continue training" in text
    assert set(ready.run_bar.action_buttons()) == {"Go there", "Train 1 min more ▸"}
    assert not ready.progress_section.header.isChecked()  # the result has its place
    ready.annotate_section.setExpanded(False)
    ready.run_bar.action_buttons()["Go there"].click()
    assert ready.annotator.shown() == suggest.box.current().ref
    assert ready.annotate_section.header.isChecked()  # the tools to paint it with
    assert ready.run_bar.status.text().startswith("Done in ")
    assert not ready.run_bar.expectation.isVisible()  # the run has just said how long it took
    ready.form.advanced.editors["iterations"].setValue(None)
    assert ready.run_bar.expectation.text().endswith(
        " in all: 1 min training, then the whole stack."
    )
    assert "From the last run on this computer" in ready.run_bar.expectation.toolTip()
    # The most unsure place, and the uncertainty of the slice in view.
    unsure.jump_button.click()
    place = told.summaries[0].unsure_places()[0]
    shown = ready.annotator.shown()
    assert abs(shown.index - place[shown.axis]) <= 2 and unsure.check_box.isChecked()
    assert shown not in {s.ref for s in ready.annotator.slices() if s.state == "complete"}
    qtbot.waitUntil(lambda: unsure.layer is not None, timeout=20_000)
    assert role_of(unsure.layer) == "companion"
    assert unsure.layer in ready._viewer.layers
    assert ready.choice.value()[0].name == "cells"  # it is no image to segment
    unsure.toggle()
    assert unsure.layer is None
    # Paint makes the suggestion old.
    layer = ready.annotator.layer()
    layer.data_setitem((np.array([1]), np.array([1]), np.array([1])), 1)
    ready.annotator.rescan()
    text = ready.run_bar.message.text()
    assert text.startswith("Ready to train") and "Continue training" not in text


def test_quick_answer_follows_real_strokes_and_the_slider(
    ready: Any, hands: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick, "_FIRST", quick.Schedule(60, 0.1))
    viewer, layer = ready._viewer, ready.annotator.layer()
    answering = feature(ready, QuickAnswering)
    canvas = viewer.window._qt_viewer.canvas.native
    canvas.setFocus()
    qtbot.keyClick(canvas, Qt.Key.Key_W)
    assert answering.check_box.isChecked()

    def answered(ref: SliceRef) -> bool:
        return answering._shown is not None and answering._shown.ref == ref

    viewer.dims.set_point(0, 2 * 4)
    qtbot.waitUntil(lambda: answered(SliceRef(0, 4)), timeout=30_000)
    qtbot.waitUntil(lambda: not answering._newest.is_busy(), timeout=30_000)
    found = np.asarray(answering.layer.data[4])
    truth = np.zeros_like(found)
    truth[10:30, 12:32] = 2
    assert (found == truth).mean() > 0.9
    layers = list(viewer.layers)
    assert layers.index(answering.layer) == layers.index(layer) - 1
    assert viewer.layers.selection.active is layer
    # A stroke changes the answer; the annotation is not touched by it.
    before, fit = layer.data.copy(), answering._quick._fit_number
    layer.brush_size = 3
    ready.annotator.choose_label(1)
    hands.stroke((2, 5), (2, 18))
    painted = layer.data != before
    assert painted[4].any()
    qtbot.waitUntil(lambda: answering._quick._fit_number > fit, timeout=30_000)
    assert np.array_equal(layer.data != before, painted)
    # Another orientation.
    ready.annotator.jump(SliceRef(1, 20))
    qtbot.waitUntil(lambda: answered(SliceRef(1, 20)), timeout=30_000)
    assert (np.asarray(answering.layer.data[:, 20])[2:8, 14:30] == 2).mean() > 0.8
    # It waits while a run goes on, and is gone when it is switched off.
    ready.run_bar.start_button.click()
    assert not answering.layer.visible
    qtbot.waitUntil(lambda: not ready.runner.is_running(), timeout=60_000)
    assert not answering.layer.visible
    answering.toggle()
    assert answering.layer is None and not [x for x in viewer.layers if "quick" in x.name]


def test_quick_answer_waits_for_the_end_of_a_stroke(
    ready: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering, layer = feature(ready, QuickAnswering), ready.annotator.layer()
    layer._block_history = True  # the mouse is down
    answering.toggle()
    qtbot.wait(150)
    assert not answering._newest.is_busy() and not answering._sent
    layer._block_history = False
    qtbot.waitUntil(lambda: answering.layer is not None, timeout=30_000)
