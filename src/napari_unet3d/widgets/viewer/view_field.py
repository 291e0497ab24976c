"""Tells which part of a slice is in view, and when that changes."""

from __future__ import annotations

from typing import Any

from napari.layers import Layer
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet3d.data.slices import SliceRef
from napari_unet3d.widgets.parts.connections import Connections

_REST_MS = 60
"""Milliseconds without a change after which a change is told: a moving slider tells only where it
stops, and a user does not notice the wait."""

Place = tuple[int, int]
"""Row and column in a slice."""


class ViewWatch(QObject):
    """Watches the sliders and the camera of a viewer.

    Parameters
    ----------
    viewer
        The napari viewer.
    parent
        The Qt parent.
    """

    changed = Signal()
    """Another slice, or another part of it, is in view, and has been for a moment."""

    def __init__(self, viewer: Any, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_REST_MS)
        self._timer.timeout.connect(self.changed)
        camera = getattr(viewer, "scene", viewer).camera  # napari 0.9 moved it into the scene
        self._camera = camera
        self._connections = Connections(self)
        self._connections.add(
            (viewer.dims.events.point, self._moved),
            (viewer.dims.events.order, self._moved),
            (viewer.dims.events.ndisplay, self._moved),
            (camera.events.center, self._moved),
            (camera.events.zoom, self._moved),
        )

    def center_on(self, world: tuple[float, ...]) -> None:
        """Move the camera to a position of the world, of which the last two axes are displayed."""
        self._camera.center = (*self._camera.center[:-2], *world[-2:])

    def cursor(self, layer: Layer, ref: SliceRef) -> Place:
        """The row and column of a slice under the mouse, as far as it is in view."""
        (top, left), (bottom, right) = visible_field(layer, ref)
        position = layer.world_to_data(self._viewer.cursor.position[-layer.ndim :])[-3:]
        row, column = (float(p) for axis, p in enumerate(position) if axis != ref.axis)
        if not (top <= row < bottom and left <= column < right):
            return (top + bottom) // 2, (left + right) // 2
        return int(row), int(column)

    def cleanup(self) -> None:
        """Disconnect from the viewer."""
        self._timer.stop()
        self._connections.clear()

    def _moved(self, _event: Any = None) -> None:
        self._timer.start()


def visible_field(layer: Layer, ref: SliceRef) -> tuple[Place, Place]:
    """First row and column of a slice of `layer` that the canvas shows, and one past the last.

    It is the whole slice before the first drawing.
    """
    corners = layer.corner_pixels[:, -3:]
    inside = [axis for axis in range(3) if axis != ref.axis]
    sizes = [int(layer.data.shape[layer.ndim - 3 + axis]) for axis in inside]
    low = [int(corners[0, axis]) for axis in inside]
    high = [int(corners[1, axis]) + 1 for axis in inside]
    start = [min(max(a, 0), n) for a, n in zip(low, sizes, strict=True)]
    stop = [min(max(b, 0), n) for b, n in zip(high, sizes, strict=True)]
    if any(b - a <= 1 for a, b in zip(start, stop, strict=True)):
        return (0, 0), (sizes[0], sizes[1])
    return (start[0], start[1]), (stop[0], stop[1])
