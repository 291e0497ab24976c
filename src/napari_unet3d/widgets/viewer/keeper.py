"""Keeps one annotation layer, and what belongs to it, in a session folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, Signal

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.changed_chunks import Box, Chunk
from napari_unet3d.data.slice_summary import StackSummary
from napari_unet3d.events import HeldOutScores
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.outputs import chosen_outputs
from napari_unet3d.session.autosave import AutoSaver
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.session import NamedModel, SessionRecord
from napari_unet3d.widgets.parts.ages import age_text
from napari_unet3d.widgets.parts.keep_line import KeepState
from napari_unet3d.widgets.viewer.layers import metadata_of, remember
from napari_unet3d.widgets.viewer.paint_watch import PaintWatch

SESSION_KEY = "session"
"""Entry of the plugin's metadata of an annotation layer: its session folder."""
_CLOSE_SECONDS = 2.0
"""Seconds that closing waits for the disk."""
_TOGETHER = 0.02
"""Seconds of copying paint before its marks are saved, so that both come into one commit."""
_SLOW = 5.0
"""Seconds. Paint that waits longer is told, since the disk is slow."""


class Keeper(QObject):
    """Saves a layer in a folder as it is painted.

    Parameters
    ----------
    folder
        The session folder, which the keeper closes.
    layer
        The annotation.
    saved
        Checksums of the chunks that are in the folder.
    shown
        Returns a value that differs for another view of the layer.
    parent
        The Qt parent.
    """

    changed = Signal()
    """Something was saved, or waits to be saved, or cannot be saved."""
    outgrown = Signal()
    """The layer has other dimensions now: it needs another folder."""

    def __init__(
        self,
        folder: SessionFolder,
        layer: Labels,
        saved: Mapping[Chunk, int],
        shown: Callable[[], object] = lambda: None,
        parent: QObject | None = None,
    ) -> None:
        # With a parent, Qt deletes it; Python's garbage collector would do so in any order.
        super().__init__(parent)
        self.folder, self.layer = folder, layer
        self.saver = AutoSaver(folder)
        self._misfit = ""
        self._put_at = self._saved_at = time.monotonic()
        self._waited = False
        self._bundle: ModelBundle | None = None
        self._paint = PaintWatch(
            layer, folder.annotation.chunks, saved, self._put, shown, parent=self
        )
        self._paint.advanced.connect(self.changed)
        self._paint.replaced.connect(self.outgrown)
        self._record: SessionRecord | None = None
        if metadata_of(layer).get(SESSION_KEY) != str(folder.path):
            remember(layer, **{SESSION_KEY: str(folder.path)})

    @property
    def path(self) -> Path:
        """The session folder."""
        return self.folder.path

    # ---- what is saved

    def put_record(self, record: SessionRecord) -> None:
        """Save a record if it is another one, in one commit with the paint that it may tell of."""
        if record == self._record:
            return
        self._record = record
        with self.saver.together():
            self._paint.put_told(_TOGETHER)
            self.saver.put_record(record)
        self._note()

    def put_model(self, model: NamedModel, scores: HeldOutScores | None) -> None:
        """Save the current model, unless it is the one that is saved."""
        if model.bundle is not self._bundle:
            self._bundle = model.bundle
            self.saver.put_model(model, scores)
            self._note()

    def note_model(self, model: NamedModel | None) -> None:
        """Take note that this model is in the folder."""
        self._bundle = None if model is None else model.bundle

    def put_outputs(self, outputs: Mapping[str, Any], classes: Sequence[ClassInfo]) -> None:
        """Save the results of a run by the names of the outputs; they must not change any more."""
        for output in chosen_outputs([name for name in outputs if name != "labels"]):
            if output.name in outputs:
                options = output.file_options(classes)
                self.saver.put_result(output.name, outputs[output.name], **options)
        self._note()

    def put_summary(self, summary: StackSummary) -> None:
        """Save what a prediction says about each slice."""
        self.saver.put_summary(summary)
        self._note()

    # ---- whether it is saved

    def problem(self) -> str:
        """Why the work is not saved now, with the cure; "" when it is."""
        return self.saver.problem() or self._misfit

    def waits(self) -> bool:
        """Whether something was changed that is not on the disk yet."""
        if self._paint.waits_since() is not None:
            return True
        if self.saver.saved_at < self._put_at:
            return True
        if self._waited:
            self._waited, self._saved_at = False, time.monotonic()
        return False

    def state(self) -> KeepState:
        """What the header shows."""
        if problem := self.problem():
            return KeepState("Not saved", self.path.name, problem, problem=True)
        tip = f"Everything is saved in {self.path}, as you work."
        if not self.waits():
            age = age_text(time.monotonic() - self._saved_at)
            return KeepState(f"Saved {age}", self.path.name, tip)
        late = time.monotonic() - min(self._paint.waits_since() or self._put_at, self._put_at)
        text = f"Saving for {late:.0f} s …" if late > _SLOW else "Saving …"
        return KeepState(text, self.path.name, tip)

    # ---- the end

    def save_now(self, seconds: float = _CLOSE_SECONDS) -> bool:
        """Bring everything to the disk; return whether it is there."""
        stop = time.monotonic() + seconds
        done = self._paint.put_all(seconds / 2)
        return self.saver.flush(max(0.1, stop - time.monotonic())) and done

    def close(self, seconds: float = _CLOSE_SECONDS) -> bool:
        """Bring everything to the disk and let the folder go; return whether all is there."""
        stop = time.monotonic() + seconds
        done = self._paint.put_all(seconds / 2)
        self._paint.stop()
        return self.saver.close(max(0.1, stop - time.monotonic())) and done

    def checksums(self) -> dict[Chunk, int]:
        """Checksums of the chunks that were put."""
        return self._paint.saved()

    def _put(self, box: Box, labels: np.ndarray) -> None:
        if labels.dtype != np.uint8:
            outside = (labels < 0) | (labels > 255)
            if outside.any():
                self._misfit = (
                    f"'{self.layer.name}' holds the label {labels[outside].flat[0]}, which is not "
                    "saved: a class has a label from 2 to 255. Paint it over."
                )
            elif self._misfit:
                self._misfit = ""
            labels = np.where(outside, 0, labels).astype(np.uint8)
        self.saver.put_labels(box, labels)
        self._put_at, self._waited = time.monotonic(), True

    def _note(self) -> None:
        self._put_at, self._waited = time.monotonic(), True
        self.changed.emit()
