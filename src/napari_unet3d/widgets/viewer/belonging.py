"""Which image a layer of ours belongs to, kept in the metadata of both.

An image gets an identifier when it is chosen first. Annotations, predictions and their companions
list the images they belong to: usually one, and more where the user chose to use the same paint
for, say, a filtered copy.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

from napari.layers import Image, Layer

from napari_unet3d.widgets.viewer.layers import base_name, metadata_of, remember


def image_id(image: Layer) -> str | None:
    """The identifier of an image; None when it was never chosen."""
    found = metadata_of(image).get("id")
    return found if isinstance(found, str) else None


def identify(image: Image) -> str:
    """The identifier of an image, which gets one if it has none."""
    found = image_id(image)
    if found is None:
        found = uuid.uuid4().hex
        remember(image, id=found)
    return found


def separate(images: Iterable[Image]) -> None:
    """Make duplicates images of their own: they bring the identifier of their original."""
    seen: set[str] = set()
    for image in sorted(images, key=lambda x: x.source.parent is not None):
        found = image_id(image)
        if found in seen:
            found = uuid.uuid4().hex
            remember(image, id=found)
        if found is not None:
            seen.add(found)


def bind(layer: Layer, image: Image, *, alone: bool = False) -> None:
    """Note that a layer of ours belongs to an image, too; to no other one if `alone`."""
    entry = {"id": identify(image), "name": base_name(image.name), "path": image.source.path}
    others = [] if alone else [x for x in _entries(layer) if x["id"] != entry["id"]]
    remember(layer, images=[*others, entry])


def belongs_to(layer: Layer, image: Layer) -> bool:
    """Whether a layer of ours belongs to this image."""
    found = image_id(image)
    return found is not None and any(x["id"] == found for x in _entries(layer))


def owners(layer: Layer, images: Iterable[Layer]) -> list[str]:
    """The names of the images that a layer belongs to: as they are, or were when it was bound."""
    names = {image_id(x): x.name for x in images}
    found = (str(names.get(x["id"], x.get("name", ""))) for x in _entries(layer))
    return [name for name in found if name]


def is_free_for(layer: Layer, image: Image, images: Iterable[Layer]) -> bool:
    """Whether a layer belongs to no open image, and `image` may be the one it belonged to.

    A layer whose image was closed is taken for the one of an image that was opened from the same
    file or, where neither came from a file, has the same name.
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
    found = metadata_of(layer).get("images", ())
    if not isinstance(found, (list, tuple)):
        return []
    return [x for x in found if isinstance(x, dict) and isinstance(x.get("id"), str)]
