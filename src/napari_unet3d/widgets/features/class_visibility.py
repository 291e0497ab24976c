"""Shows and hides classes in the annotation and the predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Labels

from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.viewer.layers import class_colormap, read_classes, role_of
from napari_unet3d.widgets.workbench import Feature, Workbench


class ClassVisibility(Feature):
    """Makes the classes transparent whose tick is off in the class table.

    Nothing is stored: a layer that is saved or opened elsewhere has all of its colors.
    """

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._connections = Connections(self)
        self._connections.add((bench.viewer.layers.events.inserted, self._apply))
        bench.class_table.hiddenChanged.connect(self._apply)
        bench.class_table.valueChanged.connect(self._apply)

    def cleanup(self) -> None:
        """Show all classes again."""
        self._connections.clear()
        self._color(frozenset())

    def _apply(self, _event: Any = None) -> None:
        self._color(self.bench.class_table.hidden())

    def _color(self, hidden: frozenset[int]) -> None:
        for layer in self.bench.viewer.layers:
            role = role_of(layer)
            if not isinstance(layer, Labels) or role not in ("annotation", "prediction"):
                continue
            colormap = class_colormap(
                read_classes(layer), annotation=role == "annotation", hidden=hidden
            )
            if not _same_colors(colormap.color_dict, getattr(layer.colormap, "color_dict", {})):
                layer.colormap = colormap


def _same_colors(one: dict[Any, Any], other: dict[Any, Any]) -> bool:
    return one.keys() == other.keys() and all(np.allclose(one[k], other[k]) for k in one)
