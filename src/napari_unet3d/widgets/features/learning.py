"""Learning while painting: slices join the training that runs, and "Keep learning" starts it."""

from __future__ import annotations

import time
from typing import Any

from qtpy.QtCore import QTimer

from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.parts.hint import Situation, can_train
from napari_unet3d.widgets.viewer.handover import Handover
from napari_unet3d.widgets.viewer.undo import UndoWatch
from napari_unet3d.widgets.workbench import Feature, Workbench

_TICK_MS = 500
"""Milliseconds between two looks for slices to hand over."""
_MOST_AT_ONCE = 2
"""Slices that are copied in a look: a slice of 2048² pixels takes a few milliseconds."""
_PAUSE_MS = 1500
"""Milliseconds without a change after which "Keep learning" starts a training."""


class Learning(Feature):
    """Hands painted slices over to the training that runs, and starts one with "Keep learning"."""

    def __init__(self, bench: Workbench) -> None:
        super().__init__(bench)
        self._handover: Handover | None = None
        """What the last training knows of its annotation; None before the first one."""
        self._connections = Connections(self)
        self._tick, self._pause = QTimer(self), QTimer(self)
        self._tick.setInterval(_TICK_MS)
        self._pause.setInterval(_PAUSE_MS)
        self._pause.setSingleShot(True)
        for signal, slot in (
            (self._tick.timeout, self._hand_over),
            (self._pause.timeout, self._start),
            (bench.runner.phaseChanged, self._follow),
            (bench.annotator.changed, self._changed),
            (bench.run_bar.keepsLearningChanged, self._wish),
        ):
            signal.connect(slot)

    # ---- slices join the training that runs

    def _follow(self, phase: str) -> None:
        bench = self.bench
        layer = bench.actions.live_layer
        if phase == "checking" and layer is not None:
            self._handover = Handover(layer, bench.annotator.slices(), bench.slice_table.value())
            self._connections.clear()
            self._connections.add(
                (layer.events.paint, self._painted), (layer.events.set_data, self._redrawn)
            )
            self._tick.start()
        elif phase == "ready":
            self._tick.stop()
            self._pause.start()

    def _painted(self, event: Any) -> None:
        if self._handover is not None:
            self._handover.painted(event.value, time.monotonic())

    def _redrawn(self, _event: Any = None) -> None:
        """Look for changes after a redraw, which is all that undo and redo emit."""
        if self._handover is not None and self._is_live():
            self._handover.redrawn(self.bench.annotator.shown(), time.monotonic())

    def _is_live(self) -> bool:
        """Whether the annotation in the dock is the one that the handover knows."""
        return self._handover is not None and self.bench.annotator.layer() is self._handover.layer

    def _note(self) -> None:
        assert self._handover is not None
        bench = self.bench
        self._handover.update(bench.annotator.slices(), bench.slice_table.value(), time.monotonic())

    def _hand_over(self) -> None:
        """Copy slices that have changed, and give them to the training."""
        runner, handover = self.bench.runner, self._handover
        if (
            handover is None
            or not self._is_live()
            or runner.phase not in ("training", "segmenting")
        ):
            return
        self._note()
        for ref in handover.due(time.monotonic())[:_MOST_AT_ONCE]:
            runner.join(handover.take(ref))

    # ---- keep learning

    def _wish(self, wanted: bool) -> None:
        if wanted and not self.bench.runner.is_running():
            self._handover = None  # the user wants more of it, even without new paint
            self._start()
        elif not wanted and self.bench.runner.is_running() and self.bench.report.round():
            self.bench.actions.stop()  # a segmentation that runs goes on to its end

    def _changed(self) -> None:
        if self.bench.run_bar.keep_learning.isChecked() and not self.bench.runner.is_running():
            self._pause.start()

    def _start(self) -> None:
        """Start a training, if it is wanted, nothing runs and there is something new to learn."""
        bench = self.bench
        layer = bench.annotator.layer()
        if not bench.run_bar.keep_learning.isChecked() or bench.runner.is_running():
            return
        if layer is None or bench.pairing.problem() or not self._can_train():
            return
        if UndoWatch(layer).stroke_is_open():
            self._pause.start()
            return
        if self._is_live():
            self._note()
            assert self._handover is not None
            if not self._handover.is_behind() and not bench.runner.has_unjoined():
                return
        bench.actions.start()

    def _can_train(self) -> bool:
        bench = self.bench
        image, annotation = bench.choice.value()
        return can_train(
            Situation(
                image is not None,
                annotation is not None,
                tuple(bench.annotator.slices()),
                bench.class_table.value(),
                bench.slice_table.value(),
            )
        )

    def cleanup(self) -> None:
        self._tick.stop()
        self._pause.stop()
        self._connections.clear()
        self._handover = None
