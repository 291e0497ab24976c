"""Orders for a running training."""

from __future__ import annotations

import threading
import time
from collections import deque

from napari_unet3d.data.joined_labels import SlicePaint
from napari_unet3d.data.slices import SliceRef


class TrainingControl:
    """Orders for a running training, given from any thread."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._cancel = threading.Event()
        self._watched: SliceRef | None = None
        self._stopped_at = 0.0
        self._checkpoint_seconds: float | None = None
        self._paints: deque[SlicePaint] = deque()

    def stop(self) -> None:
        """End the training within seconds and keep its model."""
        if not self._stop.is_set():
            self._stopped_at = time.monotonic()
        self._stop.set()

    def cancel(self) -> None:
        """End the training at once and drop its model."""
        self._cancel.set()

    @property
    def stopped(self) -> bool:
        """Whether the training is to end."""
        return self._stop.is_set() or self._cancel.is_set()

    @property
    def cancelled(self) -> bool:
        """Whether the model is to be dropped."""
        return self._cancel.is_set()

    @property
    def stopped_for(self) -> float:
        """Seconds since `stop`; 0 before it."""
        return time.monotonic() - self._stopped_at if self._stop.is_set() else 0.0

    def checkpoint_every(self, seconds: float | None) -> None:
        """Ask for a `Checkpoint` event each time so many seconds have passed; None for none.

        The first one comes after ten seconds at most.
        """
        self._checkpoint_seconds = seconds

    @property
    def checkpoint_seconds(self) -> float | None:
        """Seconds from one checkpoint to the next; None for no checkpoints."""
        return self._checkpoint_seconds

    def join(self, paint: SlicePaint) -> None:
        """Hand over a slice that was painted, held out or erased; it joins at the next iteration.

        A slice may be handed over any number of times: the newest labels count.
        """
        self._paints.append(paint)

    @property
    def has_paint(self) -> bool:
        """Whether slices wait to join the training."""
        return bool(self._paints)

    def take_paint(self) -> list[SlicePaint]:
        """The slices that wait to join, oldest first; they wait no longer."""
        paints = []
        while self._paints:
            paints.append(self._paints.popleft())
        return paints

    def watch(self, ref: SliceRef | None) -> None:
        """Ask for previews of a slice, now and then; None for none."""
        self._watched = ref

    @property
    def watched(self) -> SliceRef | None:
        """The slice of which previews are wanted; None for none."""
        return self._watched
