"""The pixel classifier answers on the slice in view after each stroke, without a training run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from numpy.typing import NDArray
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QVBoxLayout, QWidget

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.one_slice import OneSlice
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef, read_slice
from napari_unet3d.data.wording import counted
from napari_unet3d.errors import BadInputError
from napari_unet3d.session.quick import Answer, Question, QuickAnswer
from napari_unet3d.session.texts import error_text
from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.parts.status_line import StatusLine
from napari_unet3d.widgets.run.newest import Newest
from napari_unet3d.widgets.run.newest import Question as Asked
from napari_unet3d.widgets.viewer.belonging import bind
from napari_unet3d.widgets.viewer.layers import (
    base_name,
    class_colormap,
    class_features,
    insert_quietly,
    remember,
)
from napari_unet3d.widgets.viewer.placement import spatial_transform
from napari_unet3d.widgets.viewer.undo import UndoWatch
from napari_unet3d.widgets.viewer.view_field import ViewWatch, visible_field
from napari_unet3d.widgets.workbench import Feature, Workbench

_READING = 0.03
"""Seconds for reading painted slices at once, which holds up the window; the others follow."""
_STROKE_MS = 40
"""Milliseconds until the next try while the mouse is down: labels are not read in mid-stroke."""
_OPACITY = 0.35
"""Opacity of the layer, 0 to 1. Paint has 0.6, so it stays visible on the answer."""
_HIGHEST = 255
"""The largest label value of a class."""


@dataclass(frozen=True, eq=False)
class _Pair:
    """An image with its further channels, an annotation, and the array of that."""

    image: Image
    annotation: Labels
    data: Any
    channels: tuple[Image, ...]

    def is_same(self, other: _Pair) -> bool:
        """Whether both hold the same layers and the same array."""
        return (
            self.image is other.image
            and self.annotation is other.annotation
            and self.data is other.data
            and self.channels == other.channels
        )


class QuickAnswering(Feature):
    """Shows the quick answer as a layer below the annotation, and keeps it up to date.

    It waits while a run goes on: the processor is the run's then, and its live slice is better.
    After a run it waits for the next stroke, since the result is better too.
    """

    place = "annotate"

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self.check_box = QCheckBox("Quick answer while painting")
        self.status = StatusLine("Quick answer")
        self.widget = QWidget()
        layout = QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(2)
        layout.addWidget(self.check_box)
        layout.addWidget(self.status)
        self.layer: Labels | None = None
        """The layer that shows the answer; None while it is off."""
        self._shown: OneSlice | None = None
        self._quick: QuickAnswer | None = None
        self._pair: _Pair | None = None
        """What `_quick` learns from."""
        self._sent: dict[SliceRef, PaintedSlice] = {}
        self._classes: tuple[ClassInfo, ...] = ()
        """The classes whose colors the layer has."""
        self._ran = False
        """Whether a run has ended since the last stroke."""
        self._newest = Newest(bench.background, self._answered, self._failed)
        self._view = ViewWatch(bench.viewer, self)
        self._retry = QTimer(self)
        self._retry.setSingleShot(True)
        self._retry.setInterval(_STROKE_MS)
        self._painting = Connections(self)
        key = bench.shortcuts.add("W", "Quick answer while painting, on or off", self.toggle)
        self.check_box.setToolTip(
            f"After each stroke, guess the rest of the slice in view within a second (key "
            f"{key.shown}).\nThe guess knows single voxels and their surroundings; a training "
            "knows shapes, too. It waits while a training runs."
        )
        for signal, slot in (
            (self.check_box.toggled, self._toggled),
            (bench.annotator.changed, self._changed),
            (bench.choice.valueChanged, self._changed),
            (bench.choice.channelsChanged, self._changed),
            (bench.runner.phaseChanged, self._run_changed),
            (self._view.changed, self._moved),
            (self._retry.timeout, self._ask),
        ):
            signal.connect(slot)

    def toggle(self) -> None:
        """Switch the quick answer on or off."""
        self.check_box.toggle()

    def is_on(self) -> bool:
        """Whether the user wants it."""
        return self.check_box.isChecked()

    def cleanup(self) -> None:
        """Stop, and let go of the viewer."""
        self._retry.stop()
        self._newest.drop()
        self._painting.clear()
        self._view.cleanup()
        self._remove_layer()

    # ---- what the user does

    def _toggled(self, on: bool) -> None:
        self._ran = False
        if on:
            self._changed()
            return
        self._retry.stop()
        self._newest.drop()
        self._forget()
        self.status.setText("")

    def _changed(self, _: Any = None) -> None:
        """Paint, classes, held-out slices, layers or the slice in view have changed."""
        if not self.is_on():
            return
        annotation = self.bench.annotator.layer()
        image = self.bench.choice.value()[0]
        pair = None
        if image is not None and annotation is not None and not self.bench.pairing.problem():
            pair = _Pair(image, annotation, annotation.data, self.bench.choice.channels_value())
        if self._pair is None or pair is None or not pair.is_same(self._pair):
            self._forget()
            self._begin(pair)
        self._ask()

    def _moved(self) -> None:
        if self.is_on() and not self._ran:
            self._ask()

    def _painted(self, _event: Any = None) -> None:
        self._ran = False

    def _run_changed(self, phase: str) -> None:
        if not self.is_on():
            return
        if phase == "ready":
            self.status.setText("Waits for the next stroke.")
            return
        self._newest.drop()
        self._ran = True
        self._hide()
        self.status.setText("Waits while something runs.")

    # ---- begin and end

    def _begin(self, pair: _Pair | None) -> None:
        if pair is None:
            return
        try:
            volume, _ = self.bench.choice.volume()
            volume.check_header()
        except BadInputError:
            return
        self._pair, self._quick = pair, QuickAnswer(volume)
        self._painting.add((pair.annotation.events.paint, self._painted))

    def _forget(self) -> None:
        self._painting.clear()
        self._pair = self._quick = None
        self._sent.clear()
        self._remove_layer()

    # ---- question and answer

    def _ask(self) -> None:
        if self.is_on() and not self._ran and not self.bench.runner.is_running():
            self._newest.ask(self._question)

    def _question(self) -> Asked | None:
        """The newest question; None where there is none."""
        bench, quick, pair = self.bench, self._quick, self._pair
        if quick is None or pair is None or not self.is_on() or bench.runner.is_running():
            return None
        annotation, data = pair.annotation, pair.data
        ref = bench.annotator.shown()
        if ref is None:
            self._hide()
            return None
        if self._shown is not None and self._shown.ref not in (ref, None):
            self._shown.clear()  # seen from another side, the last slice would be a line
            if self.layer is not None:
                self.layer.refresh(extent=False, thumbnail=False)
        if UndoWatch(annotation).stroke_is_open():
            self._retry.start()
            return None
        held_out = bench.slice_table.value()
        slices = {s.ref: s for s in bench.annotator.slices() if s.ref not in held_out}
        changed, everything = self._read(slices, ref, data)
        if not slices:
            self._hide()
            self.status.setText("Paint some of a class and some background.")
            return None
        question = Question(
            ref,
            visible_field(annotation, ref),
            self._view.cursor(annotation, ref),
            frozenset(slices),
            changed,
            held_out,
            bench.annotator.classes(),
        )
        return partial(_work, quick, question, everything)

    def _read(
        self, slices: dict[SliceRef, PaintedSlice], shown: SliceRef, data: Any
    ) -> tuple[dict[SliceRef, NDArray[np.uint8]], bool]:
        """Copies of the slices that have changed, and whether there was time for all of them."""
        for ref in self._sent.keys() - slices.keys():
            del self._sent[ref]
        end = time.monotonic() + _READING
        changed: dict[SliceRef, NDArray[np.uint8]] = {}
        new = [ref for ref, painted in slices.items() if self._sent.get(ref) != painted]
        if shown in slices and shown not in new:
            new.append(shown)  # its counts may be the same by chance
        for ref in sorted(new, key=lambda r: r != shown):
            if changed and time.monotonic() > end:
                return changed, False
            values = read_slice(data, ref)
            changed[ref] = np.where(values <= _HIGHEST, values, 0).astype(np.uint8)
            self._sent[ref] = slices[ref]
        return changed, True

    def _answered(self, outcome: tuple[QuickAnswer, Answer]) -> None:
        quick, answer = outcome
        if quick is not self._quick or not self.is_on() or self.bench.runner.is_running():
            return
        if answer.problem:
            self._hide()
            self.status.setText(answer.problem)
            return
        if answer.ref == self.bench.annotator.shown():
            self._show(answer)
        if not answer.complete:
            self._ask()

    def _failed(self, error: Exception) -> None:
        self.check_box.setChecked(False)
        self.status.setText(error_text(error))

    # ---- the layer

    def _show(self, answer: Answer) -> None:
        layer = self._open_layer()
        shown = self._shown
        if layer is None or shown is None or not answer.parts:
            return
        if shown.ref != answer.ref:
            shown.clear(answer.ref)
        for start, labels in answer.parts:
            shown.write(start, labels)
        layer.visible = True
        layer.refresh(extent=False, thumbnail=False)
        n = len(self._sent)
        self.status.setText(f"Learned from {counted(n, 'slice')}.")

    def _open_layer(self) -> Labels | None:
        """The layer; it is made again where the user deleted it."""
        viewer, pair = self.bench.viewer, self._pair
        if pair is None:
            return None
        image, annotation, data = pair.image, pair.annotation, pair.data
        classes = self.bench.annotator.classes()
        if self.layer is None or self.layer not in viewer.layers:
            self._shown = OneSlice(data.shape, np.uint8)
            self.layer = Labels(
                self._shown,
                name=f"{base_name(image.name)} quick answer",
                opacity=_OPACITY,
                **spatial_transform(image, annotation.ndim),
            )
            self.layer.editable = False
            remember(self.layer, role="companion")
            bind(self.layer, image)
            self._classes = ()
            insert_quietly(viewer, viewer.layers.index(annotation), self.layer)
        if classes != self._classes:
            self._classes = classes
            self.layer.colormap = class_colormap(classes, annotation=True)
            self.layer.features = class_features(classes, annotation=True)
        return self.layer

    def _hide(self) -> None:
        if self.layer is not None:
            self.layer.visible = False

    def _remove_layer(self) -> None:
        layer, self.layer, self._shown = self.layer, None, None
        if layer is not None and layer in self.bench.viewer.layers:
            self.bench.viewer.layers.remove(layer)


def _work(
    quick: QuickAnswer, question: Question, everything: bool, interrupted: Callable[[], bool]
) -> tuple[QuickAnswer, Answer]:
    answer = quick.answer(question, interrupted=interrupted)
    if not everything:
        answer = Answer(answer.ref, answer.parts, False, answer.fit, answer.problem)
    return quick, answer
