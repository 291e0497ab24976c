"""Records in the metadata which image a layer of the plugin belongs to.

An image gets an identifier when it is first chosen. Annotations, predictions and their companions
list the images they belong to. Usually that is one image. It is more where the user chose to use
the same paint for, say, a filtered copy.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from napari.layers import Image, Layer

from napari_unet3d.widgets.viewer.layers import base_name, metadata_of, remember


def image_id(image: Layer) -> str | None:
    """The identifier of an image; None when it was never chosen."""
    identifier = metadata_of(image).get("id")
    return identifier if isinstance(identifier, str) else None


def identify(image: Image) -> str:
    """Return the identifier of an image, which gets one if it has none."""
    identifier = image_id(image)
    if identifier is None:
        identifier = uuid.uuid4().hex
        remember(image, id=identifier)
    return identifier


def separate(images: Iterable[Image]) -> None:
    """Give duplicates an identifier of their own: napari copies that of the original."""
    seen: set[str] = set()
    for image in sorted(images, key=lambda x: x.source.parent is not None):
        identifier = image_id(image)
        if identifier in seen:
            identifier = uuid.uuid4().hex
            remember(image, id=identifier)
        if identifier is not None:
            seen.add(identifier)


def bind(layer: Layer, image: Image, *, alone: bool = False) -> None:
    """Record that a layer of the plugin belongs to `image`.

    Parameters
    ----------
    layer
        The annotation, prediction or companion.
    image
        The image.
    alone
        Whether the layer belongs to no other image then.
    """
    entry = {"id": identify(image), "name": base_name(image.name), "path": image.source.path}
    others = [] if alone else [x for x in _entries(layer) if x["id"] != entry["id"]]
    remember(layer, images=[*others, entry])


def belongs_to(layer: Layer, image: Layer) -> bool:
    """Return whether a layer of the plugin belongs to this image."""
    identifier = image_id(image)
    return identifier is not None and any(x["id"] == identifier for x in _entries(layer))


def image_ids(layer: Layer) -> frozenset[str]:
    """The identifiers of the images that a layer of the plugin belongs to."""
    return frozenset(x["id"] for x in _entries(layer))


def owners(layer: Layer, images: Iterable[Layer]) -> list[str]:
    """The names of the images that a layer belongs to.

    An image among the open `images` has its name of now, any other one its name when the layer
    was bound to it.
    """
    open_names = {image_id(x): x.name for x in images}
    names = (str(open_names.get(x["id"], x.get("name", ""))) for x in _entries(layer))
    return [name for name in names if name]


def is_free_for(layer: Layer, image: Image, images: Iterable[Layer]) -> bool:
    """Return whether a layer belongs to no open image and may belong to `image`.

    A layer whose image was closed may belong to an image from the same file or, where neither
    came from a file, of the same name.
    """
    entries = _entries(layer)
    open_ids = {image_id(x) for x in images}
    if any(x["id"] in open_ids for x in entries):
        return False
    return not entries or any(
        x.get("path") == image.source.path
        and (image.source.path is not None or x.get("name") == base_name(image.name))
        for x in entries
    )


def _entries(layer: Layer) -> list[dict[str, Any]]:
    entries = metadata_of(layer).get("images", ())
    if not isinstance(entries, (list, tuple)):
        return []
    return [x for x in entries if isinstance(x, dict) and isinstance(x.get("id"), str)]
