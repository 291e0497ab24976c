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
from napari_unet3d.widgets.viewer.layers import class_colormap, class_features
from napari_unet3d.widgets.viewer.slice_layer import SliceLayer
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
        self._shown = SliceLayer(bench.viewer, _answer_layer, np.uint8, "quick answer")
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

    @property
    def layer(self) -> Labels | None:
        """The layer that shows the answer; None while it is off."""
        return self._shown.layer

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
        self._shown.remove()

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
        self._shown.remove()

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
        self._shown.leave(ref)
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
        if not self._open_layer() or not answer.parts:
            return
        self._shown.write(answer.ref, answer.parts)
        self._shown.set_visible(True)
        n = len(self._sent)
        self.status.setText(f"Learned from {counted(n, 'slice')}.")

    def _open_layer(self) -> bool:
        """Add the layer where there is none, in the colors of the classes."""
        pair = self._pair
        if pair is None:
            return False
        if self._shown.open(pair.image, pair.annotation):
            self._classes = ()
        classes, layer = self.bench.annotator.classes(), self._shown.layer
        if layer is not None and classes != self._classes:
            self._classes = classes
            layer.colormap = class_colormap(classes, annotation=True)
            layer.features = class_features(classes, annotation=True)
        return True

    def _hide(self) -> None:
        self._shown.set_visible(False)


def _answer_layer(values: Any, **options: Any) -> Labels:
    layer = Labels(values, opacity=_OPACITY, **options)
    layer.editable = False
    return layer


def _work(
    quick: QuickAnswer, question: Question, everything: bool, interrupted: Callable[[], bool]
) -> tuple[QuickAnswer, Answer]:
    answer = quick.answer(question, interrupted=interrupted)
    if not everything:
        answer = Answer(answer.ref, answer.parts, False, answer.fit, answer.problem)
    return quick, answer
