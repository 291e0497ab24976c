"""The class table: names, colors, label values and shortcuts of the classes."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor, QKeyEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QHBoxLayout,
    QPushButton,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_unet3d.config import BACKGROUND, FIRST_CLASS, PALETTE, ClassInfo, default_class
from napari_unet3d.widgets.parts.colors import BACKGROUND_COLOR
from napari_unet3d.widgets.parts.narrow_table import RIGHT, NarrowTable, cell
from napari_unet3d.widgets.parts.swatches import swatch

SHORTCUT_MODIFIER = "Alt"
_NAME = 0
_MAX_CLASSES = 254
"""Classes of a uint8 annotation, without "unlabelled" and "background"."""


class ClassTable(QWidget):
    """Edits the classes; its first row, background, cannot be changed.

    Parameters
    ----------
    asks_before_removal
        Whether the remove button only emits `removeRequested`. The receiver then calls `remove`.
    """

    valueChanged = Signal(tuple)
    """The classes (tuple of ClassInfo) were edited by the user."""
    labelChosen = Signal(int)
    """The user chose the row of this label value, to paint with it."""
    removeRequested = Signal(object)
    """The user wants to remove this ClassInfo; emitted with `asks_before_removal` only."""

    def __init__(self, *, asks_before_removal: bool = False) -> None:
        super().__init__()
        self._asks_before_removal = asks_before_removal
        self._classes: tuple[ClassInfo, ...] = ()
        self._removed: dict[int, ClassInfo] = {}  # a class that comes back has them again
        self.table = NarrowTable("Classes", most_rows=7)
        # No other key starts to edit: "[" and "]" change napari's brush, digits choose labels.
        self.table.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked
            | QAbstractItemView.EditTrigger.EditKeyPressed
        )
        self.table.set_titles([cell("Class"), cell("Label", RIGHT), cell(" Key")], stretched=_NAME)
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)

        self.add_button = QPushButton("&Add class")
        self.add_button.setToolTip("Add a class with the next free label value.")
        self.color_button = QPushButton("Color…")
        self.color_button.setToolTip("Choose the color of the selected class.")
        self.remove_button = QPushButton("Re&move")
        self.remove_button.setToolTip(
            "Remove the selected class. When it has paint you are asked first. Undo: Ctrl+Z."
        )
        buttons = QHBoxLayout()
        buttons.setContentsMargins(0, 0, 0, 0)
        for button in (self.add_button, self.color_button, self.remove_button):
            buttons.addWidget(button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.table)
        layout.addLayout(buttons)

        self.add_button.clicked.connect(lambda: self.add())
        self.color_button.clicked.connect(self._choose_color)
        self.remove_button.clicked.connect(self.remove_selected)
        self.table.itemChanged.connect(self._renamed)
        self.table.currentCellChanged.connect(self._row_changed)
        self.table.cellClicked.connect(self._row_clicked)
        self._fill()

    # ---- the value

    def value(self) -> tuple[ClassInfo, ...]:
        """The classes, without background."""
        return self._classes

    def setValue(self, classes: Sequence[ClassInfo]) -> None:
        """Show other classes; emits nothing."""
        classes = tuple(sorted(classes, key=lambda c: c.value))
        if classes != self._classes:
            self._classes = classes
            self._fill()

    def selected_label(self) -> int:
        """Label value of the selected row; that of background when no row is selected."""
        return self._label_at(self.table.currentRow())

    def select_label(self, value: int) -> None:
        """Select the row of a label value; emits nothing."""
        with QSignalBlocker(self.table):
            rows = [BACKGROUND, *(c.value for c in self._classes)]
            if value in rows:
                self.table.selectRow(rows.index(value))
            else:
                self.table.clearSelection()
        self._update_buttons()

    # ---- what the user does

    def add(self, value: int | None = None) -> None:
        """Add a class, and let the user type its name.

        Parameters
        ----------
        value
            Its label value; the lowest free value when None.
        """
        taken = {c.value for c in self._classes}
        if value in taken or len(taken) >= _MAX_CLASSES:
            return
        if value is None:
            value = next(v for v in range(FIRST_CLASS, 256) if v not in taken)
        self.insert(self._removed.get(value) or self._new_class(value))
        self.labelChosen.emit(value)
        self.table.setFocus()
        self.table.editItem(self.table.item(self.table.currentRow(), _NAME))

    def add_all(self, values: Sequence[int]) -> None:
        """Add classes for label values that are already painted."""
        for value in values:
            if value not in {c.value for c in self._classes}:
                self.insert(self._removed.get(value) or self._new_class(value))

    def insert(self, info: ClassInfo) -> None:
        """Add a class to the table and select it, as a user does."""
        self._edit((*(c for c in self._classes if c.value != info.value), info))
        self.select_label(info.value)

    def remove_selected(self) -> None:
        """Remove the selected class, or ask for it; background and the last class stay."""
        value = self.selected_label()
        info = next((c for c in self._classes if c.value == value), None)
        if info is None or len(self._classes) < 2 or not self.table.selectedItems():
            return
        if self._asks_before_removal:
            self.removeRequested.emit(info)
        else:
            self.remove(value)

    def remove(self, value: int) -> None:
        """Remove the class with this label value from the table."""
        self._removed |= {c.value: c for c in self._classes if c.value == value}
        self._edit(tuple(c for c in self._classes if c.value != value))
        self.select_label(BACKGROUND)

    def _new_class(self, value: int) -> ClassInfo:
        """Make a class in its default color, or in a free color where another class has that."""
        info = default_class(value)
        used = {c.color for c in self._classes}
        if info.color in used:
            free = next((color for color in PALETTE if color not in used), info.color)
            info = info.model_copy(update={"color": free})
        return info

    def set_color(self, value: int, color: str) -> None:
        """Give the class with label `value` another color, as a user does."""
        self._edit(
            tuple(
                c.model_copy(update={"color": color}) if c.value == value else c
                for c in self._classes
            )
        )
        self.select_label(value)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        if event is not None and event.key() == Qt.Key.Key_Delete:
            self.remove_selected()
        else:
            super().keyPressEvent(event)

    def _edit(self, classes: tuple[ClassInfo, ...]) -> None:
        self.setValue(classes)
        self.valueChanged.emit(self._classes)

    def _choose_color(self) -> None:
        value = self.selected_label()
        info = next((c for c in self._classes if c.value == value), None)
        if info is None:
            return
        color = QColorDialog.getColor(QColor(info.color), self, f"Color of {info.name}")
        if color.isValid():
            self.set_color(value, color.name())

    def _renamed(self, item: QTableWidgetItem) -> None:
        value = self._label_at(item.row())
        name = item.text().strip()[:200]
        old = next(c for c in self._classes if c.value == value)
        if not name or name == old.name:
            with QSignalBlocker(self.table):
                item.setText(old.name)
            return
        self._classes = tuple(
            c.model_copy(update={"name": name}) if c.value == value else c for c in self._classes
        )
        self.valueChanged.emit(self._classes)

    def _row_changed(self, row: int, _column: int, old_row: int, _old_column: int) -> None:
        self._update_buttons()
        if row >= 0 and row != old_row and self.table.hasFocus():
            self.labelChosen.emit(self._label_at(row))

    def _row_clicked(self, row: int, _column: int) -> None:
        self.labelChosen.emit(self._label_at(row))

    # ---- drawing

    def _label_at(self, row: int) -> int:
        return BACKGROUND if row < 1 else self._classes[row - 1].value

    def _fill(self) -> None:
        rows = [(BACKGROUND, "background", BACKGROUND_COLOR)]
        rows += [(c.value, c.name, c.color) for c in self._classes]
        with QSignalBlocker(self.table):
            self.table.setRowCount(len(rows))
            for row, (value, name, color) in enumerate(rows):
                self._fill_row(row, value, name, color)
        self.table.fit_height()
        self._update_buttons()

    def _fill_row(self, row: int, value: int, name: str, color: str) -> None:
        name_item = cell(name)
        name_item.setIcon(swatch(color))
        label_item = cell(str(value), RIGHT)
        key_item = cell(f" {SHORTCUT_MODIFIER}+{row + 1}" if row < 9 else "")
        if value == BACKGROUND:
            tip = "Background: everything that belongs to no class. Paint some of it too."
        else:
            name_item.setFlags(name_item.flags() | Qt.ItemFlag.ItemIsEditable)
            tip = f"Label {value}. Click to paint with it, double-click the name to rename."
        for column, item in enumerate((name_item, label_item, key_item)):
            item.setToolTip(tip)
            self.table.setItem(row, column, item)

    def _update_buttons(self) -> None:
        is_class = bool(self.table.selectedItems()) and self.selected_label() != BACKGROUND
        self.color_button.setEnabled(is_class)
        self.remove_button.setEnabled(is_class and len(self._classes) > 1)
