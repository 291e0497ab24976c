"""Finds the layers that are channels of the same stack, now and when a session comes back."""

from __future__ import annotations

from collections.abc import Iterable

from napari.layers import Image, Layer

from napari_unet3d.session.session import ChannelSource
from napari_unet3d.widgets.viewer.candidates import images_of
from napari_unet3d.widgets.viewer.layers import file_of, metadata_of
from napari_unet3d.widgets.viewer.placement import placement_of, same_place

CHANNEL_KEY = "channel"
"""Entry of the plugin's metadata of an image: which channel of its file it is."""


def other_channels(image: Image, layers: Iterable[Layer]) -> list[Image]:
    """List the images that have the shape of `image` and lie on it.

    RGB and multiscale images are left out, and so is everything beside one that is.
    """
    if image.rgb or image.multiscale or image.ndim < 3:
        return []
    place, shape = placement_of(image), tuple(int(n) for n in image.data.shape)
    return [
        other
        for other in images_of(layers)
        if other is not image
        and not (other.rgb or other.multiscale)
        and tuple(int(n) for n in other.data.shape) == shape
        and same_place(place, placement_of(other), shape)
    ]


def channel_source(layer: Image) -> ChannelSource:
    """Where a channel is, as a session stores it."""
    index = metadata_of(layer).get(CHANNEL_KEY)
    return ChannelSource(
        name=layer.name, path=file_of(layer), index=index if isinstance(index, int) else None
    )


def find_channel(source: ChannelSource, layers: Iterable[Image]) -> Image | None:
    """The layer that shows a channel; of several that could, the one with its name."""
    same = [
        layer
        for layer in layers
        if (there := channel_source(layer)).path == source.path
        and there.index == source.index
        and (source.path is not None or layer.name == source.name)
    ]
    named = [layer for layer in same if layer.name == source.name]
    return next(iter(named or same), None)


def from_one_file(image: Image, other: Image) -> bool:
    """Return whether napari read both layers from the same file."""
    return image.source.path is not None and image.source.path == other.source.path
