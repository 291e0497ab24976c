"""Shows what is in a session folder as layers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer

from napari_unet3d.data.slices import parse_slices
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.data.wording import counted
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.opening import OpenedSession
from napari_unet3d.session.session import SessionRecord
from napari_unet3d.widgets.parts.ages import moment_text
from napari_unet3d.widgets.run.prediction_view import PredictionView
from napari_unet3d.widgets.viewer.belonging import bind
from napari_unet3d.widgets.viewer.channels import find_channel, other_channels
from napari_unet3d.widgets.viewer.image_volume import voxel_size_of
from napari_unet3d.widgets.viewer.keeper import SESSION_KEY
from napari_unet3d.widgets.viewer.layer_choice import LayerChoice
from napari_unet3d.widgets.viewer.layers import (
    metadata_of,
    role_of,
    write_accepted,
    write_classes,
    write_held_out,
)
from napari_unet3d.widgets.viewer.objects_layer import show_objects


def is_untouched(layer: Labels) -> bool:
    """Whether nothing was ever painted in an annotation that this window or a sample made."""
    if role_of(layer) != "annotation" or layer.source.path is not None:
        return False
    history: Any = getattr(layer, "_undo_history", None)  # private, and absent in other versions
    if metadata_of(layer).get(SESSION_KEY) or history:
        return False
    if layer.source.sample is not None:
        return True  # what is painted in it comes with the sample
    if isinstance(layer.data, SparseLabels):
        return not layer.data.painted
    return isinstance(layer.data, np.ndarray) and not layer.data.any()


def restore_annotation(layer: Labels, opened: OpenedSession) -> None:
    """Put the paint and the marks of a session into a layer of the same shape."""
    record = opened.record
    layer.data = opened.labels
    write_classes(layer, record.classes)
    write_held_out(layer, [ref for text in record.held_out for ref in parse_slices(text)])
    write_accepted(layer, {parse_slices(ref)[0]: text for ref, text in record.accepted.items()})


def restore_voxel_size(image: Image, record: SessionRecord) -> None:
    """Give an image the voxel size that it had in the session; its other layers follow."""
    try:
        if voxel_size_of(image) == (tuple(record.voxel_size), record.unit):
            return
    except BadInputError:  # the file has a wrong one
        pass
    unit = "um" if record.unit == "µm" else record.unit
    image.scale = (*image.scale[:-3], *record.voxel_size)
    image.units = (*image.units[:-3], unit, unit, unit)


def restore_channels(
    viewer: Any, choice: LayerChoice, image: Image, record: SessionRecord
) -> tuple[str, ...]:
    """Choose the further channels of a session again, and open the files of those not shown.

    Returns
    -------
    tuple of str
        A sentence for each channel that is not there.
    """
    found, notes = [], []
    for source in record.channels:
        layer = find_channel(source, other_channels(image, viewer.layers))
        if layer is None and source.path is not None and source.path.exists():
            with suppress(Exception):  # napari's and other plugins' readers raise anything
                viewer.open(str(source.path), plugin="napari-unet3d", layer_type="image")
            layer = find_channel(source, other_channels(image, viewer.layers))
        if layer is not None:
            found.append(layer)
            continue
        where = "was in no file" if source.path is None else f"cannot be opened from {source.path}"
        notes.append(f"The channel '{source.name}' {where}. Open it, and tick it at 'Channels'.")
    choice.choose_channels(found)
    return tuple(notes)


def restore_results(viewer: Any, image: Image, opened: OpenedSession) -> list[Any]:
    """Add the layers of the last results; return them."""
    if "labels" not in opened.results:
        return []
    before = list(viewer.layers)
    view = PredictionView(viewer, opened.results, image, opened.classes)
    view.open()
    view.finish()
    return [layer for layer in viewer.layers if layer not in before]


def restore_objects(
    viewer: Any, image: Image, opened: OpenedSession, results: Sequence[Layer]
) -> Labels | None:
    """Add the layer of the objects; None without any.

    Parameters
    ----------
    viewer, image, opened
        The napari viewer, the image of the session, and the session.
    results
        The layers of its results. The objects lie above the segmentation, or above the image where
        they are those of the user's own labels.
    """
    if opened.objects is None:
        return None
    source = next((x for x in results if role_of(x) == "prediction"), image)
    layer = show_objects(viewer, source, opened.objects.numbers, opened.objects.table)
    bind(layer, image)
    return layer


def opened_text(opened: OpenedSession, slices: int | None) -> str:
    """Say what is there again.

    Parameters
    ----------
    opened
        The session.
    slices
        Number of painted slices; None while they are counted.
    """
    saved = opened.saved_at.timestamp()
    parts = [] if slices is None else [counted(slices, "slice")]
    parts += ["model"] * (opened.model is not None)
    parts += ["prediction"] * ("labels" in opened.results)
    parts += ["objects"] * (opened.objects is not None)
    what = f": {', '.join(parts)}" if parts else ""
    if opened.crashed:
        until = moment_text(saved, seconds=True)
        text = f"napari ended unexpectedly. Everything up to {until} is here{what}."
    else:
        text = f"Continued your session of {moment_text(saved)}{what}."
    if opened.checkpoint is not None:
        text += " A training was cut off; what it had learned is kept."
    return " ".join((text, *opened.notes))
