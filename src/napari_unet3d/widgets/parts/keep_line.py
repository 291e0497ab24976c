"""The line that says whether the work is saved, with a menu of sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QFontMetrics, QResizeEvent
from qtpy.QtWidgets import QHBoxLayout, QLabel, QMenu, QSizePolicy, QToolButton, QWidget

from napari_unet3d.session.names import SUFFIX

_MOST_RECENT = 12
"""Sessions in the menu: more would not fit on a small screen."""


@dataclass(frozen=True)
class KeepState:
    """What the line shows.

    Parameters
    ----------
    text
        One sentence, such as "Saved 5 s ago".
    place
        Name of the session folder; "" for none.
    tip
        The tooltip: the whole path, or why the work is not saved, with the cure.
    problem
        Whether the work is not saved.
    """

    text: str
    place: str = ""
    tip: str = ""
    problem: bool = False


@dataclass(frozen=True)
class RecentEntry:
    """One session that can be opened.

    Parameters
    ----------
    path
        Its folder.
    text
        The text of the menu.
    """

    path: Path
    text: str


_PADDING = 8
"""Pixels that napari's style leaves free left and right of a text."""


class KeepLine(QWidget):
    """Shows a `KeepState` in one line."""

    openRequested = Signal(object)
    """The Path of a recent session."""
    chooseRequested = Signal()
    """Open a session that is not in the list."""
    keepInRequested = Signal()
    showFolderRequested = Signal()
    startAnewRequested = Signal()
    recentWanted = Signal()
    """The menu opens: `set_recent` is to be called now."""

    def __init__(self) -> None:
        super().__init__()
        self._state = KeepState("")
        self.label = QLabel()
        self.label.setAccessibleName("Session")
        self.label.setTextFormat(Qt.TextFormat.PlainText)
        self.label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.menu = QMenu(self)
        self.menu.setToolTipsVisible(True)
        self.recent_menu = QMenu("Open &recent session", self.menu)
        self.recent_menu.setToolTipsVisible(True)
        self.menu.addMenu(self.recent_menu)
        self.choose_action = self.menu.addAction("&Open session…", self.chooseRequested.emit)
        self.menu.addSeparator()
        self.keep_in_action = self.menu.addAction("&Keep in…", self.keepInRequested.emit)
        self.show_action = self.menu.addAction("&Show folder", self.showFolderRequested.emit)
        self.anew_action = self.menu.addAction("Start &anew", self.startAnewRequested.emit)
        for action, tip in (
            (self.choose_action, "Open a session folder, and the image that it belongs to."),
            (self.keep_in_action, "Choose the folder in which this session is saved."),
            (self.show_action, "Show the session folder in the file browser."),
            (
                self.anew_action,
                "Begin with an empty annotation; what is saved stays in its folder.",
            ),
        ):
            if action is not None:
                action.setToolTip(tip)
        self.menu.aboutToShow.connect(self.recentWanted)
        self.button = QToolButton()
        self.button.setText("Session ▾")
        self.button.setStyleSheet("QToolButton::menu-indicator { image: none; }")
        self.button.setAccessibleName("Session menu")
        self.button.setToolTip("Open a recent session, or choose where this one is saved.")
        self.button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextOnly)
        self.button.setMenu(self.menu)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(6, 0, 6, 0)
        layout.setSpacing(4)
        layout.addWidget(self.label, 1)
        layout.addWidget(self.button)
        self.set_recent(())
        self.set_available(image=False, folder=False)

    def value(self) -> KeepState:
        """What the line shows."""
        return self._state

    def setValue(self, state: KeepState) -> None:
        """Show another state."""
        if state == self._state:
            return
        other_color = state.problem != self._state.problem
        self._state = state
        if other_color:
            self.label.setObjectName("problem" if state.problem else "")
            style = self.label.style()
            if style is not None:
                style.unpolish(self.label)
                style.polish(self.label)
        self.label.setToolTip(state.tip)
        self._show()

    def set_recent(self, entries: Sequence[RecentEntry]) -> None:
        """Offer these sessions in the menu."""
        fill_recent(self.recent_menu, entries, self.openRequested.emit)

    def set_available(self, *, image: bool, folder: bool) -> None:
        """Enable the actions that need an image, and those that need a session folder."""
        for action, enabled in (
            (self.keep_in_action, image),
            (self.show_action, folder),
            (self.anew_action, folder),
        ):
            if action is not None:
                action.setEnabled(enabled)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        super().resizeEvent(event)
        self._show()

    def _show(self) -> None:
        state = self._state
        if not state.place:
            self.label.setText(state.text)
            return
        text = f"{state.text} · {state.place}"
        metrics = QFontMetrics(self.label.font())
        room = self.label.width() - _PADDING
        if metrics.horizontalAdvance(text) > room:  # the ending says the least
            name = state.place.removesuffix(SUFFIX)
            left = room - metrics.horizontalAdvance(f"{state.text} · ")
            name = metrics.elidedText(name, Qt.TextElideMode.ElideMiddle, left)
            text = f"{state.text} · {name}"
        self.label.setText(text)


def fill_recent(menu: QMenu, entries: Sequence[RecentEntry], open_one: object) -> None:
    """Fill a menu with sessions; `open_one` is called with the Path of the one that is chosen."""
    assert callable(open_one)
    menu.clear()
    for entry in entries[:_MOST_RECENT]:
        action = menu.addAction(entry.text.replace("&", "&&"))
        if action is not None:
            action.setToolTip(str(entry.path))
            action.triggered.connect(lambda _checked=False, path=entry.path: open_one(path))
    if not entries:
        action = menu.addAction("No session yet")
        if action is not None:
            action.setEnabled(False)
