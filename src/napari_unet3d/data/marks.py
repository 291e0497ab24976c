"""What is known of an annotation beside its paint: classes, held-out and accepted slices."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from napari_unet3d.config import BACKGROUND, ClassInfo
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef

SliceState = Literal["partial", "complete", "empty", "held out", "accepted"]


def slice_state(
    painted: PaintedSlice, held_out: Collection[SliceRef], accepted: Collection[SliceRef]
) -> SliceState:
    """Name the state of a painted slice.

    Parameters
    ----------
    painted
        The slice, and what is painted on it.
    held_out
        The slices that are not trained on.
    accepted
        The slices that were taken over from a prediction.

    Returns
    -------
    str
        "held out", before all others, since such a slice is not trained on. "accepted": taken
        over from a prediction, and perhaps corrected since. "empty": every voxel is background,
        on purpose. "complete": every voxel is labelled. "partial": some are.
    """
    if held_out and painted.ref in held_out:  # hashing a slice takes longer than asking
        return "held out"
    if accepted and painted.ref in accepted:
        return "accepted"
    if painted.state == "complete":
        return "empty" if painted.counts.keys() <= {BACKGROUND} else "complete"
    return "partial"


@dataclass(frozen=True)
class Marks:
    """The marks of an annotation.

    Parameters
    ----------
    classes
        The class table.
    held_out
        The slices that are not trained on.
    accepted
        The slices that were taken over from a prediction, each with where it came from.
    before
        By slice: how it was before each change of its state, the newest last, as
        `SliceBefore.to_json` writes it.
    """

    classes: tuple[ClassInfo, ...] = ()
    held_out: frozenset[SliceRef] = frozenset()
    accepted: Mapping[SliceRef, str] = field(default_factory=dict)
    before: Mapping[SliceRef, tuple[Any, ...]] = field(default_factory=dict)

    def entries(self) -> dict[tuple[str, Any], Any]:
        """All marks as one dictionary, by kind and by slice or label value."""
        entries: dict[tuple[str, Any], Any] = {("class", c.value): c for c in self.classes}
        entries.update({("held out", ref): True for ref in self.held_out})
        entries.update({("accepted", ref): source for ref, source in self.accepted.items()})
        entries.update({("before", ref): tuple(stack) for ref, stack in self.before.items()})
        return entries

    @classmethod
    def from_entries(cls, entries: Mapping[tuple[str, Any], Any]) -> Self:
        """Make marks of what `entries` returns."""

        def of(kind: str) -> dict[Any, Any]:
            return {key: value for (k, key), value in entries.items() if k == kind}

        classes = of("class")
        return cls(
            tuple(classes[value] for value in sorted(classes)),
            frozenset(of("held out")),
            of("accepted"),
            of("before"),
        )


@dataclass(frozen=True, eq=False)
class MarksChange:
    """The difference of two `Marks`, which can be applied to others, and undone.

    Only the entries that differ are kept: what somebody else changed meanwhile stays.

    Parameters
    ----------
    entries
        By key of `Marks.entries`: the values before and after; None where the key is missing.
    """

    entries: Mapping[tuple[str, Any], tuple[Any, Any]]

    @classmethod
    def between(cls, before: Marks, after: Marks) -> Self:
        """Find the difference."""
        old, new = before.entries(), after.entries()
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        return cls({key: (old.get(key), new.get(key)) for key in keys})

    def __bool__(self) -> bool:
        return bool(self.entries)

    def apply(self, marks: Marks, *, undone: bool = False) -> Marks:
        """Return `marks` after the change, or, with `undone`, before it."""
        entries = marks.entries()
        for key, values in self.entries.items():
            value = values[0 if undone else 1]
            if value is None:
                entries.pop(key, None)
            else:
                entries[key] = value
        return Marks.from_entries(entries)
