"""Keeps the annotation layer, the class table and the slice table in step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet3d.config import BACKGROUND, UNLABELLED, ClassInfo
from napari_unet3d.data.edits import SliceEdit
from napari_unet3d.data.ledger import SliceLedger
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.parts.class_table import SHORTCUT_MODIFIER, ClassTable
from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.parts.slice_table import SliceTable
from napari_unet3d.widgets.viewer.adoption import classes_of
from napari_unet3d.widgets.viewer.layers import (
    read_classes,
    read_held_out,
    starting_classes,
    write_accepted,
    write_classes,
    write_held_out,
)
from napari_unet3d.widgets.viewer.navigation import show_slice, shown_slice
from napari_unet3d.widgets.viewer.undo import UndoWatch, complete_slice

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
_MOST_NEW_ROWS = 200
"""Rows that are added to the table at once, which takes 20 ms; further rows follow."""
_LAYER_EVENTS = ("paint", "data", "set_data")


class Annotator(QObject):
    """Mediates between the annotation layer, the viewer and the tables.

    Classes and held-out slices are stored in the layer; the tables show them.

    Parameters
    ----------
    viewer
        The napari viewer.
    class_table, slice_table
        The parts of the dock.
    """

    changed = Signal()
    """The paint, the classes, the held-out slices or the shown slice are different now."""

    def __init__(self, viewer: Any, class_table: ClassTable, slice_table: SliceTable) -> None:
        super().__init__(class_table)
        self._viewer = viewer
        self._layer: Labels | None = None
        self._ledger: SliceLedger | None = None
        self._undo_watch: UndoWatch | None = None
        self._drawn: SliceRef | None = None
        self._moved = False
        self._slices: list[PaintedSlice] = []
        self._shown_key: tuple[Any, ...] = ()
        self._class_table, self._slice_table = class_table, slice_table
        self._known_classes: tuple[ClassInfo, ...] = ()
        self._known_held_out: frozenset[SliceRef] = frozenset()
        self._scan_timer = QTimer(self)
        self._scan_timer.setSingleShot(True)
        self._scan_timer.setInterval(_WAIT_MS)
        for signal, slot in (
            (self._scan_timer.timeout, self._count),
            (class_table.valueChanged, self._classes_edited),
            (class_table.labelChosen, self.choose_label),
            (slice_table.jumpRequested, self.jump),
            (slice_table.completeRequested, self.complete),
            (slice_table.valueChanged, self._held_out_edited),
        ):
            signal.connect(slot)
        dims = viewer.dims.events
        self._viewer_connections, self._layer_connections = Connections(self), Connections(self)
        self._viewer_connections.add(
            (dims.point, self._slice_moved),
            (dims.order, self._slice_moved),
            (dims.ndisplay, self._slice_moved),
        )
        self._bind_keys()
        class_table.setValue(starting_classes())
        class_table.setEnabled(False)
        slice_table.setEnabled(False)

    # ---- the layer

    def layer(self) -> Labels | None:
        """The annotation layer; None when none is chosen."""
        return self._layer

    def set_layer(self, layer: Labels | None) -> None:
        """Work on another annotation layer, with the classes that are stored in it.

        Raises
        ------
        BadInputError
            The labels of the layer are no classes; the layer of before stays.
        """
        if layer is self._layer:
            return
        classes = () if layer is None else read_classes(layer) or classes_of(layer)
        self._layer_connections.clear()
        self._layer = layer
        if layer is not None:
            if not read_classes(layer):
                classes = classes or starting_classes()
                write_classes(layer, classes)
            self._class_table.setValue(classes)
            self._class_table.select_label(int(layer.selected_label))
            self._slice_table.setValue(read_held_out(layer))
            self._layer_connections.add(
                *((getattr(layer.events, name), self._touched) for name in _LAYER_EVENTS),
                (layer.events.selected_label, self._label_selected),
                (layer.events.metadata, self._read_metadata),
            )
        else:
            self._slice_table.setValue(frozenset())
        self._note_known()
        self._class_table.setEnabled(layer is not None)
        self._slice_table.setEnabled(layer is not None)
        self.rescan()

    def classes(self) -> tuple[ClassInfo, ...]:
        """The class table."""
        return self._class_table.value()

    def slices(self) -> list[PaintedSlice]:
        """The painted slices that are counted so far."""
        return list(self._slices)

    def share_read(self) -> float:
        """Share of the annotation that was read since it was chosen, 0 to 1."""
        return 1.0 if self._ledger is None else self._ledger.share_read()

    def shown(self) -> SliceRef | None:
        """The slice of the annotation layer that the viewer shows; None in 3D."""
        return None if self._layer is None else shown_slice(self._viewer, self._layer)

    def rescan(self) -> None:
        """Search the whole layer for paint; in a large one, the search goes on in steps."""
        self._scan_timer.stop()
        known, ledger = self._ledger, self._current_ledger()
        if ledger is not None and ledger is known:
            ledger.doubt()
        nbytes = 0 if ledger is None else getattr(ledger.labels, "nbytes", _SMALL_BYTES + 1)
        self._count(None if nbytes <= _SMALL_BYTES else _STEP)
        self._show_slices()

    def _current_ledger(self) -> SliceLedger | None:
        """The ledger of the layer's data; None where they are no labels to train on."""
        data = None if self._layer is None else self._layer.data
        if self._ledger is None or self._ledger.labels is not data:
            self._ledger = self._undo_watch = None
            if self._layer is not None:
                with suppress(BadInputError):  # the run bar shows it when a training is started
                    self._ledger = SliceLedger(data)
                self._undo_watch, self._drawn = UndoWatch(self._layer), self.shown()
        return self._ledger

    def _count(self, seconds: float | None = _STEP) -> None:
        """Count paint for some time (None: to the end), and go on later if more is left."""
        ledger, self._moved = self._current_ledger(), False
        if self._undo_watch is not None and self._undo_watch.stroke_is_open():
            # napari tells the paint of a stroke at its end; it is counted then.
            self._scan_timer.start(_WAIT_MS)
            return
        done, share = True, self.share_read()
        if ledger is not None:
            done = ledger.work(seconds)
            if not done:
                self._scan_timer.start(_PAUSE_MS if ledger.is_behind() else _LONG_PAUSE_MS)
        if self._table_key() != self._shown_key or self.share_read() != share:
            self._show_slices()

    def _table_key(self) -> tuple[Any, ...]:
        """A value that changes whenever the content of the slice table does."""
        revision = 0 if self._ledger is None else self._ledger.revision
        return self._ledger, revision, self._class_table.value()

    def _show_slices(self) -> None:
        self._shown_key = self._table_key()
        slices = [] if self._ledger is None else self._ledger.slices()
        self._slices = sorted(slices, key=lambda s: (s.ref.axis, s.ref.index, s.ref.time))
        n_rows = len(self._slice_table.slices()) + _MOST_NEW_ROWS
        if n_rows < len(slices):
            self._shown_key = ()  # the next step adds the other rows
            self._scan_timer.start(_PAUSE_MS)
        self._slice_table.set_share_read(self.share_read())
        self._slice_table.set_slices(self._slices[:n_rows], self._class_table.value())
        self._slice_table.set_shown(self.shown())
        self.changed.emit()

    def cleanup(self) -> None:
        """Disconnect from the viewer and the layer."""
        self._scan_timer.stop()
        self._layer_connections.clear()
        self._viewer_connections.clear()
        self._layer = self._ledger = self._undo_watch = None

    # ---- the user acts

    def choose_label(self, value: int) -> None:
        """Make the user paint with this label: select the layer, the label and the brush."""
        if self._layer is None or self._layer not in self._viewer.layers:
            return
        self._viewer.layers.selection.active = self._layer
        if self._viewer.dims.ndisplay == 2 and self._layer.mode not in ("fill", "polygon"):
            self._layer.mode = "erase" if value == UNLABELLED else "paint"
        if value != UNLABELLED:
            self._layer.selected_label = value
        self._class_table.select_label(value)

    def jump(self, ref: SliceRef) -> None:
        """Make the viewer show a slice."""
        if self._layer is not None:
            show_slice(self._viewer, self._layer, ref)

    def complete(self, ref: SliceRef) -> None:
        """Make the rest of a slice background, in one undo step."""
        if self._layer is None:
            return
        shown = self.shown()
        complete_slice(self._layer, ref, displayed=shown is not None and shown.axis == ref.axis)
        self._count()

    def apply(
        self,
        edits: Sequence[SliceEdit],
        *,
        held_out: frozenset[SliceRef] | None = None,
        accepted: Mapping[SliceRef, str] | None = None,
    ) -> None:
        """Edit slices of the annotation, in one undo step.

        Parameters
        ----------
        edits
            New labels of slices.
        held_out, accepted
            The held-out and the accepted slices after the edit; None leaves them as they are.
        """
        if self._layer is None:
            return
        indices = [edit.indices(self._layer.ndim) for edit in edits]
        values = [
            np.broadcast_to(edit.values(), len(i[0]))
            for edit, i in zip(edits, indices, strict=True)
        ]
        if edits:
            where = tuple(np.concatenate(axis) for axis in zip(*indices, strict=True))
            self._layer.data_setitem(where, np.concatenate(values).astype(self._layer.data.dtype))
        if held_out is not None:
            write_held_out(self._layer, held_out)
        if accepted is not None:
            write_accepted(self._layer, accepted)
        self._read_metadata()
        self._count()

    # Others, such as a second dock, may change what is stored in the layer. So an edit writes
    # only the entries that the user changed, never a whole copy, which may be out of date.

    def _classes_edited(self, classes: tuple[Any, ...]) -> None:
        if self._layer is not None:
            known = {c.value: c for c in self._known_classes}
            edited = {c.value: c for c in classes}
            merged = {c.value: c for c in read_classes(self._layer)}
            merged.update({v: c for v, c in edited.items() if known.get(v) != c})
            for value in known.keys() - edited.keys():
                merged.pop(value, None)
            write_classes(self._layer, tuple(merged[v] for v in sorted(merged)))
            self._read_metadata()
            self.rescan()

    def _held_out_edited(self, held_out: frozenset[SliceRef]) -> None:
        if self._layer is not None:
            added, removed = held_out - self._known_held_out, self._known_held_out - held_out
            write_held_out(self._layer, (read_held_out(self._layer) | added) - removed)
            self._read_metadata()
            self.changed.emit()

    def _read_metadata(self, _event: Any = None) -> None:
        """Show the classes and held-out slices that are stored in the layer."""
        if self._layer is None:
            return
        classes, held_out = read_classes(self._layer), read_held_out(self._layer)
        if (classes, held_out) == (self._known_classes, self._known_held_out):
            return
        if classes and classes != self._class_table.value():
            self._class_table.setValue(classes)
            self._class_table.select_label(int(self._layer.selected_label))
            self._touched()
        self._slice_table.setValue(held_out)
        self._note_known()
        self.changed.emit()

    def _note_known(self) -> None:
        self._known_classes = self._class_table.value()
        self._known_held_out = self._slice_table.value()

    # ---- events of viewer and layer

    def _touched(self, event: Any = None) -> None:
        """Tell the ledger what changed, and count it a moment later."""
        ledger, undo_watch = self._ledger, self._undo_watch
        data = None if self._layer is None else self._layer.data
        if ledger is None or undo_watch is None or ledger.labels is not data or event is None:
            pass  # the layer has another array, which will be read, or other classes
        elif event.type == "paint":
            undo_watch.painted(ledger, event.value)
        else:
            # Undo and redo emit no paint event, but redraw the layer, as does moving to another
            # slice. Any other redraw may follow a change of the array by someone else.
            drawn, self._drawn = self._drawn, self.shown()
            moved, self._moved = self._moved or drawn != self._drawn, False
            if not undo_watch.replayed(ledger) and (event.type == "data" or not moved):
                ledger.doubt()
        if not self._scan_timer.isActive() or self._scan_timer.remainingTime() > _WAIT_MS:
            self._scan_timer.start(_WAIT_MS)

    def _label_selected(self, _event: Any = None) -> None:
        if self._layer is not None:
            self._class_table.select_label(int(self._layer.selected_label))

    def _slice_moved(self, _event: Any = None) -> None:
        self._moved = True
        self._slice_table.set_shown(self.shown())
        self.changed.emit()

    def _bind_keys(self) -> None:
        for digit in range(10):
            self._viewer.bind_key(
                f"{SHORTCUT_MODIFIER}-{digit}", self._key_handler(digit), overwrite=True
            )

    def _key_handler(self, digit: int) -> Callable[[Any], None]:
        def choose(_viewer: Any) -> None:
            labels = [BACKGROUND, *(c.value for c in self._class_table.value())]
            if digit == 0:
                self.choose_label(UNLABELLED)
            elif digit <= len(labels):
                self.choose_label(labels[digit - 1])

        return choose
