"""The session of a napari window, which outlives a dock that is closed and opened again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from napari.layers import Labels
from qtpy.QtCore import QObject, Qt, Signal

from napari_unet3d.config import ObjectsConfig
from napari_unet3d.session.session import Session


class WindowSession(QObject):
    """Holds the newest session of one window, and tells when it changes.

    It keeps what no layer holds: the current model and its scores. Image, annotation and settings
    lie in the layers and in the dock, which add them for a run. So the window keeps no array of a
    layer that was removed.

    Parameters
    ----------
    window
        The Qt window; Qt deletes this object with it.
    """

    changed = Signal()
    openRequested = Signal()
    """A session folder is to be opened: `take_wanted` names it."""
    objectsFound = Signal(object, object)
    """A Labels layer shows objects that were found, with this `ObjectsConfig`."""
    objectsOpened = Signal(object, object)
    """The same, but the objects came with a session that was opened."""

    def __init__(self, window: QObject | None = None) -> None:
        super().__init__(window)
        self._session = Session()
        self._wanted: Path | None = None

    def value(self) -> Session:
        """The newest session."""
        return self._session

    def update(self, **changes: Any) -> None:
        """Replace fields of the session."""
        self._session = replace(self._session, **changes)
        self.changed.emit()

    def tell_objects(self, layer: Labels, config: ObjectsConfig, *, opened: bool = False) -> None:
        """Tell that a layer shows other objects than before.

        Parameters
        ----------
        layer
            The layer; its metadata holds the table.
        config
            How the objects were found.
        opened
            Whether they were stored in a session, instead of found just now.
        """
        (self.objectsOpened if opened else self.objectsFound).emit(layer, config)

    def request(self, folder: Path) -> None:
        """Ask for a session folder to be opened, by the dock or by the one that is opened next."""
        self._wanted = folder
        self.openRequested.emit()

    def take_wanted(self) -> Path | None:
        """The session folder that is to be opened; None afterwards."""
        wanted, self._wanted = self._wanted, None
        return wanted


def session_of(viewer: Any) -> WindowSession:
    """Find the session of the viewer's window; a window without one gets one."""
    window: QObject = viewer.window._qt_window  # napari has no public name for it
    direct = Qt.FindChildOption.FindDirectChildrenOnly
    session = window.findChild(WindowSession, options=direct)
    return WindowSession(window) if session is None else session
