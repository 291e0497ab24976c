"""The layer of proposals: labels that count in no training until the user accepts them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils import DirectLabelColormap

from napari_unet3d.config import BACKGROUND, ClassInfo
from napari_unet3d.data.slices import SliceRef, at_time, read_slice
from napari_unet3d.widgets.viewer.belonging import belongs_to, bind
from napari_unet3d.widgets.viewer.layers import (
    class_colormap,
    class_features,
    insert_quietly,
    metadata_of,
    read_classes,
    remember,
    role_of,
    unique_name,
)
from napari_unet3d.widgets.viewer.placement import spatial_transform
from napari_unet3d.widgets.viewer.room import empty_labels

_CONTOUR = 2
"""Voxels: proposals are outlined, so that nobody takes them for paint."""
_PROPOSED = "proposed"


class AcceptedProposals:
    """Keeps the proposals that were accepted, since an undo brings them back."""

    def __init__(self) -> None:
        self._planes: dict[SliceRef, tuple[str, np.ndarray]] = {}

    def sync(self, layer: Labels, accepted: Mapping[SliceRef, str]) -> None:
        """Remove proposals that are accepted now from their layer, and bring back the others.

        Parameters
        ----------
        layer
            The proposals.
        accepted
            The accepted slices of the annotation, each with where it came from.
        """
        still_open = proposed(layer)
        done = {r: origin for r, origin in still_open.items() if accepted.get(r) == origin}
        undone = {r: kept for r, kept in self._planes.items() if accepted.get(r) != kept[0]}
        if not done and not undone:
            return
        for ref, origin in done.items():
            plane = proposal_at(layer, ref)
            self._planes[ref] = origin, plane
            write_proposals(layer.data, [(ref, np.zeros_like(plane))])
            del still_open[ref]
        for ref, (origin, plane) in undone.items():
            del self._planes[ref]
            write_proposals(layer.data, [(ref, plane)])
            still_open[ref] = origin
        note_proposed(layer, still_open)

    def clear(self) -> None:
        """Forget them."""
        self._planes.clear()


def find_proposals(viewer: Any, image: Image | None, annotation: Labels) -> Labels | None:
    """The layer of proposals for an annotation; None without one."""
    shape = tuple(annotation.data.shape)
    for layer in reversed(viewer.layers):
        if (
            role_of(layer) == "proposal"
            and tuple(layer.data.shape) == shape
            and (image is None or belongs_to(layer, image))
        ):
            found: Labels = layer
            return found
    return None


def add_proposals(viewer: Any, image: Image, annotation: Labels) -> Labels:
    """Add an empty layer of proposals above an annotation, which stays selected.

    Raises
    ------
    MemoryError, OSError
        There is no room for it.
    """
    classes = read_classes(annotation)
    layer = Labels(
        empty_labels(tuple(annotation.data.shape)),
        name=unique_name(f"{image.name} proposals", (x.name for x in viewer.layers)),
        visible=False,  # until something is proposed
        **spatial_transform(annotation, annotation.ndim),
    )
    layer.colormap = _colormap(classes)
    layer.features = class_features(classes, annotation=True)
    layer.editable = False
    remember(layer, role="proposal", classes=[c.model_dump() for c in classes])
    bind(layer, image)
    insert_quietly(viewer, viewer.layers.index(annotation) + 1, layer)
    return layer


def _colormap(classes: Sequence[ClassInfo]) -> DirectLabelColormap:
    """The colors of the classes; the outlines of background would double theirs."""
    colors = dict(class_colormap(classes, annotation=True).color_dict)
    colors[BACKGROUND] = np.zeros(4, np.float32)
    return DirectLabelColormap(color_dict=colors)


def proposed(layer: Labels | None) -> dict[SliceRef, str]:
    """The slices that are proposed in a layer, each with where it came from."""
    try:
        entries = () if layer is None else metadata_of(layer).get(_PROPOSED, ())
        return {SliceRef(*map(int, where)): str(origin) for where, origin in entries}
    except (TypeError, ValueError):  # someone else has edited the metadata
        return {}


def note_proposed(layer: Labels, slices: Mapping[SliceRef, str]) -> None:
    """Store which slices are proposed in a layer, and redraw it."""
    entries = [[[r.axis, r.index, r.time], slices[r]] for r in sorted(slices)]
    remember(layer, **{_PROPOSED: entries})
    if layer.contour == _CONTOUR:
        layer.refresh(extent=False, thumbnail=False)
    else:
        layer.visible = True
        layer.contour = _CONTOUR  # redraws the layer


def write_proposals(labels: Any, planes: Iterable[tuple[SliceRef, np.ndarray]]) -> None:
    """Write slices into the array of a layer; it may be called in a thread."""
    for ref, plane in planes:
        box: list[Any] = [slice(None)] * 3
        box[ref.axis] = slice(ref.index, ref.index + 1)
        labels[at_time(labels, ref.time, tuple(box))] = np.expand_dims(plane, ref.axis)


def proposal_at(layer: Labels, ref: SliceRef) -> np.ndarray:
    """Read a proposed slice, (h, w); a copy."""
    return np.array(read_slice(layer.data, ref))
