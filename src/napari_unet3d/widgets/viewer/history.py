"""One undo order for the paint of an annotation layer and for its marks.

The marks (classes, held-out and accepted slices) are put into napari's own undo history, as a step
that changes no voxels, or beside the voxels of the same action. So napari keeps the order, and its
keys, menus and limits hold for all actions. The history is private in napari; with a napari that
has another one, marks are changed without undo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
from napari.layers import Labels

from napari_unet3d.data.edits import SliceEdit
from napari_unet3d.data.marks import MarksChange
from napari_unet3d.widgets.viewer.lifetime import Override
from napari_unet3d.widgets.viewer.marks import read_marks, write_marks


class MarksAtom(tuple[Any, Any, Any]):
    """An entry of napari's history (indices, old values, new values) without voxels.

    Attributes
    ----------
    change
        How the marks changed.
    """

    change: MarksChange

    @classmethod
    def of(cls, layer: Labels, change: MarksChange) -> MarksAtom:
        """Make the entry for a layer; napari writes its empty box when the entry is undone."""
        nothing = np.zeros((0,) * layer.ndim, layer.data.dtype)
        atom = cls(((slice(0, 0),) * layer.ndim, nothing, nothing))
        atom.change = change
        return atom


class History:
    """Makes each action on an annotation layer one undo step, paint and marks together.

    Parameters
    ----------
    layer
        The annotation.
    writing
        Entered while the layer is written.
    replayed
        Called after each undo and redo.
    is_held
        Returns whether nothing can be undone or redone now.
    """

    def __init__(
        self,
        layer: Labels,
        writing: Callable[[], AbstractContextManager[None]] = nullcontext,
        replayed: Callable[[], object] = lambda: None,
        is_held: Callable[[], bool] = lambda: False,
    ) -> None:
        self._layer: Any = layer
        self._writing, self._replayed, self._is_held = writing, replayed, is_held
        self._depth = 0
        self._overrides = [
            Override(layer, "undo", self._undone),
            Override(layer, "redo", self._redone),
        ]

    def stop(self) -> None:
        """Undo and redo marks no longer."""
        for override in self._overrides:
            override.stop()
        self._overrides.clear()

    @contextmanager
    def step(self, *, goes_on: bool = False) -> Iterator[None]:
        """Make one undo step of all edits of the voxels and of the marks inside.

        A step within a step belongs to the outer one. One that `goes_on` becomes one step with
        the step before.
        """
        layer = self._layer
        if self._depth or not (hasattr(layer, "block_history") and hasattr(layer, "_save_history")):
            with self._writing():
                yield
            return
        before = read_marks(layer)
        last = self._last()
        self._depth += 1
        try:
            with self._writing(), layer.block_history():
                yield
                if change := MarksChange.between(before, read_marks(layer)):
                    layer._save_history(MarksAtom.of(layer, change))
        finally:
            self._depth -= 1
            if goes_on and last is not None and self._last() is not last:
                new = layer._undo_history.pop()
                layer._undo_history[-1] = [*last, *new]

    def _last(self) -> Any:
        """The last entry of napari's undo history, a list; None without one."""
        items = getattr(self._layer, "_undo_history", ())
        return items[-1] if items else None

    def edit(self, edits: Sequence[SliceEdit]) -> None:
        """Write new labels of slices, in one undo step."""
        with self.step():
            for edit in edits:
                _write(self._layer, edit)
            if edits:
                self._layer.refresh()

    def undo(self) -> None:
        """Undo the last action."""
        self._layer.undo()

    def redo(self) -> None:
        """Repeat the action that was undone last."""
        self._layer.redo()

    def _undone(self, undo: Callable[[], None]) -> None:
        self._replay(undo, "_undo_history", undone=True)

    def _redone(self, redo: Callable[[], None]) -> None:
        self._replay(redo, "_redo_history", undone=False)

    def _replay(self, replay: Callable[[], None], name: str, *, undone: bool) -> None:
        if self._is_held():
            return
        items = getattr(self._layer, name, ())
        item = list(items[-1]) if items else []
        replay()
        marks = read_marks(self._layer)
        changes = [atom.change for atom in reversed(item) if isinstance(atom, MarksAtom)]
        for change in changes:
            marks = change.apply(marks, undone=undone)
        if changes:
            with self._writing():
                write_marks(self._layer, marks)
        self._replayed()


def _write(layer: Any, edit: SliceEdit) -> None:
    """Write the labels of one slice, and tell napari's history."""
    box, mask, values = edit.in_box(layer.ndim)
    region = np.array(layer.data[box])
    new = np.broadcast_to(np.asarray(values, region.dtype), (int(np.count_nonzero(mask)),))
    changed = region[mask] != new
    if not changed.any():
        return
    if not changed.all():
        mask = mask.copy()
        mask[mask] = changed
        new = new[changed]
    if (atom_type := _box_atom()) is None:
        where = np.nonzero(mask)
        indices = tuple(i + s.start for i, s in zip(where, box, strict=True))
        layer.data_setitem(indices, np.array(new), refresh=False)
        return
    old = region[mask]
    one_label = new.min() == new.max()
    layer._save_history(atom_type(box, mask, old, int(new[0]) if one_label else new.copy()))
    region[mask] = new
    layer.data[box] = region


def _box_atom() -> Any:
    """Napari's entry for the voxels under a mask in a box, since 0.9; None before.

    It needs 2 bytes a voxel, index arrays 7 and more.
    """
    from napari.layers.labels import labels

    return getattr(labels, "_MaskedPaintAtom", None)
