"""Describes what a window shows, as a session stores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from napari.layers import Image, Labels

from napari_unet3d.data.slices import SliceRef, parse_slices
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.session import RunSettings, Session, SessionRecord
from napari_unet3d.widgets.viewer.channels import channel_source
from napari_unet3d.widgets.viewer.image_volume import voxel_size_of
from napari_unet3d.widgets.viewer.layers import read_accepted, read_classes, read_held_out

_WINDOW = "window"
"""Key of `SessionRecord.more` for what only a window knows."""


def window_record(
    base: SessionRecord,
    images: Sequence[Image],
    layer: Labels,
    settings: RunSettings,
    session: Session,
    shown: SliceRef | None,
) -> SessionRecord:
    """Bring a record up to date.

    Parameters
    ----------
    base
        The record so far, with the facts of the image.
    images, layer
        The chosen image with its further channels, and the annotation.
    settings
        Of the next run.
    session
        Holds the current model and its scores.
    shown
        The slice in view; None in 3D, which leaves the last one.
    """
    window: dict[str, Any] = dict(_window(base))
    if shown is not None:
        window["shown"] = str(shown)
    image = images[0]
    if image.source.reader_plugin is not None:
        window["reader"] = image.source.reader_plugin
    changes: dict[str, Any] = {
        "channels": tuple(channel_source(channel) for channel in images[1:]),
        "classes": read_classes(layer),
        "held_out": tuple(map(str, sorted(read_held_out(layer)))),
        "accepted": {str(ref): text for ref, text in sorted(read_accepted(layer).items())},
        "settings": settings,
        "model_name": None if session.model is None else session.model.name,
        "scores": session.scores,
        "evidence": session.evidence,
        "more": {**base.more, _WINDOW: window},
    }
    with suppress(BadInputError):  # the user is just typing it
        changes["voxel_size"], changes["unit"] = voxel_size_of(image)
    return base.model_copy(update=changes)


def shown_slice_of(record: SessionRecord) -> SliceRef | None:
    """The slice that was in view; None when it is not known."""
    text = _window(record).get("shown")
    try:
        return parse_slices(text)[0] if isinstance(text, str) else None
    except (BadInputError, IndexError):
        return None


def reader_of(record: SessionRecord) -> str | None:
    """The napari plugin that opened the image; None when it is not known."""
    reader = _window(record).get("reader")
    return reader if isinstance(reader, str) else None


def _window(record: SessionRecord) -> Mapping[str, Any]:
    """What the window has stored in a record."""
    window = record.more.get(_WINDOW)
    return window if isinstance(window, dict) else {}
