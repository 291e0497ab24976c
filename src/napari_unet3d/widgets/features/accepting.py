"""Accepts all proposals, slice after slice: the window stays alive, and one undo takes all back."""

from __future__ import annotations

from collections.abc import Iterator

from napari.layers import Labels
from qtpy.QtCore import QObject, Signal

from napari_unet3d.data.editing.taking import unlabelled_edit
from napari_unet3d.data.slices import read_slice
from napari_unet3d.data.wording import counted
from napari_unet3d.widgets.annotator import UNDO_HINT
from napari_unet3d.widgets.viewer.layers import read_accepted
from napari_unet3d.widgets.viewer.proposals import proposal_at, proposed
from napari_unet3d.widgets.viewer.stepwise import Stepwise
from napari_unet3d.widgets.workbench import Workbench

_REASON = "The proposals are being accepted: wait a moment."


class AcceptingAll(QObject):
    """Copies proposals into the annotation; nobody else edits it meanwhile.

    Parameters
    ----------
    bench
        The parts and mediators of the dock.
    parent
        The Qt parent.
    """

    told = Signal(str)
    """How far it is, and what it has done."""

    def __init__(self, bench: Workbench, parent: QObject) -> None:
        super().__init__(parent)
        self._bench = bench
        self._work: Stepwise | None = None
        self._number = 0
        """Slices that were accepted so far."""

    def start(self, proposals: Labels) -> None:
        """Accept all proposals of a layer, but not those on held-out slices."""
        layer = self._bench.annotator.layer()
        if layer is not None and self._work is None:
            self._number = 0
            self._work = Stepwise(self, self._accept(layer, proposals), self._done)

    def stop(self) -> None:
        """Leave the other proposals as they are."""
        if self._work is not None:
            self._work.stop()

    def _accept(self, layer: Labels, proposals: Labels) -> Iterator[None]:
        annotator, known = self._bench.annotator, proposed(proposals)
        held_out = self._bench.slice_table.value()
        for i, (ref, origin) in enumerate(known.items(), start=1):
            if self._has_left(layer):
                return
            if ref in held_out:
                continue
            edit = unlabelled_edit(ref, read_slice(layer.data, ref), proposal_at(proposals, ref))
            if edit is not None:
                accepted = {**read_accepted(layer), ref: origin}
                annotator.apply([edit], accepted=accepted, goes_on=self._number > 0)
                self._number += 1
                annotator.holding.hold(_REASON)
            if i < len(known):
                self.told.emit(f"Accepting {i} of {len(known)} proposals …")
            yield

    def _has_left(self, layer: Labels) -> bool:
        """Whether the user has chosen another annotation."""
        return self._bench.annotator.layer() is not layer

    def _done(self, error: Exception | None) -> None:
        self._work = None
        self._bench.annotator.holding.release(_REASON)
        text = f"{counted(self._number, 'proposal')} accepted; {UNDO_HINT}"
        self.told.emit(text if error is None else f"{error} {text}")
