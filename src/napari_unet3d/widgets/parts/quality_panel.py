"""Shows what further trainings have told about the annotation, and offers to measure more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGridLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_unet3d.data.wording import counted, either
from napari_unet3d.prediction.mistakes import MISTAKES
from napari_unet3d.widgets.parts.score_table import Rows, ScoreTable
from napari_unet3d.widgets.parts.status_line import StatusLine


@dataclass(frozen=True)
class QualityState:
    """The value of a `QualityPanel`.

    Attributes
    ----------
    rows
        Scores of the cross-validation; empty without one.
    unit
        Of the distances.
    cross_validation
        What the cross-validation measured.
    learning_curve
        The sentence that follows from the learning curve.
    hint
        What could be measured; shown where nothing was measured.
    """

    rows: Rows = ()
    unit: str = ""
    cross_validation: str = ""
    learning_curve: str = ""
    hint: str = ""


class QualityPanel(QWidget):
    """A display of a `QualityState`, with buttons to measure more and to write a report."""

    errorsRequested = Signal()
    crossValidationRequested = Signal()
    learningCurveRequested = Signal()
    reportRequested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._state = QualityState()
        self.hint, self.explanation, self.sentence = (QLabel() for _ in range(3))
        self.table = ScoreTable("Scores of the cross-validation")
        self.count = StatusLine("Mistakes on the held-out slices")
        self.legend = QLabel(
            " ".join(f'<span style="color:{m.color}">■</span> {m.name}' for m in MISTAKES)
        )
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.legend.setToolTip("\n".join(f"{m.name}: {m.meaning}" for m in MISTAKES))
        self.errors = _button(
            "Show mistakes",
            "Mark the mistakes on the held-out slices in color, in a layer of their own, and go\n"
            "to the first of these slices. Only painted voxels are compared. Again: hide them.",
            self.errorsRequested,
        )
        self.cross_validation = _button(
            "Cross-validate",
            "Hold out each annotated slice once, and train a short-lived model on the others.\n"
            "The budget of a training is shared between the models; the current one stays.",
            self.crossValidationRequested,
        )
        self.learning_curve = _button(
            "Learning curve",
            "Train short-lived models on 1, 2, … of the annotated slices, to see whether\n"
            "another slice would help. Takes 2 to 5 minutes; the current model stays.",
            self.learningCurveRequested,
        )
        self.report = _button(
            "Report…",
            "Write data, slices, settings, scores and pictures as HTML or PDF,\n"
            "with a paragraph for the methods section.",
            self.reportRequested,
        )
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for label in (self.hint, self.explanation, self.sentence):
            label.setWordWrap(True)
            label.setTextFormat(Qt.TextFormat.PlainText)
        shown = self.count, self.legend, self.hint, self.table, self.explanation, self.sentence
        for widget in shown:
            layout.addWidget(widget)
        buttons = QGridLayout()
        buttons.setSpacing(4)
        buttons.addWidget(self.errors, 0, 0)
        buttons.addWidget(self.report, 0, 1)
        buttons.addWidget(self.cross_validation, 1, 0)
        buttons.addWidget(self.learning_curve, 1, 1)
        for column in (0, 1):
            buttons.setColumnStretch(column, 1)
        layout.addLayout(buttons)
        self.setValue(self._state)
        self.show_legend(False)

    def value(self) -> QualityState:
        """What is shown."""
        return self._state

    def setValue(self, state: QualityState) -> None:
        """Show another state."""
        self._state = state
        self.table.setValue(state.rows, state.unit)
        for label, text in (
            (self.hint, state.hint),
            (self.explanation, state.cross_validation),
            (self.sentence, state.learning_curve),
        ):
            label.setText(text)
            label.setVisible(bool(text))

    def show_legend(self, shown: bool) -> None:
        """Show the colors of mistakes while they are shown, and offer to hide them."""
        self.legend.setVisible(shown)
        self.count.setVisible(shown and bool(self.count.text()))
        self.errors.setText("Hide mistakes" if shown else "Show mistakes")

    def set_count(self, voxels: int, slices: int) -> None:
        """Say how many voxels are wrong, on so many held-out slices."""
        wrong, where = counted(voxels, "voxel"), counted(slices, "held-out slice")
        self.count.setText(f"{wrong} {either(voxels, 'is', 'are')} wrong on {where}.")

    def set_available(self, *, errors: bool, measuring: bool, report: bool) -> None:
        """Enable the buttons whose work is possible now."""
        self.errors.setEnabled(errors)
        self.cross_validation.setEnabled(measuring)
        self.learning_curve.setEnabled(measuring)
        self.report.setEnabled(report)


def _button(text: str, tip: str, signal: Any) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.clicked.connect(signal)
    return button
