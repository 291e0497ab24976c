"""Reads and writes all marks of an annotation layer at once; they lie in the layer's metadata."""

from __future__ import annotations

from typing import Any

from napari.layers import Labels

from napari_unet3d.data.marks import Marks
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.widgets.viewer.layers import (
    accepted_entry,
    held_out_entry,
    metadata_of,
    read_accepted,
    read_classes,
    read_held_out,
    remember,
    write_classes,
)

_BEFORE = "before"


def read_marks(layer: Labels) -> Marks:
    """The marks that are stored in a layer."""
    return Marks(read_classes(layer), read_held_out(layer), read_accepted(layer), _before(layer))


def write_marks(layer: Labels, marks: Marks) -> None:
    """Store the marks that differ from those of the layer."""
    now = read_marks(layer)
    if marks.classes != now.classes:
        write_classes(layer, marks.classes)
    changed: dict[str, Any] = {}
    if marks.held_out != now.held_out:
        changed |= held_out_entry(marks.held_out)
    if marks.accepted != now.accepted:
        changed |= accepted_entry(marks.accepted)
    if marks.before != now.before:
        changed[_BEFORE] = [
            [[r.axis, r.index, r.time], list(marks.before[r])]
            for r in sorted(marks.before)
            if marks.before[r]
        ]
    if changed:
        remember(layer, **changed)  # at once: who listens reads all marks at each change


def _before(layer: Labels) -> dict[SliceRef, tuple[Any, ...]]:
    try:
        entries = metadata_of(layer).get(_BEFORE, ())
        return {SliceRef(*map(int, where)): tuple(stack) for where, stack in entries}
    except (TypeError, ValueError):  # someone else has edited the metadata
        return {}
