"""Knows which annotations are in no file, and asks before they are lost.

What was saved is remembered as a checksum in the layer's metadata, so that it outlives the dock.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels, Layer
from qtpy.QtCore import QObject, Qt
from qtpy.QtWidgets import QApplication, QMessageBox, QWidget

from napari_unet3d.data.annotation import find_painted_slices
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.widgets.viewer.saving import ask_segmentation, save_labels
from napari_unet3d.widgets.viewer.layers import METADATA_KEY, metadata_of, role_of, voxel_size_of

_SAVED = "saved_checksum"


def mark_saved(layer: Labels) -> None:
    """Remember that what the layer holds now is in a file."""
    ours = {**metadata_of(layer), _SAVED: _checksum(layer.data)}
    layer.metadata = {**layer.metadata, METADATA_KEY: ours}


def is_unsaved(layer: Layer) -> bool:
    """Whether this is an annotation of ours with paint that is in no file."""
    if role_of(layer) != "annotation" or not isinstance(layer, Labels):
        return False
    checksum = _checksum(layer.data)
    return checksum != 0 and checksum != metadata_of(layer).get(_SAVED)


class UnsavedPaint(QObject):
    """Follows what is saved from a viewer, and asks before its annotations are lost."""

    def __init__(self, viewer: Any, parent: QWidget) -> None:
        super().__init__(parent)
        self._viewer, self._window = viewer, parent
        self._save = viewer.layers.save
        viewer.layers.save = self._save_and_remember  # napari tells nobody that it saved

    def stop(self) -> None:
        """Follow no longer."""
        if vars(self._viewer.layers).get("save") == self._save_and_remember:
            del self._viewer.layers.save

    def note_file(self, layer: Labels | None) -> None:
        """Take an annotation that napari read from a file as saved, when it is first met."""
        if layer is not None and layer.source.path is not None and _SAVED not in metadata_of(layer):
            mark_saved(layer)

    def layers(self) -> list[Labels]:
        """The annotations with paint that is in no file."""
        return [layer for layer in self._viewer.layers if is_unsaved(layer)]

    def may_close(self) -> bool:
        """Ask what to do with them; whether the window may be closed."""
        layers = self.layers()
        if not layers:
            return True
        box = QMessageBox(self._window)
        box.setIcon(QMessageBox.Icon.Warning)
        box.setWindowTitle("Close without saving?")
        box.setTextFormat(Qt.TextFormat.PlainText)
        box.setText("\n".join(_describe(layer) for layer in layers))
        box.setInformativeText("What is painted is lost when the window is closed.")
        save = box.addButton("Save…", QMessageBox.ButtonRole.AcceptRole)
        drop = box.addButton("Close without saving", QMessageBox.ButtonRole.DestructiveRole)
        cancel = box.addButton(QMessageBox.StandardButton.Cancel)
        box.setDefaultButton(save)
        box.setEscapeButton(cancel)
        box.exec()
        chosen = box.clickedButton()
        box.deleteLater()
        return chosen is drop or (chosen is save and all(map(self._ask_and_save, layers)))

    def _ask_and_save(self, layer: Labels) -> bool:
        """Ask for a file and write the annotation; whether that was done."""
        target = ask_segmentation(self._window, layer.name)
        if target is None:
            return False
        QApplication.setOverrideCursor(Qt.CursorShape.WaitCursor)
        try:
            _write(layer, target)
        except (BadInputError, RunFailedError) as error:
            QApplication.restoreOverrideCursor()
            QMessageBox.warning(self._window, "Not saved", str(error))
            return False
        QApplication.restoreOverrideCursor()
        return True

    def _save_and_remember(self, path: str, *, selected: bool = False, **options: Any) -> Any:
        layers: Iterable[Layer] = list(self._viewer.layers)
        if selected:
            layers = [x for x in layers if x in self._viewer.layers.selection]
        written = self._save(path, selected=selected, **options)
        if written:
            for layer in layers:
                if isinstance(layer, Labels) and role_of(layer) == "annotation":
                    mark_saved(layer)
        return written


def _write(layer: Labels, target: Path) -> None:
    voxel_size, unit = voxel_size_of(layer)
    for _ in save_labels(layer.data, target, voxel_size, unit):
        pass
    mark_saved(layer)


def _describe(layer: Labels) -> str:
    try:
        n = len(find_painted_slices(layer.data))
    except BadInputError:
        n = 0
    painted = f" (painted on {n} slice{'s' * (n != 1)})" if n else ""
    return f"The annotation '{layer.name}'{painted} is not saved."


def _checksum(labels: Any) -> int:
    """A number that changes with what is painted; 0 when nothing is."""
    checksum, painted = 0, False
    for where in np.ndindex(*labels.shape[:-2]):
        plane = np.ascontiguousarray(labels[where])
        if plane.any():
            painted = True
            checksum = zlib.crc32(plane.tobytes(), zlib.crc32(repr(where).encode(), checksum))
    return (checksum or 1) if painted else 0
