"""Chooses which layers are further channels of the image."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QAction
from qtpy.QtWidgets import QMenu, QSizePolicy, QToolButton


class ChannelChoice(QToolButton):
    """A button with a menu, in which each channel can be ticked."""

    valueChanged = Signal()
    """The user ticked other channels."""

    def __init__(self) -> None:
        super().__init__()
        self._menu = QMenu(self)
        self._menu.setToolTipsVisible(True)
        self.setMenu(self._menu)
        self.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextOnly)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setAccessibleName("Channels of the image")
        self.setToolTip(
            "Layers of the same stack that are used as channels of the image: the network sees "
            "them together."
        )
        self._first = ""
        self._actions: dict[Hashable, QAction] = {}

    def value(self) -> tuple[Hashable, ...]:
        """The keys of the ticked channels."""
        return tuple(key for key, action in self._actions.items() if action.isChecked())

    def setValue(self, keys: Collection[Hashable]) -> None:
        """Tick other channels; emits nothing."""
        for key, action in self._actions.items():
            action.setChecked(key in keys)
        self._show()

    def set_offers(self, first: str, offers: Sequence[tuple[Hashable, str]]) -> None:
        """Offer these channels; those that were ticked stay ticked.

        Parameters
        ----------
        first
            Name of the image, which is always the first channel.
        offers
            Key and name of each further channel.
        """
        ticked = self.value()
        self._first = first
        self._menu.clear()
        self._actions = {}
        for key, name in offers:
            action = self._menu.addAction(name)
            assert action is not None
            action.setCheckable(True)
            action.setChecked(key in ticked)
            action.triggered.connect(self._ticked)
            self._actions[key] = action
        self._show()

    def _ticked(self) -> None:
        self._show()
        self.valueChanged.emit()

    def _show(self) -> None:
        names = [action.text() for action in self._actions.values() if action.isChecked()]
        others = f"{len(self._actions)} more to choose from"
        self.setText(" + ".join([self._first, *names]) if names else f"1 channel ({others})")
