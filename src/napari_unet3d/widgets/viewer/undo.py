"""Tells the slice ledger what napari's undo history of a Labels layer says.

napari emits no event with the voxels that an undo or redo changed. They are read from its history,
whose attributes are private. With a napari that has other ones, the layer is read again instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Labels

from napari_unet3d.data.ledger import SliceLedger
from napari_unet3d.widgets.viewer.history import MarksAtom

_FEW_PLANES = 8
"""xy planes. An edit of no more planes is read again after an undo, since that is quick."""


class UndoWatch:
    """Tells a ledger which voxels were painted, undone and redone in a layer."""

    def __init__(self, layer: Labels) -> None:
        self._layer = layer
        self._undo, self._redo = self._items()
        # napari keeps the history when a layer gets another array.
        self._is_older = bool(self._undo or self._redo)

    def stroke_is_open(self) -> bool:
        """Return whether the mouse is down: no event has told this paint yet."""
        return bool(getattr(self._layer, "_block_history", False))

    def painted(self, ledger: SliceLedger, atoms: Any) -> None:
        """Tell the ledger the changes of a paint event (its `value`)."""
        for atom in atoms:
            if not isinstance(atom, MarksAtom):
                _tell(ledger, atom, undone=False)
        before, (self._undo, self._redo) = self._undo, self._items()
        older = self._undo[:-1]
        if not _same_items(before[len(before) - len(older) :], older):
            ledger.doubt()  # something was undone or redone, and not redrawn yet

    def replayed(self, ledger: SliceLedger) -> bool:
        """Tell the ledger what was undone or redone since the last call; return whether it was."""
        edits = self._replayed_edits()
        for atom, was_undone in edits:
            if isinstance(atom, MarksAtom):
                continue
            box = _tell(ledger, atom, was_undone)
            # The history gives the old labels, but other code may have written there since.
            planes = range(*box[-3].indices(ledger.labels.shape[-3]))
            if self._is_older or ledger.was_surprised or len(planes) <= _FEW_PLANES:
                ledger.doubt(box)
        return bool(edits)

    def replayed_atoms(self) -> list[Any]:
        """What was undone or redone since the last call, as a paint event would tell it."""
        return [atom for atom, _ in self._replayed_edits() if not isinstance(atom, MarksAtom)]

    def _replayed_edits(self) -> list[tuple[Any, bool]]:
        """The edits that were undone or redone since the last call, and whether it was undone."""
        before, (self._undo, self._redo) = self._redo, self._items()
        now, same = self._redo, 0
        while same < min(len(before), len(now)) and before[same] is now[same]:
            same += 1
        undone, left = now[same:], before[same:]
        # Items leave the redo list when they are redone, and when new paint replaces them.
        redone = left if left and self._undo and _are_same(self._undo[-1], left[0]) else []
        edits = [(atom, False) for item in reversed(redone) for atom in reversed(item)]
        return edits + [(atom, True) for item in undone for atom in item]

    def tell_open_stroke(self, ledger: Any) -> None:
        """Tell which voxels a stroke has painted so far; it is told again at its end."""
        for atom in list(getattr(self._layer, "_staged_history", ())):
            _tell(ledger, atom, undone=False)

    def _items(self) -> tuple[list[Any], list[Any]]:
        """The items that can be undone, and redone; the next one last."""
        undo, redo = (getattr(self._layer, f"_{name}_history", ()) for name in ("undo", "redo"))
        return list(undo), list(redo)


def _same_items(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))


def _are_same(first: list[Any], second: list[Any]) -> bool:
    """Return whether two items hold the same edits; napari reverses them when it moves an item."""
    return {id(atom) for atom in first} == {id(atom) for atom in second}


def _tell(ledger: SliceLedger, atom: Any, undone: bool) -> tuple[slice, ...]:
    """Tell one edit of napari's history, and return the box it lies in."""
    box: tuple[slice, ...]
    if len(atom) == 4:
        box, mask, old, new = atom
        ledger.change(box, *((new, old) if undone else (old, new)), mask)
    else:
        indices, old, new = atom
        ledger.change_at(indices, *((new, old) if undone else (old, new)))
        box = tuple(slice(int(np.min(i)), int(np.max(i)) + 1) for i in indices)
    return box
