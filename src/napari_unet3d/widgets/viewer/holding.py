"""Keeps the user from painting in a layer for a while, and says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.layers import Labels
from qtpy.QtCore import QObject

from napari_unet3d.widgets.parts.connections import Connections

_HARMLESS = ("pan_zoom", "transform", "pick")


class Holding(QObject):
    """Takes the brush away while somebody holds the layer; it comes back afterwards.

    napari could lock a layer, but it forgets the undo history of one that is locked.

    Parameters
    ----------
    parent
        The Qt parent.
    tell
        Called with the reason when the user wants to edit the layer.
    """

    def __init__(self, parent: QObject, tell: Callable[[str], object]) -> None:
        super().__init__(parent)
        self._tell = tell
        self._reasons: list[str] = []
        self._layer: Labels | None = None
        self._mode = ""
        """The tool that the user gets back; "" for none."""
        self._connections = Connections(self)

    def reason(self) -> str:
        """Why the layer is held; "" when it is not."""
        return self._reasons[-1] if self._reasons else ""

    def refuses(self) -> bool:
        """Whether the layer is held; the user is told why."""
        if self._reasons:
            self._tell(self.reason())
        return bool(self._reasons)

    def set_layer(self, layer: Labels | None) -> None:
        """Hold another layer."""
        self._connections.clear()
        self._give_back()
        self._layer = layer
        if layer is not None:
            self._connections.add((layer.events.mode, self._take))
        self._take()

    def hold(self, reason: str) -> None:
        """Let nobody paint until `release` is called with the same sentence."""
        if reason not in self._reasons:
            self._reasons.append(reason)
        self._take(asked=False)

    def release(self, reason: str) -> None:
        """Hold the layer for this reason no longer."""
        if reason in self._reasons:
            self._reasons.remove(reason)
        if not self._reasons:
            self._give_back()

    def _take(self, _event: Any = None, *, asked: bool = True) -> None:
        layer = self._layer
        if layer is None or not self._reasons or str(layer.mode) in _HARMLESS:
            return
        self._mode = str(layer.mode)
        layer.mode = "pan_zoom"
        if asked:
            self._tell(self.reason())

    def _give_back(self) -> None:
        layer, mode, self._mode = self._layer, self._mode, ""
        if layer is not None and mode and str(layer.mode) in _HARMLESS:
            layer.mode = mode
