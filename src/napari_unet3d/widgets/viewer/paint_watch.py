"""Hands the chunks of an annotation layer that have changed to whoever saves them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet3d.data.changed_chunks import Box, ChangedChunks, Chunk
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.viewer.undo import UndoWatch

_STEP = 0.005
"""Seconds that copying may block the window at a time: a fourth of a frame of 50 Hz."""
_PAUSE_MS = 25
"""Milliseconds between two steps: while chunks are copied, four fifths of the time are free."""
_SETTLE_MS = 300
"""Milliseconds from a stroke to its copy, so that quick strokes in one chunk are copied once."""
_LONG_WAIT = 1.0
"""Seconds. Paint that has waited longer is copied right after the next stroke: on a busy
computer, the timer may find a stroke going on each time that it looks."""
_LONG_STROKE = 2.0
"""Seconds. Of a stroke that lasts longer, the paint so far is saved: no more than 10 s are lost."""
_SWEEP_MS = 60_000
"""Milliseconds between two comparisons of all labels with what is saved. They find what other
programs wrote without an event, and cost 1 % of one core for 512 MB."""


class PaintWatch(QObject):
    """Watches the paint of one layer.

    Parameters
    ----------
    layer
        The annotation.
    chunks
        Sizes of the chunks that are saved as a whole.
    saved
        Checksums of the chunks that are saved already.
    put
        Takes a box and a copy of its labels, to be saved.
    shown
        Returns a value that differs for another view of the layer, such as another slice.
    may_put
        Returns whether `put` takes more now; while it does not, the changes wait.
    parent
        The Qt parent.
    """

    advanced = Signal()
    """Something was put, or is now waiting."""
    replaced = Signal()
    """The layer has labels of another shape or type, which cannot be saved in these chunks."""

    def __init__(
        self,
        layer: Labels,
        chunks: tuple[int, ...],
        saved: Mapping[Chunk, int],
        put: Callable[[Box, np.ndarray], None],
        shown: Callable[[], object] = lambda: None,
        may_put: Callable[[], bool] = lambda: True,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.layer = layer
        self._chunks, self._put = chunks, put
        self._shown, self._may_put = shown, may_put
        self._changed = ChangedChunks(layer.data, chunks, saved)
        self._undo_watch = UndoWatch(layer)
        self._view = shown()
        self._since: float | None = None
        self._stroke_since: float | None = None
        self._timer, self._sweep = QTimer(self), QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._step)
        self._sweep.timeout.connect(self.doubt)
        if isinstance(layer.data, np.ndarray | SparseLabels):  # others would be read from a disk
            self._sweep.start(_SWEEP_MS)
        self._connections = Connections(self)
        self._connections.add(
            (layer.events.paint, self._painted),
            (layer.events.labels_update, self._painting),
            (layer.events.data, self._redrawn),
            (layer.events.set_data, self._redrawn),
        )
        self.doubt()

    def stop(self) -> None:
        """Watch no longer."""
        self._timer.stop()
        self._sweep.stop()
        self._connections.clear()

    def waits_since(self) -> float | None:
        """When the oldest change came that was not put yet (`time.monotonic`); None without one."""
        return self._since

    def doubt(self) -> None:
        """Compare all labels with what is saved, in steps."""
        self._changed.doubt()
        self._soon(_PAUSE_MS)

    def put_told(self, seconds: float) -> None:
        """Put the paint that was told, for no longer than some seconds; the rest follows."""
        if self._changed.labels is self.layer.data:
            for box, part in self._changed.take(seconds, told_only=True):
                self._put(box, part)

    def saved(self) -> dict[Chunk, int]:
        """Checksums of the chunks that were put."""
        return self._changed.saved()

    def put_all(self, seconds: float) -> bool:
        """Put what is waiting, for no longer than some seconds; return whether that was all."""
        if self._changed.labels is self.layer.data:
            for box, part in self._changed.take(seconds):
                self._put(box, part)
        done = self._changed.is_done()
        self._since = None if done else self._since
        return done

    # ---- events

    def _painted(self, event: Any) -> None:
        if self._same_array():
            told: Any = self._changed  # which takes the same calls as a SliceLedger
            self._undo_watch.painted(told, event.value)
            self._note()
            if self._since is not None and time.monotonic() - self._since > _LONG_WAIT:
                self._soon(0)  # not here: napari may write into the array after this event

    def _painting(self, _event: Any) -> None:
        """Look again soon at a stroke that goes on; napari tells its paint only at its end."""
        if not self._timer.isActive():
            self._timer.start(_SETTLE_MS)

    def _redrawn(self, event: Any) -> None:
        if not self._same_array():
            return
        # Undo and redo redraw the layer, as does moving to another slice. Any other redraw may
        # follow a change of the array by someone else.
        before, self._view = self._view, self._shown()
        told: Any = self._changed
        if self._undo_watch.replayed(told):
            self._note()
        elif event.type == "data" or before == self._view:
            self.doubt()

    def _same_array(self) -> bool:
        """Follow the layer to another array; return whether it still has the one that is known."""
        data = self.layer.data
        if data is self._changed.labels:
            return True
        if tuple(data.shape) != tuple(self._changed.labels.shape):
            self.stop()
            self.replaced.emit()
            return False
        self._changed = ChangedChunks(data, self._chunks, self._changed.saved())
        self._undo_watch = UndoWatch(self.layer)
        self.doubt()
        return False

    def _note(self) -> None:
        if self._since is None and self._changed.is_told():
            self._since = time.monotonic()
            self.advanced.emit()
        self._soon(_SETTLE_MS)

    def _soon(self, milliseconds: int) -> None:
        if not self._timer.isActive() or self._timer.remainingTime() > milliseconds:
            self._timer.start(milliseconds)

    # ---- steps

    def _step(self) -> None:
        if not self._same_array():
            return
        if self._undo_watch.stroke_is_open():
            if not self._long_stroke():
                self._timer.start(_SETTLE_MS)
                return
        else:
            self._stroke_since = None
        if not self._may_put():
            self._timer.start(_SETTLE_MS)
            return
        put = False
        for box, part in self._changed.take(_STEP):
            self._put(box, part)
            put = True
        if not self._changed.is_told():
            self._since = None
        if put:
            self.advanced.emit()
        if not self._changed.is_done():
            self._timer.start(_PAUSE_MS)

    def _long_stroke(self) -> bool:
        """Tell the paint so far of a stroke that lasts long; return whether it does."""
        now = time.monotonic()
        if self._stroke_since is None:
            self._stroke_since = now
        if now - self._stroke_since < _LONG_STROKE:
            return False
        self._stroke_since = now
        self._undo_watch.tell_open_stroke(self._changed)
        return True
