"""The entry "Open recent session" of napari's File menu."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QMenu

from napari_unet3d.widgets.parts.keep_line import RecentEntry, fill_recent

_TITLE = "Open Recent Session"


class RecentMenu(QObject):
    """Adds a submenu to napari's File menu, until `stop`.

    A plugin can contribute commands to this menu, but none that depend on what the user did. So
    the submenu is added to the Qt menu each time it opens: napari clears it when plugins change.

    Parameters
    ----------
    viewer
        The napari viewer.
    parent
        The Qt parent.
    recent
        Returns the sessions to offer.
    open_session
        Opens the one that is chosen.
    """

    def __init__(
        self,
        viewer: Any,
        parent: QObject,
        recent: Callable[[], Sequence[RecentEntry]],
        open_session: Callable[[Path], object],
    ) -> None:
        super().__init__(parent)
        self._recent, self._open = recent, open_session
        self._file_menu: QMenu = viewer.window.file_menu
        self.menu = QMenu(_TITLE, self._file_menu)
        self.menu.setToolTipsVisible(True)
        self.menu.aboutToShow.connect(self._fill)
        self._file_menu.aboutToShow.connect(self._insert)
        self._fill()
        self._insert()

    def stop(self) -> None:
        """Remove the submenu."""
        self._file_menu.aboutToShow.disconnect(self._insert)
        if (action := self.menu.menuAction()) is not None:
            self._file_menu.removeAction(action)
        self.menu.deleteLater()

    def _fill(self) -> None:
        fill_recent(self.menu, self._recent(), self._open)

    def _insert(self) -> None:
        action = self.menu.menuAction()
        actions = self._file_menu.actions()
        if action in actions:
            return
        # Below "Open Sample", which ends the group of what opens images.
        titles = [a.text().replace("&", "") for a in actions]
        at = titles.index("Open Sample") + 1 if "Open Sample" in titles else 0
        before = actions[at] if at < len(actions) else None
        self._file_menu.insertMenu(before, self.menu)
