"""The slice table: every painted slice, its state, and the painted voxels of each class."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from qtpy.QtCore import QEvent, QPoint, QSignalBlocker, QSize, Qt, Signal
from qtpy.QtGui import QIcon, QResizeEvent
from qtpy.QtWidgets import QGridLayout, QLabel, QMenu, QPushButton, QVBoxLayout, QWidget

from napari_unet3d.config import BACKGROUND, ClassInfo
from napari_unet3d.data.marks import SliceState, slice_state
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.widgets.parts.colors import BACKGROUND_COLOR, Colors
from napari_unet3d.widgets.parts.narrow_table import RIGHT, NarrowTable, cell
from napari_unet3d.widgets.parts.slice_texts import (
    SliceMarks,
    complete_tip,
    count_text,
    empty_tip,
    hold_out_tip,
    revert_tip,
    row_tip,
    state_text,
    totals_text,
)
from napari_unet3d.widgets.parts.state_shapes import state_color, state_icon
from napari_unet3d.widgets.parts.swatches import SWATCH, swatch, swatches

_EMPTY = "Painted slices are listed here. Three are a good start."
_MEASURED_ROWS = 6
"""Rows that are visible at once: classes, slices and tools fit beside each other on a screen of 768
pixels. With more, the height stays and need not be measured."""
_SCROLL_BAR = 20
"""Pixels of a scroll bar beside the columns."""
_CELL_EDGES = 14
"""Pixels left and right of the text of a cell, together."""
_FEW_CLASSES = 2
"""Classes. The columns of no more classes fit any dock."""
_MOST_SWATCHES = 10
"""Squares. So many fit beside slice and state in a dock of 300 pixels."""


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
        self._marks = SliceMarks()
        self._shown: SliceRef | None = None
        self._narrow = False
        self._backgrounds: tuple[str, ...] = ()
        self._icons: dict[SliceState, QIcon] = {}

        self.hint = QLabel(_EMPTY)
        self.hint.setWordWrap(True)
        self.table = NarrowTable("Painted slices", most_rows=_MEASURED_ROWS)
        self.table.setWordWrap(False)  # all rows are equally high
        self.table.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.totals = QLabel()
        self.totals.setWordWrap(True)
        self.totals.setAccessibleName("Painted slices in all")

        self.complete_button = QPushButton("C&omplete slice")
        self.hold_out_button = QPushButton("Hold o&ut")
        self.hold_out_button.setCheckable(True)
        self.empty_button = QPushButton("Nothing here")
        self.revert_button = QPushButton("Revert slice")
        buttons = QGridLayout()
        buttons.setContentsMargins(0, 0, 0, 0)
        buttons.setSpacing(4)
        for place, button in enumerate(
            (self.complete_button, self.hold_out_button, self.empty_button, self.revert_button)
        ):
            buttons.addWidget(button, *divmod(place, 2))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (self.hint, self.table, self.totals):
            layout.addWidget(widget)
        layout.addLayout(buttons)

        self.table.currentCellChanged.connect(self._row_changed)
        self.table.cellClicked.connect(lambda row, _column: self._jump(row))
        self.table.cellActivated.connect(lambda row, _column: self._jump(row))
        self.table.customContextMenuRequested.connect(self._open_menu)
        self.hold_out_button.clicked.connect(self._toggle_hold_out)
        for button, signal in (
            (self.complete_button, self.completeRequested),
            (self.empty_button, self.emptyRequested),
            (self.revert_button, self.revertRequested),
        ):
            button.clicked.connect(lambda _checked=False, s=signal: self._request(s))
        self._fill()

    def changeEvent(self, event: QEvent | None) -> None:
        super().changeEvent(event)
        if event is not None and event.type() == QEvent.Type.EnabledChange:
            self.hint.setVisible(not self._rows and self.isEnabled())

    # ---- the value

    def value(self) -> frozenset[SliceRef]:
        """The held-out slices."""
        return self._marks.held_out

    def setValue(self, held_out: frozenset[SliceRef]) -> None:
        """Mark other slices as held out; emits nothing."""
        self.set_marks(replace(self._marks, held_out=held_out))

    def marks(self) -> SliceMarks:
        """Which slices are held out and accepted, and which can be reverted."""
        return self._marks

    def set_marks(self, marks: SliceMarks) -> None:
        """Show which slices are held out and accepted, and which can be reverted."""
        before, self._marks = self._marks, marks
        changed = before.differences(marks)
        if not changed:
            return
        labels = self._labels()
        with QSignalBlocker(self.table):
            for ref in changed:
                if (row := self._row_of(ref)) is not None:
                    self._fill_row(row, self._rows[row], labels)
        self._update_totals()
        self._select_shown()

    def set_slices(self, slices: Sequence[PaintedSlice], classes: Sequence[ClassInfo]) -> None:
        """Show these painted slices with a column per class."""
        before, self._rows = self._rows, sorted(slices, key=_place)
        if tuple(classes) != self._classes:
            self._classes = tuple(classes)
            self._fill()
        elif self._is_narrow() != self._narrow:  # a scroll bar came or went
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

    def apply_theme(self, colors: Colors) -> None:
        """Draw the shapes of the states so that they can be seen in a theme."""
        self._backgrounds = colors.background, colors.foreground
        self._icons.clear()
        self._fill()

    # ---- what the user does

    def _jump(self, row: int) -> None:
        if 0 <= row < len(self._rows):
            self.jumpRequested.emit(self._rows[row].ref)

    def _row_changed(self, row: int, _column: int, old_row: int, _old_column: int) -> None:
        if row != old_row and self.table.hasFocus():
            self._jump(row)

    def _request(self, signal: Any) -> None:
        if self._shown is not None:
            signal.emit(self._shown)

    def _toggle_hold_out(self) -> None:
        if self._shown is not None:
            self._toggle(self._shown)

    def _toggle(self, ref: SliceRef) -> None:
        self.setValue(self.value() ^ {ref})
        self.valueChanged.emit(self.value())

    def menu_of(self, row: int) -> QMenu | None:
        """The menu of a row; None where no row is."""
        if not 0 <= row < len(self._rows):
            return None
        painted = self._rows[row]
        ref, held_out = painted.ref, painted.ref in self.value()
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.setToolTipsVisible(True)
        for text, signal, enabled in (
            ("&Go there", self.jumpRequested, True),
            ("&Complete slice", self.completeRequested, painted.state == "partial"),
            ("&Train on it again" if held_out else "&Hold out", None, True),
            ("&Nothing here", self.emptyRequested, self._state(painted) != "empty"),
            ("&Revert slice", self.revertRequested, ref in self._marks.revertible),
            ("C&lear slice", self.clearRequested, True),
        ):
            action = menu.addAction(text)
            assert action is not None
            action.setEnabled(enabled)
            call = self._toggle if signal is None else signal.emit
            action.triggered.connect(partial(_call, call, ref))
        return menu

    def _open_menu(self, position: QPoint) -> None:
        viewport = self.table.viewport()
        menu = self.menu_of(self.table.rowAt(position.y()))
        if menu is not None and viewport is not None:
            menu.popup(viewport.mapToGlobal(position))

    # ---- drawing

    def _state(self, painted: PaintedSlice) -> SliceState:
        return slice_state(painted, self._marks.held_out, self._marks.accepted)

    def _icon(self, state: SliceState) -> QIcon:
        if state not in self._icons:
            color = state_color(state, *(self._backgrounds or ("#808080",)))
            self._icons[state] = state_icon(state, color, self.devicePixelRatioF())
        return self._icons[state]

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
        scrolls = len(self._rows) > _MEASURED_ROWS
        room = self.width() - scrolls * _SCROLL_BAR
        return needed > room and (scrolls or len(self._classes) > _FEW_CLASSES)

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
        self._update_totals()
        self.table.fit_height()
        self._select_shown()

    def _update_rows(self, before: list[PaintedSlice]) -> None:
        """Draw the rows that differ from the rows `before`; both are sorted."""
        labels = self._labels()
        rows = self.table.verticalHeader()
        if before and rows is not None:
            rows.setDefaultSectionSize(self.table.rowHeight(0))  # new rows are as high as others
        at = 0  # the row of `before` that comes next
        with QSignalBlocker(self.table):
            for row, painted in enumerate(self._rows):
                while at < len(before) and before[at] is not painted:
                    if _place(before[at]) >= _place(painted):
                        break
                    self.table.removeRow(row)
                    at += 1
                if at < len(before) and before[at] is painted:
                    at += 1
                    continue
                if at < len(before) and _place(before[at]) == _place(painted):
                    same, at = before[at] == painted, at + 1
                    if same:
                        continue
                else:
                    self.table.insertRow(row)
                self._fill_row(row, painted, labels)
            self.table.setRowCount(len(self._rows))
        self.hint.setVisible(not self._rows and self.isEnabled())
        self.table.setVisible(bool(self._rows))
        self._update_totals()
        if min(len(before), len(self._rows)) <= _MEASURED_ROWS:
            self.table.fit_height()
        self._select_shown()

    def _fill_row(
        self, row: int, painted: PaintedSlice, labels: list[tuple[int, str, str]]
    ) -> None:
        state = self._state(painted)
        items = [cell(f"{painted.ref}"), cell(state_text(painted, state, self._marks))]
        items[1].setIcon(self._icon(state))
        counts = [(name, color, painted.counts.get(value, 0)) for value, name, color in labels]
        if self._narrow:
            items.append(cell(count_text(sum(painted.counts.values())).strip()))
            painted_colors = [color for _, color, count in counts if count]
            items[-1].setIcon(swatches(painted_colors, min(len(labels), _MOST_SWATCHES)))
        else:
            items += [cell(count_text(count), RIGHT) for _, _, count in counts]
        tip = row_tip(painted, state, self._marks, self._classes)
        for column, item in enumerate(items):
            item.setToolTip(tip)
            if state == "held out":
                font = item.font()
                font.setItalic(True)
                item.setFont(font)
            self.table.setItem(row, column, item)

    def _select_shown(self) -> None:
        row = self._row_of(self._shown)
        with QSignalBlocker(self.table):
            if row is None:
                self.table.clearSelection()
                self.table.setCurrentCell(-1, -1)
            elif row != self.table.currentRow() or not self.table.selectedItems():
                self.table.selectRow(row)
        self._update_buttons()

    def _row_of(self, ref: SliceRef | None) -> int | None:
        if ref is None:
            return None
        place = ref.axis, ref.index, ref.time
        row = bisect_left(self._rows, place, key=_place)
        found = row < len(self._rows) and _place(self._rows[row]) == place
        return row if found else None

    def _update_totals(self) -> None:
        in_full = totals_text(self._rows, self._marks, self._classes)
        # The columns of the table show the classes; a second line would push the buttons down.
        brief = in_full if self._narrow else totals_text(self._rows, self._marks, ())
        self.totals.setText(brief)
        self.totals.setToolTip(in_full)
        self.totals.setVisible(bool(self._rows))

    def _update_buttons(self) -> None:
        shown = self._shown
        row = self._row_of(shown)
        painted = None if row is None else self._rows[row]
        held = shown in self.value()
        name = f" {shown}" if shown is not None else ""
        self.complete_button.setText(f"C&omplete{name}")
        self.hold_out_button.setText(f"Hold o&ut{name}" if not held else f"Train on{name}")
        self.hold_out_button.setChecked(held)
        for button, (enabled, tip) in (
            (self.complete_button, complete_tip(shown, painted)),
            (self.hold_out_button, hold_out_tip(shown, painted, held)),
            (
                self.empty_button,
                empty_tip(shown, painted is not None and self._state(painted) == "empty"),
            ),
            (self.revert_button, revert_tip(shown, self._marks)),
        ):
            button.setEnabled(enabled)
            button.setToolTip(tip)


def _call(function: Callable[[SliceRef], object], ref: SliceRef, _checked: bool = False) -> None:
    function(ref)


def _place(painted: PaintedSlice) -> tuple[int, int, int]:
    """Sorting key of a row; a tuple compares faster than a SliceRef."""
    return painted.ref.axis, painted.ref.index, painted.ref.time
