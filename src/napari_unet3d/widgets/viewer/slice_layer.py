"""A layer below the annotation that holds values on one slice only: the slice in view."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import numpy as np
from napari.layers import Image, Labels, Layer

from napari_unet3d.data.one_slice import OneSlice
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.widgets.viewer.belonging import bind
from napari_unet3d.widgets.viewer.layers import base_name, insert_quietly, remember
from napari_unet3d.widgets.viewer.placement import spatial_transform

Made = TypeVar("Made", bound=Layer)


class SliceLayer(Generic[Made]):
    """Shows what is known about the slice in view, and is made again where the user deleted it.

    Parameters
    ----------
    viewer
        The napari viewer.
    make
        Makes the layer of an array, with the options that are given by name.
    dtype
        Of the values.
    what
        What the layer shows; the second half of its name.
    """

    def __init__(self, viewer: Any, make: Callable[..., Made], dtype: Any, what: str) -> None:
        self._viewer, self._make, self._dtype, self._what = viewer, make, np.dtype(dtype), what
        self._values: OneSlice | None = None
        self.layer: Made | None = None
        """The layer; None while nothing is shown."""

    @property
    def ref(self) -> SliceRef | None:
        """The slice that holds values; None without one."""
        return None if self._values is None else self._values.ref

    def open(self, image: Image, annotation: Labels) -> bool:
        """Add the layer below an annotation of `image`; return whether it is a new one."""
        layers = self._viewer.layers
        if self.layer is not None and self.layer in layers:
            return False
        self._values = OneSlice(annotation.data.shape, self._dtype)
        self.layer = layer = self._make(
            self._values,
            name=f"{base_name(image.name)} {self._what}",
            **spatial_transform(image, annotation.ndim),
        )
        remember(layer, role="companion")
        bind(layer, image)
        insert_quietly(self._viewer, layers.index(annotation), layer)
        return True

    def write(self, ref: SliceRef, parts: Iterable[tuple[tuple[int, int], np.ndarray]]) -> None:
        """Show values of a slice, each part from a row and column on; other slices are emptied."""
        if self.layer is None or self._values is None:
            return
        if self._values.ref != ref:
            self._values.clear(ref)
        for start, values in parts:
            self._values.write(start, values)
        self._refresh()

    def leave(self, ref: SliceRef) -> None:
        """Empty the slice unless it is this one: seen from another side, it would be a line."""
        if self._values is not None and self._values.ref not in (ref, None):
            self._values.clear()
            self._refresh()

    def set_visible(self, visible: bool) -> None:
        """Show or hide the layer, if there is one."""
        if self.layer is not None:
            self.layer.visible = visible

    def remove(self) -> None:
        """Remove the layer."""
        layer, self.layer, self._values = self.layer, None, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def _refresh(self) -> None:
        if self.layer is not None:
            self.layer.refresh(extent=False, thumbnail=False)
