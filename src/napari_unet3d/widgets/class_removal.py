"""Removes classes: asks first where paint would be lost, and can undo it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject

from napari_unet3d.config import UNLABELLED, ClassInfo
from napari_unet3d.widgets.annotator import Annotator
from napari_unet3d.widgets.parts.class_table import ClassTable
from napari_unet3d.widgets.parts.run_bar import RunBar

Voxels = tuple[np.ndarray, ...]
"""Indices of voxels: one array for each axis of a layer."""


@dataclass(frozen=True)
class _Removed:
    """A removed class and its paint, for an undo."""

    layer: Labels
    info: ClassInfo
    voxels: Voxels | None


class ClassRemoval(QObject):
    """Mediates between the class table, the annotation and the run bar.

    Parameters
    ----------
    annotator
        Holds the annotation.
    table
        Made with `asks_before_removal`.
    run_bar
        Shows the question, and the offer to undo.
    """

    def __init__(self, annotator: Annotator, table: ClassTable, run_bar: RunBar) -> None:
        super().__init__(table)
        self._annotator, self._table, self._run_bar = annotator, table, run_bar
        self._last: _Removed | None = None
        for signal, slot in (
            (table.removeRequested, self.request),
            (table.undoRequested, self.undo),
        ):
            signal.connect(slot)

    def request(self, info: ClassInfo) -> None:
        """Remove a class at once if it has no paint; otherwise ask."""
        layer = self._annotator.layer()
        if layer is None:
            return
        self._annotator.rescan()
        counts = [n for s in self._annotator.slices() if (n := s.counts.get(info.value, 0))]
        if not counts:
            self._remove(layer, info, with_paint=False)
            return
        slices = "1 slice" if len(counts) == 1 else f"{len(counts)} slices"
        voxels = "1 voxel" if sum(counts) == 1 else f"{sum(counts):,} voxels"
        self._run_bar.ask(
            f"'{info.name}' is painted on {slices} ({voxels}). Removing the class deletes this "
            "paint too.",
            [
                ("Delete class and paint", lambda: self._remove(layer, info, with_paint=True)),
                ("Keep the class", self._answered),
            ],
        )

    def undo(self) -> None:
        """Bring back the class that was removed last, and its paint where nothing else is."""
        last, self._last = self._last, None
        self._table.set_undoable(False)
        if last is None or self._annotator.layer() != last.layer:
            self._answered()
            return
        layer: Any = last.layer
        if last.voxels is not None:
            free = np.asarray(layer.data[last.voxels]) == UNLABELLED
            layer.data_setitem(tuple(axis[free] for axis in last.voxels), last.info.value)
        self._table.insert(last.info)
        self._annotator.rescan()
        self._answered()

    def _remove(self, layer: Any, info: ClassInfo, *, with_paint: bool) -> None:
        if self._annotator.layer() != layer:  # the question was about another layer
            self._answered()
            return
        voxels = find_voxels(layer.data, info.value) if with_paint else None
        if voxels is not None:
            layer.data_setitem(voxels, UNLABELLED)  # one undo step
        self._table.remove(info.value)
        self._annotator.rescan()
        self._last = _Removed(layer, info, voxels)
        self._table.set_undoable(True)
        what = "and its paint are" if with_paint else "is"
        self._run_bar.ask(f"The class '{info.name}' {what} removed.", [("Undo", self.undo)])

    def _answered(self) -> None:
        self._run_bar.set_message("")
        self._annotator.changed.emit()  # shows the hint again


def find_voxels(labels: Any, value: int) -> Voxels:
    """Find the voxels that hold `value`, plane by plane.

    Parameters
    ----------
    labels
        Array of integers with at least two axes, in memory or on disk.
    value
        The label.

    Returns
    -------
    tuple of numpy.ndarray
        The indices along each axis.
    """

    def planes() -> Iterator[np.ndarray]:
        for where in np.ndindex(*labels.shape[:-2]):
            inside = np.argwhere(np.asarray(labels[where]) == value)
            if len(inside):
                yield np.insert(inside, [0] * len(where), where, axis=1)

    voxels = list(planes())
    if not voxels:
        return tuple(np.zeros(0, np.intp) for _ in labels.shape)
    return tuple(np.concatenate(voxels).T)
