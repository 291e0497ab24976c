"""Shows the scores on the held-out slices, and offers to save and apply the model."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QGridLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_unet3d.config import ClassInfo
from napari_unet3d.events import ClassScore, mean
from napari_unet3d.widgets.parts.narrow_table import RIGHT, NarrowTable, cell
from napari_unet3d.widgets.parts.swatches import swatch

Row = tuple[str, str | None, float | None, float | None]
"""Name, color, IoU and Dice."""
_NO_RUN = "Nothing is segmented yet."
_NOT_MEASURED = (
    "Not measured: no slice is held out. Paint one more slice and press <b>Hold out</b> to "
    "learn how far to trust this."
)


class Results(QWidget):
    """Shows a text and a table of scores; has buttons to save, load and apply."""

    saveSegmentationRequested = Signal()
    saveModelRequested = Signal()
    applyRequested = Signal()
    loadRequested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._rows: list[Row] = []
        self.text = QLabel(_NO_RUN)
        self.text.setWordWrap(True)
        self.text.setTextFormat(Qt.TextFormat.RichText)
        self.table = NarrowTable("Scores on held-out slices", most_rows=10)
        self.table.set_titles([cell("Class"), cell("IoU", RIGHT), cell("Dice", RIGHT)], stretched=0)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.table.hide()
        self.save_segmentation = QPushButton("Save segmentation…")
        self.save_segmentation.setToolTip(
            "Write the newest prediction as OME-TIFF or OME-Zarr, with its voxel size."
        )
        self.save_model = QPushButton("Save model…")
        self.save_model.setToolTip("Write the trained model as one file that can be shared.")
        self.load_model = QPushButton("Load model…")
        self.load_model.setToolTip("Open a saved model, to apply it or to train it further.")
        self.apply = QPushButton("Appl&y to image")
        self.apply.setToolTip(
            "Segment the image that is chosen at the top with this model, without training.\n"
            "Open another stack and choose it there first."
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.text)
        layout.addWidget(self.table)
        buttons = QGridLayout()
        buttons.setSpacing(4)
        buttons.addWidget(self.save_segmentation, 0, 0)
        buttons.addWidget(self.save_model, 0, 1)
        buttons.addWidget(self.apply, 1, 0)
        buttons.addWidget(self.load_model, 1, 1)
        for column in (0, 1):
            buttons.setColumnStretch(column, 1)
        layout.addLayout(buttons)
        self.save_segmentation.clicked.connect(self.saveSegmentationRequested)
        self.save_model.clicked.connect(self.saveModelRequested)
        self.load_model.clicked.connect(self.loadRequested)
        self.apply.clicked.connect(self.applyRequested)
        self.set_available(segmentation=False, model=False, busy=False)

    def set_available(self, *, segmentation: bool, model: bool, busy: bool) -> None:
        """Enable the buttons whose object exists; none while something runs (`busy`)."""
        self.save_segmentation.setEnabled(segmentation and not busy)
        self.save_model.setEnabled(model and not busy)
        self.apply.setEnabled(model and not busy)
        self.load_model.setEnabled(not busy)

    def set_text(self, text: str) -> None:
        """Show a text instead of scores."""
        self.set_state((text or _NO_RUN, []))

    def state(self) -> tuple[str, list[Row]]:
        """The present text and rows, for `set_state`."""
        return self.text.text(), self._rows

    def set_scores(
        self,
        scores: Sequence[ClassScore],
        classes: Sequence[ClassInfo],
        slices: Sequence[str],
        distance: int | None = None,
        *,
        scored: float = 1.0,
        final: bool = True,
    ) -> None:
        """Show the scores on the held-out slices, or that no slice is held out.

        Parameters
        ----------
        scores
            IoU and Dice of the classes.
        classes
            The class table, for names and colors.
        slices
            Names of the held-out slices.
        distance
            Slices from the held-out ones to the nearest trained one.
        scored
            Share of the painted voxels that was measured, 0 to 1.
        final
            Whether the finished model was measured; otherwise it was a quick look while training.
        """
        if not slices:
            self.set_text(_NOT_MEASURED)
            return
        names = {c.value: c for c in classes}
        rows: list[Row] = [
            (names[s.value].name, names[s.value].color, s.iou, s.dice)
            for s in scores
            if s.value in names
        ]
        if len(rows) > 1:
            rows.append(("mean", None, mean([r[2] for r in rows]), mean([r[3] for r in rows])))
        self.set_state((_explain(slices, distance, scored, final), rows))

    def set_state(self, state: tuple[str, list[Row]]) -> None:
        """Show the text and rows of a state."""
        text, self._rows = state
        self._fill(self._rows)
        self.text.setText(text)

    def _fill(self, rows: Sequence[Row]) -> None:
        self.table.setRowCount(len(rows))
        for row, (name, color, iou, dice) in enumerate(rows):
            item = cell(name)
            if color is not None:
                item.setIcon(swatch(color))
            self.table.setItem(row, 0, item)
            for column, number in ((1, iou), (2, dice)):
                item = cell("—" if number is None else f"   {number:.2f}", RIGHT)
                if number is None:
                    item.setToolTip("This class is neither painted nor predicted there.")
                self.table.setItem(row, column, item)
        self.table.fit_height()
        self.table.setVisible(bool(rows))


def _explain(slices: Sequence[str], distance: int | None, scored: float, final: bool) -> str:
    where = ", ".join(slices[:4]) + (" …" if len(slices) > 4 else "")
    text = f"Measured on the painted voxels of {where}, not trained on."
    if scored < 1:
        text = (
            f"Measured on {_percent(scored)} of the painted voxels of {where}, not trained on; "
            "there was no time for the rest."
        )
    if not final:
        text = "A quick look while training; the finished model is measured at the end. " + text
    if distance is not None and distance > 0:
        text += f" The nearest trained slice is {distance} slice{'s' * (distance > 1)} away."
    caution = (
        "Slices of the same stack resemble each other, so expect lower scores on another stack."
        if len(slices) > 1
        else "One slice of the same stack is no independent evidence: hold out more to be sure."
    )
    return f"{text} {caution}"


def _percent(share: float) -> str:
    """Write a share below 1 in percent, but neither as 0 % nor as 100 %."""
    return "less than 1 %" if share < 0.01 else f"{min(share, 0.99):.0%}".replace("%", " %")
