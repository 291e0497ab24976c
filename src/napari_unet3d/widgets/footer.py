"""The part of the dock that is always visible: the button, progress, and what is going on."""

from __future__ import annotations

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_unet3d.widgets.theme import theme_colors

_SCALE = 1000
_PASSING_MS = 10_000
"""Milliseconds after which a status line vanishes when nothing runs: it tells what happened, and
must not look like how things are."""
_ANEW, _CONTINUE = "Train && &segment", "Continue training && &segment"


class Footer(QWidget):
    """Asks to start, stop and cancel; shows one message and one status line."""

    startRequested = Signal()
    stopRequested = Signal()
    cancelRequested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setObjectName("message")
        self.message.setAccessibleName("Message")
        self.message.hide()
        self.start_button = QPushButton(_ANEW)
        self.start_button.setObjectName("start")
        self.start_button.setMinimumHeight(36)
        self.start_button.setAccessibleName("Train and segment")
        self.start_button.setToolTip(
            "Train a network on the painted slices, then segment the whole stack.\n"
            "Your annotation is never changed; the result is a new layer."
        )
        self.stop_button = QPushButton("Stop, &keep the model")
        self.stop_button.setMinimumHeight(36)
        self.stop_button.setToolTip(
            "End the training now, and segment the stack with what was learned so far."
        )
        self.cancel_button = QPushButton("&Cancel")
        self.cancel_button.setMinimumHeight(36)
        self.cancel_button.setToolTip("End the run and leave all layers as they were before it.")
        self.progress = QProgressBar()
        self.progress.setRange(0, _SCALE)
        self.progress.setAccessibleName("Progress")
        self.status = QLabel()
        self.status.setWordWrap(True)
        self.status.setAccessibleName("Status")

        running = QHBoxLayout()
        running.setContentsMargins(0, 0, 0, 0)
        running.setSpacing(4)
        running.addWidget(self.stop_button, 3)
        running.addWidget(self.cancel_button, 2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 4, 6, 4)
        layout.setSpacing(4)
        layout.addWidget(self.message)
        layout.addWidget(self.start_button)
        layout.addLayout(running)
        layout.addWidget(self.progress)
        layout.addWidget(self.status)
        self.start_button.clicked.connect(self.startRequested)
        self.stop_button.clicked.connect(self.stopRequested)
        self.cancel_button.clicked.connect(self.cancelRequested)
        self._passing = QTimer(self)
        self._passing.setSingleShot(True)
        self._passing.setInterval(_PASSING_MS)
        self._passing.timeout.connect(lambda: self.set_status(""))
        self._error = self._running = False
        self.show_ready()
        self.apply_theme()

    def show_ready(self) -> None:
        """Nothing runs: offer to start."""
        self._running = False
        self.start_button.show()
        for widget in (self.stop_button, self.cancel_button, self.progress):
            widget.hide()

    def show_running(self, *, can_stop: bool) -> None:
        """Something runs: offer to stop (while training) and to cancel."""
        self._running = True
        had_focus = self.start_button.hasFocus()
        self.start_button.hide()
        self.stop_button.setVisible(can_stop)
        self.stop_button.setEnabled(True)
        self.cancel_button.show()
        self.cancel_button.setEnabled(True)
        self.progress.show()
        if had_focus:  # not on Cancel: Space would end the run that was just begun
            self.progress.setFocus()

    def show_ending(self, *, cancelled: bool) -> None:
        """The user's wish to end was heard; after Stop one may still cancel."""
        self.stop_button.setEnabled(False)
        self.cancel_button.setEnabled(not cancelled)

    def set_continues(self, continues: bool) -> None:
        """Whether the button goes on from a trained model, or starts anew."""
        text = _CONTINUE if continues else _ANEW
        self.start_button.setText(text)
        self.start_button.setAccessibleName(
            "Continue training and segment" if continues else "Train and segment"
        )

    def set_progress(self, fraction: float | None, text: str) -> None:
        """Fraction done (None: unknown) and what is being done."""
        self.progress.setRange(0, _SCALE if fraction is not None else 0)
        if fraction is not None:
            self.progress.setValue(round(_SCALE * min(max(fraction, 0.0), 1.0)))
        self.progress.setFormat(f"{text} %p %")
        if fraction is None:
            self.set_status(text)  # Qt writes nothing on a bar without an end

    def set_status(self, text: str) -> None:
        """The one line of figures, or of what happened; the latter vanishes after a while."""
        self.status.setText(text)
        self.status.setVisible(bool(text))
        if text and not self._running:
            self._passing.start()
        else:
            self._passing.stop()

    def set_message(self, text: str, *, error: bool = False) -> None:
        """A sentence above the button: what to do next, or what went wrong and the cure."""
        self._error = error
        self.message.setText(text)
        self.message.setVisible(bool(text))
        self.apply_theme()

    def is_error(self) -> bool:
        """Whether the message tells of something that went wrong."""
        return self._error and bool(self.message.text())

    def apply_theme(self) -> None:
        """Take over napari's current colors."""
        colors = theme_colors()
        edge = colors.error if self._error else colors.primary
        self.message.setStyleSheet(
            f"QLabel#message {{ border-left: 4px solid {edge}; padding: 4px 4px 4px 8px; "
            f"background: {colors.foreground}; }}"
        )
        self.start_button.setStyleSheet(
            f"QPushButton#start {{ background: {colors.accent}; color: {colors.text}; "
            "font-weight: bold; font-size: 11pt; border: 2px solid transparent; }"
            f"QPushButton#start:disabled {{ background: {colors.foreground}; }}"
            f"QPushButton#start:hover, QPushButton#start:focus {{ border-color: {colors.text}; }}"
        )
