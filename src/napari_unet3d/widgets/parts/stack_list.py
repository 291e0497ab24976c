"""Shows what became of each stack of a folder: waiting, in work, done, or failed with a reason."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtWidgets import QAbstractItemView

from napari_unet3d.session.texts import show_duration
from napari_unet3d.widgets.parts.narrow_table import RIGHT, NarrowTable, cell


class StackList(NarrowTable):
    """One row for each stack: its name, and what became of it; the tool tip has the reason."""

    def __init__(self) -> None:
        super().__init__("Stacks of the folder", most_rows=8)
        self.set_titles([cell("Stack"), cell("Result", RIGHT)], stretched=0)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.hide()

    def set_stacks(self, names: Sequence[str]) -> None:
        """Show these stacks, all of them waiting."""
        self.setRowCount(len(names))
        for row, name in enumerate(names):
            item = cell(name)
            item.setToolTip(name)
            self.setItem(row, 0, item)
            self.set_state(row, "waits")
        self.fit_height()
        self.setVisible(bool(names))

    def set_state(self, row: int, text: str, tip: str = "") -> None:
        """Show a word for what becomes of a stack, and the reason as a tool tip."""
        item = cell(text, RIGHT)
        item.setToolTip(tip)
        self.setItem(row, 1, item)
        self.scrollToItem(item)

    def set_done(self, row: int, seconds: float, problem: str) -> None:
        """Show that a stack is done, or why it failed."""
        notes = self._notes(row)
        if problem:
            self.set_state(row, "failed", "\n".join([problem, *notes]))
        else:
            self.set_state(row, show_duration(seconds), "\n".join(notes))

    def set_cancelled(self, first: int) -> None:
        """Show that the stacks from `first` on were not segmented."""
        for row in range(first, self.rowCount()):
            self.set_state(row, "—", "Cancelled before this stack was finished.")

    def add_note(self, row: int, text: str) -> None:
        """Add a sentence to the tool tip of a stack in work."""
        self.set_state(row, "…", "\n".join([*self._notes(row), text]))

    def states(self) -> list[str]:
        """What became of each stack, in words."""
        items = [self.item(row, 1) for row in range(self.rowCount())]
        return [item.text() for item in items if item is not None]

    def _notes(self, row: int) -> list[str]:
        item = self.item(row, 1)
        return item.toolTip().splitlines() if item is not None else []
