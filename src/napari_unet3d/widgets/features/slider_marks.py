"""Marks along napari's sliders: where slices are painted, and in which state they are."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from qtpy.QtCore import QTimer

from napari_unet3d.data.marks import slice_state
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.wording import counted
from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.parts.slice_texts import SliceMarks
from napari_unet3d.widgets.parts.slider_marks import SliderMark, SliderMarks
from napari_unet3d.widgets.viewer.navigation import hidden_axis, slider_steps
from napari_unet3d.widgets.viewer.theme import theme_colors
from napari_unet3d.widgets.workbench import Feature, Workbench

_Source = tuple[list[PaintedSlice], SliceMarks, tuple[float, float], bool]
"""Painted slices, their marks, `slider_steps` of the slider, and whether it is that of the time."""


class SliceMarksOnSlider(Feature):
    """Puts marks on the slider of the axis in view, and on that of the time.

    Parameters
    ----------
    bench
        The parts and mediators of the dock.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._overlays: dict[int, SliderMarks] = {}
        self._known: dict[int, tuple[Any, ...]] = {}
        # Deferred, since napari makes its sliders anew within the same events.
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._update)
        viewer = bench.viewer
        dims = viewer.dims.events
        self._connections = Connections(self)
        self._connections.add(
            (dims.ndim, self._later),
            (dims.order, self._later),
            (dims.ndisplay, self._later),
            (dims.range, self._later),
            (viewer.events.theme, self._theme),
        )
        bench.annotator.changed.connect(self._later)
        bench.pairing.changed.connect(self._later)  # the annotation was moved, too
        self._later()

    def cleanup(self) -> None:
        """Take the marks off the sliders."""
        self._timer.stop()
        self._connections.clear()
        for axis in tuple(self._overlays):
            self._drop(axis)

    def _later(self, _event: Any = None) -> None:
        self._timer.start(0)

    def _theme(self, _event: Any = None) -> None:
        colors = theme_colors(self.bench.viewer.theme)
        for overlay in self._overlays.values():
            overlay.apply_theme(colors)

    def _update(self) -> None:
        wanted = self._wanted()
        for axis in self._overlays.keys() - wanted.keys():
            self._drop(axis)
        for axis, source in wanted.items():
            overlay = self._overlay(axis)
            if overlay is not None and self._known.get(axis) != (overlay, *source):
                self._known[axis] = overlay, *source  # so that moving to a slice costs little
                overlay.setValue(_marks(*source))

    def _wanted(self) -> dict[int, _Source]:
        """What the marks are made of, by axis of the viewer that has a slider."""
        viewer, annotator = self.bench.viewer, self.bench.annotator
        layer, hidden = annotator.layer(), hidden_axis(viewer)
        if layer is None or layer not in viewer.layers or hidden is None:
            return {}
        first, marks = viewer.dims.ndim - layer.ndim, self.bench.slice_table.marks()
        if first < 0:
            return {}
        shown = annotator.shown()
        time = 0 if shown is None else shown.time
        axis = hidden - (viewer.dims.ndim - 3)
        rows = annotator.slices()
        here = [row for row in rows if row.ref.axis == axis and row.ref.time == time]
        wanted: dict[int, _Source] = {
            hidden: (here, marks, slider_steps(viewer, layer, hidden), False)
        }
        if layer.ndim == 4:
            wanted[first] = rows, marks, slider_steps(viewer, layer, first), True
        return wanted

    def _overlay(self, axis: int) -> SliderMarks | None:
        """The marks on the slider of an axis; None where napari has no such slider."""
        try:  # napari has no public name for its sliders
            slider = self.bench.viewer.window._qt_viewer.dims.slider_widgets[axis].slider
        except (AttributeError, IndexError):
            return None
        overlay = self._overlays.get(axis)
        with suppress(RuntimeError):  # napari has deleted the slider, and the marks with it
            if overlay is not None and overlay.parent() is slider:
                return overlay
        self._drop(axis)
        overlay = SliderMarks(slider)
        overlay.apply_theme(theme_colors(self.bench.viewer.theme))
        overlay.clicked.connect(self._jump)
        self._overlays[axis] = overlay
        return overlay

    def _jump(self, ref: SliceRef) -> None:
        self.bench.annotator.jump(ref)

    def _drop(self, axis: int) -> None:
        self._known.pop(axis, None)
        overlay = self._overlays.pop(axis, None)
        if overlay is not None:
            with suppress(RuntimeError):  # Qt has deleted it
                overlay.detach()


def _marks(
    rows: list[PaintedSlice], marks: SliceMarks, steps: tuple[float, float], of_times: bool
) -> list[SliderMark]:
    first, distance = steps
    if not of_times:
        states = [(row.ref, slice_state(row, marks.held_out, marks.accepted)) for row in rows]
        return [
            SliderMark(
                first + ref.index * distance, state, f"{ref}: {state}. Click to go there.", ref
            )
            for ref, state in states
        ]
    by_time: dict[int, list[PaintedSlice]] = {}
    for row in rows:
        by_time.setdefault(row.ref.time, []).append(row)
    return [_time_mark(time, found, first + time * distance) for time, found in by_time.items()]


def _time_mark(time: int, rows: list[PaintedSlice], step: float) -> SliderMark:
    n = counted(len(rows), "painted slice")
    is_complete = any(row.state == "complete" for row in rows)
    text = f"t={time}: {n}. Click to go to {rows[0].ref}."
    return SliderMark(step, "complete" if is_complete else "partial", text, rows[0].ref)
