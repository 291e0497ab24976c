"""Starts and ends one run at a time, and keeps the prediction layer in step with it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal

from napari.layers import Labels
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QCoreApplication, QObject, QTimer, Signal

from napari_unet3d.data.joined_labels import SlicePaint
from napari_unet3d.data.slice_summary import StackSummary
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.events import (
    PredictionProgress,
    PredictionStarted,
    RoundStarted,
    SlicePreview,
    TrainingStarted,
)
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.session.job import Outputs
from napari_unet3d.session.texts import error_text
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.widgets.run.prediction_view import PredictionView
from napari_unet3d.widgets.run.worker import Worker
from napari_unet3d.widgets.viewer.result_layers import Result
from napari_unet3d.widgets.viewer.slice_summaries import newest_summary

_PATIENCE_MS = 1500
"""Milliseconds that Cancel waits for the thread, so that the window is free within two seconds.
Reading a large file, or one tile on a slow computer, may take longer and then ends by itself."""

Phase = Literal["ready", "checking", "training", "segmenting", "saving", "measuring"]


@dataclass(frozen=True)
class Finished:
    """The result of a run.

    Parameters
    ----------
    bundle
        The model that made the segmentation.
    layer
        The layer that shows it.
    outputs
        The arrays of all outputs, by name.
    replaced
        The layers of the earlier result whose place it has taken.
    summary
        What it says about each slice; None where that is not known.
    """

    bundle: ModelBundle
    layer: Labels
    outputs: Outputs
    replaced: Result | None = None
    summary: StackSummary | None = None


class Runner(QObject):
    """Runs generators in a thread. Only the runner adds and removes prediction layers."""

    phaseChanged = Signal(str)
    """The new phase, one of `Phase`."""
    eventsArrived = Signal(list)
    """Events of the run, at most ten times a second."""
    trained = Signal(object)
    """The trained ModelBundle: the training is over, and the segmentation begins."""
    finished = Signal(object)
    """`Finished`; None after `cancel`."""
    saved = Signal(object)
    """The return value of a generator that was given to `save`."""
    measured = Signal(object)
    """The return value of a generator that was given to `measure`; None after `cancel`."""
    failed = Signal(object)
    """The exception. The layers are as they were before the run."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.phase: Phase = "ready"
        self._worker: Worker | None = None
        self._control = TrainingControl()
        self._view: PredictionView | None = None
        self._cancelled = False
        self._patience = QTimer(self)
        self._patience.setSingleShot(True)
        self._patience.setInterval(_PATIENCE_MS)
        self._patience.timeout.connect(self._free)
        self.lingers = False
        """Whether the thread of the last run, which was cancelled, still ends its step."""
        self._ending = _Ending()
        # Ends the run when Qt deletes the window before anything else could do so.
        self.destroyed.connect(self._ending)

    def run(
        self,
        generator: Generator[Any, None, ModelBundle | None],
        control: TrainingControl,
        view: PredictionView,
    ) -> None:
        """Start a training or a prediction.

        Parameters
        ----------
        generator
            Yields events, and returns the model; None when it was cancelled.
        control
            Stops and cancels the training in `generator`.
        view
            Shows the result.
        """
        self._control, self._view = control, view
        self._start(generator, "checking")

    def save(self, generator: Generator[Any, None, Any]) -> None:
        """Start to write a file; `generator` yields the fraction done."""
        self._view = None
        self._start(generator, "saving")

    def measure(self, generator: Generator[Any, None, Any], control: TrainingControl) -> None:
        """Start trainings that only measure something: no layer changes.

        Parameters
        ----------
        generator
            Yields events; None when it was cancelled.
        control
            Cancels it.
        """
        self._control, self._view = control, None
        self._start(generator, "measuring")

    def is_running(self) -> bool:
        """Whether something runs."""
        return self.phase != "ready"

    def watch(self, ref: SliceRef | None) -> None:
        """Predict this slice while training; none when None."""
        self._control.watch(ref)

    def checkpoint_every(self, seconds: float | None) -> None:
        """Let the training yield a `Checkpoint` now and then; None for none."""
        self._control.checkpoint_every(seconds)

    def join(self, paint: SlicePaint) -> None:
        """Hand a slice over to the training that runs."""
        self._control.join(paint)

    def has_unjoined(self) -> bool:
        """Whether slices were handed over too late to join the training."""
        return self._control.has_paint

    def stop(self) -> None:
        """End the training, and segment with its model."""
        self._control.stop()

    def cancel(self) -> None:
        """End the run within two seconds; the layers are then as before.

        A step that takes longer ends in the background, and its result is dropped.
        """
        self._cancelled = True
        self._control.cancel()
        if self._worker is not None:
            self._worker.close()
            if self.phase != "saving":
                self._patience.start()

    def abandon(self, seconds: float) -> bool:
        """Cancel because the window closes; emit nothing more.

        A file that is being written is written to its end.

        Parameters
        ----------
        seconds
            The longest time to wait for the thread.

        Returns
        -------
        bool
            Whether the thread has ended.
        """
        if self._worker is None:
            return True
        self._patience.stop()
        worker, self._worker = self._worker, None
        phase, self.phase = self.phase, "ready"
        if phase == "saving" and not self._cancelled:
            _leave_alone(worker)
            return False
        self._ending()
        return worker.abandon(seconds)

    def discard_view(self) -> None:
        """Remove the layer of an unfinished prediction."""
        if self._view is not None:
            self._view.discard()
            self._view = None

    # ---- inside

    def _start(self, generator: Generator[Any, None, Any], phase: Phase) -> None:
        assert not self.is_running()
        self._cancelled = self.lingers = False
        self._worker = Worker(self)
        self._worker.eventsArrived.connect(self._handle)
        self._worker.returned.connect(self._returned)
        self._worker.failed.connect(self._failed)
        self._set_phase(phase)
        saving = phase == "saving"
        self._ending.set_orders(*(() if saving else (self._control.cancel, self._worker.closing())))
        self._worker.start(generator, to_its_end=saving)

    def _set_phase(self, phase: Phase) -> None:
        if phase != self.phase:
            self.phase = phase
            self.phaseChanged.emit(phase)

    def _handle(self, events: list[Any]) -> None:
        if self._cancelled:
            return
        preview = False
        for event in events:
            if isinstance(event, TrainingStarted):
                self._open_view()
                self._set_phase("training")
            elif isinstance(event, RoundStarted):
                self._set_phase("training")
            elif isinstance(event, PredictionStarted):
                self._set_phase("segmenting")
                self.trained.emit(event.bundle)
            elif isinstance(event, PredictionProgress) and self.phase == "checking":
                self._open_view()
                self._set_phase("segmenting")
            preview = preview or isinstance(event, SlicePreview)
        if preview and self._view is not None:
            self._view.refresh()
        if self._view is not None and (summary := newest_summary(events)) is not None:
            self._view.summarize(summary)
        self.eventsArrived.emit(events)

    def _open_view(self) -> None:
        if self._view is not None and self._view.layer is None:
            self._view.open()

    def _free(self) -> None:
        """Go on without the thread, which did not end in time after `cancel`."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        _let_end(worker)
        self.lingers = True
        signal = self.measured if self.phase == "measuring" else self.finished
        try:
            self.discard_view()
        finally:
            self._ended()
            signal.emit(None)

    def _ended(self) -> Phase:
        self._patience.stop()
        phase = self.phase
        if self._worker is not None:
            self._worker.deleteLater()
            self._worker = None
        self._set_phase("ready")
        return phase

    def _returned(self, result: Any) -> None:
        signals = {"saving": self.saved, "measuring": self.measured}
        signal = signals.get(self.phase, self.finished)
        view, self._view = self._view, None
        try:
            if self._cancelled and self.phase == "measuring":
                result = None
            if view is not None and (self._cancelled or result is None):
                view.discard()
                result = None
            elif view is not None:
                result = Finished(result, view.finish(), view.outputs, view.replaced, view.summary)
        except Exception as error:  # the viewer refused a layer; the run is over in any case
            signal, result = self.failed, error
        self._ended()
        signal.emit(result)

    def _failed(self, error: BaseException) -> None:
        try:
            self.discard_view()
        finally:
            self._ended()
            self.failed.emit(error)


def _leave_alone(worker: Worker) -> None:
    """Let a file be written to its end without the dock, and report the result."""
    _let_end(worker)
    worker.returned.connect(lambda path: show_info(f"Saved {path}"))
    worker.failed.connect(lambda error: show_error(f"napari-unet3d: {error_text(error)}"))


def _let_end(worker: Worker) -> None:
    """Let a thread end by itself, and ignore what it tells."""
    for signal in (worker.eventsArrived, worker.returned, worker.failed):
        signal.disconnect()
    worker.setParent(QCoreApplication.instance())
    worker.returned.connect(lambda _: worker.deleteLater())
    worker.failed.connect(lambda _: worker.deleteLater())


class _Ending:
    """Tells the thread to end. It has no Qt object, so that it works after Qt deleted them."""

    def __init__(self) -> None:
        self._orders: tuple[Callable[[], None], ...] = ()

    def set_orders(self, *orders: Callable[[], None]) -> None:
        """Call these functions to end the thread."""
        self._orders = orders

    def __call__(self, *_: Any) -> None:
        # Python's garbage collector may have emptied this object before Qt calls it.
        for order in getattr(self, "_orders", ()):
            order()
