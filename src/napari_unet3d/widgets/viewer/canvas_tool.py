"""Turns clicks and drags on the canvas into points of the slice in view."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, Signal

from napari_unet3d.data.editing.planes import spacing_in_slice
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.viewer.navigation import shown_slice

_LEFT = 1
"""napari's number of the left mouse button."""
_MODIFIERS = ("Shift", "Control", "Alt", "Meta")
_CLICK = 4
"""Pixels of the canvas that a click may move the mouse before it is a drag."""


class CanvasTool(QObject):
    """While it is on, the left mouse button belongs to it, and not to the camera.

    Holding the space bar gives the mouse back to the camera. The tool ends when the user chooses
    a brush or another mode of the layer, shows the stack in 3D, removes the layer or presses Esc.

    Parameters
    ----------
    viewer
        The napari viewer.
    parent
        The Qt parent.
    """

    pressed = Signal(object, tuple, frozenset)
    """The slice, row and column of a click, and the modifier keys ("Shift", "Control", "Alt")."""
    dragged = Signal(float)
    """Distance of the mouse from the click, in voxels of the finer axis of the slice."""
    wheeled = Signal(int)
    """Steps of the mouse wheel: with the button down, or with Shift."""
    released = Signal()
    """The button is up again."""
    cancelled = Signal()
    """Esc was pressed before the button was up."""
    ended = Signal()
    """The tool is off, which was not asked for with `stop`."""

    def __init__(self, viewer: Any, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._layer: Labels | None = None
        self._connections = Connections(self)
        self._is_down = self._camera_moves = False
        self._double_click: list[Any] = []

    def is_on(self) -> bool:
        """Return whether the mouse belongs to the tool."""
        return self._layer is not None

    def start(self, layer: Labels, cursor: str, help_text: str) -> None:
        """Take the mouse.

        Parameters
        ----------
        layer
            The annotation; it becomes the selected layer.
        cursor
            A cursor of napari: "cross", "pointing" ….
        help_text
            For the status bar.
        """
        self.stop()
        viewer = self._viewer
        viewer.layers.selection.active = layer
        layer.mode = "pan_zoom"
        layer.cursor, layer.help = cursor, help_text
        self._layer = layer
        viewer.mouse_drag_callbacks.append(self._press)
        viewer.mouse_wheel_callbacks.append(self._wheel)
        # Two quick clicks would zoom in.
        self._double_click = list(viewer.mouse_double_click_callbacks)
        viewer.mouse_double_click_callbacks.clear()
        for owner in (viewer, layer):  # napari's Labels layers have an Esc of their own
            owner.bind_key("Escape", _handler(self._escape), overwrite=True)
        layer.bind_key("Space", self._hold_space, overwrite=True)
        self._connections.add(
            (layer.events.mode, self._check),
            (viewer.dims.events.ndisplay, self._check),
            (viewer.layers.events.removed, self._check),
            (viewer.layers.selection.events.active, self._check),
        )

    def stop(self) -> None:
        """Give the mouse back."""
        layer, self._layer = self._layer, None
        if layer is None:
            return
        if self._is_down:
            self._cancel()
        self._connections.clear()
        viewer = self._viewer
        viewer.mouse_drag_callbacks.remove(self._press)
        viewer.mouse_wheel_callbacks.remove(self._wheel)
        viewer.mouse_double_click_callbacks.extend(self._double_click)
        for owner in (viewer, layer):
            owner.bind_key("Escape", None)
        layer.bind_key("Space", None)
        self._camera_moves = False
        if layer.mode == "pan_zoom":
            layer.cursor, layer.help = "standard", ""

    # ---- events

    def _check(self, _event: Any = None) -> None:
        layer, active = self._layer, self._viewer.layers.selection.active
        if layer is None:
            return
        if (
            layer.mode != "pan_zoom"
            or self._viewer.dims.ndisplay != 2
            or layer not in self._viewer.layers
            or (active is not None and str(active.mode) != "pan_zoom")
        ):
            self.stop()
            self.ended.emit()

    def _escape(self) -> None:
        if self._is_down:
            self._cancel()
        elif self._layer is not None:
            self.stop()
            self.ended.emit()

    def _cancel(self) -> None:
        self._is_down = False
        self.cancelled.emit()

    def _hold_space(self, _layer: Any) -> Iterator[None]:
        self._camera_moves = True
        yield
        self._camera_moves = False

    def _press(self, viewer: Any, event: Any) -> Iterator[None]:
        layer = self._layer
        if layer is None or event.button != _LEFT or self._camera_moves or self._is_down:
            return
        ref = shown_slice(viewer, layer)
        start = None if ref is None else _index(layer, ref, event)
        if ref is None or start is None:
            return
        event.handled = self._is_down = True
        row, column = (round(float(i)) for i in start)
        keys = frozenset(key for key in _MODIFIERS if key in event.modifiers)
        self.pressed.emit(ref, (row, column), keys)
        yield
        spacing = spacing_in_slice(tuple(layer.scale), ref)
        pixel, is_drag = np.asarray(event.pos), False

        def follow() -> None:
            nonlocal is_drag
            event.handled = True
            is_drag = is_drag or bool(np.hypot(*(np.asarray(event.pos) - pixel)) > _CLICK)
            if self._is_down and is_drag:
                place = _position(layer, ref, event)
                self.dragged.emit(float(np.hypot(*((place - start) * spacing))))

        while event.type == "mouse_move":
            follow()
            yield
        follow()  # the release may come from further off than the last move
        if self._is_down:
            self._is_down = False
            self.released.emit()

    def _wheel(self, _viewer: Any, event: Any) -> None:
        if self._is_down or "Shift" in event.modifiers:
            event.handled = True
            across, along = event.delta
            turn = along or across  # some systems turn the wheel sideways with Shift
            if turn:
                self.wheeled.emit(1 if turn > 0 else -1)


def _position(layer: Labels, ref: SliceRef, event: Any) -> np.ndarray:
    """Row and column of the mouse on a slice, as fractions."""
    place = np.asarray(layer.world_to_data(event.position[-layer.ndim :]))[-3:]
    return np.delete(place, ref.axis)


def _index(layer: Labels, ref: SliceRef, event: Any) -> np.ndarray | None:
    """Row and column of the mouse on a slice; None beside it."""
    place = _position(layer, ref, event)
    shape = np.delete(np.asarray(layer.data.shape[-3:]), ref.axis)
    inside = (np.round(place) >= 0) & (np.round(place) < shape)
    return place if inside.all() else None


def _handler(function: Callable[[], object]) -> Callable[[Any], None]:
    def press(_owner: Any) -> None:
        function()

    return press
