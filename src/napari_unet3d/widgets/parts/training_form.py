"""Edits how to train: preset, budget, device, start, wanted outputs, advanced settings."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QLabel,
    QVBoxLayout,
    QWidget,
)

from napari_unet3d.config import PredictionConfig, TrainingConfig
from napari_unet3d.errors import BadInputError
from napari_unet3d.networks import available_networks, kind_of
from napari_unet3d.prediction.outputs import optional_outputs
from napari_unet3d.training.losses import LOSSES
from napari_unet3d.widgets.parts.devices import DeviceChoice
from napari_unet3d.widgets.parts.duration import DurationBox
from napari_unet3d.widgets.parts.fields import DurationEditor, ModelEditor
from napari_unet3d.widgets.parts.file_dialogs import ask_model_to_open
from napari_unet3d.widgets.parts.section import Section
from napari_unet3d.widgets.parts.typed_box import steady

PRESETS = (
    ("fast", "Fast preview", "A small network: a first impression within seconds."),
    ("balanced", "Balanced", "The most accuracy per minute on this computer. The default."),
    (
        "paper",
        "Paper (3D U-Net, 2016)",
        "The network of Çiçek et al. 2016 with 19 million parameters. Needs a GPU and hours.",
    ),
)
_BY_HAND = ("preset", "seconds", "device")
"""Fields that have an editor of their own; the others are advanced settings."""
_CHOICES = {"network": tuple(map(kind_of, available_networks())), "loss": tuple(LOSSES)}
"""Settings that are names of our own; each is offered once there are several."""
_OF_PREDICTION = ("precision", "mirrors")
"""Fields of a prediction that are edited; its device is that of the training, and the others are
planned."""
_WITHOUT_CHOICE = tuple(name for name, choices in _CHOICES.items() if len(choices) < 2)


class TrainingForm(QWidget):
    """Edits a TrainingConfig, the start of the training, and the outputs that are wanted."""

    valueChanged = Signal()
    problemShown = Signal()
    """A typed setting cannot be used, and its field says why: it should be in view."""

    def __init__(self) -> None:
        super().__init__()
        self._bundle_path: Path | None = None

        self.preset = QComboBox()
        for value, text, tip in PRESETS:
            self.preset.addItem(text, value)
            self.preset.setItemData(self.preset.count() - 1, tip, 3)  # Qt.ToolTipRole
        self.budget = DurationBox()
        self.budget.setToolTip(
            "Time for the training; the whole stack is segmented after it.\n"
            "Type 90 s, 5 min or 2 h, or use the arrow keys. You can press Stop at any time."
        )
        self.budget_editor = DurationEditor(self.budget)
        self.device = QComboBox()
        self.device.addItem("Automatic", "auto")
        self.device.setToolTip("Where to compute. Automatic takes a GPU when there is one.")
        self.device_note = QLabel()
        self.device_note.setWordWrap(True)
        self.device_note.hide()
        self.start_from = QComboBox()
        self.start_from.addItem("A new network", "nothing")
        self.start_from.addItem("Last run", "last")
        self.start_from.addItem("Model file…", "file")
        self.start_from.setToolTip(
            "Begin with trained weights instead of random ones: the last run of this window, "
            "or a model saved before."
        )
        for box in (self.preset, self.device, self.start_from):
            # Long texts must not make the dock wider.
            box.setSizeAdjustPolicy(
                QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
            box.setMinimumContentsLength(12)
            steady(box)
        self.outputs = {output.name: QCheckBox(output.title) for output in optional_outputs()}
        for output in optional_outputs():
            self.outputs[output.name].setToolTip(output.tooltip)
        self.advanced = ModelEditor(
            TrainingConfig, skip=(*_BY_HAND, *_WITHOUT_CHOICE), choices=_CHOICES
        )
        self.prediction = ModelEditor(
            PredictionConfig, skip=set(PredictionConfig.model_fields) - set(_OF_PREDICTION)
        )
        for editor in self.prediction.editors.values():  # the training has a precision, too
            target = editor.focusProxy() or editor
            target.setAccessibleName(f"{target.accessibleName()} of the segmentation")
        advanced = QWidget()
        rows = QVBoxLayout(advanced)
        rows.setContentsMargins(0, 0, 0, 0)
        rows.setSpacing(4)
        rows.addWidget(self.advanced)
        rows.addWidget(QLabel("<b>Segmentation</b>"))
        rows.addWidget(self.prediction)
        self.advanced_section = Section("Advanced settings", advanced, expanded=False, main=False)

        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setSpacing(4)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for text, widget in (
            ("P&reset", self.preset),
            ("&Budget", self.budget),
            ("&Device", self.device),
            ("Start from", self.start_from),
        ):
            label = QLabel(text)
            label.setBuddy(widget)
            label.setToolTip(widget.toolTip())
            widget.setAccessibleName(text.replace("&", ""))
            form.addRow(label, self.budget_editor if widget is self.budget else widget)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addLayout(form)
        layout.addWidget(self.device_note)
        for check_box in self.outputs.values():
            layout.addWidget(check_box)
        layout.addWidget(self.advanced_section)

        self.set_last_run(False)
        self.setValue(TrainingConfig())
        for signal in (
            self.preset.currentIndexChanged,
            self.budget.valueChanged,
            self.device.currentIndexChanged,
            self.start_from.currentIndexChanged,
            *(box.toggled for box in self.outputs.values()),
            self.advanced.valueChanged,
            self.prediction.valueChanged,
        ):
            signal.connect(self._changed)
        self.start_from.activated.connect(self._start_activated)

    # ---- the value

    def value(self) -> TrainingConfig:
        """The settings.

        Raises
        ------
        BadInputError
            A typed setting cannot be used; names it and the cure.
        """
        try:
            advanced = self.advanced.value()
        except BadInputError:
            self.advanced_section.setExpanded(True)  # the field shows its problem
            self.problemShown.emit()
            raise
        iterations = advanced["iterations"]
        seconds = self._seconds(needed=iterations is None)
        try:
            return TrainingConfig(
                preset=self.preset.currentData(),
                seconds=seconds,
                device=self.device.currentData(),
                **advanced,
            )
        except ValidationError as error:  # rules that no single editor can check
            first = error.errors()[0]
            if (rule := first.get("ctx", {}).get("error")) is not None:  # a rule of `config`
                raise BadInputError(f"Advanced settings: {rule}.") from error
            name = str(first["loc"][0] if first["loc"] else "settings")
            field = TrainingConfig.model_fields.get(name)
            about = "" if field is None else f" {field.description}"
            raise BadInputError(
                f"The setting '{name.replace('_', ' ')}' cannot be {first['input']!r}.{about}"
            ) from error

    def _seconds(self, *, needed: bool) -> float | None:
        """The budget; None when iterations are given instead."""
        try:
            seconds = self.budget.value()
        except BadInputError as error:
            if needed:
                self.budget_editor.show_problem()
                self.problemShown.emit()
                raise BadInputError(f"Budget: {error}") from None
            return None
        if seconds is None and needed:
            raise BadInputError(
                "Budget: nothing is typed. Write a time such as 90 s, 5 min or 2 h, or give "
                "'Iterations' in the advanced settings."
            )
        return seconds

    def summary(self) -> str:
        """Preset and budget in a few words: "Balanced · 1 min"."""
        return f"{self.preset.currentText()} · {self.budget.text()}"

    def wanted_outputs(self) -> tuple[str, ...]:
        """Names of the outputs that are wanted beside the labels."""
        return tuple(name for name, box in self.outputs.items() if box.isChecked())

    def set_wanted_outputs(self, names: Collection[str]) -> None:
        """Check the boxes of these outputs, and no others."""
        for name, box in self.outputs.items():
            box.setChecked(name in names)

    def prediction_config(self) -> PredictionConfig:
        """The settings of a prediction. It can always be read."""
        given = self.prediction.value()
        if given["precision"] == "auto":
            given["precision"] = self.advanced.editors["precision"].value()
        return PredictionConfig(device=self.device.currentData(), **given)

    def setValue(self, config: TrainingConfig, prediction: PredictionConfig | None = None) -> None:
        """Show another TrainingConfig, and how a model is applied; its device is the training's."""
        self.preset.setCurrentIndex(self.preset.findData(config.preset))
        self.budget.setValue(config.seconds)
        if self.device.findData(config.device) < 0:
            self.device.addItem(config.device, config.device)
        self.device.setCurrentIndex(self.device.findData(config.device))
        self.advanced.setValue(config)
        prediction = prediction or PredictionConfig()
        if prediction.precision == config.precision:
            prediction = prediction.model_copy(update={"precision": "auto"})
        self.prediction.setValue(prediction)
        self._show_dependent()

    def starting_point(self) -> str | Path:
        """The start of the next training: "nothing", "last", or the file of a model."""
        chosen = str(self.start_from.currentData())
        if chosen == "file":
            return self._bundle_path or "nothing"
        return chosen

    def set_starting_point(self, start: Literal["nothing", "last"]) -> None:
        """Start from a new network, or from the current model."""
        self.start_from.setCurrentIndex(self.start_from.findData(start))

    def set_starting_file(self, path: Path | None) -> None:
        """Start from this model file; from a new network when None."""
        self._bundle_path = path
        index = self.start_from.findData("file")
        self.start_from.setItemText(index, f"Model file: {path.name}" if path else "Model file…")
        self.start_from.setCurrentIndex(index if path else 0)

    # ---- what can be chosen

    def set_devices(self, choices: list[DeviceChoice], note: str | None) -> None:
        """Offer these devices, and show a note on why a GPU is not used; none when None."""
        now = self.device.currentData()
        with QSignalBlocker(self.device):  # while it is empty, the form has no value
            self.device.clear()
            for choice in choices:
                self.device.addItem(choice.text, choice.value)
            self.device.setCurrentIndex(max(0, self.device.findData(now)))
        self._changed()
        self.device_note.setText(note or "")
        self.device_note.setVisible(bool(note))

    def set_last_run(self, available: bool) -> None:
        """Set whether a last run is available to start from."""
        index = self.start_from.findData("last")
        item = self.start_from.model().item(index)  # type: ignore[union-attr]
        item.setEnabled(available)
        item.setText("Last run" if available else "Last run (none yet)")
        if not available and self.start_from.currentIndex() == index:
            self.start_from.setCurrentIndex(0)

    # ---- inside

    def _changed(self) -> None:
        self._show_dependent()
        self.valueChanged.emit()

    def _show_dependent(self) -> None:
        self.preset.setToolTip(PRESETS[self.preset.currentIndex()][2])
        try:
            iterations = self.advanced.editors["iterations"].value()
        except BadInputError:  # the user still types
            return
        self.budget.replace(None if iterations is None else f"{iterations} iterations")

    def _start_activated(self, index: int) -> None:
        if self.start_from.itemData(index) != "file":
            return
        path = ask_model_to_open(self, "Start from a trained model", self._bundle_path)
        self.set_starting_file(path or self._bundle_path)
