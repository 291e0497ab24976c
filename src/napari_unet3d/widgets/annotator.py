"""Keeps the annotation layer, the class table and the slice table in step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from napari.layers import Labels
from qtpy.QtCore import QObject, QTimer, Signal

from napari_unet3d.config import UNLABELLED, ClassInfo
from napari_unet3d.data import state_changes
from napari_unet3d.data.edits import SliceEdit
from napari_unet3d.data.marks import Marks
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef, read_slice
from napari_unet3d.widgets.parts.class_table import ClassTable
from napari_unet3d.widgets.parts.connections import Connections
from napari_unet3d.widgets.parts.slice_table import SliceTable
from napari_unet3d.widgets.parts.slice_texts import SliceMarks
from napari_unet3d.widgets.viewer.adoption import classes_of
from napari_unet3d.widgets.viewer.corrections import Corrections
from napari_unet3d.widgets.viewer.counting import Ask, Counting
from napari_unet3d.widgets.viewer.history import History
from napari_unet3d.widgets.viewer.holding import Holding
from napari_unet3d.widgets.viewer.layers import read_classes, starting_classes, write_classes
from napari_unet3d.widgets.viewer.marks import read_marks, write_marks
from napari_unet3d.widgets.viewer.navigation import show_slice, shown_slice

UNDO_HINT = "Ctrl+Z undoes it."
"""End of a sentence that says what an action on the annotation did."""
_MOST_NEW_ROWS = 200
"""Rows that are added to the table at once, which takes 20 ms; further rows follow."""
_ROWS_PAUSE_MS = 10
"""Milliseconds until the next rows are added."""


class Annotator(QObject):
    """Mediates between the annotation layer, the viewer and the tables.

    Classes and held-out slices are stored in the layer; the tables show them.

    Parameters
    ----------
    viewer
        The napari viewer.
    class_table, slice_table
        The parts of the dock.
    ask
        Calls slow functions in threads (`Background.ask`); without it, all is done here in steps.
    """

    changed = Signal()
    """The paint, the classes, the held-out slices or the shown slice are different now."""
    told = Signal(str)
    """What an action did, or why it did nothing; "" when that is no longer true."""

    def __init__(
        self,
        viewer: Any,
        class_table: ClassTable,
        slice_table: SliceTable,
        ask: Ask | None = None,
    ) -> None:
        super().__init__(class_table)
        self._viewer = viewer
        self._layer: Labels | None = None
        self._has_mouse = True
        self._history: History | None = None
        self._slices: list[PaintedSlice] = []
        self._class_table, self._slice_table = class_table, slice_table
        self._known = Marks()
        self._corrections = Corrections()
        self.holding = Holding(self, self.told.emit)
        self._counting = Counting(self, self.shown, ask)
        self._rows_timer = QTimer(self)
        self._rows_timer.setSingleShot(True)
        self._rows_timer.setInterval(_ROWS_PAUSE_MS)
        for signal, slot in (
            (self._counting.counted, self._show_slices),
            (self._rows_timer.timeout, self._show_slices),
            (class_table.valueChanged, self._classes_edited),
            (class_table.labelChosen, self.choose_label),
            (slice_table.jumpRequested, self.jump),
            (slice_table.completeRequested, self.complete),
            (slice_table.emptyRequested, self.empty),
            (slice_table.revertRequested, self.revert),
            (slice_table.clearRequested, self.clear),
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
        self._let_go()
        self._layer, self._corrections = layer, Corrections()
        self._counting.set_layer(layer)
        self.holding.set_layer(layer)
        if layer is not None:
            if not read_classes(layer):
                classes = classes or starting_classes()
                write_classes(layer, classes)
            self._history = History(
                layer, self._counting.our_writes, self._forget, self.holding.refuses
            )
            self._class_table.setValue(classes)
            self._class_table.select_label(int(layer.selected_label))
            self._layer_connections.add(
                (layer.events.selected_label, self._label_selected),
                (layer.events.metadata, self._read_metadata),
                (layer.events.paint, self._forget),
            )
        self._show_marks(Marks(classes) if layer is None else read_marks(layer))
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
        return self._counting.share_read()

    def is_counting(self) -> bool:
        """Whether paint is still to be counted, or rows to be drawn."""
        return self._counting.is_waiting() or self._rows_timer.isActive()

    def shown(self) -> SliceRef | None:
        """The slice of the annotation layer that the viewer shows; None in 3D."""
        return None if self._layer is None else shown_slice(self._viewer, self._layer)

    def rescan(self) -> None:
        """Search the whole layer for paint; in a large one, the search goes on in steps."""
        self._counting.rescan()

    def cleanup(self) -> None:
        """Disconnect from the viewer and the layer."""
        self._rows_timer.stop()
        self._let_go()
        self._counting.cleanup()
        self._viewer_connections.clear()
        self._layer = None

    def _let_go(self) -> None:
        self._layer_connections.clear()
        history, self._history = self._history, None
        if history is not None:
            history.stop()

    def _show_slices(self) -> None:
        self._slices = self._counting.slices()
        n_rows = len(self._slice_table.slices()) + _MOST_NEW_ROWS
        if n_rows < len(self._slices):
            self._rows_timer.start()  # the next step adds the other rows
        self._slice_table.set_share_read(self.share_read())
        self._slice_table.set_slices(self._slices[:n_rows], self._class_table.value())
        self._show_marks(self._known)
        self._slice_table.set_shown(self.shown())
        self.changed.emit()

    # ---- the user acts

    def choose_label(self, value: int, *, brush: bool = True) -> None:
        """Make the user paint with this label: select the layer, the label and the brush.

        Parameters
        ----------
        value
            The label; 0 for the eraser.
        brush
            Whether the brush is taken; otherwise the mouse does what it did before.
        """
        if self._layer is None or self._layer not in self._viewer.layers:
            return
        self._viewer.layers.selection.active = self._layer
        takes = brush and self._has_mouse and self._viewer.dims.ndisplay == 2
        if takes and self._layer.mode not in ("fill", "polygon"):
            self._layer.mode = "erase" if value == UNLABELLED else "paint"
        if value != UNLABELLED:
            self._layer.selected_label = value
        self._class_table.select_label(value)

    def lend_mouse(self, lent: bool) -> None:
        """Choosing a label does not select the brush while another tool has the mouse."""
        self._has_mouse = not lent

    def jump(self, ref: SliceRef) -> None:
        """Make the viewer show a slice."""
        if self._layer is not None:
            show_slice(self._viewer, self._layer, ref)

    def undo(self) -> None:
        """Undo the last action on the annotation, whatever it was."""
        if self._history is not None:
            self._history.undo()

    def redo(self) -> None:
        """Repeat the action that was undone last."""
        if self._history is not None:
            self._history.redo()

    def complete(self, ref: SliceRef) -> None:
        """Make the rest of a slice background, in one undo step."""
        if self._layer is not None and self._write(
            *state_changes.complete(self._layer.data, read_marks(self._layer), ref)
        ):
            self.told.emit(f"{ref} is complete: the rest of it is background; {UNDO_HINT}")

    def empty(self, ref: SliceRef) -> None:
        """Make a whole slice background, also where nothing is painted yet, in one undo step."""
        if self._write_kept(state_changes.empty, ref):
            self.told.emit(f"Nothing is on {ref}: all of it is background; {UNDO_HINT}")

    def clear(self, ref: SliceRef) -> None:
        """Remove all paint and marks of a slice, in one undo step."""
        if self._write_kept(state_changes.clear, ref):
            self.told.emit(f"The paint of {ref} is removed; {UNDO_HINT}")

    def revert(self, ref: SliceRef) -> None:
        """Undo the last change of the state of a slice, in one undo step."""
        if self._write_kept(state_changes.revert, ref):
            self.told.emit(f"The last change of the state of {ref} is reverted; {UNDO_HINT}")
        elif not self.holding.refuses():
            self.told.emit(f"Nothing to revert: the state of {ref} was not changed.")

    def hold_out(self, ref: SliceRef, held_out: bool) -> None:
        """Measure on a slice instead of training on it, or train on it again; one undo step."""
        if self._layer is not None:
            refs = read_marks(self._layer).held_out
            if self.apply([], held_out=refs | {ref} if held_out else refs - {ref}):
                what = "held out, to measure on" if held_out else "trained on again"
                self.told.emit(f"{ref} is {what}; {UNDO_HINT}")

    def remove_class(self, value: int) -> bool:
        """Remove a class and its counted paint in one undo step; returns as `apply`."""
        if self._layer is None:
            return False
        edits = [
            SliceEdit(p.ref, (0, 0), read_slice(self._layer.data, p.ref) == value, UNLABELLED)
            for p in self._slices
            if p.counts.get(value)
        ]
        marks = read_marks(self._layer)
        left = tuple(c for c in marks.classes if c.value != value)
        return self._write(edits, replace(marks, classes=left))

    def apply(
        self,
        edits: Sequence[SliceEdit],
        *,
        held_out: frozenset[SliceRef] | None = None,
        accepted: Mapping[SliceRef, str] | None = None,
        goes_on: bool = False,
    ) -> bool:
        """Edit slices of the annotation, in one undo step together with their marks.

        Parameters
        ----------
        edits
            New labels of slices.
        held_out, accepted
            The held-out and the accepted slices after the edit; None leaves them as they are.
        goes_on
            Whether the edit belongs to the undo step before, since it is one of many edits by
            somebody who holds the annotation.

        Returns
        -------
        bool
            Whether it was written; not while somebody holds the annotation, which is told.
        """
        if self._layer is None:
            return False
        marks, labels = read_marks(self._layer), self._layer.data
        change = state_changes.mark(labels, marks, edits, held_out, accepted)
        return self._write(*change, goes_on=goes_on)

    def _write_kept(
        self,
        change: Callable[[Any, Marks, SliceRef, list[SliceRef]], state_changes.Change | None],
        ref: SliceRef,
    ) -> bool:
        """Write a change that leaves the labels of crossing slices; return whether it was made."""
        if self._layer is None:
            return False
        complete = [painted.ref for painted in self._slices if painted.state == "complete"]
        written = change(self._layer.data, read_marks(self._layer), ref, complete)
        return written is not None and self._write(*written)

    def _write(self, edits: Sequence[SliceEdit], marks: Marks, *, goes_on: bool = False) -> bool:
        if self._layer is None or self._history is None:
            return False
        if not goes_on and self.holding.refuses():
            return False
        with self._history.step(goes_on=goes_on):
            self._history.edit(edits)
            write_marks(self._layer, marks)
        self._read_metadata()
        self._counting.count()
        return True

    # Others, such as a second dock, may change what is stored in the layer. So an edit writes
    # only the entries that the user changed, never a whole copy, which may be out of date.

    def _classes_edited(self, classes: tuple[Any, ...]) -> None:
        if self._layer is None or self._history is None:
            return
        known = {c.value: c for c in self._known.classes}
        edited = {c.value: c for c in classes}
        marks = read_marks(self._layer)
        merged = {c.value: c for c in marks.classes}
        merged.update({v: c for v, c in edited.items() if known.get(v) != c})
        for value in known.keys() - edited.keys():
            merged.pop(value, None)
        self._write([], replace(marks, classes=tuple(merged[v] for v in sorted(merged))))
        self._show_slices()

    def _held_out_edited(self, held_out: frozenset[SliceRef]) -> None:
        if self._layer is not None:
            known = self._known.held_out
            now = read_marks(self._layer).held_out
            self.apply([], held_out=(now | (held_out - known)) - (known - held_out))

    def _read_metadata(self, _event: Any = None) -> None:
        """Show the marks that are stored in the layer."""
        if self._layer is None:
            return
        marks = read_marks(self._layer)
        if marks == self._known:
            return
        if marks.classes and marks.classes != self._class_table.value():
            self._class_table.setValue(marks.classes)
            self._class_table.select_label(int(self._layer.selected_label))
            self._show_slices()
        self._show_marks(marks)
        self.changed.emit()

    def _show_marks(self, marks: Marks) -> None:
        self._known = marks
        if self._layer is not None and self._corrections.check(
            self._layer.data, marks, self._slices
        ):
            self._rows_timer.start()  # the next step checks another slice
        corrected, revertible = self._corrections.value(), frozenset(marks.before)
        self._slice_table.set_marks(
            SliceMarks(marks.held_out, marks.accepted, corrected, revertible)
        )

    # ---- events of viewer and layer

    def _forget(self, _event: Any = None) -> None:
        self.told.emit("")  # that Ctrl+Z undoes it is no longer true

    def _label_selected(self, _event: Any = None) -> None:
        if self._layer is not None:
            self._class_table.select_label(int(self._layer.selected_label))

    def _slice_moved(self, _event: Any = None) -> None:
        self._counting.moved()
        self._slice_table.set_shown(self.shown())
        self.changed.emit()
