"""Translates between the dimensions of the viewer and a SliceRef."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from napari.layers import Layer

from napari_unet3d.data.slices import SliceRef


def hidden_axis(viewer: Any) -> int | None:
    """The spatial axis of the viewer that its slider moves along; None in 3D."""
    dims = viewer.dims
    spatial = [a for a in range(max(dims.ndim - 3, 0), dims.ndim) if a not in dims.displayed]
    return spatial[0] if dims.ndisplay == 2 and len(spatial) == 1 else None


def slider_steps(viewer: Any, layer: Layer, axis: int) -> tuple[float, float]:
    """Where the slices of a layer lie on the viewer's slider of an axis, in its steps.

    Returns
    -------
    first, distance
        Position of slice 0, and from a slice to the next one. They are no whole numbers where the
        layer has other voxels than the viewer has steps.
    """
    dims = viewer.dims
    hidden = dims.ndim - layer.ndim
    start, _, step = dims.range[axis]
    position = list(layer.world_to_data(dims.point[hidden:]))
    steps = []
    for index in (0, 1):
        position[axis - hidden] = index
        steps.append(float(layer.data_to_world(position)[axis - hidden] - start) / step)
    return steps[0], steps[1] - steps[0]


def shown_slice(viewer: Any, layer: Layer) -> SliceRef | None:
    """The slice of `layer` (ZYX or TZYX) that is shown; None in 3D or beyond the layer."""
    dims = viewer.dims
    if dims.ndisplay != 2 or dims.ndim < layer.ndim:
        return None
    first = dims.ndim - layer.ndim
    hidden = [a for a in range(dims.ndim) if a not in dims.displayed]
    spatial = [a for a in hidden if a >= dims.ndim - 3]
    if len(spatial) != 1:
        return None
    position = layer.world_to_data(dims.point[first:])
    axis = spatial[0] - (dims.ndim - 3)
    index = round(float(position[layer.ndim - 3 + axis]))
    time = round(float(position[0])) if layer.ndim == 4 else 0
    shape = layer.data.shape
    if not 0 <= index < shape[layer.ndim - 3 + axis]:
        return None
    if layer.ndim == 4 and not 0 <= time < shape[0]:
        return None
    return SliceRef(axis=axis, index=index, time=time)


@contextmanager
def same_place(viewer: Any, layer: Layer) -> Iterator[None]:
    """Show the same voxels of a layer after its scale was changed inside."""
    dims = viewer.dims
    first = dims.ndim - layer.ndim
    if first < 0:
        yield
        return
    position = layer.world_to_data(dims.point[first:])
    yield
    for axis, value in enumerate(layer.data_to_world(position)):
        dims.set_point(first + axis, float(value))


def show_slice(viewer: Any, layer: Layer, ref: SliceRef) -> None:
    """Make the viewer show a slice of `layer`, in 2D."""
    dims = viewer.dims
    dims.ndisplay = 2
    first = dims.ndim - layer.ndim
    hidden = dims.ndim - 3 + ref.axis
    now_hidden = [a for a in range(dims.ndim) if a not in dims.displayed]
    if [a for a in now_hidden if a >= dims.ndim - 3] != [hidden]:
        spatial = [a for a in range(dims.ndim - 3, dims.ndim) if a != hidden]
        dims.order = (*range(dims.ndim - 3), hidden, *spatial)
    position = list(layer.world_to_data(dims.point[first:]))
    position[layer.ndim - 3 + ref.axis] = ref.index
    if layer.ndim == 4:
        position[0] = ref.time
    world = layer.data_to_world(position)
    wanted = [hidden, *([first] if layer.ndim == 4 else [])]
    for axis in wanted:
        dims.set_point(axis, float(world[axis - first]))
