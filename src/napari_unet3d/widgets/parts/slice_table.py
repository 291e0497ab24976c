"""The slice table: every painted slice, its state, and the painted voxels of each class."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QEvent, QSignalBlocker, QSize, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_unet3d.config import BACKGROUND, ClassInfo
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.widgets.parts.colors import BACKGROUND_COLOR
from napari_unet3d.widgets.parts.narrow_table import RIGHT, NarrowTable, cell
from napari_unet3d.widgets.parts.swatches import SWATCH, swatch, swatches

_EMPTY = (
    "No slice is painted yet. Choose a class above and brush over some of it in the image, "
    "then some background. Three slices are a good start."
)
_MEASURED_ROWS = 8
"""Rows that are visible at once. With more, the height stays and need not be measured."""
_CELL_EDGES = 14
"""Pixels left and right of the text of a cell, together."""
_FEW_CLASSES = 2
"""Classes. The columns of no more classes fit any dock."""
_MOST_SWATCHES = 10
"""Squares. So many fit beside slice and state in a dock of 300 pixels."""
_STATE_TIPS = {
    "complete": "Complete: every voxel of this slice is labelled.",
    "partial": "Partial: only the painted voxels count; the rest is unlabelled.",
    "held out": "Held out: not trained on. The prediction is measured on this slice.",
}


class SliceTable(QWidget):
    """Shows the painted slices, and edits which of them are held out."""

    jumpRequested = Signal(object)
    """The user wants to see the slice of this SliceRef."""
    completeRequested = Signal(object)
    """The user wants the unlabelled voxels of this SliceRef to become background."""
    emptyRequested = Signal(object)
    """The user says that nothing is on this SliceRef: all of it is to become background."""
    revertRequested = Signal(object)
    """The user wants to undo the last change of the state of this SliceRef."""
    clearRequested = Signal(object)
    """The user wants to remove all paint of this SliceRef."""
    valueChanged = Signal(frozenset)
    """The held-out slices (frozenset of SliceRef) after a change of the user."""

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[PaintedSlice] = []
        self._classes: tuple[ClassInfo, ...] = ()
        self._held_out: frozenset[SliceRef] = frozenset()
        self._shown: SliceRef | None = None
        self._narrow = False

        self.hint = QLabel(_EMPTY)
        self.hint.setWordWrap(True)
        self.table = NarrowTable("Painted slices", most_rows=_MEASURED_ROWS)
        self.table.setWordWrap(False)  # all rows are equally high

        self.complete_button = QPushButton("C&omplete slice")
        self.hold_out_button = QPushButton("Hold o&ut")
        self.hold_out_button.setCheckable(True)
        buttons = QHBoxLayout()
        buttons.setContentsMargins(0, 0, 0, 0)
        buttons.addWidget(self.complete_button, 1)
        buttons.addWidget(self.hold_out_button, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.hint)
        layout.addWidget(self.table)
        layout.addLayout(buttons)

        self.table.currentCellChanged.connect(self._row_changed)
        self.table.cellClicked.connect(lambda row, _column: self._jump(row))
        self.table.cellActivated.connect(lambda row, _column: self._jump(row))
        self.complete_button.clicked.connect(self._complete)
        self.hold_out_button.clicked.connect(self._toggle_hold_out)
        self._fill()

    def changeEvent(self, event: QEvent | None) -> None:
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.EnabledChange:
            self.hint.setVisible(not self._rows and self.isEnabled())

    # ---- the value

    def value(self) -> frozenset[SliceRef]:
        """The held-out slices."""
        return self._held_out

    def setValue(self, held_out: frozenset[SliceRef]) -> None:
        """Mark other slices as held out; emits nothing."""
        if held_out != self._held_out:
            self._hold_out(held_out)

    def set_slices(self, slices: Sequence[PaintedSlice], classes: Sequence[ClassInfo]) -> None:
        """Show these painted slices with a column per class."""
        before, self._rows = self._rows, sorted(slices, key=_place)
        if tuple(classes) != self._classes:
            self._classes = tuple(classes)
            self._fill()
        elif self._rows != before:
            self._update_rows(before)

    def set_share_read(self, share: float) -> None:
        """Show which share of the annotation was read, 0 to 1, while no paint was found."""
        self.hint.setText(_EMPTY if share >= 1 else f"Counting what is painted … {share:.0%}")

    def slices(self) -> list[PaintedSlice]:
        """The painted slices that are shown."""
        return list(self._rows)

    def set_shown(self, ref: SliceRef | None) -> None:
        """Select the row of the slice that the viewer shows; the buttons act on this slice."""
        if ref != self._shown:
            self._shown = ref
            self._select_shown()

    # ---- what the user does

    def _jump(self, row: int) -> None:
        if 0 <= row < len(self._rows):
            self.jumpRequested.emit(self._rows[row].ref)

    def _row_changed(self, row: int, _column: int, old_row: int, _old_column: int) -> None:
        if row != old_row and self.table.hasFocus():
            self._jump(row)

    def _complete(self) -> None:
        if self._shown is not None:
            self.completeRequested.emit(self._shown)

    def _toggle_hold_out(self) -> None:
        if self._shown is not None:
            self._hold_out(self._held_out ^ {self._shown})
            self.valueChanged.emit(self._held_out)

    # ---- drawing

    def _state(self, painted: PaintedSlice) -> str:
        return "held out" if painted.ref in self._held_out else painted.state

    def resizeEvent(self, a0: QResizeEvent | None) -> None:
        super().resizeEvent(a0)
        if self._is_narrow() != self._narrow:
            self._fill()

    def _labels(self) -> list[tuple[int, str, str]]:
        """Label value, name and color of background and all classes."""
        return [
            (BACKGROUND, "background", BACKGROUND_COLOR),
            *((c.value, c.name, c.color) for c in self._classes),
        ]

    def _is_narrow(self) -> bool:
        """Return whether a column for each class leaves too little width for slice and state."""
        width = self.fontMetrics().horizontalAdvance
        needed = width("x=1234") + width("complete") + 2 * _CELL_EDGES
        needed += len(self._labels()) * (width("  12345") + _CELL_EDGES)
        return needed > self.width() and len(self._classes) > _FEW_CLASSES

    def _fill(self) -> None:
        labels = self._labels()
        self._narrow = self._is_narrow()
        with QSignalBlocker(self.table):
            titles = [cell("Slice"), cell("State")]
            if self._narrow:
                titles.append(cell("Painted"))
                n_swatches = min(len(labels), _MOST_SWATCHES)
                self.table.setIconSize(QSize(n_swatches * SWATCH, SWATCH))
            else:
                self.table.setIconSize(QSize(SWATCH, SWATCH))
            for value, name, color in () if self._narrow else labels:
                # The label value, as in the class table: names would not fit a narrow dock.
                item = cell(str(value), RIGHT)
                item.setIcon(swatch(color))
                item.setToolTip(f"Painted voxels of '{name}'")
                titles.append(item)
            self.table.set_titles(titles, stretched=2 if self._narrow else 1)
            self.table.setRowCount(len(self._rows))
            for row, painted in enumerate(self._rows):
                self._fill_row(row, painted, labels)
        self.hint.setVisible(not self._rows and self.isEnabled())
        self.table.setVisible(bool(self._rows))
        self.table.fit_height()
        self._select_shown()

    def _hold_out(self, held_out: frozenset[SliceRef]) -> None:
        changed, self._held_out = self._held_out ^ held_out, held_out
        labels = self._labels()
        with QSignalBlocker(self.table):
            for row, painted in enumerate(self._rows):
                if painted.ref in changed:
                    self._fill_row(row, painted, labels)
        self._select_shown()

    def _update_rows(self, before: list[PaintedSlice]) -> None:
        """Draw the rows that differ from the rows `before`; both are sorted."""
        labels = self._labels()
        places = {_place(painted) for painted in self._rows}
        rows = self.table.verticalHeader()
        if before and rows is not None:
            rows.setDefaultSectionSize(self.table.rowHeight(0))  # new rows are as high as others
        with QSignalBlocker(self.table):
            for row in reversed(range(len(before))):
                if _place(before[row]) not in places:
                    self.table.removeRow(row)
            kept = (painted for painted in before if _place(painted) in places)
            old = next(kept, None)
            for row, painted in enumerate(self._rows):
                is_new = old is None or _place(old) != _place(painted)
                if is_new:
                    self.table.insertRow(row)
                if is_new or painted != old:
                    self._fill_row(row, painted, labels)
                if not is_new:
                    old = next(kept, None)
        self.hint.setVisible(not self._rows and self.isEnabled())
        self.table.setVisible(bool(self._rows))
        if min(len(before), len(self._rows)) <= _MEASURED_ROWS:
            self.table.fit_height()
        self._select_shown()

    def _fill_row(
        self, row: int, painted: PaintedSlice, labels: list[tuple[int, str, str]]
    ) -> None:
        state = self._state(painted)
        items = [cell(f"{painted.ref}"), cell(state)]
        counts = [(name, color, painted.counts.get(value, 0)) for value, name, color in labels]
        if self._narrow:
            items.append(cell(_count(sum(painted.counts.values())).strip()))
            painted_colors = [color for _, color, count in counts if count]
            items[-1].setIcon(swatches(painted_colors, min(len(labels), _MOST_SWATCHES)))
        else:
            items += [cell(_count(count), RIGHT) for _, _, count in counts]
        done = 100 * sum(painted.counts.values()) / max(painted.n_voxels, 1)
        tip = (
            f"{painted.ref.plane} slice {painted.ref}, {done:.0f} % painted: "
            f"{', '.join(f'{name} {count:,}' for name, _, count in counts if count)} voxels.\n"
            f"{_STATE_TIPS[state]}\nClick to go there."
        )
        for column, item in enumerate(items):
            item.setToolTip(tip)
            if state == "held out":
                font = item.font()
                font.setItalic(True)
                item.setFont(font)
            self.table.setItem(row, column, item)

    def _select_shown(self) -> None:
        refs = [painted.ref for painted in self._rows]
        with QSignalBlocker(self.table):
            if self._shown in refs:
                self.table.selectRow(refs.index(self._shown))
            else:
                self.table.clearSelection()
                self.table.setCurrentCell(-1, -1)
        self._update_buttons()

    def _update_buttons(self) -> None:
        shown = self._shown
        painted = next((p for p in self._rows if p.ref == shown), None)
        name = f" {shown}" if shown is not None else ""
        can_complete = painted is not None and painted.state == "partial"
        self.complete_button.setText(f"C&omplete slice{name}")
        self.complete_button.setEnabled(can_complete)
        if shown is None:
            tip = "Show a single slice (2D view) first."
        elif painted is None:
            tip = f"Nothing is painted on {shown} yet."
        elif not can_complete:
            tip = f"{shown} is complete already."
        else:
            tip = (
                f"Everything unpainted on {shown} becomes background. One undo step (Ctrl+Z). "
                "Use it once all structures on this slice are painted."
            )
        self.complete_button.setToolTip(tip)
        held = shown in self._held_out
        self.hold_out_button.setChecked(held)
        self.hold_out_button.setText(f"Hold o&ut{name}" if not held else f"Train on{name} again")
        self.hold_out_button.setEnabled(painted is not None or held)
        self.hold_out_button.setToolTip(
            "Train on this slice again; it no longer measures the result."
            if held
            else "Do not train on this slice; measure the prediction on it instead."
            if painted is not None
            else tip
        )


def _place(painted: PaintedSlice) -> tuple[int, int, int]:
    """Sorting key of a row; a tuple compares faster than a SliceRef."""
    return painted.ref.axis, painted.ref.index, painted.ref.time


def _count(voxels: int) -> str:
    if voxels == 0:
        return "   —"
    return f"   {voxels}" if voxels < 10_000 else f"   {voxels / 1000:.0f} k"
