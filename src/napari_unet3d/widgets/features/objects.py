"""Section "Objects": numbers and measures the objects of a segmentation, as a layer of its own."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_unet3d.config import BACKGROUND, ObjectsConfig
from napari_unet3d.data.io.atomic import Replacement
from napari_unet3d.data.volume import Volume
from napari_unet3d.data.wording import counted
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import ObjectsProgress
from napari_unet3d.objects.finding import (
    Objects,
    find_objects,
    least_voxels,
    number_objects,
)
from napari_unet3d.objects.table import ObjectTable
from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.parts.elided_box import ElidedBox
from napari_unet3d.widgets.parts.file_dialogs import ask_segmentation, ask_table
from napari_unet3d.widgets.parts.objects_form import ClassChoice, ObjectsForm, narrow
from napari_unet3d.widgets.parts.status_line import StatusLine
from napari_unet3d.widgets.parts.typed_box import steady
from napari_unet3d.widgets.run.side_run import SideRun
from napari_unet3d.widgets.viewer.image_volume import voxel_size_of
from napari_unet3d.widgets.viewer.layers import role_of
from napari_unet3d.widgets.viewer.objects_layer import (
    CutLabels,
    classes_in,
    known_classes,
    labels_volume,
    layers_with_objects,
    likeliest,
    measured_image,
    newest_objects,
    show_objects,
    table_of,
)
from napari_unet3d.widgets.viewer.room import result_problem
from napari_unet3d.widgets.viewer.saving import check_not_open, save_layer
from napari_unet3d.widgets.workbench import Feature, Workbench

_SOON_MS = 150
"""Milliseconds after the last change of a setting until the objects are counted: while a slider is
dragged, the count follows without holding it up."""
_LIVE_CONTACTS = 100_000
"""Parts that touch, up to which objects are counted while a setting changes: 0.1 s."""
_SHARES = {"Reading": (0.0, 0.05), "Separating": (0.05, 0.75), "Measuring": (0.8, 0.2)}
"""Where the steps begin on the progress bar, and their shares of it, as they were timed."""


class ObjectsFeature(Feature):
    """Finds the objects of a Labels layer in a thread."""

    place = "section"
    title = "5  Objects"

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self.source = ElidedBox()
        steady(self.source)
        narrow(self.source)
        self.source.setAccessibleName("Segmentation whose objects are found")
        self.source.setToolTip("The Labels layer whose classes become numbered objects.")
        self.form = ObjectsForm()
        self.count = StatusLine("Number of objects")
        self.find_button = QPushButton("Find objects")
        self.find_button.setToolTip(
            "Number the objects, and measure their volumes, places and gray values.\n"
            "The result is a new layer; the segmentation stays as it is."
        )
        self.run = SideRun(
            self, "Progress of finding objects", "Stop finding objects; nothing is changed."
        )
        self.save_table = QPushButton("Save table…")
        self.save_table.setToolTip(
            "Write a CSV file with one row for each object: volume, place, gray values."
        )
        self.save_objects = QPushButton("Save objects…")
        self.save_objects.setToolTip("Write the numbered objects as OME-TIFF or OME-Zarr.")
        self.widget = self._lay_out()
        self._cut: CutLabels | None = None
        self._found: tuple[Labels, ObjectTable] | None = None
        self._target: Labels | None = None
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_SOON_MS)
        self._soon.timeout.connect(self._count)
        self._watched: Labels | None = None
        self._scanned: tuple[Any, tuple[ClassChoice, ...]] | None = None
        """Labels without a class table, and the classes that were found in them."""
        layers = bench.viewer.layers.events
        self._connections = Connections(self)
        self._connections.add(
            *((e, self._offer) for e in (layers.inserted, layers.removed, layers.renamed))
        )
        self.source.currentIndexChanged.connect(self._chosen)
        self.form.valueChanged.connect(self._soon.start)
        self.find_button.clicked.connect(self.find)
        self.save_table.clicked.connect(self._save_table)
        self.save_objects.clicked.connect(self._save_objects)
        self.run.changed.connect(self._show_state)
        self.run.eventsArrived.connect(self._show_progress)
        self.run.returned.connect(self._returned)
        self.run.failed.connect(self._failed)
        bench.runner.finished.connect(self._segmented)
        bench.runner.phaseChanged.connect(self._show_state)
        bench.session.objectsOpened.connect(self._opened)
        self._offer()
        self._show_state()

    def cleanup(self) -> None:
        """Disconnect from the viewer, and end the thread."""
        self._connections.clear()
        self._watch(None)
        self._soon.stop()
        self.run.stop()

    def _lay_out(self) -> QWidget:
        widget = QWidget()
        layout = QVBoxLayout(widget)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(6)
        row = QHBoxLayout()
        label = QLabel("Layer")
        label.setBuddy(self.source)
        row.addWidget(label)
        row.addWidget(self.source, 1)
        layout.addLayout(row)
        layout.addWidget(self.form)
        layout.addWidget(self.count)
        layout.addWidget(self.find_button)
        layout.addWidget(self.run.progress)
        layout.addWidget(self.run.cancel_button)
        buttons = QGridLayout()
        buttons.setSpacing(4)
        buttons.addWidget(self.save_table, 0, 0)
        buttons.addWidget(self.save_objects, 0, 1)
        for column in (0, 1):
            buttons.setColumnStretch(column, 1)
        layout.addLayout(buttons)
        return widget

    # ---- find

    def find(self) -> None:
        """Find the objects of the chosen layer; errors are shown, not raised."""
        self.bench.run_bar.set_message("")
        self.settled.emit()
        try:
            self._find()
        except Exception as error:  # any error is shown at the button
            self._failed(error)

    def _find(self) -> None:
        layer = self.source.currentData()
        if layer is None:
            raise BadInputError(
                "There is no segmentation yet. Train and segment, apply a model, or open a Labels "
                "layer; then find its objects."
            )
        config = self.form.value()
        volume = labels_volume(layer)
        if problem := result_problem(volume.data.shape, layer.name, np.dtype(np.uint32).itemsize):
            raise BadInputError(problem.partition(" Train and segment")[0] + _BY_COMMAND)
        image = measured_image(self.bench.choice, volume)
        names = {c.value: c.name for c in self._classes(layer)}
        cut = self._cut
        if cut is not None and cut.serves(layer, config):
            work = number_objects(
                cut.separation, cut.volume, config, np.zeros, image=image, names=names
            )
        else:
            background = (0, BACKGROUND) if role_of(layer) == "annotation" else (0,)
            work = find_objects(volume, config, image=image, names=names, background=background)
        self._target = layer
        self.run.start(_with(work, volume, config))

    def _show_progress(self, events: Sequence[ObjectsProgress]) -> None:
        event = events[-1]
        start, share = _SHARES[event.step]
        self.run.show_share(start + share * event.done / event.total, f"{event.step} %p %")

    def _returned(self, result: tuple[Objects, Volume, ObjectsConfig] | None) -> None:
        target, self._target = self._target, None
        self.settled.emit()  # the next step is shown again
        if result is None or target is None:
            self.bench.run_bar.set_status("Cancelled. No objects were made.")
            return
        objects, volume, config = result
        if target not in self.bench.viewer.layers:
            self.bench.run_bar.set_status(f"'{target.name}' was closed: no objects were made.")
            return
        self._cut = CutLabels(target, volume, config, objects.separation)
        if not len(objects.table):
            self.count.setText("No object is large enough: make 'Smallest' smaller.")
            return
        layer = show_objects(self.bench.viewer, target, objects.numbers, objects.table)
        self._found = layer, objects.table
        self.bench.session.tell_objects(layer, config)
        self._show_state()
        self.count.setText(objects.table.sentence())
        self.bench.run_bar.set_status(f"{objects.table.sentence()}.")

    def _failed(self, error: BaseException) -> None:
        self._target = None
        self.bench.report.fail(error)

    def _opened(self, layer: Labels, config: ObjectsConfig) -> None:
        """Show the settings and the number of objects that came with a session."""
        table = table_of(layer)
        if table is None:
            return
        self._found = layer, table
        self.form.setValue(config)
        self.count.setText(table.sentence())
        self._show_state()

    # ---- live count

    def _count(self) -> None:
        """Say how many objects the present settings give, if the pieces are known."""
        layer = self.source.currentData()
        if layer is None or self.run.is_running():
            return
        try:
            config = self.form.value()
        except BadInputError as error:
            self.count.setText(str(error))
            return
        cut = self._cut
        if cut is None or not cut.serves(layer, config) or cut.contacts > _LIVE_CONTACTS:
            self.count.setText("")
            return
        if cut.config == config and self._found is not None:
            self.count.setText(self._found[1].sentence())
            return
        _, n = cut.separation.numbers(config.separation, least_voxels(cut.volume, config))
        self.count.setText(f"{counted(n, 'object')} with these settings.")

    # ---- layers

    def _segmented(self, finished: Any) -> None:
        if finished is not None:
            self._offer(chosen=finished.layer)

    def _offer(self, _event: Any = None, *, chosen: Labels | None = None) -> None:
        """Offer the segmentations; the newest prediction is chosen unless the user chose one."""
        before = chosen or self.source.currentData()
        layers = layers_with_objects(self.bench.viewer.layers)
        self.source.blockSignals(True)
        self.source.clear()
        for layer in layers:
            self.source.addItem(layer.name, layer)
        best = before if before in layers else likeliest(layers)
        if best is not None:
            self.source.setCurrentIndex(self.source.findText(best.name))
        self.source.blockSignals(False)
        if self._cut is not None and self._cut.layer not in self.bench.viewer.layers:
            self._cut = None  # lets go of its memory
        if self._found is None:  # those of an opened session, or of an earlier dock
            self._found = newest_objects(self.bench.viewer.layers)
        self._chosen()

    def _chosen(self) -> None:
        layer = self.source.currentData()
        self._watch(layer)
        if layer is not None:
            try:
                size, unit = voxel_size_of(layer)
            except BadInputError:
                size, unit = (1.0, 1.0, 1.0), "pixel"
            self.form.set_labels(self._classes(layer), unit, math.prod(size))
        self._soon.start()
        self._show_state()

    def _watch(self, layer: Labels | None) -> None:
        """Forget the pieces when the labels change."""
        if layer is self._watched:
            return
        for watched, connect in ((self._watched, False), (layer, True)):
            for name in ("data", "paint", "labels_update", "scale"):
                event = None if watched is None else getattr(watched.events, name, None)
                if event is not None:
                    (event.connect if connect else event.disconnect)(self._labels_changed)
        self._watched = layer

    def _labels_changed(self, _event: Any = None) -> None:
        self._cut = None
        self._chosen()

    def _classes(self, layer: Labels) -> tuple[ClassChoice, ...]:
        """The classes of a layer; those of the user's own are found in the background."""
        if known := known_classes(layer):
            return known
        if self._scanned is not None and self._scanned[0] is layer.data:
            return self._scanned[1]
        data = layer.data
        self._scanned = data, ()
        self.bench.background.ask(
            lambda: classes_in(data), lambda classes: self._classes_found(data, classes)
        )
        return ()

    def _classes_found(self, data: Any, classes: tuple[ClassChoice, ...]) -> None:
        if self._scanned is not None and self._scanned[0] is data:
            self._scanned = data, classes
            self._chosen()

    # ---- files

    def _save_table(self) -> None:
        if self._found is None:
            return
        layer, table = self._found
        path = ask_table(self.bench.dock, layer.name)
        if path is None:
            return
        try:
            Replacement(path).write(table.csv().encode("utf-8"))
            self.bench.run_bar.set_status(f"Saved {path}")
        except Exception as error:  # any error is shown
            self._failed(error)

    def _save_objects(self) -> None:
        if self._found is None:
            return
        layer = self._found[0]
        path = ask_segmentation(self.bench.dock, layer.name, "Save objects")
        if path is None:
            return
        try:
            check_not_open(path, self.bench.viewer.layers)
            self.bench.runner.save(save_layer(layer, path))
        except Exception as error:  # any error is shown
            self._failed(error)

    def _show_state(self, _phase: str = "") -> None:
        running, busy = self.run.is_running(), self.bench.runner.is_running()
        self.find_button.setVisible(not running)
        self.find_button.setEnabled(not busy)
        self.form.setEnabled(not running)
        self.source.setEnabled(not running)
        there = self._found is not None and self._found[0] in self.bench.viewer.layers
        self.save_table.setEnabled(self._found is not None and not running)
        self.save_objects.setEnabled(there and not running and not busy)


_BY_COMMAND = " Find them with the command line, which writes to a file: napari-unet3d objects."


def _with(
    work: Generator[ObjectsProgress, None, Objects], volume: Volume, config: ObjectsConfig
) -> Generator[ObjectsProgress, None, tuple[Objects, Volume, ObjectsConfig]]:
    """Return the input together with the result."""
    objects = yield from work
    return objects, volume, config
