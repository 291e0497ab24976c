"""Edits the voxel size of an image: three numbers and a unit."""

from __future__ import annotations

import math

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLineEdit, QWidget

Size = tuple[float, float, float]
UNITS = ("µm", "nm", "mm", "pixel")
_WIDTH = 36
"""Pixels. A number of four digits and a point fits; the row fits a dock of 300 pixels."""
_UNIT_WIDTH = 76
"""Pixels. "pixel" and the arrow fit; the rest is for the numbers."""


class VoxelSizeEdit(QWidget):
    """Edits the voxel size along z, y, x, and its unit."""

    valueChanged = Signal(tuple, str)
    """The size (z, y, x) and the unit, after the user changed one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.edits = tuple(QLineEdit() for _ in range(3))
        self.unit = QComboBox()
        self.unit.addItems(UNITS)
        self.unit.setAccessibleName("Unit of the voxel size")
        self.unit.setToolTip("Unit of the voxel size. The numbers stay as they are.")
        self.unit.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.unit.setMinimumContentsLength(3)
        self.unit.setMaximumWidth(_UNIT_WIDTH)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        for edit, axis in zip(self.edits, "zyx", strict=True):
            edit.setAccessibleName(f"Voxel size along {axis}")
            edit.setToolTip(
                f"Size of a voxel along {axis}. The network follows it: axes with larger voxels "
                "are pooled later."
            )
            edit.setMinimumWidth(_WIDTH)
            layout.addWidget(edit, 1)
            edit.editingFinished.connect(self._typed)
        layout.addWidget(self.unit)
        self._size: Size = (1.0, 1.0, 1.0)
        self._show()
        self.unit.currentIndexChanged.connect(self._emit)

    def value(self) -> tuple[Size, str]:
        """Voxel size along z, y, x, and its unit."""
        return self._size, self.unit.currentText()

    def setValue(self, size: Size, unit: str) -> None:
        """Show another voxel size; emits nothing."""
        with QSignalBlocker(self.unit):
            self.unit.setCurrentIndex(max(0, self.unit.findText(unit)))
        self._size = size
        self._show()

    def _show(self) -> None:
        for edit, size in zip(self.edits, self._size, strict=True):
            # A number that the user is typing stays.
            if not (edit.hasFocus() and edit.isModified()):
                edit.setText(f"{size:.6g}")
                edit.setCursorPosition(0)

    def _typed(self) -> None:
        """Take over the numbers that were typed; the others keep all their digits."""
        size = tuple(
            _number(edit.text(), old) if edit.isModified() else old
            for edit, old in zip(self.edits, self._size, strict=True)
        )
        for edit in self.edits:
            edit.setModified(False)
        changed = size != self._size
        self._size = size  # type: ignore[assignment]
        self._show()
        if changed:
            self._emit()

    def _emit(self) -> None:
        self.valueChanged.emit(*self.value())


def _number(text: str, otherwise: float) -> float:
    try:
        number = float(text.strip().replace(",", "."))
    except ValueError:
        return otherwise
    return number if math.isfinite(number) and number > 0 else otherwise
