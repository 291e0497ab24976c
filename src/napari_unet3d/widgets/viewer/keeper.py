"""Keeps one annotation layer, and what belongs to it, in a session folder."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, Signal

from napari_unet3d.config import ClassInfo, ObjectsConfig
from napari_unet3d.data.changed_chunks import Box, Chunk
from napari_unet3d.data.slice_summary import StackSummary
from napari_unet3d.events import HeldOutScores
from napari_unet3d.objects.table import ObjectTable
from napari_unet3d.prediction.outputs import OUTPUTS
from napari_unet3d.session.autosave import AutoSaver
from napari_unet3d.session.folder import SessionFolder
from napari_unet3d.session.opening import OpenedSession
from napari_unet3d.session.session import NamedModel, SessionRecord
from napari_unet3d.session.stored_results import KnownObjects
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


_Result = tuple["weakref.ref[Any]", tuple[ClassInfo, ...]]
"""An array that a layer shows, and the classes of its model."""
_WORDS = {"labels": "segmentation"}
"""What the user calls the results, where it is not their name."""


@dataclass(frozen=True, eq=False)
class Contents:
    """What a keeper has saved, as far as it is in the memory.

    Parameters
    ----------
    record
        The newest record.
    model
        The model with its scores; None without one.
    results
        Name, array and classes of each result.
    objects
        The numbered objects; None without any.
    summary
        What the last prediction says about each slice; None where that is not known.
    lost
        What is only in the folder, in words.
    """

    record: SessionRecord
    model: tuple[NamedModel, HeldOutScores | None] | None
    results: tuple[tuple[str, Any, tuple[ClassInfo, ...]], ...]
    objects: KnownObjects | None
    summary: StackSummary | None
    lost: tuple[str, ...] = ()

    @classmethod
    def of(cls, opened: OpenedSession) -> Self:
        """What is in a session that was opened."""
        model, record = opened.model, opened.record
        return cls(
            record,
            None if model is None else (model, record.scores),
            tuple((name, array, opened.classes) for name, array in opened.results.items()),
            opened.objects,
            opened.summary,
        )


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
        self._model: tuple[NamedModel, HeldOutScores | None] | None = None
        self._results: dict[str, _Result] = {}
        self._objects: tuple[weakref.ref[Any], ObjectTable, ObjectsConfig] | None = None
        self._summary: StackSummary | None = None
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
        self._tell_change()

    def put_model(self, model: NamedModel, scores: HeldOutScores | None) -> None:
        """Save the current model, unless it is the one that is saved."""
        if self._model is None or model.bundle is not self._model[0].bundle:
            self._model = model, scores
            self.saver.put_model(model, scores)
            self._tell_change()

    def note(self, contents: Contents) -> None:
        """Take note of what is in the folder already."""
        self._model, self._summary = contents.model, contents.summary
        for name, array, classes in contents.results:
            self._note_result(name, array, classes)
        if (objects := contents.objects) is not None and isinstance(objects.numbers, np.ndarray):
            self._objects = weakref.ref(objects.numbers), objects.table, objects.config

    def put_outputs(self, outputs: Mapping[str, Any], classes: Sequence[ClassInfo]) -> None:
        """Save the results of a run by the names of the outputs; they must not change any more."""
        for name, array in outputs.items():
            options = _file_options(name, classes)
            self.saver.put_result(name, array, **options)
            self._note_result(name, array, classes)
        self._tell_change()

    def put_objects(self, numbers: Any, table: ObjectTable, config: ObjectsConfig) -> None:
        """Save numbered objects, their table, and the settings by which they were found."""
        self.saver.put_objects(KnownObjects(numbers, table, config))
        self._objects = weakref.ref(numbers), table, config
        self._tell_change()

    def put_summary(self, summary: StackSummary) -> None:
        """Save what a prediction says about each slice."""
        self.saver.put_summary(summary)
        self._summary = summary
        self._tell_change()

    # ---- what another folder takes over

    def contents(self) -> Contents:
        """All that was saved and is still in the memory, for another folder."""
        state = self.folder.state
        results = [
            (name, array, classes)
            for name, (ref, classes) in self._results.items()
            if (array := ref()) is not None
        ]
        objects = None
        if self._objects is not None and (numbers := self._objects[0]()) is not None:
            objects = KnownObjects(numbers, *self._objects[1:])
        there = {name for name, _, _ in results}
        lost = [_WORDS.get(name, name) for name in sorted(state.results.keys() - there)]
        lost += ["objects"] * (state.objects is not None and objects is None)
        lost += ["model"] * (state.model is not None and self._model is None)
        record = self.folder.record() if self._record is None else self._record
        return Contents(record, self._model, tuple(results), objects, self._summary, tuple(lost))

    def take_over(self, contents: Contents) -> None:
        """Save what another keeper of the same layer held."""
        if contents.model is not None and self._model is None:
            self.put_model(*contents.model)
        for name, array, classes in contents.results:
            self.put_outputs({name: array}, classes)
        if (objects := contents.objects) is not None:
            self.put_objects(objects.numbers, objects.table, objects.config)
        if contents.summary is not None:
            self.put_summary(contents.summary)

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

    def _note_result(self, name: str, array: Any, classes: Sequence[ClassInfo]) -> None:
        """Remember an array as long as a layer shows it; others are read from the folder."""
        if isinstance(array, np.ndarray):
            self._results[name] = weakref.ref(array), tuple(classes)

    def _tell_change(self) -> None:
        self._put_at, self._waited = time.monotonic(), True
        self.changed.emit()


def _file_options(name: str, classes: Sequence[ClassInfo]) -> dict[str, Any]:
    """What the file of an output needs beside its array."""
    output = next((x for x in OUTPUTS if x.name == name), None)
    return {} if output is None else dict(output.file_options(classes))
