"""Chooses for which kind of stacks a universal model works."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QWidget

from napari_unet3d.session.session import NamedModel
from napari_unet3d.widgets.parts.typed_box import steady
from napari_unet3d.widgets.workbench import Feature, Workbench


class KindOfStack(Feature):
    """A choice among the domains of the current model; only for models that have several."""

    place = "result"

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self.box = QComboBox()
        self.box.setSizeAdjustPolicy(
            QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        )
        self.box.setMinimumContentsLength(12)
        steady(self.box)
        self.box.setAccessibleName("Kind of stack")
        label = QLabel("Kind of stack")
        label.setBuddy(self.box)
        for widget in (label, self.box):
            widget.setToolTip(
                "The current model was trained on stacks of several kinds, each with its classes: "
                "choose the kind of this image, then apply the model."
            )
        self.widget = QWidget()
        layout = QFormLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        layout.addRow(label, self.box)
        for signal, slot in (
            (self.box.activated, self._chosen),
            (bench.session.changed, self._show_state),
            (bench.runner.phaseChanged, self._show_state),
        ):
            signal.connect(slot)
        self._opened: NamedModel | None = None
        """The model as it was trained or opened; the others are made of it."""
        self._chosen_model: NamedModel | None = None
        self._show_state()

    def _show_state(self, _: Any = None) -> None:
        model = self.bench.session.value().model
        if model is not self._chosen_model:
            self._opened = model
        names = () if model is None else model.bundle.domains
        with QSignalBlocker(self.box):
            if [self.box.itemText(i) for i in range(self.box.count())] != list(names):
                self.box.clear()
                self.box.addItems(names)
            if model is not None:
                self.box.setCurrentIndex(model.bundle.active_number)
        self.box.setEnabled(not self.bench.runner.is_running())
        assert self.widget is not None
        self.widget.setVisible(len(names) > 1)

    def _chosen(self, index: int) -> None:
        model, opened = self.bench.session.value().model, self._opened
        if model is None or opened is None or index == model.bundle.active_number:
            return
        bundle = opened.bundle.of_domain(self.box.itemText(index))
        self._chosen_model = replace(opened, bundle=bundle)
        self.bench.file_actions.set_model(self._chosen_model)
