"""Orders for a running training."""

from __future__ import annotations

import threading
import time

from napari_unet3d.data.slices import SliceRef


class TrainingControl:
    """Orders for a running training; may be given from any thread."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._cancel = threading.Event()
        self._watched: SliceRef | None = None
        self._stopped_at = 0.0
        self._checkpoint_seconds: float | None = None

    def stop(self) -> None:
        """End the training soon and keep its model."""
        if not self._stop.is_set():
            self._stopped_at = time.monotonic()
        self._stop.set()

    def cancel(self) -> None:
        """End as soon as possible and drop everything."""
        self._cancel.set()

    @property
    def stopped(self) -> bool:
        """Whether the training is to end."""
        return self._stop.is_set() or self._cancel.is_set()

    @property
    def cancelled(self) -> bool:
        """Whether everything is to be dropped."""
        return self._cancel.is_set()

    @property
    def stopped_for(self) -> float:
        """Seconds since `stop`; 0 before it."""
        return time.monotonic() - self._stopped_at if self._stop.is_set() else 0.0

    def checkpoint_every(self, seconds: float | None) -> None:
        """Yield a `Checkpoint` whenever so many seconds have passed; never when None."""
        self._checkpoint_seconds = seconds

    @property
    def checkpoint_seconds(self) -> float | None:
        """Seconds from one checkpoint to the next; None for no checkpoints."""
        return self._checkpoint_seconds

    def watch(self, ref: SliceRef | None) -> None:
        """Name the slice to predict now and then while training; None for none."""
        self._watched = ref

    @property
    def watched(self) -> SliceRef | None:
        """The slice to predict now and then."""
        return self._watched
