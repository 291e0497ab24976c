"""Marks along the sliders of the true window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QScrollBar

from napari_unet3d.data.slices import SliceRef
from napari_unet3d.widgets.features.slider_marks import SliceMarksOnSlider
from napari_unet3d.widgets.parts.colors import EDGE_CONTRAST, contrast
from napari_unet3d.widgets.parts.slider_marks import SliderMark, SliderMarks
from napari_unet3d.widgets.parts.state_shapes import ICON_SIZE, state_color, state_icon
from napari_unet3d.widgets.viewer.theme import theme_colors

STATES = ("partial", "complete", "empty", "accepted", "held out")


# --- shapes ---------------------------------------------------------------------------------


def test_states_differ_by_shape_alone(qtbot: Any) -> None:
    def shape(state: Any) -> bytes:
        image = state_icon(state, "#000000").pixmap(ICON_SIZE, ICON_SIZE).toImage()
        cells = [
            QColor(image.pixelColor(x, y)).alpha() > 127
            for y in range(image.height())
            for x in range(image.width())
        ]
        assert any(cells)
        return bytes(cells)

    assert len({shape(state) for state in STATES}) == len(STATES)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_states_can_be_seen_in_both_themes(theme: str) -> None:
    colors = theme_colors(theme)
    for state in STATES:
        color = state_color(state, colors.background, colors.foreground)  # type: ignore[arg-type]
        assert contrast(color, colors.background) >= EDGE_CONTRAST
        assert contrast(color, colors.foreground) >= EDGE_CONTRAST


# --- one slider -----------------------------------------------------------------------------


@pytest.fixture
def slider(qtbot: Any) -> QScrollBar:
    slider = QScrollBar(Qt.Orientation.Horizontal)
    qtbot.addWidget(slider)
    slider.setRange(0, 99)
    slider.setPageStep(1)
    slider.resize(500, 13)
    slider.show()
    return slider


def test_a_mark_lies_where_the_handle_stands(slider: QScrollBar, qtbot: Any) -> None:
    marks = SliderMarks(slider)
    marks.setValue([SliderMark(p, "complete", str(p), p) for p in (0, 40.5, 99)])
    xs = [marks.x_of(p) for p in (0, 40.5, 99)]
    assert xs == sorted(xs) and 0 < xs[0] < 30 and 470 < xs[2] < 500
    assert xs[1] == pytest.approx(xs[0] + (xs[2] - xs[0]) * 40.5 / 99)
    slider.setValue(50)
    with qtbot.waitSignal(marks.clicked) as signal:
        qtbot.mouseClick(slider, Qt.MouseButton.LeftButton, pos=QPoint(round(xs[2]) + 2, 6))
    assert signal.args == [99]
    assert slider.value() == 50  # the receiver moves it
    assert marks.mark_at(xs[1] + 20) is None
    marks.detach()
    with qtbot.assertNotEmitted(marks.clicked):
        qtbot.mouseClick(slider, Qt.MouseButton.LeftButton, pos=QPoint(round(xs[2]), 6))


# --- the window -----------------------------------------------------------------------------


def feature(dock: Any) -> SliceMarksOnSlider:
    (found,) = (f for f in dock.features if isinstance(f, SliceMarksOnSlider))
    return found


def overlays(dock: Any) -> dict[int, SliderMarks]:
    """The marks that lie on the sliders of the viewer, by its axis."""
    sliders = dock._viewer.window._qt_viewer.dims.slider_widgets
    marks = {axis: s.slider.findChildren(SliderMarks) for axis, s in enumerate(sliders)}
    return {axis: found[-1] for axis, found in marks.items() if found}


def shown_marks(dock: Any, qtbot: Any) -> dict[int, list[tuple[str, str]]]:
    qtbot.waitUntil(lambda: not dock.annotator.is_counting(), timeout=5000)
    qtbot.wait(30)
    return {
        axis: [(str(m.target), m.state) for m in overlay.value()]
        for axis, overlay in overlays(dock).items()
        if overlay.isVisible()
    }


@pytest.mark.needs_window
def test_marks_follow_states_and_orientation(ready: Any, qtbot: Any) -> None:
    viewer, annotator = ready._viewer, ready.annotator
    annotator.jump(SliceRef(0, 1))
    assert shown_marks(ready, qtbot) == {0: [("z=3", "complete"), ("z=6", "complete")]}
    annotator.hold_out(SliceRef(0, 6), True)
    annotator.empty(SliceRef(1, 7))
    assert shown_marks(ready, qtbot) == {0: [("z=3", "complete"), ("z=6", "held out")]}
    annotator.jump(SliceRef(1, 20))
    assert shown_marks(ready, qtbot) == {1: [("y=7", "empty")]}
    annotator.undo()
    assert shown_marks(ready, qtbot) == {1: []}
    annotator.jump(SliceRef(0, 1))
    assert shown_marks(ready, qtbot) == {0: [("z=3", "complete"), ("z=6", "held out")]}
    viewer.dims.ndisplay = 3
    assert shown_marks(ready, qtbot) == {}
    viewer.dims.ndisplay = 2
    assert len(shown_marks(ready, qtbot)[0]) == 2
    ready.cleanup()
    slider = viewer.window._qt_viewer.dims.slider_widgets[0].slider
    qtbot.waitUntil(lambda: not slider.findChildren(SliderMarks), timeout=3000)


@pytest.mark.needs_window
def test_a_click_on_a_mark_shows_its_slice(ready: Any, qtbot: Any) -> None:
    """Also where a layer with other voxels shares the slider, and the annotation was moved."""
    viewer, annotator = ready._viewer, ready.annotator
    viewer.add_image(np.zeros((50, 20, 20), np.uint8), scale=(0.5, 1, 1), name="finer")
    image, layer = viewer.layers["cells"], annotator.layer()
    image.translate = layer.translate = (3, 0, 0)
    annotator.jump(SliceRef(0, 1))
    qtbot.wait(30)
    (overlay,) = overlays(ready).values()
    slider = viewer.window._qt_viewer.dims.slider_widgets[0].slider
    for ref in (SliceRef(0, 6), SliceRef(0, 3)):
        (mark,) = (m for m in overlay.value() if m.target == ref)
        x = round(overlay.x_of(mark.position))
        qtbot.mouseClick(slider, Qt.MouseButton.LeftButton, pos=QPoint(x, slider.height() // 2))
        assert annotator.shown() == ref
        assert slider.value() == round(mark.position)


@pytest.mark.needs_window
def test_a_time_series_has_marks_on_both_sliders(
    dock: Any, qtbot: Any, stack: Any, annotate_anew: Any
) -> None:
    dock._viewer.add_image(np.stack([stack] * 3), name="movie")
    qtbot.waitUntil(lambda: dock.choice.value()[0] is not None, timeout=3000)
    annotate_anew()
    annotator = dock.annotator
    annotator.jump(SliceRef(0, 2, 1))
    annotator.empty(SliceRef(0, 5, 1))
    annotator.empty(SliceRef(0, 6, 2))
    assert shown_marks(dock, qtbot) == {
        0: [("t=1 z=5", "complete"), ("t=2 z=6", "complete")],
        1: [("t=1 z=5", "empty")],
    }
    annotator.jump(SliceRef(0, 2, 2))
    assert shown_marks(dock, qtbot)[1] == [("t=2 z=6", "empty")]
