"""Finds annotations that are neither in a session folder nor in a file; asks before they are lost.

The metadata of a layer hold a checksum of what the user saved, so that it outlives the dock.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels, Layer
from qtpy.QtCore import QObject, Qt
from qtpy.QtWidgets import QApplication, QMessageBox, QWidget

from napari_unet3d.data.ledger import find_painted_slices
from napari_unet3d.data.wording import counted
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.widgets.parts.file_dialogs import ask_segmentation
from napari_unet3d.widgets.viewer.image_volume import voxel_size_of
from napari_unet3d.widgets.viewer.layers import metadata_of, remember, role_of
from napari_unet3d.widgets.viewer.lifetime import Override
from napari_unet3d.widgets.viewer.saving import save_labels

_SAVED = "saved_checksum"


def mark_saved(layer: Labels) -> None:
    """Record that the labels, as they are now, are in a file."""
    remember(layer, **{_SAVED: _checksum(layer.data)})


def is_unsaved(layer: Layer) -> bool:
    """Return whether this is an annotation of the plugin with paint that is in no file."""
    if role_of(layer) != "annotation" or not isinstance(layer, Labels):
        return False
    checksum = _checksum(layer.data)
    return checksum != 0 and checksum != metadata_of(layer).get(_SAVED)


class UnsavedPaint(QObject):
    """Follows which annotations of a viewer are saved, and asks before others are lost.

    Parameters
    ----------
    viewer
        The napari viewer.
    parent
        The parent of the dialogs.
    why
        Returns why an annotation is not in its session folder; "" if it is, None if it has none.
    """

    def __init__(self, viewer: Any, parent: QWidget, why: Callable[[Labels], str | None]) -> None:
        super().__init__(parent)
        self._viewer, self._window, self._why = viewer, parent, why
        self._save_override = Override(viewer.layers, "save", self._save_and_remember)

    def stop(self) -> None:
        """Follow no longer."""
        self._save_override.stop()

    def note_file(self, layer: Labels | None) -> None:
        """Mark an annotation as saved when it is first chosen and napari read it from a file."""
        if layer is not None and layer.source.path is not None and _SAVED not in metadata_of(layer):
            mark_saved(layer)

    def layers(self) -> list[Labels]:
        """The annotations with paint that is in no session folder and in no file."""
        labels = (x for x in self._viewer.layers if isinstance(x, Labels))
        return [x for x in labels if self._why(x) != "" and is_unsaved(x)]

    def texts(self) -> tuple[str, ...]:
        """A sentence on each of these annotations."""
        return tuple(map(self._describe, self.layers()))

    def may_close(self) -> bool:
        """Ask what to do with unsaved annotations; return whether the window may be closed."""
        layers = self.layers()
        if not layers:
            return True
        box = QMessageBox(self._window)
        box.setIcon(QMessageBox.Icon.Warning)
        box.setWindowTitle("Close without saving?")
        box.setTextFormat(Qt.TextFormat.PlainText)
        box.setText("\n".join(map(self._describe, layers)))
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

    def _describe(self, layer: Labels) -> str:
        try:
            n = len(find_painted_slices(layer.data))
        except BadInputError:
            n = 0
        painted = f" (painted on {counted(n, 'slice')})" if n else ""
        return (
            f"The annotation '{layer.name}'{painted} is not saved. {self._why(layer) or ''}".strip()
        )

    def _ask_and_save(self, layer: Labels) -> bool:
        """Ask for a file and write the annotation; return whether it was written."""
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

    def _save_and_remember(
        self, save: Callable[..., Any], path: str, *, selected: bool = False, **options: Any
    ) -> Any:
        """Do what ``viewer.layers.save`` does, and mark the annotations that it wrote."""
        layers: Iterable[Layer] = list(self._viewer.layers)
        if selected:
            layers = [x for x in layers if x in self._viewer.layers.selection]
        written = save(path, selected=selected, **options)
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


def _checksum(labels: Any) -> int:
    """A number that differs for different paint; 0 when nothing is painted."""
    checksum, painted = 0, False
    for where in np.ndindex(*labels.shape[:-2]):
        plane = np.ascontiguousarray(labels[where])
        if plane.any():
            painted = True
            checksum = zlib.crc32(plane.tobytes(), zlib.crc32(repr(where).encode(), checksum))
    return (checksum or 1) if painted else 0
