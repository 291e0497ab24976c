"""Applies the current model to all stacks of a folder, or to several files, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_unet3d.errors import BadInputError
from napari_unet3d.events import Notice
from napari_unet3d.session.segmenting import (
    StackDone,
    StackProgress,
    StackStarted,
    plan_files,
    segment_stacks,
    stacks_in,
    summary,
)
from napari_unet3d.session.session import RunSettings
from napari_unet3d.widgets.parts.file_dialogs import ask_folder, ask_stacks
from napari_unet3d.widgets.parts.stack_list import StackList
from napari_unet3d.widgets.parts.status_line import StatusLine
from napari_unet3d.widgets.run.side_run import SideRun
from napari_unet3d.widgets.workbench import Feature, Workbench

_RESULTS = "segmented"
"""Name of the folder of the results, beside the stacks."""


class FolderFeature(Feature):
    """Two buttons below the result, a progress bar and a list of what became of each stack."""

    place = "result"

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self.folder_button = QPushButton("Apply to folder…")
        self.folder_button.setToolTip(
            "Segment all stacks of a folder with this model, one after the other.\n"
            f"The results are written into a new folder '{_RESULTS}' in it."
        )
        self.files_button = QPushButton("Apply to files…")
        self.files_button.setToolTip(
            "Segment several TIFF files with this model, one after the other.\n"
            f"The results are written into a new folder '{_RESULTS}' beside the first."
        )
        self.stacks = StackList()
        self.text = StatusLine("Stacks that were segmented")
        self.text.setTextFormat(Qt.TextFormat.PlainText)
        self.run = SideRun(
            self, "Progress of the stacks", "Stop after the present tile; finished stacks stay."
        )
        self.widget = self._lay_out()
        self._results: list[StackDone] = []
        self._total = 0
        self.folder_button.clicked.connect(self._choose_folder)
        self.files_button.clicked.connect(self._choose_files)
        self.run.changed.connect(self._show_state)
        self.run.eventsArrived.connect(self._show_events)
        self.run.returned.connect(self._returned)
        self.run.failed.connect(bench.report.fail)
        bench.session.changed.connect(self._show_state)
        bench.runner.phaseChanged.connect(self._show_state)
        self._show_state()

    def cleanup(self) -> None:
        """End the thread."""
        self.run.stop()

    def _lay_out(self) -> QWidget:
        widget = QWidget()
        layout = QVBoxLayout(widget)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        buttons = QHBoxLayout()
        buttons.setSpacing(4)
        buttons.addWidget(self.folder_button, 1)
        buttons.addWidget(self.files_button, 1)
        layout.addLayout(buttons)
        for part in (self.stacks, self.text, self.run.progress, self.run.cancel_button):
            layout.addWidget(part)
        return widget

    # ---- start

    def _choose_folder(self) -> None:
        folder = ask_folder(self.bench.dock, "Folder with stacks")
        if folder is not None:
            self._guarded(lambda: self.apply(stacks_in(folder), folder))

    def _choose_files(self) -> None:
        files = ask_stacks(self.bench.dock)
        if files:
            self._guarded(lambda: self.apply(files, files[0].parent))

    def _guarded(self, action: Any) -> None:
        self.bench.run_bar.set_message("")
        self.settled.emit()
        try:
            action()
        except Exception as error:  # any error is shown
            self.bench.report.fail(error)

    def apply(self, stacks: Sequence[Path], beside: Path) -> None:
        """Segment stacks with the current model.

        Parameters
        ----------
        stacks
            Files or folders.
        beside
            Where the folder of the results is made.

        Raises
        ------
        BadInputError
            There is no model, or the folder cannot be made.
        """
        model = self.bench.session.value().model
        if model is None:
            raise BadInputError("There is no model yet. Train one, or load one.")
        settings = self.bench.actions.settings(training=False)
        target = _make_folder(beside)
        work = segment_stacks(
            model,
            stacks,
            plan_files(stacks, target),
            RunSettings(prediction=settings.prediction, outputs=settings.outputs),
        )
        self._results, self._total = [], len(stacks)
        self.stacks.set_stacks([path.name for path in stacks])
        self.text.setText(f"Results go to {target}")
        self.run.start(work)

    # ---- events

    def _show_events(self, events: Sequence[Any]) -> None:
        for event in events:
            row = len(self._results)
            words = f"{min(row + 1, self._total)} of {self._total}, %p %"
            if isinstance(event, StackStarted):
                self.stacks.set_state(row, "…")
            elif isinstance(event, StackProgress):
                done = row + event.progress.done / event.progress.total
                self.run.show_share(done / self._total, words)
            elif isinstance(event, Notice):
                self.stacks.add_note(row, event.text)
            elif isinstance(event, StackDone):
                self.stacks.set_done(row, event.seconds, event.problem)
                self._results.append(event)
                self.run.show_share(len(self._results) / self._total, words)

    def _returned(self, results: list[StackDone] | None) -> None:
        text = summary(self._results, self._total)
        if results is None:
            self.stacks.set_cancelled(len(self._results))
            text = f"Cancelled: {text}"
        folders = {str(path.parent) for done in self._results for path in done.written}
        lines = [f"{text}.", *(f"They are in {folder}" for folder in folders)]
        lines += [f"{d.path.name}: {d.problem}" for d in self._results if d.problem][:1]
        self.text.setText("\n".join(lines))
        self.bench.run_bar.set_status(f"{text}.")
        self.settled.emit()  # the next step is shown again

    def _show_state(self, *_: Any) -> None:
        running = self.run.is_running()
        model = self.bench.session.value().model is not None
        free = model and not running and not self.bench.runner.is_running()
        for button in (self.folder_button, self.files_button):
            button.setEnabled(free)


def _make_folder(beside: Path) -> Path:
    """Make a new folder for results: nothing that is there is replaced."""
    number, target = 1, beside / _RESULTS
    while target.exists():
        number += 1
        target = beside / f"{_RESULTS} {number}"
    try:
        target.mkdir()
    except OSError as error:
        raise BadInputError(
            f"'{target}' cannot be made ({error.strerror or error}). Copy the stacks to a folder "
            "that you may write to."
        ) from error
    return target
