"""Shows the scores on the held-out slices, and offers to save and apply the model."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGridLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.wording import counted
from napari_unet3d.events import HeldOutScores
from napari_unet3d.session.quality import percent, qualities_of, short_interval_note
from napari_unet3d.widgets.parts.score_table import Rows, ScoreTable

State = tuple[str, Rows, str]
"""Text, rows of the table and unit of its distances."""
_NO_RUN = "Nothing is segmented yet."
_NOT_MEASURED = (
    "Not measured: no slice is held out. Paint one more slice and press <b>Hold out</b> to "
    "learn how far to trust this, or cross-validate the slices that you have."
)


class Results(QWidget):
    """Shows a text and a table of scores; has buttons to save, load and apply."""

    saveSegmentationRequested = Signal()
    saveModelRequested = Signal()
    applyRequested = Signal()
    loadRequested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._unit = ""
        self.text = QLabel(_NO_RUN)
        self.text.setWordWrap(True)
        self.text.setTextFormat(Qt.TextFormat.RichText)
        self.table = ScoreTable("Scores on held-out slices")
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
        layout.addWidget(self.table)
        layout.addWidget(self.text)
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
        self.set_state((text or _NO_RUN, (), ""))

    def state(self) -> State:
        """The present text and rows, for `set_state`."""
        return self.text.text(), self.table.value(), self._unit

    def set_scores(
        self, scores: HeldOutScores | None, classes: Sequence[ClassInfo], intro: str = ""
    ) -> None:
        """Show the scores on the held-out slices.

        Parameters
        ----------
        scores
            The scores; None where no slice is held out.
        classes
            The class table, for names and colors.
        intro
            Sentences before those about the scores.
        """
        if scores is None or not scores.slices:
            self.set_text(_NOT_MEASURED)
            return
        text = f"{intro} {_explain(scores)}".strip()
        self.set_state((text, qualities_of(scores, classes), scores.unit))

    def set_state(self, state: State) -> None:
        """Show the text and rows of a state."""
        text, rows, self._unit = state
        self.table.setValue(rows, self._unit)
        self.text.setText(text)


def _explain(scores: HeldOutScores) -> str:
    slices, distance = scores.slices, scores.distance
    where = ", ".join(slices[:4]) + (" …" if len(slices) > 4 else "")
    text = f"Measured on {percent(scores.scored)} of the painted voxels of {where}, not trained on"
    text += "." if scores.scored >= 1 else "; there was no time for the rest."
    if not scores.final:
        text = "A quick look while training; the finished model is measured at the end. " + text
    if scores.by_slice and scores.final:
        text += f" {short_interval_note(len(scores.by_slice))}"
    if distance is not None and distance > 0:
        text += f" The nearest trained slice is {counted(distance, 'slice')} away."
    caution = (
        "Slices of the same stack resemble each other, so expect lower scores on another stack."
        if len(slices) > 1
        else "One slice of the same stack is no independent evidence: hold out more to be sure."
    )
    return f"{text} {caution}"
