"""The notice: a problem of the layers, with buttons that cure it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qtpy.QtWidgets import (
    QBoxLayout,
    QFrame,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)


@dataclass(frozen=True)
class Notice:
    """A text and the buttons below it.

    Parameters
    ----------
    text
        Whole sentences.
    answers
        Text and action of each button.
    blocks
        Whether nothing can be trained before this is settled.
    """

    text: str
    answers: tuple[tuple[str, Callable[[], object]], ...] = ()
    blocks: bool = False


class NoticeBox(QWidget):
    """Shows one notice; hidden when there is none.

    Parameters
    ----------
    in_a_row
        Whether the buttons, whose texts are short, stand beside each other.
    """

    def __init__(self, *, in_a_row: bool = False) -> None:
        super().__init__()
        self._frame = frame = QFrame()
        frame.setObjectName("notice")
        self.text = QLabel()
        self.text.setWordWrap(True)
        # A long text or path must not make the dock wider.
        policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        policy.setHeightForWidth(True)
        self.text.setSizePolicy(policy)
        self.text.setAccessibleName("Notice")
        self.buttons: list[QPushButton] = []
        outside = QVBoxLayout(self)
        outside.setContentsMargins(6, 4, 6, 0)
        outside.addWidget(frame)
        self._layout = QVBoxLayout(frame)
        self._layout.setContentsMargins(8, 4, 4, 4)
        self._layout.setSpacing(4)
        self._layout.addWidget(self.text)
        across, down = QBoxLayout.Direction.LeftToRight, QBoxLayout.Direction.TopToBottom
        self._buttons = QBoxLayout(across if in_a_row else down)
        self._buttons.setSpacing(4)
        self._layout.addLayout(self._buttons)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Maximum)
        self._notice: Notice | None = None
        self.hide()

    def value(self) -> Notice | None:
        """The notice that is shown; None when none is."""
        return self._notice

    def setValue(self, notice: Notice | None) -> None:
        """Show another notice; hide it when None."""
        old = self._notice
        self._notice = notice
        texts = () if notice is None else tuple(text for text, _ in notice.answers)
        if old is None or texts != tuple(text for text, _ in old.answers):
            self._make_buttons(texts)
        # A zero-width space lets a line break after each folder of a path.
        self.text.setText("" if notice is None else notice.text.replace("/", "/\u200b"))
        self.setVisible(notice is not None)
        blocks = notice is not None and notice.blocks
        if self._frame.property("error") != blocks:
            self._frame.setProperty("error", blocks)
            self._frame.style().unpolish(self._frame)  # type: ignore[union-attr]
            self._frame.style().polish(self._frame)  # type: ignore[union-attr]

    def _make_buttons(self, texts: tuple[str, ...]) -> None:
        for button in self.buttons:
            button.hide()
            button.deleteLater()  # not at once: its click may be the reason for this call
        self.buttons = [QPushButton(text) for text in texts]
        for i, button in enumerate(self.buttons):
            button.clicked.connect(lambda _checked=False, i=i: self._pressed(i))
            self._buttons.addWidget(button)

    def _pressed(self, index: int) -> None:
        if self._notice is not None:
            self._notice.answers[index][1]()
