"""The words of the slice table: states, tooltips and totals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from napari_unet3d.config import BACKGROUND, ClassInfo
from napari_unet3d.data.marks import SliceState
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.wording import counted

_NAMED = 4
"""Classes that the totals name; the others are counted, so that the text stays short."""
_STATES: dict[SliceState, str] = {
    "complete": "Complete: every voxel of this slice is labelled.",
    "partial": "Partial: only the painted voxels count; the rest is unlabelled.",
    "empty": "Empty on purpose: all of it is background.",
    "held out": "Held out: not trained on. The prediction is measured on this slice.",
    "accepted": "Accepted: taken over from a prediction.",
}
_NO_SLICE = "Show a single slice (2D view) first."


@dataclass(frozen=True)
class SliceMarks:
    """What is known of the slices beside their paint.

    Parameters
    ----------
    held_out
        The slices that are not trained on.
    accepted
        The slices that were taken over from a prediction, each with where it came from.
    corrected
        Those of them that were painted on since.
    revertible
        The slices whose last change of state can be reverted.
    """

    held_out: frozenset[SliceRef] = frozenset()
    accepted: Mapping[SliceRef, str] = field(default_factory=dict)
    corrected: frozenset[SliceRef] = frozenset()
    revertible: frozenset[SliceRef] = frozenset()

    def differences(self, other: SliceMarks) -> frozenset[SliceRef]:
        """The slices whose marks differ."""
        sources = self.accepted.items() ^ other.accepted.items()
        return (
            (self.held_out ^ other.held_out)
            | (self.corrected ^ other.corrected)
            | (self.revertible ^ other.revertible)
            | {ref for ref, _ in sources}
        )


def state_text(painted: PaintedSlice, state: SliceState, marks: SliceMarks) -> str:
    """The state in words, short enough for a cell."""
    return "corrected" if state == "accepted" and painted.ref in marks.corrected else state


def row_tip(
    painted: PaintedSlice, state: SliceState, marks: SliceMarks, classes: Sequence[ClassInfo]
) -> str:
    """Describe a painted slice in the tooltip of its row."""
    names = {BACKGROUND: "background", **{c.value: c.name for c in classes}}
    counts = [f"{names.get(v, f'label {v}')} {n:,}" for v, n in painted.counts.items() if n]
    done = 100 * sum(painted.counts.values()) / max(painted.n_voxels, 1)
    lines = [
        f"{painted.ref.plane} slice {painted.ref}, {done:.0f} % painted: "
        f"{', '.join(counts) or 'no'} voxels.",
        _STATES[state],
    ]
    source = marks.accepted.get(painted.ref)
    if source is not None:
        since = ", and corrected since" if painted.ref in marks.corrected else ""
        lines.append(f"From the {source}{since}.")
    return "\n".join([*lines, "Click to go there; right-click for more."])


def totals_text(
    rows: Sequence[PaintedSlice], marks: SliceMarks, classes: Sequence[ClassInfo]
) -> str:
    """Sum up the table: "5 slices · 2 held out · structure 12,345 px"."""
    parts = [counted(len(rows), "slice")]
    for name, refs in (("held out", marks.held_out), ("accepted", marks.accepted)):
        n = sum(painted.ref in refs for painted in rows) if refs else 0
        if n:
            parts.append(f"{n:,} {name}")
    totals: Counter[int] = Counter()
    for painted in rows if classes else ():  # thousands of rows take milliseconds
        totals.update(painted.counts)
    for info in classes[:_NAMED]:
        parts.append(f"{info.name} {totals[info.value]:,} px")
    if left := classes[_NAMED:]:
        n = sum(totals[info.value] for info in left)
        parts.append(f"{len(left)} more classes {n:,} px")
    return " · ".join(parts)


def count_text(voxels: int) -> str:
    """Write a number of voxels as a cell shows it: "4612", "11 k", "—"."""
    if voxels == 0:
        return "   —"
    return f"   {voxels}" if voxels < 10_000 else f"   {voxels / 1000:.0f} k"


# ---------------------------------------------------------------- buttons


def complete_tip(shown: SliceRef | None, painted: PaintedSlice | None) -> tuple[bool, str]:
    """Whether the slice in view can be completed, and the tooltip of the button."""
    if shown is None:
        return False, _NO_SLICE
    if painted is None:
        return False, f"Nothing is painted on {shown} yet. Is nothing there? Press 'Nothing here'."
    if painted.state == "complete":
        return False, f"{shown} is complete already."
    return True, (
        f"Everything unpainted on {shown} becomes background (key C; undo: Ctrl+Z). Use it once "
        "all structures on this slice are painted."
    )


def hold_out_tip(
    shown: SliceRef | None, painted: PaintedSlice | None, held: bool
) -> tuple[bool, str]:
    """Whether the slice in view can be held out, and the tooltip of the button."""
    if shown is None:
        return False, _NO_SLICE
    if held:
        return True, "Train on this slice again; it no longer measures the result (key H)."
    if painted is None:
        return False, f"Nothing is painted on {shown} yet."
    return True, "Do not train on this slice; measure the prediction on it instead (key H)."


def empty_tip(shown: SliceRef | None, is_empty: bool) -> tuple[bool, str]:
    """Whether the slice in view can be made background, and the tooltip of the button."""
    if shown is None:
        return False, _NO_SLICE
    if is_empty:
        return False, f"{shown} is background already."
    return True, (
        f"None of the structures is on {shown}: all of it becomes background (key Shift+E; undo: "
        "Ctrl+Z)."
    )


def revert_tip(shown: SliceRef | None, marks: SliceMarks) -> tuple[bool, str]:
    """Whether the slice in view can be reverted, and the tooltip of the button."""
    if shown is None:
        return False, _NO_SLICE
    if shown not in marks.revertible:
        return False, f"{shown} was not completed, emptied, held out or accepted."
    return True, (
        f"{shown} becomes what it was before it was completed, emptied, held out or accepted "
        "(key Shift+R; undo: Ctrl+Z). Your own paint stays."
    )
