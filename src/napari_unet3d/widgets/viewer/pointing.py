"""The tools Grow and Take: what the mouse does on the canvas, as edits of the slice in view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, Signal

from napari_unet3d.config import BACKGROUND, UNLABELLED, ClassInfo
from napari_unet3d.data.editing.components import component_at
from napari_unet3d.data.editing.growing import (
    HIGHEST_TOLERANCE,
    LOWEST_TOLERANCE,
    TOLERANCE,
    TOLERANCE_STEP,
    Growth,
    Plane,
    grow,
)
from napari_unet3d.data.editing.planes import VolumePlane, spacing_in_slice
from napari_unet3d.data.editing.region import Region
from napari_unet3d.data.slices import SliceRef, read_slice
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.widgets.parts.colors import BACKGROUND_COLOR
from napari_unet3d.widgets.viewer.canvas_tool import CanvasTool
from napari_unet3d.widgets.viewer.outline import Outline
from napari_unet3d.widgets.viewer.predictions import Source

PointingTool = Literal["grow", "take"]
GrowFrom = Literal["image", "prediction"]

_REACH = 1.5
"""Ratio of the window around a click to the drag. The spare room lasts for several steps of the
mouse, which compute no new window then."""
_CURSORS = {"grow": "cross", "take": "pointing"}
_HELP = {
    "grow": "Grow: click inside an object; drag or wheel for its size; Esc ends",
    "take": "Take: click on a predicted object; Ctrl+click rejects it; Esc ends",
}


@dataclass(frozen=True, eq=False)
class _Press:
    """A press of the mouse with Grow, until it is released.

    Parameters
    ----------
    ref, point
        The slice, row and column.
    label
        What is painted.
    allowed
        (h, w) bool: the voxels that may get the label.
    plane
        Gray values of the slice; None where a predicted object grows.
    growth
        What may be grown; None where a predicted object grows.
    whole
        The predicted object; None where gray values are followed.
    radius
        How far the drag went, in voxels of the finer axis; None for a click.
    """

    ref: SliceRef
    point: tuple[int, int]
    label: int
    allowed: np.ndarray
    plane: Plane | None = None
    growth: Growth | None = None
    whole: Region | None = None
    radius: float | None = None


class Pointing(QObject):
    """Grow and Take on the canvas; it changes nothing itself.

    Parameters
    ----------
    viewer
        The napari viewer.
    parent
        The Qt parent.
    volume
        Returns the image.
    source
        Returns the labels that Take copies; raises BadInputError where there are none.
    label
        Returns the label value that Grow paints.
    classes
        Returns the class table.
    """

    edited = Signal(object, str)
    """A `SliceEdit`, and what it does in words: "212 voxels of 'nuclei' painted"."""
    told = Signal(str)
    """A sentence for the user."""
    ended = Signal()
    """The tool is off, which was not asked for with `stop`."""

    def __init__(
        self,
        viewer: Any,
        parent: QObject,
        *,
        volume: Callable[[], Volume],
        source: Callable[[SliceRef], Source],
        label: Callable[[], int],
        classes: Callable[[], Sequence[ClassInfo]],
    ) -> None:
        super().__init__(parent)
        self._volume, self._source = volume, source
        self._label, self._classes = label, classes
        self._layer: Labels | None = None
        self._tool: PointingTool = "grow"
        self._grow_from: GrowFrom = "image"
        self._tolerance = TOLERANCE
        self._press: _Press | None = None
        self.outline = Outline(viewer)
        self._mouse = CanvasTool(viewer, self)
        for signal, slot in (
            (self._mouse.pressed, self._pressed),
            (self._mouse.dragged, self._dragged),
            (self._mouse.wheeled, self._wheeled),
            (self._mouse.released, self._released),
            (self._mouse.cancelled, self._cancelled),
            (self._mouse.ended, self.ended),
        ):
            signal.connect(slot)

    def start(self, tool: PointingTool, layer: Labels) -> None:
        """Take the mouse for a tool."""
        self._tool, self._layer = tool, layer
        self._mouse.start(layer, _CURSORS[tool], _HELP[tool])

    def stop(self) -> None:
        """Give the mouse back."""
        self._mouse.stop()

    def set_grow_from(self, grow_from: GrowFrom) -> None:
        """Let Grow follow the gray values of the image, or the objects of the prediction."""
        self._grow_from = grow_from

    def cleanup(self) -> None:
        """Give the mouse back, and remove what is drawn."""
        self._mouse.stop()
        self.outline.remove()
        self._press = None

    # ---- the mouse

    def _pressed(self, ref: SliceRef, point: tuple[int, int], modifiers: frozenset[str]) -> None:
        try:
            if self._tool == "take":
                self._take(ref, point, reject=bool(modifiers & {"Control", "Alt", "Meta"}))
            else:
                self._press = self._begin(ref, point)
                self._preview()
        except (BadInputError, RunFailedError) as error:
            self.told.emit(str(error))

    def _dragged(self, radius: float) -> None:
        press = self._press
        if press is None:
            return
        growth = press.growth
        if growth is not None and press.plane is not None and radius > growth.radius:
            try:
                growth = self._grow(press.plane, press.ref, press.point, _REACH * radius)
            except (BadInputError, RunFailedError) as error:
                self.told.emit(str(error))
                return
        self._press = replace(press, radius=radius, growth=growth)
        self._preview()

    def _wheeled(self, steps: int) -> None:
        if self._tool == "grow" and self._grow_from == "image":
            wanted = self._tolerance + steps * TOLERANCE_STEP
            self._tolerance = min(max(wanted, LOWEST_TOLERANCE), HIGHEST_TOLERANCE)
            self._preview()
            self.told.emit(
                f"Grow takes in gray values up to {self._tolerance:.0%} of the contrast."
            )

    def _released(self) -> None:
        press, self._press = self._press, None
        self.outline.hide()
        region = None if press is None else self._region(press)
        if press is None:
            return
        if region is None:
            self.told.emit("Nothing to paint: other classes are painted there.")
            return
        edit = region.edit(press.ref, press.label)
        self.edited.emit(edit, f"{edit.voxels:,} voxels of {self._name(press.label)} painted")

    def _cancelled(self) -> None:
        self._press = None
        self.outline.hide()

    # ---- grow

    def _begin(self, ref: SliceRef, point: tuple[int, int]) -> _Press:
        label = self._label()
        if label == UNLABELLED or self._layer is None:
            raise BadInputError("Choose a class first: Grow paints in the selected class.")
        painted = read_slice(self._layer.data, ref)
        allowed = painted == UNLABELLED
        if label != BACKGROUND:
            allowed |= (painted == BACKGROUND) | (painted == label)
        press = _Press(ref, point, label, allowed)
        if self._grow_from == "prediction":
            source = self._source(ref)
            number, region = component_at(source.labels, point)
            if number in (UNLABELLED, BACKGROUND) and label != BACKGROUND:
                raise BadInputError(f"{source.name.capitalize()} has no object here.")
            return replace(press, whole=region)
        plane = VolumePlane(self._volume(), ref)
        return replace(press, plane=plane, growth=self._grow(plane, ref, point))

    def _grow(
        self, plane: Plane, ref: SliceRef, point: tuple[int, int], reach: float = 0.0
    ) -> Growth:
        assert self._layer is not None
        return grow(plane, point, spacing_in_slice(tuple(self._layer.scale), ref), reach)

    def _region(self, press: _Press) -> Region | None:
        """The voxels that would be painted now; None for none."""
        assert self._layer is not None
        if press.growth is not None:
            region = press.growth.region(self._tolerance, press.radius)
        else:
            assert press.whole is not None
            spacing = spacing_in_slice(tuple(self._layer.scale), press.ref)
            region = press.whole.within(press.point, press.radius, spacing)
        return Region.of(region.mask & press.allowed[region.box], region.start)

    def _preview(self) -> None:
        press, layer = self._press, self._layer
        if press is None or layer is None:
            return
        region = self._region(press)
        if region is None:
            self.outline.hide()
        else:
            self.outline.show(layer, press.ref, region, self._color(press.label))

    # ---- take

    def _take(self, ref: SliceRef, point: tuple[int, int], *, reject: bool) -> None:
        source = self._source(ref)
        number, region = component_at(source.numbers, point)
        label = int(source.labels[point])
        if number == source.background:
            raise BadInputError(f"{source.name.capitalize()} has no object here.")
        if reject:
            self.edited.emit(
                region.edit(ref, BACKGROUND), "Object rejected: it is background in the annotation"
            )
            return
        if label == UNLABELLED:
            raise BadInputError(source.missing_text())
        self.edited.emit(
            region.edit(ref, label), f"1 object of {self._name(label)} taken from {source.name}"
        )

    # ---- words

    def _name(self, label: int) -> str:
        return next((f"'{c.name}'" for c in self._classes() if c.value == label), "background")

    def _color(self, label: int) -> str:
        return next((c.color for c in self._classes() if c.value == label), BACKGROUND_COLOR)
