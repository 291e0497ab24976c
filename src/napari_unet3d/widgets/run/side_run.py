"""A piece of work beside training and segmentation: its thread, its progress bar, its Cancel."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QProgressBar, QPushButton

from napari_unet3d.widgets.run.worker import Worker

_PARTS = 1000
"""Steps of the progress bar; finer ones are not seen."""


class SideRun(QObject):
    """Runs one generator at a time; bar and button are visible meanwhile.

    Parameters
    ----------
    parent
        The Qt parent.
    name
        Accessible name of the progress bar.
    tip
        Tooltip of the button: what Cancel keeps.

    Attributes
    ----------
    progress, cancel_button
        The widgets, which the owner puts into its layout.
    """

    changed = Signal()
    """The work begins or has ended."""
    eventsArrived = Signal(list)
    """Events of the generator."""
    returned = Signal(object)
    """The work has ended with this value; with None where it was cancelled."""
    failed = Signal(object)
    """The work has ended with this exception."""

    def __init__(self, parent: QObject, name: str, tip: str) -> None:
        super().__init__(parent)
        self._worker: Worker | None = None
        self.progress = QProgressBar()
        self.progress.setRange(0, _PARTS)
        self.progress.setAccessibleName(name)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip(tip)
        self.cancel_button.clicked.connect(self.cancel)
        self._show()

    def is_running(self) -> bool:
        """Whether something runs."""
        return self._worker is not None

    def start(self, work: Generator[Any, None, Any]) -> None:
        """Start the work in a thread."""
        self._worker = worker = Worker(self)
        worker.eventsArrived.connect(self.eventsArrived)
        worker.returned.connect(self._returned)
        worker.failed.connect(self._failed)
        self.show_share(0.0)
        self._show()
        worker.start(work)

    def cancel(self) -> None:
        """Close the generator at its next event; `returned` then emits None."""
        if self._worker is not None:
            self.cancel_button.setEnabled(False)
            self._worker.close()

    def stop(self) -> None:
        """Close the generator, and emit nothing more."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.abandon(0)

    def show_share(self, share: float, text: str = "%p %") -> None:
        """Show how much is done (0 to 1), in words with "%p" for the percentage."""
        self.progress.setUpdatesEnabled(False)  # otherwise setValue draws the window at once
        self.progress.setValue(round(_PARTS * share))
        self.progress.setFormat(text)
        self.progress.setUpdatesEnabled(True)

    def _returned(self, result: Any) -> None:
        self._end()
        self.returned.emit(result)

    def _failed(self, error: BaseException) -> None:
        self._end()
        self.failed.emit(error)

    def _end(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.deleteLater()
        self._show()

    def _show(self) -> None:
        running = self.is_running()
        for widget in (self.progress, self.cancel_button):
            widget.setVisible(running)
        self.cancel_button.setEnabled(running)
        self.changed.emit()
