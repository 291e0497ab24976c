"""Which image is segmented, and which layer holds the paint."""

from __future__ import annotations

from collections.abc import Sequence

from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QComboBox, QGridLayout, QLabel, QPushButton, QWidget

from napari_unet3d.widgets.layers import FirstAxis


class LayerChoice(QWidget):
    """Chooses an Image and an annotation layer among those offered."""

    valueChanged = Signal()
    newAnnotationRequested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.image = _layer_box("Image", "The 3D stack to segment.")
        self.first_axis = QComboBox()
        self.first_axis.addItem("first axis is time", "time")
        self.first_axis.addItem("first axis is channels", "channels")
        self.first_axis.setAccessibleName("First axis of the image")
        self.first_axis.setToolTip("This image has four axes: say what the first one is.")
        self.first_axis.hide()
        self.annotation = _layer_box(
            "Annotation",
            "The Labels layer you paint in: 0 unlabelled, 1 background, 2… your classes.",
        )
        self.new_button = QPushButton("N&ew")
        self.new_button.setToolTip("Add an empty annotation layer that fits the image.")
        self.new_button.setAccessibleName("New annotation layer")

        layout = QGridLayout(self)
        layout.setContentsMargins(6, 4, 6, 2)
        layout.setHorizontalSpacing(6)
        layout.setVerticalSpacing(4)
        for row, (text, box) in enumerate(
            (("&Image", self.image), ("Annotatio&n", self.annotation))
        ):
            label = QLabel(text)
            label.setBuddy(box)
            layout.addWidget(label, 2 * row, 0)
            layout.addWidget(box, 2 * row, 1, 1, 2 if row == 0 else 1)
        layout.addWidget(self.first_axis, 1, 1, 1, 2)
        layout.addWidget(self.new_button, 2, 2)
        layout.setColumnStretch(1, 1)
        self.image.currentIndexChanged.connect(self._changed)
        self.first_axis.currentIndexChanged.connect(self._changed)
        self.annotation.currentIndexChanged.connect(self._changed)
        self.new_button.clicked.connect(self.newAnnotationRequested)
        self.set_layers([], [])

    def value(self) -> tuple[Image | None, Labels | None]:
        """The chosen image and annotation layer."""
        return self.image.currentData(), self.annotation.currentData()

    def setValue(self, image: Image | None, annotation: Labels | None) -> None:
        """Choose other layers; emits once when that is a change."""
        before = self.value()
        with QSignalBlocker(self.image), QSignalBlocker(self.annotation):
            for box, layer in ((self.image, image), (self.annotation, annotation)):
                box.setCurrentIndex(_find(box, layer))
        if self.value() != before:
            self._changed()

    def first_axis_value(self) -> FirstAxis:
        """What the first axis of a 4D image is."""
        return "channels" if self.first_axis.currentData() == "channels" else "time"

    def set_layers(self, images: Sequence[Image], annotations: Sequence[Labels]) -> None:
        """Offer these layers; what is chosen stays chosen as long as it is there."""
        before = self.value()
        with QSignalBlocker(self.image), QSignalBlocker(self.annotation):
            _fill(self.image, images, "no image is open")
            _fill(self.annotation, annotations, "none yet")
        if self.value() != before:
            self._changed()
        else:
            self._show_dependent()

    def _changed(self) -> None:
        self._show_dependent()
        self.valueChanged.emit()

    def _show_dependent(self) -> None:
        image, _ = self.value()
        self.first_axis.setVisible(image is not None and image.ndim == 4 and not image.rgb)
        self.new_button.setEnabled(image is not None)


def _layer_box(name: str, tip: str) -> QComboBox:
    box = QComboBox()
    box.setAccessibleName(name)
    box.setToolTip(tip)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(10)
    return box


def _find(box: QComboBox, layer: Layer | None) -> int:
    return next((i for i in range(box.count()) if box.itemData(i) is layer), 0)


def _fill(box: QComboBox, layers: Sequence[Layer], empty: str) -> None:
    chosen = box.currentData()
    box.clear()
    if not layers or empty == "none yet":
        box.addItem(f"— {empty} —" if not layers else "— choose or press New —", None)
    for layer in layers:
        box.addItem(layer.name, layer)
    box.setCurrentIndex(_find(box, chosen))
