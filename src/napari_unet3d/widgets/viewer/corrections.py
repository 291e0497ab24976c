"""Finds the accepted slices that were painted on since."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from napari_unet3d.data.marks import Marks
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.state_changes import was_corrected
from napari_unet3d.errors import BadInputError


class Corrections:
    """Knows which accepted slices have other labels than those that were accepted.

    A slice is read again only when its row of the slice ledger is another one, one slice in each
    call of `check`, since a large slice across the planes takes some milliseconds.
    """

    def __init__(self) -> None:
        self._checked: dict[SliceRef, tuple[PaintedSlice | None, str]] = {}
        self._corrected: frozenset[SliceRef] = frozenset()

    def value(self) -> frozenset[SliceRef]:
        """The corrected slices that are known so far."""
        return self._corrected

    def check(self, labels: Any, marks: Marks, rows: Iterable[PaintedSlice]) -> bool:
        """Check one slice that may have been painted on; return whether others are left.

        Parameters
        ----------
        labels
            The annotation, ZYX or TZYX.
        marks
            Its marks.
        rows
            Its painted slices.
        """
        if not marks.accepted:
            self._checked.clear()
            self._corrected = frozenset()
            return False
        now = {row.ref: row for row in rows}
        self._corrected &= marks.accepted.keys()
        self._checked = {r: known for r, known in self._checked.items() if r in marks.accepted}
        left = [
            ref
            for ref, source in marks.accepted.items()
            if not _is(self._checked.get(ref), now.get(ref), source)
        ]
        for ref in left[:1]:
            self._checked[ref] = now.get(ref), marks.accepted[ref]
            self._corrected -= {ref}
            with suppress(BadInputError, IndexError):  # someone else has edited the metadata
                if was_corrected(labels, marks, ref):
                    self._corrected |= {ref}
        return len(left) > 1


def _is(known: tuple[PaintedSlice | None, str] | None, row: PaintedSlice | None, s: str) -> bool:
    return known is not None and known[0] is row and known[1] == s
