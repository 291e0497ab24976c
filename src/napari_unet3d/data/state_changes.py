"""Changes of the state of a slice: complete, empty, held out, accepted, and back again.

Each function takes the labels and the marks of an annotation, and returns what is to be written in
one step; it changes nothing itself.
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np

from napari_unet3d.config import BACKGROUND, UNLABELLED
from napari_unet3d.data.edits import SliceEdit
from napari_unet3d.data.marks import Marks
from napari_unet3d.data.slices import (
    SliceRef,
    check_in_stack,
    check_layout,
    plane_index,
    read_slice,
)
from napari_unet3d.errors import BadInputError

StateChange = Literal["complete", "empty", "held out", "accepted"]
_CHANGES: tuple[StateChange, ...] = ("complete", "empty", "held out", "accepted")
Change = tuple[Sequence[SliceEdit], Marks]
"""Edits of the labels, and the marks after them."""


@dataclass(frozen=True, eq=False)
class SliceBefore:
    """A slice before its state was changed, so that the change can be reverted.

    Parameters
    ----------
    change
        What was done to the slice.
    labels
        2D: the labels before; None where the paint was not changed.
    checksum
        Of the labels that the change left, from `checksum`; 0 where the paint was not changed.
    source
        Where the slice had been taken over from before; None when it had not been.
    """

    change: StateChange
    labels: np.ndarray | None = None
    checksum: int = 0
    source: str | None = None

    def reverted(self, now: np.ndarray) -> np.ndarray:
        """Return the labels `now` (2D) of the slice as the user made them before the change.

        Background that was filled in is removed; what the user painted since then stays, but on
        a slice that was taken over from a prediction, where all labels of before come back.
        """
        if self.labels is None:
            return now
        if self.change == "complete":
            filled = (self.labels == UNLABELLED) & (now == BACKGROUND)
            return np.where(filled, UNLABELLED, now).astype(now.dtype)
        return self.labels.astype(now.dtype)

    def to_json(self) -> dict[str, Any]:
        """Describe it in values that JSON knows; labels are compressed."""
        labels = self.labels
        if labels is None:
            return {"change": self.change}
        packed = zlib.compress(np.ascontiguousarray(labels).tobytes(), 1)
        return {
            "change": self.change,
            "source": self.source,
            "shape": list(labels.shape),
            "dtype": labels.dtype.name,
            "labels": b64encode(packed).decode("ascii"),
            "checksum": self.checksum,
        }

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Read what `to_json` returns.

        Raises
        ------
        BadInputError
            The entry is something else.
        """
        try:
            change = entry["change"]
            if change not in _CHANGES:
                raise ValueError(f"'{change}' is no change of a slice")
            if "labels" not in entry:
                return cls(change)
            raw = zlib.decompress(b64decode(entry["labels"]))
            labels = np.frombuffer(raw, entry["dtype"]).reshape(entry["shape"])
            return cls(change, labels, int(entry["checksum"]), entry["source"])
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise BadInputError(f"The earlier state of a slice cannot be read: {error}.") from error


def checksum(labels: np.ndarray) -> int:
    """A number that differs for different labels (2D) of a slice; never 0."""
    return zlib.crc32(np.ascontiguousarray(labels).data) or 1


# ---------------------------------------------------------------- changes


def complete(labels: Any, marks: Marks, ref: SliceRef) -> Change:
    """Make the unlabelled voxels of a slice background.

    Parameters
    ----------
    labels
        Integers, ZYX or TZYX; in memory, zarr or dask.
    marks
        The marks of the annotation.
    ref
        The slice.

    Returns
    -------
    edits, marks
        No edit when the slice is complete already.

    Raises
    ------
    BadInputError
        The labels are no annotation, or the slice is not in the stack.
    """
    now = read_checked(labels, ref)
    return _filled(marks, ref, "complete", now, _completed(now))


def empty(
    labels: Any, marks: Marks, ref: SliceRef, complete_slices: Iterable[SliceRef] = ()
) -> Change:
    """Make a whole slice background, also where nothing is painted yet.

    See `complete`; the labels where `complete_slices` cross it stay.
    """
    now = read_checked(labels, ref)
    background = np.full_like(now, BACKGROUND)
    after = _keep_crossing(ref, _completed(now), background, complete_slices)
    return _filled(marks, ref, "empty", now, after)


def clear(
    labels: Any, marks: Marks, ref: SliceRef, complete_slices: Iterable[SliceRef] = ()
) -> Change:
    """Remove the paint and the marks of a slice.

    See `complete`; the labels where `complete_slices` cross it stay.
    """
    now = read_checked(labels, ref)
    after = _keep_crossing(ref, now, np.zeros_like(now), complete_slices)
    marks = replace(
        marks,
        held_out=marks.held_out - {ref},
        accepted=_without(marks.accepted, ref),
        before=_without(marks.before, ref),
    )
    return _edits(ref, now, after), marks


