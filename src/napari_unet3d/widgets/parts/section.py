"""A titled part of the dock that folds away."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QLayout, QSizePolicy, QToolButton, QVBoxLayout, QWidget

_ARROW = 40
"""Pixels of the heading that its text cannot take: arrow, focus ring and margins."""


class Section(QWidget):
    """A heading that shows or hides the content below it, by mouse and keyboard.

    Parameters
    ----------
    title
        Text of the heading.
    content
        The widget or layout below it.
    expanded
        Whether the content is shown at first.
    main
        Whether the heading is bold, as that of a step of the work.
    """

    toggled = Signal(bool)
    """Whether the content is shown now."""

    def __init__(
        self, title: str, content: QWidget | QLayout, *, expanded: bool = True, main: bool = True
    ) -> None:
        super().__init__()
        self._title, self._summary = title, ""
        self.header = QToolButton()
        self.header.setCheckable(True)
        self.header.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.header.setAutoRaise(True)
        # A long text is shortened; it must not make the dock wider.
        self.header.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        font = self.header.font()
        font.setBold(main)
        self.header.setFont(font)
        self.header.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        if isinstance(content, QLayout):
            self.content = QWidget()
            self.content.setLayout(content)
        else:
            self.content = content
        if (inner := self.content.layout()) is not None:
            inner.setContentsMargins(6, 2, 2, 4)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.header)
        layout.addWidget(self.content)
        self.header.toggled.connect(self._show)
        self.header.setChecked(expanded)
        self._show(expanded)

    def setExpanded(self, expanded: bool) -> None:
        self.header.setChecked(expanded)

    def set_summary(self, summary: str) -> None:
        """Set what the heading says about the content while that is hidden."""
        if summary != self._summary:
            self._summary = summary
            self._show_title()

    def resizeEvent(self, a0: QResizeEvent | None) -> None:
        super().resizeEvent(a0)
        self._show_title()

    def _show_title(self) -> None:
        summary = "" if self.header.isChecked() else self._summary
        text = f"{self._title} · {summary}" if summary else self._title
        room = max(self.width() - _ARROW, 0)
        elided = self.header.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, room)
        self.header.setText(elided if self.isVisible() else text)
        more = f": {summary}" if summary else ""
        self.header.setAccessibleName(f"{self._title.replace('&', '')}, section{more}")
        self.header.setToolTip("\n".join(filter(None, (summary, "Show or hide this section"))))

    def _show(self, expanded: bool) -> None:
        self._show_title()
        self.header.setArrowType(Qt.ArrowType.DownArrow if expanded else Qt.ArrowType.RightArrow)
        self.content.setVisible(expanded)
        self.toggled.emit(expanded)


def column(*widgets: QWidget, spacing: int = 8) -> QWidget:
    """Put widgets below each other, so many pixels apart."""
    content = QWidget()
    layout = QVBoxLayout(content)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(spacing)
    for widget in widgets:
        layout.addWidget(widget)
    return content


def stacked(*sections: QWidget) -> QWidget:
    """Put sections below each other, from the top; what they do not need stays free below them."""
    content = column(*sections)
    layout = content.layout()
    assert isinstance(layout, QVBoxLayout)
    layout.setContentsMargins(4, 0, 4, 0)
    layout.addStretch(1)
    return content
