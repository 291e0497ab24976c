"""Chooses the image and the annotation among the layers; edits voxel size and time points."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import QComboBox, QGridLayout, QLabel, QLineEdit, QPushButton, QWidget

from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.parts.channel_choice import ChannelChoice
from napari_unet3d.widgets.parts.elided_box import ElidedBox
from napari_unet3d.widgets.parts.typed_box import steady
from napari_unet3d.widgets.parts.voxel_size import VoxelSizeEdit
from napari_unet3d.widgets.viewer.axes import (
    FirstAxis,
    assumed_text,
    first_axis_of,
    labels_shape,
    name_first_axis,
    order_problem,
    stack_ndim,
)
from napari_unet3d.widgets.viewer.channels import from_one_file
from napari_unet3d.widgets.viewer.image_volume import image_volume


def read_times(text: str, n_times: int) -> tuple[int, ...] | None:
    """Read time points from a text such as "0,3" or "0-4, 7"; None, for all, when it is empty.

    Raises
    ------
    BadInputError
        The text is something else, or names a time point that the image does not have.
    """
    times: set[int] = set()
    for part in filter(None, re.split(r"[,;\s]+", re.sub(r"\s*[-–]\s*", "-", text.strip()))):
        match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", part)
        if match is None:
            raise BadInputError(
                f"'{part}' is not a time point. Write numbers and ranges, counted from 0, as in "
                "0,3 or 0-4; leave it empty for all."
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first or last >= n_times:
            raise BadInputError(
                f"The image has no time point '{part}'. It has {n_times}, from 0 to {n_times - 1}."
            )
        times.update(range(first, last + 1))
    return tuple(sorted(times)) or None


class LayerChoice(QWidget):
    """Chooses an Image and an annotation layer among the layers that are offered."""

    valueChanged = Signal()
    """Another layer is chosen, or the first axis has another meaning."""
    channelsChanged = Signal()
    """Other layers are channels of the image."""
    timesChanged = Signal()
    """The text of the time points is another one."""
    newAnnotationRequested = Signal()
    """The user wants a new annotation layer."""

    def __init__(self) -> None:
        super().__init__()
        self.image = _layer_box("Image", "The 3D stack to segment.")
        self.voxel_size = VoxelSizeEdit()
        self.voxel_label = QLabel("Vo&xel zyx")
        self.voxel_label.setBuddy(self.voxel_size.edits[0])
        self.note = QLabel()
        self.note.setWordWrap(True)
        self.note.setAccessibleName("Note on the voxel size")
        self.first_axis = QComboBox()
        steady(self.first_axis)
        self.first_axis.addItem("first axis is time", "time")
        self.first_axis.addItem("first axis is channels", "channels")
        self.first_axis.setAccessibleName("First axis of the image")
        self.first_axis.setToolTip("This image has four axes: say what the first one is.")
        self.first_axis.hide()
        self.axis_note = QLabel()
        self.axis_note.setWordWrap(True)
        self.axis_note.setAccessibleName("Note on the first axis")
        self.axis_note.hide()
        self.channels = ChannelChoice()
        self.channels_label = QLabel("Channels")
        self.channels_label.setBuddy(self.channels)
        self._meaning: FirstAxis = "time"
        """What `first_axis` shows."""
        self._offered: Image | None = None
        """The image that the channels were offered for."""
        self._offers: tuple[Image, ...] = ()
        self.times = QLineEdit()
        self.times.setPlaceholderText("all, or e.g. 0,3 or 0-4")
        self.times.setAccessibleName("Time points to segment")
        self.times.setToolTip(
            "Which time points to segment, counted from 0: 0,3 or 0-4. Empty: all of them."
        )
        self.times.hide()
        self.times_label = QLabel("Time points")
        self.times_label.setBuddy(self.times)
        self.times_label.hide()
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
        for row, text, box in ((0, "&Image", self.image), (7, "Annotatio&n", self.annotation)):
            label = QLabel(text)
            label.setBuddy(box)
            layout.addWidget(label, row, 0)
            layout.addWidget(box, row, 1, 1, 2 if row == 0 else 1)
        layout.addWidget(self.voxel_label, 1, 0)
        layout.addWidget(self.voxel_size, 1, 1, 1, 2)
        layout.addWidget(self.note, 2, 0, 1, 3)
        layout.addWidget(self.first_axis, 3, 1, 1, 2)
        layout.addWidget(self.axis_note, 4, 0, 1, 3)
        layout.addWidget(self.channels_label, 5, 0)
        layout.addWidget(self.channels, 5, 1, 1, 2)
        layout.addWidget(self.times_label, 6, 0)
        layout.addWidget(self.times, 6, 1, 1, 2)
        layout.addWidget(self.new_button, 7, 2)
        self.set_note("")
        layout.setColumnStretch(1, 1)
        self.image.currentIndexChanged.connect(self._changed)
        for chosen in (self.first_axis.activated, self.first_axis.currentIndexChanged):
            chosen.connect(lambda _: self._name_first_axis())
        self.annotation.currentIndexChanged.connect(self._changed)
        self.channels.valueChanged.connect(self.channelsChanged)
        self.times.textChanged.connect(lambda _text: self.timesChanged.emit())
        self.new_button.clicked.connect(self.newAnnotationRequested)
        self.set_layers([], [])

    def value(self) -> tuple[Image | None, Labels | None]:
        """The chosen image and annotation layer; None where none is chosen."""
        return self.image.currentData(), self.annotation.currentData()

    def chosen(self) -> tuple[Image, Labels]:
        """The chosen image and annotation layer.

        Raises
        ------
        BadInputError
            The image or the annotation is not chosen.
        """
        image, annotation = self.value()
        if image is None:
            raise BadInputError(
                "No image is open. Open a 3D stack with File ▸ Open, or a sample with "
                "File ▸ Open Sample ▸ napari-unet3d."
            )
        if annotation is None:
            raise BadInputError(
                "No annotation layer is chosen. Press New at the top, then paint a few slices."
            )
        return image, annotation

    def volume(self) -> tuple[Volume, tuple[str, ...]]:
        """The chosen image with its channels, and notes on it; see `image_volume`.

        Raises
        ------
        BadInputError
            No image is chosen, or it cannot be segmented.
        """
        image, _ = self.value()
        if image is None:
            raise BadInputError("No image is chosen. Choose one at the top of the dock.")
        return image_volume(image, self.first_axis_value(), self.channels_value())

    def channels_value(self) -> tuple[Image, ...]:
        """The layers that are further channels of the image."""
        return tuple(x for x in self.channels.value() if isinstance(x, Image))

    def choose_channels(self, layers: Sequence[Image]) -> None:
        """Tick those of the offered layers, and no others."""
        if set(self.channels_value()) != set(layers):
            self.channels.setValue(layers)
            self.channelsChanged.emit()

    def set_channels(self, others: Sequence[Image]) -> None:
        """Offer layers as further channels; those of the image's own file are ticked at first."""
        image, _ = self.value()
        before = self.channels_value()
        fits = image is not None and (stack_ndim(image) == 3 or self.first_axis_value() == "time")
        offers = [(x, x.name) for x in others] if fits else []
        self.channels.set_offers("" if image is None else image.name, offers)
        known = self._offers if image is self._offered else ()
        if image is not None:
            new = [x for x, _ in offers if x not in known and from_one_file(image, x)]
            kept = before if image is self._offered else ()
            self.channels.setValue([*kept, *new])
        self._offered, self._offers = image, tuple(x for x, _ in offers)
        for widget in (self.channels_label, self.channels):
            widget.setVisible(bool(offers))
        if self.channels_value() != before:
            self.channelsChanged.emit()

    def setValue(self, image: Image | None, annotation: Labels | None) -> None:
        """Choose other layers; emits once if that is a change."""
        before = self.value()
        with QSignalBlocker(self.image), QSignalBlocker(self.annotation):
            for box, layer in ((self.image, image), (self.annotation, annotation)):
                box.setCurrentIndex(_find(box, layer))
        if self.value() != before:
            self._changed()

    def first_axis_value(self) -> FirstAxis:
        """The meaning of the first axis of a 4D image."""
        image, _ = self.value()
        return "time" if image is None else first_axis_of(image)

    def set_first_axis(self, meaning: FirstAxis) -> None:
        """Choose the meaning of the first axis of a 4D image, which the layer then names."""
        self.first_axis.setCurrentIndex(self.first_axis.findData(meaning))
        self._name_first_axis()

    def _name_first_axis(self) -> None:
        image, _ = self.value()
        if image is None:
            return
        before = self._meaning
        channels = self.first_axis.currentData() == "channels"
        name_first_axis(image, "channels" if channels else "time")
        told = self._meaning != before  # whoever follows the layers has called `set_layers`
        if self.first_axis_value() != before and not told:
            self._changed()
        else:
            self._show_dependent()

    def times_value(self) -> tuple[int, ...] | None:
        """The time points to segment; None for all of them.

        Raises
        ------
        BadInputError
            The text names no time points of the image.
        """
        image, _ = self.value()
        if image is None or not self._is_series(image):
            return None
        return read_times(self.times.text(), labels_shape(image, "time")[0])

    def set_times(self, times: Sequence[int] | None) -> None:
        """Show other time points; all of them when None."""
        self.times.setText("" if times is None else ",".join(map(str, times)))

    def set_note(self, text: str) -> None:
        """Show a note on the voxel size; none when `text` is empty."""
        self.note.setText(text)
        self.note.setVisible(bool(text))

    def set_layers(
        self,
        images: Sequence[Image],
        annotations: Sequence[Labels],
        remarks: Mapping[str, str] | None = None,
    ) -> None:
        """Offer these layers; a chosen layer stays chosen if it is among them.

        Parameters
        ----------
        images, annotations
            The layers.
        remarks
            Text to be added to the names of layers, by name.
        """
        before = self.value(), self._meaning
        with QSignalBlocker(self.image), QSignalBlocker(self.annotation):
            _fill(self.image, images, None if images else "— no image is open —")
            _fill(
                self.annotation,
                annotations,
                "— choose or press New —" if annotations else "— none yet —",
                remarks or {},
            )
        if (self.value(), self.first_axis_value()) != before:
            self._changed()
        else:
            self._show_dependent()

    def _changed(self) -> None:
        self._show_dependent()
        self.valueChanged.emit()

    def _show_dependent(self) -> None:
        image, _ = self.value()
        self._meaning = self.first_axis_value()
        with QSignalBlocker(self.first_axis):
            self.first_axis.setCurrentIndex(self.first_axis.findData(self._meaning))
        self.first_axis.setVisible(image is not None and _has_first_axis(image))
        self.axis_note.setText("" if image is None else assumed_text(image))
        self.axis_note.setVisible(bool(self.axis_note.text()))
        self.voxel_label.setVisible(image is not None)
        self.voxel_size.setVisible(image is not None)
        for widget in (self.times_label, self.times):
            widget.setVisible(image is not None and self._is_series(image))
        self.new_button.setEnabled(image is not None)

    def _is_series(self, image: Image) -> bool:
        return _has_first_axis(image) and self.first_axis_value() == "time"


