"""Takes slices into a running training: its labels, its ledger, its held-out slices."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_unet3d.config import BACKGROUND, UNLABELLED
from napari_unet3d.data.joined_labels import JoinedLabels, SlicePaint, check_paint
from napari_unet3d.data.slices import SliceRef, read_slice
from napari_unet3d.events import SlicesJoined
from napari_unet3d.training.plan import TrainingPlan

_FEWEST_KINDS = 2
"""Kinds of voxels, background included, that a training needs."""


@dataclass(frozen=True)
class Joined:
    """What a training goes on with after slices have joined it.

    Attributes
    ----------
    plan
        The plan with the new annotation.
    changed
        Slices that are or were trained on, and whose labelled voxels are others now.
    event
        What happened.
    """

    plan: TrainingPlan
    changed: frozenset[SliceRef]
    event: SlicesJoined


class Joining:
    """Adds slices to the annotation of a training, between two of its iterations.

    Parameters
    ----------
    plan
        The training as it began.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        assert isinstance(plan.annotation.labels, JoinedLabels)
        self._labels = plan.annotation.labels
        self._known = [UNLABELLED, BACKGROUND, *(c.value for c in plan.annotation.classes)]
        before = plan.start_from.record if plan.start_from and plan.resume else None
        known = set() if before is None else set(before.trained_slices)
        self._since: dict[SliceRef, float] = {
            s.ref: 0.0 if before is None or str(s.ref) in known else before.seconds
            for s in plan.slices
        }
        """Seconds of the training at which each slice began to be trained on."""
        self._seen: dict[SliceRef, float] = {}
        """Held-out slices that were trained on, and for how many seconds."""

    def join(
        self, plan: TrainingPlan, paints: Sequence[SlicePaint], elapsed: float
    ) -> Joined | None:
        """Take slices in; None where they change nothing.

        Parameters
        ----------
        plan
            The training as it is.
        paints
            The slices. Of a slice that is given twice, the last labels count; slices of another
            stack are left out.
        elapsed
            Seconds of the training until now.
        """
        newest = {p.ref: p for p in paints if check_paint(p, self._labels)}
        left_out = {ref: self._unknown(p.labels) for ref, p in newest.items()}
        rows = _rows(plan)
        before = {ref: read_slice(self._labels, ref) for ref in newest}
        held_out = plan.annotation.held_out
        for ref, paint in newest.items():
            known = np.where(np.isin(paint.labels, self._known), paint.labels, UNLABELLED)
            self._write(plan, ref, known)
            held_out = held_out - {ref} | ({ref} if paint.held_out and known.any() else set())
        repainted = {r for r, old in before.items() if (old != read_slice(self._labels, r)).any()}
        moved = held_out ^ plan.annotation.held_out
        told = tuple((ref, values) for ref, values in sorted(left_out.items()) if values)
        if not repainted and not moved:
            return Joined(plan, frozenset(), SlicesJoined(left_out=told)) if told else None

        plan.ledger.work()
        now = _rows(plan)
        changed = {ref for ref in rows.keys() | now.keys() if rows.get(ref) != now.get(ref)}
        changed |= repainted | moved | _crossing(now, moved)
        annotation = replace(plan.annotation, held_out=held_out)
        fresh = annotation.labelled_voxels(ledger=plan.ledger, only=changed)
        slices = [s for s in plan.slices if s.ref not in changed and s.ref in now]
        slices = sorted([*slices, *fresh], key=lambda s: (s.ref.time, s.ref.axis, s.ref.index))
        if len({code for s in slices for code in s.counts}) < _FEWEST_KINDS:
            for ref, labels in before.items():
                self._write(plan, ref, labels)
            plan.ledger.work()
            return Joined(plan, frozenset(), SlicesJoined(refused=tuple(sorted(newest))))
        seen = plan.seen | {str(s.ref) for s in slices}
        plan_now = replace(plan, annotation=annotation, slices=tuple(slices), seen=seen)
        event = self._describe(plan, plan_now, changed, repainted | moved, elapsed)
        learned = {s.ref for s in (*plan.slices, *slices)}
        return Joined(plan_now, frozenset(changed & learned), replace(event, left_out=told))

    def _unknown(self, labels: np.ndarray) -> tuple[int, ...]:
        return tuple(int(v) for v in np.setdiff1d(labels, self._known))

    def _write(self, plan: TrainingPlan, ref: SliceRef, labels: np.ndarray) -> None:
        """Write a slice into the labels, and tell the ledger."""
        old = read_slice(self._labels, ref)
        mask = np.expand_dims(old != labels, ref.axis)
        box = [slice(None)] * 3
        box[ref.axis] = slice(ref.index, ref.index + 1)
        times = [slice(ref.time, ref.time + 1)] if self._labels.ndim == 4 else []
        self._labels.lay(ref, labels)
        if mask.any():
            old, new = (np.expand_dims(values, ref.axis) for values in (old, labels))
            plan.ledger.change((*times, *box), old[mask], new[mask], mask)

    def _describe(
        self,
        before: TrainingPlan,
        now: TrainingPlan,
        changed: Collection[SliceRef],
        given: Collection[SliceRef],
        elapsed: float,
    ) -> SlicesJoined:
        """Describe what happened to the slices, and since when each is trained on."""
        trained = {s.ref for s in now.slices}
        lost = {s.ref for s in before.slices} - trained
        held_out = now.annotation.held_out
        for ref in lost:
            began = self._since.pop(ref, elapsed)
            if ref in held_out:
                self._seen[ref] = self._seen.get(ref, 0.0) + elapsed - began
        for ref in trained:
            self._since.setdefault(ref, elapsed)
        return SlicesJoined(
            trained=tuple(sorted(trained & set(given))),
            held_out=tuple(sorted(held_out & set(given))),
            seen=tuple(sorted((r, s) for r, s in self._seen.items() if r in held_out)),
            erased=tuple(sorted((lost - held_out) & set(changed))),
        )


def _rows(plan: TrainingPlan) -> dict[SliceRef, object]:
    return {row.ref: row for row in plan.ledger.slices()}


def _crossing(rows: Iterable[SliceRef], refs: Iterable[SliceRef]) -> set[SliceRef]:
    """The slices that cross one of `refs`, whose voxels there are hidden or shown now."""
    others = list(refs)
    return {row for row in rows for ref in others if row.time == ref.time and row.axis != ref.axis}
