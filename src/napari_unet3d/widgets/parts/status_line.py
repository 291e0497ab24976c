"""A line of text that takes no room while it has nothing to say."""

from __future__ import annotations

from qtpy.QtWidgets import QLabel


class StatusLine(QLabel):
    """A label that wraps its text, and is hidden while the text is empty.

    Parameters
    ----------
    name
        Accessible name: what the text is about.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setAccessibleName(name)
        self.hide()

    def setText(self, a0: str | None) -> None:
        super().setText(a0)
        self.setVisible(bool(a0))
