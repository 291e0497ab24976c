"""Removes classes, and asks first where paint would be lost."""

from __future__ import annotations

from napari.layers import Labels
from qtpy.QtCore import QObject

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.wording import counted
from napari_unet3d.widgets.annotator import Annotator
from napari_unet3d.widgets.parts.class_table import ClassTable
from napari_unet3d.widgets.parts.run_bar import RunBar


class ClassRemoval(QObject):
    """Mediates between the class table, the annotation and the run bar.

    Parameters
    ----------
    annotator
        Holds the annotation.
    table
        Made with `asks_before_removal`.
    run_bar
        Shows the question.
    """

    def __init__(self, annotator: Annotator, table: ClassTable, run_bar: RunBar) -> None:
        super().__init__(table)
        self._annotator, self._run_bar = annotator, run_bar
        table.removeRequested.connect(self.request)

    def request(self, info: ClassInfo) -> None:
        """Remove a class at once if it has no paint; otherwise ask."""
        layer = self._annotator.layer()
        if layer is None:
            return
        if self._annotator.share_read() < 1:
            self._run_bar.set_status("The paint is still being counted: try again in a moment.")
            return
        counts = [n for s in self._annotator.slices() if (n := s.counts.get(info.value, 0))]
        if not counts:
            self._remove(layer, info)
            return
        slices = counted(len(counts), "slice")
        voxels = counted(sum(counts), "voxel")
        self._run_bar.ask(
            f"'{info.name}' is painted on {slices} ({voxels}). Removing the class deletes this "
            "paint too.",
            [
                ("Delete class and paint", lambda: self._remove(layer, info)),
                ("Keep the class", self._answered),
            ],
        )

    def _remove(self, layer: Labels, info: ClassInfo) -> None:
        is_same = self._annotator.layer() is layer  # else the question was about another layer
        if is_same and self._annotator.remove_class(info.value):
            self._run_bar.set_status(f"'{info.name}' is removed. Ctrl+Z brings it back.")
        self._answered()

    def _answered(self) -> None:
        self._run_bar.set_message("")
        self._annotator.changed.emit()  # shows the hint again
