"""Removes classes: asks when paint would be lost, and offers to undo it."""

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
"""One array of indices for each axis of a layer."""


@dataclass(frozen=True)
class _Removed:
    """What an undo brings back."""

    layer: Labels
    info: ClassInfo
    voxels: Voxels | None


class ClassRemoval(QObject):
    """Answers the class table's wish to remove a class."""

    def __init__(self, annotator: Annotator, table: ClassTable, run_bar: RunBar) -> None:
        super().__init__(table)
        self._annotator, self._table, self._run_bar = annotator, table, run_bar
        self._last: _Removed | None = None
        table.asks_before_removal = True
        table.removeRequested.connect(self.request)
        table.undoRequested.connect(self.undo)

    def request(self, info: ClassInfo) -> None:
        """Remove a class at once when it has no paint; else ask."""
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
        """Bring back the class that was removed last, with its paint where nothing is painted."""
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
        if self._annotator.layer() != layer:  # the question was about another one
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
        self._annotator.changed.emit()  # the hint again


def find_voxels(labels: Any, value: int) -> Voxels:
    """Find the voxels that hold `value`, plane by plane.

    Parameters
    ----------
    labels
        Array of integers with at least two axes, in memory or not.
    value
        The label.

    Returns
    -------
    tuple of numpy.ndarray
        Indices for each axis.
    """

    def planes() -> Iterator[np.ndarray]:
        for where in np.ndindex(*labels.shape[:-2]):
            inside = np.argwhere(np.asarray(labels[where]) == value)
            if len(inside):
                yield np.insert(inside, [0] * len(where), where, axis=1)

    found = list(planes())
    if not found:
        return tuple(np.zeros(0, np.intp) for _ in labels.shape)
    return tuple(np.concatenate(found).T)
