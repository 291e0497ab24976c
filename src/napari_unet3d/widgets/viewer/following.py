"""Moves the layers of the plugin along with their image, and tells when a layer was moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QObject, Signal

from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.viewer.belonging import belongs_to, image_id
from napari_unet3d.widgets.viewer.layers import role_of
from napari_unet3d.widgets.viewer.placement import Placement, move_onto, placement_of, same_place

_MOVES = ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels")


class Following(QObject):
    """Watches all images and Labels layers of a viewer.

    When an image moves, the layers of the plugin that belong to it and lay on it move with it. A
    layer that the user had moved away stays where it is.
    """

    moved = Signal()
    """An image or a Labels layer was moved, or has other data."""
    painted = Signal(object)
    """The user painted in this Labels layer."""

    def __init__(self, viewer: Any, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._watched: dict[Layer, tuple[Connections, Callable[..., None]]] = {}
        self._before: dict[Layer, Placement] = {}
        self._following = False

    def sync(self) -> None:
        """Watch the layers that the viewer holds now."""
        layers = [x for x in self._viewer.layers if isinstance(x, (Image, Labels))]
        for layer in [x for x in self._watched if x not in layers]:
            self._watched.pop(layer)[0].clear()
            self._before.pop(layer, None)
        for layer in layers:
            if layer not in self._watched:
                self._watch(layer)

    def cleanup(self) -> None:
        """Let go of all layers."""
        for connections, _ in self._watched.values():
            connections.clear()
        self._watched.clear()
        self._before.clear()

    def _watch(self, layer: Layer) -> None:
        def follow(_event: Any = None) -> None:
            self._moved(layer)

        connections = Connections(self)
        events = layer.events
        connections.add(*((getattr(events, name), follow) for name in (*_MOVES, "data")))
        if isinstance(layer, Labels):

            def tell(_event: Any = None) -> None:
                self.painted.emit(layer)

            connections.add((events.paint, tell))
        self._watched[layer] = connections, follow
        self._before[layer] = placement_of(layer)

    def _moved(self, moved: Layer) -> None:
        if self._following:  # this layer is being moved along with its image
            return
        before, self._before[moved] = self._before[moved], placement_of(moved)
        if isinstance(moved, Image) and image_id(moved) is not None:
            self._following = True
            try:
                for layer in self._viewer.layers:
                    if self._follows(layer, moved, before):
                        move_onto(layer, moved)
                        self._before[layer] = placement_of(layer)
            finally:
                self._following = False
        self.moved.emit()

    @staticmethod
    def _follows(layer: Layer, image: Layer, before: Placement) -> bool:
        if layer is image or role_of(layer) is None or not belongs_to(layer, image):
            return False
        shape = tuple(int(n) for n in layer.data.shape)
        return layer.ndim <= image.ndim and same_place(before, placement_of(layer), shape)
