"""Finds the layers that are channels of the same stack."""

from __future__ import annotations

from collections.abc import Iterable

from napari.layers import Image, Layer

from napari_unet3d.widgets.viewer.candidates import images_of
from napari_unet3d.widgets.viewer.placement import placement_of, same_place


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


def from_one_file(image: Image, other: Image) -> bool:
    """Return whether napari read both layers from the same file."""
    return image.source.path is not None and image.source.path == other.source.path
