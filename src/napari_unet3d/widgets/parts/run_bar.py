"""The run bar: the buttons that start and end a run, its progress, a message and a status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from qtpy.QtCore import QSize, Qt, QTimer, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_unet3d.widgets.parts.status_line import StatusLine
from napari_unet3d.widgets.parts.wrapping_row import WrappingRow

Action = tuple[str, Callable[[], object]]
"""Text of a button under the message, and the function that it calls."""
_SCALE = 1000
"""Steps of the progress bar: more than its pixels in a narrow dock."""
_PASSING_MS = 10_000
"""Milliseconds after which a remark vanishes, and a status line when nothing runs: they report an
event, and must not look like the present state."""
_ANEW, _CONTINUE = "Train && se&gment", "Continue training && se&gment"
_USUAL_ACTIONS = 4
"""Number of buttons under a message that are made at the start. No message has more."""
_MOST_MESSAGE = 220
"""Pixels of a message that are shown without scrolling: twelve lines, beside the sections."""
_FRAME = 4
"""Pixels that napari's style adds above and below a text."""
_LEAST_MESSAGE = 36
"""Pixels of a message, two lines, that stay visible on the smallest screen."""


class RunBar(QWidget):
    """Offers to start, stop and cancel a run; shows a remark, a message and a status line."""

    startRequested = Signal()
    stopRequested = Signal()
    cancelRequested = Signal()
    keepsLearningChanged = Signal(bool)
    """Whether the user wants the training to go on by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setTextFormat(Qt.TextFormat.PlainText)
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.message.setAccessibleName("Message")
        self._words = _Words(self.message)
        self._action_row = QWidget()
        self._action_row.setObjectName("words")
        self._buttons: list[QPushButton] = []
        """Made early: Tab reaches widgets in the order in which they were made."""
        self._calls: list[Callable[[], object]] = []
        self._actions = WrappingRow()
        self._action_row.setLayout(self._actions)
        for _ in range(_USUAL_ACTIONS):
            self._add_button()
        self._frame = QFrame()
        self._frame.setObjectName("message")
        inside = QVBoxLayout(self._frame)
        inside.setContentsMargins(8, 4, 4, 4)
        inside.setSpacing(4)
        inside.addWidget(self._words)
        inside.addWidget(self._action_row)
        self._frame.hide()
        self.remark = QLabel()
        self.remark.setWordWrap(True)
        self.remark.setTextFormat(Qt.TextFormat.PlainText)
        self.remark.setAccessibleName("What the last action did")
        self.remark.hide()
        self.start_button = QPushButton(_ANEW)
        self.start_button.setObjectName("start")
        self.start_button.setMinimumHeight(36)
        self.start_button.setAccessibleName("Train and segment")
        self.start_button.setToolTip(
            "Train a network on the painted slices, then segment the whole stack.\n"
            "Your annotation is never changed; the result is a new layer. Key: Ctrl+Enter."
        )
        self.expectation = StatusLine("How long it takes")
        self.keep_learning = QCheckBox("Keep learning")
        self.keep_learning.setAccessibleName("Keep learning")
        self.keep_learning.setToolTip(
            "Train by itself, as soon as a structure and background are painted: slices that you\n"
            "paint join, the slice in view is refreshed, and the training rests when more time no\n"
            "longer helps. Then the whole stack is segmented. The budget is not used."
        )
        self.stop_button = QPushButton("Stop, &keep the model")
        self.stop_button.setMinimumHeight(36)
        self.stop_button.setToolTip(
            "End the training now, and segment the stack with what was learned so far."
        )
        self.stop_button.setAccessibleName("Stop the training, keep the model and segment")
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setMinimumHeight(36)
        self.cancel_button.setToolTip("End the run and leave all layers as they were before it.")
        self.progress = QProgressBar()
        self.progress.setRange(0, _SCALE)
        self.progress.setAccessibleName("Progress")
        self.status = StatusLine("Status")

        running = QHBoxLayout()
        running.setContentsMargins(0, 0, 0, 0)
        running.setSpacing(4)
        running.addWidget(self.stop_button, 3)
        running.addWidget(self.cancel_button, 2)
        beside = QHBoxLayout()
        beside.setSpacing(8)
        beside.addWidget(self.keep_learning)
        beside.addWidget(self.expectation, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 4, 6, 4)
        layout.setSpacing(4)
        layout.addWidget(self.remark)
        layout.addWidget(self._frame)
        layout.addWidget(self.start_button)
        layout.addLayout(running)
        layout.addLayout(beside)
        layout.addWidget(self.progress)
        layout.addWidget(self.status)
        self.start_button.clicked.connect(self.startRequested)
        self.stop_button.clicked.connect(self.stopRequested)
        self.cancel_button.clicked.connect(self.cancelRequested)
        self.keep_learning.toggled.connect(self.keepsLearningChanged)
        self._passing, self._remark_passing = QTimer(self), QTimer(self)
        for timer, forget in ((self._passing, self.set_status), (self._remark_passing, self.tell)):
            timer.setSingleShot(True)
            timer.setInterval(_PASSING_MS)
            timer.timeout.connect(partial(forget, ""))
        self._error = self._kept = self._running = self._stays = False
        self._expectation = ""
        self.show_ready()

    def show_ready(self) -> None:
        """Offer to start: nothing runs."""
        self._running = False
        self.start_button.show()
        self._show_expectation()
        for widget in (self.stop_button, self.cancel_button, self.progress):
            widget.hide()

    def show_running(self, *, can_stop: bool) -> None:
        """Offer to stop, while training, and to cancel: something runs."""
        self._running = True
        had_focus = self.start_button.hasFocus()
        self.start_button.hide()
        self._show_expectation()
        self.stop_button.setVisible(can_stop)
        self.stop_button.setEnabled(True)
        self.cancel_button.show()
        self.cancel_button.setEnabled(True)
        self.progress.show()
        if had_focus:  # Cancel must not get it: Space would end the run that just began
            self.progress.setFocus()

    def show_ending(self, *, cancelled: bool) -> None:
        """Show that the run is being ended; after Stop, the user may still cancel."""
        self.stop_button.setEnabled(False)
        self.cancel_button.setEnabled(not cancelled)

    def set_continues(self, continues: bool) -> None:
        """Set whether the button continues a trained model, or trains a new one."""
        text = _CONTINUE if continues else _ANEW
        self.start_button.setText(text)
        self.start_button.setAccessibleName(
            "Continue training and segment" if continues else "Train and segment"
        )

    def set_progress(self, fraction: float, text: str) -> None:
        """Show the fraction that is done, 0 to 1, and the name of the phase."""
        self.progress.setUpdatesEnabled(False)  # otherwise setValue draws the window at once
        self.progress.setValue(round(_SCALE * min(max(fraction, 0.0), 1.0)))
        self.progress.setFormat(f"{text} %p %")
        self.progress.setUpdatesEnabled(True)

    def set_expectation(self, text: str, basis: str = "") -> None:
        """Show how long a run would take, until one runs; "" removes it.

        Parameters
        ----------
        text
            One sentence.
        basis
            What it rests on; a tooltip.
        """
        self._expectation = text
        self.expectation.setToolTip(basis)
        self._show_expectation()

    def _show_expectation(self) -> None:
        """Show it unless something runs, or the last run has just said how long it took."""
        said = self._running or self._stays
        self.expectation.setText("" if said else self._expectation)

    def set_status(self, text: str, *, stays: bool = False) -> None:
        """Show a line of figures, or of what happened.

        Parameters
        ----------
        text
            The line; it is hidden when it is empty.
        stays
            Whether it stays while nothing runs; else it vanishes after ten seconds.
        """
        self.status.setText(text)
        self._stays = stays and bool(text)
        self._show_expectation()
        if text and not stays and not self._running:
            self._passing.start()
        else:
            self._passing.stop()

    def tell(self, text: str) -> None:
        """Show what a key or a button just did, or why it did nothing; "" removes it.

        It is visible wherever the dock is scrolled to, and no message replaces it.
        """
        self.remark.setText(text)
        self.remark.setVisible(bool(text))
        if text:
            self._remark_passing.start()
        else:
            self._remark_passing.stop()

    def set_message(self, text: str, error: bool = False, actions: Sequence[Action] = ()) -> None:
        """Show what to do next, or what went wrong and the cure.

        Parameters
        ----------
        text
            Plain text; the message is hidden when it is empty.
        error
            Whether something went wrong. Such a message stays until its cause is gone.
        actions
            Buttons under the text.
        """
        self._error, self._kept = error, False
        self.message.setText(text)
        self._show_actions(actions if text else ())
        if self._frame.property("error") != error:
            self._frame.setProperty("error", error)
            for part in (self._frame, self.message):
                part.style().unpolish(part)  # type: ignore[union-attr]
                part.style().polish(part)  # type: ignore[union-attr]
        self._frame.setVisible(bool(text))
        self._words.updateGeometry()
        self._words.fit()

    def ask(self, text: str, actions: Sequence[Action]) -> None:
        """Show a question or an offer to undo, which no hint replaces."""
        self.set_message(text, actions=actions)
        self._kept = True

    def is_error(self) -> bool:
        """Return whether the message says that something went wrong."""
        return self._error and bool(self.message.text())

    def is_kept(self) -> bool:
        """Return whether the message stays until the user acts: an error, or a message of `ask`."""
        return self.is_error() or (self._kept and bool(self.message.text()))

    def action_buttons(self) -> dict[str, QPushButton]:
        """The buttons under the message, by their texts."""
        shown = self._buttons[: len(self._calls)]
        return {button.text().replace("&&", "&"): button for button in shown}

    def _show_actions(self, actions: Sequence[Action]) -> None:
        for button in self._buttons:
            button.hide()  # a button that has another meaning now must not keep the focus
        while len(self._buttons) < len(actions):
            self._add_button()
        self._calls = [call for _, call in actions]
        for button, (text, _) in zip(self._buttons, actions, strict=False):
            button.setText(text.replace("&", "&&"))  # a class name may hold a "&"
            button.setAccessibleName(text)
            button.show()
        self._action_row.setVisible(bool(actions))

    def _add_button(self) -> None:
        button, number = QPushButton(), len(self._buttons)
        button.clicked.connect(lambda: self._calls[number]())
        self._actions.addWidget(button)
        self._buttons.append(button)


class _Words(QScrollArea):
    """Shows a text in its full height, or scrolls it where the window is low."""

    def __init__(self, label: QLabel) -> None:
        super().__init__()
        self._label = label
        self.setWidget(label)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Maximum)

    def sizeHint(self) -> QSize:
        height = self._label.heightForWidth(max(self.maximumViewportSize().width(), 100)) + _FRAME
        return QSize(max(self.width(), 100), min(height, _MOST_MESSAGE))

    def minimumSizeHint(self) -> QSize:
        return QSize(0, min(self.sizeHint().height(), _LEAST_MESSAGE))

    def fit(self) -> None:
        """Show the scroll bar only if the text needs it.

        Qt decides by the width beside a bar that is shown, and would therefore keep it.
        """
        room = self.maximumViewportSize()
        fits = self._label.heightForWidth(room.width()) <= room.height()
        policy = Qt.ScrollBarPolicy
        self.setVerticalScrollBarPolicy(
            policy.ScrollBarAlwaysOff if fits else policy.ScrollBarAsNeeded
        )

    def resizeEvent(self, a0: QResizeEvent | None) -> None:
        super().resizeEvent(a0)
        self.fit()
        if a0 is not None and a0.size().width() != a0.oldSize().width():
            self.updateGeometry()
