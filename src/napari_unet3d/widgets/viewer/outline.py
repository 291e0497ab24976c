"""Draws the outline of a region over the canvas, without a layer."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
from napari.layers import Labels

from napari_unet3d.data.editing.region import Region
from napari_unet3d.data.slices import SliceRef

_WIDTH = 2
"""Pixels of the canvas."""
_ORDER = 10_000
"""Drawing order of the line. Those of layers are smaller, so the line lies above all of them."""


class Outline:
    """The outline of one region of a slice of a layer.

    napari has no public way to draw on its canvas. With a napari that has another canvas nothing
    is drawn, and everything else works.

    Parameters
    ----------
    viewer
        The napari viewer.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._line: Any = None

    def is_shown(self) -> bool:
        """Return whether an outline is drawn."""
        return self._line is not None and bool(self._line.visible)

    def show(self, layer: Labels, ref: SliceRef, region: Region, color: str) -> None:
        """Draw the outline of a region of `layer` on the slice in view."""
        edges = region.outline().reshape(-1, 2)
        points = np.zeros((len(edges), layer.ndim))
        if layer.ndim == 4:
            points[:, 0] = ref.time
        first = layer.ndim - 3
        points[:, first + ref.axis] = ref.index
        rows, columns = (first + axis for axis in range(3) if axis != ref.axis)
        points[:, rows], points[:, columns] = edges.T
        world = _to_world(layer, points)
        displayed = [axis - (self._viewer.dims.ndim - layer.ndim) for axis in self._shown_axes()]
        with suppress(AttributeError):  # a napari with another canvas
            line = self._line_on_canvas()
            line.set_data(world[:, displayed[::-1]].astype(np.float32), color=color)
            line.visible = True

    def hide(self) -> None:
        """Draw nothing."""
        if self.is_shown():
            self._line.visible = False

    def remove(self) -> None:
        """Remove it from the canvas."""
        if self._line is not None:
            self._line.parent = None
            self._line = None

    def _shown_axes(self) -> list[int]:
        return list(self._viewer.dims.displayed)

    def _line_on_canvas(self) -> Any:
        if self._line is None:
            from vispy.scene.visuals import Line

            scene = self._viewer.window._qt_viewer.canvas.view.scene
            self._line = Line(
                pos=np.zeros((2, 2), np.float32), connect="segments", width=_WIDTH, parent=scene
            )
            self._line.order = _ORDER
            self._line.set_gl_state("translucent", depth_test=False)
        return self._line


def _to_world(layer: Labels, points: np.ndarray) -> np.ndarray:
    """Transform points (n, ndim) of the data; the transform is linear."""
    origin = np.asarray(layer.data_to_world((0.0,) * layer.ndim))
    axes = [np.asarray(layer.data_to_world(tuple(e))) - origin for e in np.eye(layer.ndim)]
    world: np.ndarray = points @ np.stack(axes) + origin
    return world