def revert(
    labels: Any, marks: Marks, ref: SliceRef, complete_slices: Iterable[SliceRef] = ()
) -> Change | None:
    """Undo the last change of the state of a slice.

    A slice that was completed has only the paint of the user again; one that was emptied, or
    taken over from a prediction, is as it was before; one that is held out is trained on again.
    The labels where `complete_slices` cross it stay.

    Returns
    -------
    edits, marks
        See `complete`; None when the state of the slice was not changed.

    Raises
    ------
    BadInputError
        The slice is not in the stack, or somebody else has edited what is stored in the layer.
    """
    stack = marks.before.get(ref, ())
    if not stack:
        return None
    last = SliceBefore.from_json(stack[-1])
    now = read_checked(labels, ref)
    if last.labels is not None and last.labels.shape != now.shape:
        raise BadInputError(
            f"{ref} cannot be reverted: it had {last.labels.shape} voxels, and has {now.shape} now."
        )
    after = _keep_crossing(ref, now, last.reverted(now), complete_slices)
    held_out, accepted = marks.held_out, dict(marks.accepted)
    if last.change == "held out":
        held_out -= {ref}
    elif last.change == "accepted":
        accepted.pop(ref, None)
        if last.source is not None:
            accepted[ref] = last.source
    before = {**marks.before, ref: stack[:-1]} if stack[:-1] else _without(marks.before, ref)
    marks = replace(marks, held_out=held_out, accepted=accepted, before=before)
    return _edits(ref, now, after), marks


def mark(
    labels: Any,
    marks: Marks,
    edits: Sequence[SliceEdit],
    held_out: frozenset[SliceRef] | None = None,
    accepted: Mapping[SliceRef, str] | None = None,
) -> Change:
    """Hold slices out or train on them again, and take slices over from a prediction.

    Parameters
    ----------
    labels, marks
        See `complete`.
    edits
        New labels of slices.
    held_out, accepted
        The held-out and the accepted slices after the edit; None leaves them as they are.
    """
    before = dict(marks.before)
    if held_out is not None:
        entry = SliceBefore("held out").to_json()
        for ref in held_out - marks.held_out:
            before[ref] = (*before.get(ref, ()), entry)
        for ref in marks.held_out - held_out:
            before[ref] = tuple(e for e in before.get(ref, ()) if e != entry)
        marks = replace(marks, held_out=held_out)
    if accepted is not None:
        sources = marks.accepted
        for ref in [r for r, source in accepted.items() if sources.get(r) != source]:
            now = read_checked(labels, ref)
            after = now
            for edit in edits:
                after = edit.on(after) if edit.ref == ref else after
            old = SliceBefore("accepted", now, checksum(after), sources.get(ref))
            before[ref] = (*before.get(ref, ()), old.to_json())
        marks = replace(marks, accepted=dict(accepted))
    return edits, replace(marks, before={r: stack for r, stack in before.items() if stack})


def was_corrected(labels: Any, marks: Marks, ref: SliceRef) -> bool:
    """Return whether an accepted slice has other labels than those that were accepted."""
    entries = [e for e in marks.before.get(ref, ()) if e.get("change") == "accepted"]
    if not entries:
        return False
    return checksum(read_slice(labels, ref)) != SliceBefore.from_json(entries[-1]).checksum


def read_checked(labels: Any, ref: SliceRef) -> np.ndarray:
    """Read one slice of an annotation, 2D.

    Raises
    ------
    BadInputError
        The labels are no annotation, or the slice is not in the stack.
    """
    check_layout(labels)
    check_in_stack(labels, ref, f"Slice {ref}")
    return np.array(read_slice(labels, ref))


def _completed(labels: np.ndarray) -> np.ndarray:
    return np.where(labels == UNLABELLED, BACKGROUND, labels).astype(labels.dtype)


def _keep_crossing(
    ref: SliceRef, before: np.ndarray, after: np.ndarray, complete_slices: Iterable[SliceRef]
) -> np.ndarray:
    """Take `after` for a slice (2D), but `before` where complete slices cross it.

    Otherwise, emptying one slice would make another one, which the user has completed, partial.
    """
    after = after.copy()
    for other in complete_slices:
        if other.time == ref.time and other.axis != ref.axis:
            line = plane_index(other.axis - (other.axis > ref.axis), other.index)
            after[line] = before[line]
    return after


def _filled(
    marks: Marks, ref: SliceRef, change: StateChange, now: np.ndarray, after: np.ndarray
) -> Change:
    edits = _edits(ref, now, after)
    if not edits:
        return [], marks
    entry = SliceBefore(change, now, checksum(after)).to_json()
    return edits, replace(marks, before={**marks.before, ref: (*marks.before.get(ref, ()), entry)})


def _edits(ref: SliceRef, before: np.ndarray, after: np.ndarray) -> list[SliceEdit]:
    edit = SliceEdit.between(ref, before, after)
    return [] if edit is None else [edit]


def _without(entries: Mapping[SliceRef, Any], ref: SliceRef) -> dict[SliceRef, Any]:
    return {key: value for key, value in entries.items() if key != ref}
