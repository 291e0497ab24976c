"""Counts the painted slices of a layer while it is painted, in short steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from napari.layers import Labels
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet3d.data.ledger import SliceLedger
from napari_unet3d.data.ledger_reading import Reading
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.viewer.undo import UndoWatch

_WAIT_MS = 100
"""Milliseconds from a stroke to its count, so that quick strokes are counted together."""
_STEP = 0.02
"""Seconds that counting may block the window at a time: less than a user feels."""
_PAUSE_MS = 10
"""Milliseconds between two counting steps while the table is out of date."""
_LONG_PAUSE_MS = 200
"""Milliseconds between two steps while the table is up to date, and the ledger only verifies it."""
_SMALL_BYTES = 2**24
"""Bytes. An annotation up to this size is read in a few milliseconds, so `rescan` reads it all."""
_LAYER_EVENTS = ("paint", "data", "set_data")


Ask = Callable[[Callable[[], Any], Callable[[Any], None]], None]
"""`Background.ask`."""


class Counting(QObject):
    """Keeps the slice ledger of one layer up to date.

    Parameters
    ----------
    parent
        The Qt parent.
    shown
        Returns the slice that the viewer shows: a redraw after moving is no change of the labels.
    ask
        Calls its first argument in a thread, and its second with the result. Large labels are
        read there; without it, in short steps.
    """

    counted = Signal()
    """The painted slices, or the share that was read, may be different now."""

    def __init__(
        self, parent: QObject, shown: Callable[[], SliceRef | None], ask: Ask | None = None
    ) -> None:
        super().__init__(parent)
        self._shown, self._ask = shown, ask
        self._asked: Reading | None = None
        self._layer: Labels | None = None
        self._ledger: SliceLedger | None = None
        self._undo_watch: UndoWatch | None = None
        self._drawn: SliceRef | None = None
        self._moved = self._ours = False
        self._known: tuple[Any, ...] = ()
        self._connections = Connections(self)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_WAIT_MS)
        self._timer.timeout.connect(self.count)

    # ---- answers

    def slices(self) -> list[PaintedSlice]:
        """The painted slices by axis, index and time, as far as they are counted."""
        slices = [] if self._ledger is None else self._ledger.slices()
        return sorted(slices, key=lambda s: (s.ref.axis, s.ref.index, s.ref.time))

    def share_read(self) -> float:
        """Share of the labels that was read since the layer was chosen, 0 to 1."""
        return 1.0 if self._ledger is None else self._ledger.share_read()

    def is_waiting(self) -> bool:
        """Whether something is still to be counted, or verified."""
        return self._timer.isActive() or self._asked is not None

    # ---- the layer

    def set_layer(self, layer: Labels | None) -> None:
        """Count another layer; nothing is read before `rescan`."""
        self._timer.stop()
        self._connections.clear()
        self._layer = layer
        if layer is not None:
            self._connections.add(
                *((getattr(layer.events, name), self._touched) for name in _LAYER_EVENTS)
            )

    def cleanup(self) -> None:
        """Let go of the layer."""
        self.set_layer(None)
        self._ledger = self._undo_watch = self._asked = None

    def moved(self) -> None:
        """Take note that the viewer moves to another slice, which redraws the layer."""
        self._moved = True

    @contextmanager
    def our_writes(self) -> Iterator[None]:
        """Say that redraws inside follow changes that the undo history tells, and no others."""
        before, self._ours = self._ours, True
        try:
            yield
        finally:
            self._ours = before

    def rescan(self) -> None:
        """Search the whole layer for paint; in a large one, the search goes on in steps."""
        self._timer.stop()
        known, ledger = self._ledger, self._current_ledger()
        if ledger is not None and ledger is known:
            ledger.doubt()
        self._work(None if ledger is None or self._is_small(ledger) else _STEP)
        self._known = ()
        self._tell()

    def count(self) -> None:
        """Count paint for some time, and go on later if more is left."""
        self._work(_STEP)
        self._tell()

    # ---- inside

    def _current_ledger(self) -> SliceLedger | None:
        """The ledger of the layer's data; None where they are no labels to train on."""
        data = None if self._layer is None else self._layer.data
        if self._ledger is None or self._ledger.labels is not data:
            self._ledger = self._undo_watch = self._asked = None
            if self._layer is not None:
                with suppress(BadInputError):  # the run bar shows it when a training is started
                    self._ledger = SliceLedger(data)
                self._undo_watch, self._drawn = UndoWatch(self._layer), self._shown()
        return self._ledger

    def _work(self, seconds: float | None) -> None:
        ledger, self._moved = self._current_ledger(), False
        if ledger is None:
            return
        if self._stroke_is_open():
            # napari tells the paint of a stroke at its end; it is counted then.
            self._timer.start(_WAIT_MS)
            return
        here = self._ask is None or self._is_small(ledger)
        if not ledger.work(seconds, reading=here):
            self._timer.start(_PAUSE_MS if ledger.is_behind() else _LONG_PAUSE_MS)
        elif not here and self._asked is None and (reading := ledger.reading()) is not None:
            assert self._ask is not None
            self._asked = reading
            self._ask(reading.read, partial(self._was_read, reading))

    def _was_read(self, reading: Reading, succeeded: bool) -> None:
        """Take over what the thread has read, unless a stroke may be half in it."""
        if reading is not self._asked or self._ledger is None:
            return  # it is of another layer
        self._asked = None
        if not succeeded:
            self._ask = None  # reading it here shows the error
        elif not self._stroke_is_open():
            self._ledger.take_reading(reading)
        self._timer.start(_PAUSE_MS if self._ledger.is_behind() else _LONG_PAUSE_MS)
        self._tell()

    def _stroke_is_open(self) -> bool:
        return self._undo_watch is not None and self._undo_watch.stroke_is_open()

    @staticmethod
    def _is_small(ledger: SliceLedger) -> bool:
        return getattr(ledger.labels, "nbytes", _SMALL_BYTES + 1) <= _SMALL_BYTES

    def _tell(self) -> None:
        ledger = self._ledger
        known = ledger, 0 if ledger is None else ledger.revision, self.share_read()
        if known != self._known:
            self._known = known
            self.counted.emit()

    def _touched(self, event: Any) -> None:
        """Tell the ledger what changed, and count it a moment later."""
        ledger, undo_watch = self._ledger, self._undo_watch
        data = None if self._layer is None else self._layer.data
        if ledger is None or undo_watch is None or ledger.labels is not data:
            pass  # the layer has another array, which will be read
        elif event.type == "paint":
            undo_watch.painted(ledger, event.value)
        else:
            # Undo and redo emit no paint event, but redraw the layer, as does moving to another
            # slice. Any other redraw may follow a change of the array by someone else.
            drawn, self._drawn = self._drawn, self._shown()
            moved, self._moved = self._moved or drawn != self._drawn, False
            told = undo_watch.replayed(ledger) or moved or self._ours
            if event.type == "data" or not told:
                ledger.doubt()
        if not self._timer.isActive() or self._timer.remainingTime() > _WAIT_MS:
            self._timer.start(_WAIT_MS)