def _has_first_axis(image: Image) -> bool:
    """Whether an image is 4D, and its axes stand in an order that can be used."""
    return stack_ndim(image) == 4 and not order_problem(image)


def _layer_box(name: str, tip: str) -> ElidedBox:
    box = ElidedBox()
    steady(box)
    box.setAccessibleName(name)
    box.setToolTip(tip)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(10)
    return box


def _find(box: QComboBox, layer: Layer | None) -> int:
    return next((i for i in range(box.count()) if box.itemData(i) is layer), 0)


def _fill(
    box: QComboBox,
    layers: Sequence[Layer],
    no_choice: str | None,
    remarks: Mapping[str, str] | None = None,
) -> None:
    """Offer `layers`, and before them "none of them" with the text `no_choice`, unless None."""
    chosen = box.currentData()
    box.clear()
    if no_choice is not None:
        box.addItem(no_choice, None)
    for layer in layers:
        remark = (remarks or {}).get(layer.name, "")
        box.addItem(f"{layer.name}{remark}", layer)
        box.setItemData(box.count() - 1, f"{layer.name}{remark}", Qt.ItemDataRole.ToolTipRole)
    if (view := box.view()) is not None:  # the list may be wider than the box
        view.setMinimumWidth(view.sizeHintForColumn(0) + 24)
    box.setCurrentIndex(_find(box, chosen))
