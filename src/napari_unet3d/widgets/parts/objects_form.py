"""Edits how classes become objects: which classes, how they are separated, what is too small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_unet3d.config import ObjectsConfig, SeparationMethod
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.parts.fields import NumberEditor
from napari_unet3d.widgets.parts.swatches import swatch
from napari_unet3d.widgets.parts.typed_box import Bounds, steady

_METHODS: tuple[tuple[SeparationMethod, str, str], ...] = (
    (
        "necks",
        "Cut at necks",
        "Objects that touch are cut where the piece is narrow. For nuclei, cells and other round "
        "things.",
    ),
    (
        "connected",
        "Every connected piece",
        "What touches, also at a corner, is one object. For objects that lie apart.",
    ),
    (
        "boundary",
        "A class lies between them",
        "You painted the walls between the objects as a class of its own: they separate the "
        "objects, and are shared out among them.",
    ),
)
_DEFAULT = ObjectsConfig()


@dataclass(frozen=True)
class ClassChoice:
    """A class that may become objects: its number in the labels, its name, its color."""

    value: int
    name: str
    color: str | None = None


class ObjectsForm(QWidget):
    """Edits an `ObjectsConfig` for labels with certain classes and a certain unit."""

    valueChanged = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._classes: tuple[ClassChoice, ...] = ()
        self._unit = "pixel"
        self.class_boxes: dict[int, QCheckBox] = {}
        self._boxes = QWidget()
        self._box_layout = QVBoxLayout(self._boxes)
        self._box_layout.setContentsMargins(0, 0, 0, 0)
        self._box_layout.setSpacing(2)
        self.method = QComboBox()
        steady(self.method)
        narrow(self.method)
        self.method.setAccessibleName("How objects are separated")
        self.explanation = QLabel()
        self.explanation.setWordWrap(True)
        self.explanation.setObjectName("quiet")
        for method, title, text in _METHODS:
            self.method.addItem(title, method)
            self.method.setItemData(self.method.count() - 1, text, Qt.ItemDataRole.ToolTipRole)
        self.boundary = QComboBox()
        steady(self.boundary)
        narrow(self.boundary)
        self.boundary.setAccessibleName("Class between the objects")
        self.boundary.setToolTip("The class that you painted between the objects.")
        self.separation = QSlider(Qt.Orientation.Horizontal)
        self.separation.setRange(0, 100)
        self.separation.setPageStep(5)
        self.separation.setAccessibleName("Cuts: fewer or more")
        self.separation.setToolTip(
            "Cut where a neck is narrower than this share of the smaller part.\n"
            "Left: never. Right: at every unevenness."
        )
        self.separation_text = QLabel()
        self.separation_text.setMinimumWidth(self.fontMetrics().horizontalAdvance("100 %  "))
        self.smallest = NumberEditor(Bounds(low=0), whole=False, optional=False)
        _name(self.smallest, "Smallest object", "Smaller objects are left out.")
        self.unit_text = QLabel()
        self.fill_holes = QCheckBox("Fill cavities")
        self.fill_holes.setToolTip("Fill holes that a class encloses on all sides.")
        self.smoothing = NumberEditor(Bounds(low=0, high=20), whole=False, optional=False)
        _name(
            self.smoothing,
            "Smoothing",
            "Smooth rough outlines: standard deviation in voxels (shortest edge). 0: not at all.",
        )

        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setSpacing(4)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self._form.addRow("Objects of", self._boxes)
        self._form.addRow("Method", self.method)
        self._form.addRow(self.explanation)
        self._form.addRow("Between", self.boundary)
        self._form.addRow("Cut below", _row(self.separation, self.separation_text))
        self._form.addRow("Smallest", _row(self.smallest, self.unit_text))
        self._form.addRow("Smoothing", _row(self.smoothing, QLabel("voxels")))
        self._form.addRow("", self.fill_holes)
        self._label_for(self.separation, 4)
        self._label_for(self.smallest, 5)
        self._label_for(self.smoothing, 6)
        self.setValue(_DEFAULT)
        self.method.currentIndexChanged.connect(self._changed)
        self.boundary.currentIndexChanged.connect(self._changed)
        self.separation.valueChanged.connect(self._changed)
        self.fill_holes.toggled.connect(self._changed)
        self.smallest.valueChanged.connect(self._changed)
        self.smoothing.valueChanged.connect(self._changed)
        self._show_dependent()

    def value(self) -> ObjectsConfig:
        """The settings.

        Raises
        ------
        BadInputError
            A typed number cannot be used, or no class is ticked.
        """
        method: SeparationMethod = self.method.currentData()
        boundary = self.boundary.currentData() if method == "boundary" else None
        if method == "boundary" and boundary is None:
            raise BadInputError(
                "There is no class between the objects: paint one, or choose another method."
            )
        chosen = tuple(
            value
            for value, box in self.class_boxes.items()
            if box.isChecked() and value != boundary
        )
        if self.class_boxes and not chosen:
            raise BadInputError("Tick the class that becomes objects.")
        if set(chosen) == {*self.class_boxes} - {0, boundary}:
            chosen = ()  # all, also those that happen not to occur
        smallest = self.smallest.value() or 0
        in_voxels = self._unit == "pixel"
        return ObjectsConfig(
            method=method,
            classes=chosen,
            boundary=boundary,
            separation=self.separation.value() / 100,
            min_voxels=round(smallest) if in_voxels else 1,
            min_volume=None if in_voxels else smallest,
            fill_holes=self.fill_holes.isChecked(),
            smoothing=self.smoothing.value() or 0.0,
        )

    def setValue(self, config: ObjectsConfig) -> None:
        """Show other settings; classes that are not offered are left out."""
        with QSignalBlocker(self.method), QSignalBlocker(self.separation):
            self.method.setCurrentIndex(self.method.findData(config.method))
            self.separation.setValue(round(100 * config.separation))
        if config.boundary is not None:
            self.boundary.setCurrentIndex(self.boundary.findData(config.boundary))
        for value, box in self.class_boxes.items():
            box.setChecked(value in config.classes if config.classes else value != 0)
        in_unit = config.min_volume is not None and self._unit != "pixel"
        self.smallest.setValue(config.min_volume if in_unit else config.min_voxels)
        self.fill_holes.setChecked(config.fill_holes)
        self.smoothing.setValue(config.smoothing)
        self._changed()

    def set_labels(
        self, classes: Sequence[ClassChoice], unit: str, voxel_volume: float = 1.0
    ) -> None:
        """Offer the classes of other labels.

        Parameters
        ----------
        classes
            The classes; () when they are not known, and then all become objects.
        unit
            Unit of the voxel size; "pixel" when sizes are counted in voxels.
        voxel_volume
            In the cubed unit; the smallest object is translated by it.
        """
        if tuple(classes) != self._classes:
            self._offer(tuple(classes))
        if unit != self._unit:
            self._unit = unit
            default = _DEFAULT.min_voxels * (1.0 if unit == "pixel" else voxel_volume)
            self.smallest.setValue(float(f"{default:.2g}"))
            self.unit_text.setText("voxels" if unit == "pixel" else f"{unit}³")
        self._changed()

    def _offer(self, classes: tuple[ClassChoice, ...]) -> None:
        chosen = {value: box.isChecked() for value, box in self.class_boxes.items()}
        boundary = self.boundary.currentData()
        self._classes = classes
        for box in self.class_boxes.values():
            self._box_layout.removeWidget(box)
            box.hide()
            box.deleteLater()
        self.class_boxes = {}
        with QSignalBlocker(self.boundary):
            self.boundary.clear()
            for c in classes:
                if c.value:
                    self.boundary.addItem(c.name, c.value)
                    if c.color:
                        self.boundary.setItemIcon(self.boundary.count() - 1, swatch(c.color))
            guess = boundary if boundary is not None else _guess_boundary(classes)
            if (place := self.boundary.findData(guess)) >= 0:
                self.boundary.setCurrentIndex(place)
        for c in classes:
            box = QCheckBox(c.name.replace("&", "&&"))
            box.setAccessibleName(f"Objects of {c.name}")
            box.setToolTip(f"Voxels of '{c.name}' become objects.")
            if c.color:
                box.setIcon(swatch(c.color))
            box.setChecked(chosen.get(c.value, c.value != 0))
            box.toggled.connect(self._changed)
            self._box_layout.addWidget(box)
            self.class_boxes[c.value] = box

    def _changed(self, *_: object) -> None:
        self._show_dependent()
        self.valueChanged.emit()

    def _show_dependent(self) -> None:
        method = self.method.currentData()
        text = next(text for name, _, text in _METHODS if name == method)
        self.explanation.setText(text)
        self._form.setRowVisible(3, method == "boundary")
        self._form.setRowVisible(4, method != "connected")
        boundary = self.boundary.currentData() if method == "boundary" else None
        offered = 0
        for value, box in self.class_boxes.items():
            shown = value != boundary and (value != 0 or method == "boundary")
            box.setVisible(shown)
            offered += shown
        self._form.setRowVisible(self._boxes, offered > 1)
        self.separation_text.setText(f"{self.separation.value()} %")
        self.unit_text.setText("voxels" if self._unit == "pixel" else f"{self._unit}³")

    def _label_for(self, widget: QWidget, row: int) -> None:
        item = self._form.itemAt(row, QFormLayout.ItemRole.LabelRole)
        label = None if item is None else item.widget()
        if isinstance(label, QLabel):
            label.setBuddy(widget)
            label.setToolTip(widget.toolTip())


def narrow(box: QComboBox) -> None:
    """Keep long choices from making the dock wider."""
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(4)


def _guess_boundary(classes: Sequence[ClassChoice]) -> int | None:
    """The class that seems to lie between others, by its name."""
    words = ("bound", "wall", "membrane", "border", "edge", "outline")
    return next((c.value for c in classes if any(w in c.name.lower() for w in words)), None)


def _row(*widgets: QWidget) -> QWidget:
    row = QWidget()
    layout = QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for i, widget in enumerate(widgets):
        layout.addWidget(widget, 1 if i == 0 else 0)
    return row


def _name(editor: NumberEditor, name: str, tip: str) -> None:
    editor.setToolTip(tip)
    editor.box.setAccessibleName(name)
    editor.box.setAccessibleDescription(tip)
    editor.box.setToolTip(tip)
