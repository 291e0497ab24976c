"""Slices that the network does not see at first, so that they tell how far it can be trusted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from napari_unet3d.data.slices import SliceRef
from napari_unet3d.sampling.patches import PatchSampler
from napari_unet3d.training.plan import TrainingPlan

_UNTIL = 0.5
"""Share of the budget until which the slices are hidden."""
_FEWEST_SLICES = 3
"""Annotated slices from which on some can be spared for a while."""
_HIDDEN_SHARE = 1 / 4
"""Share of the annotated slices that are hidden; one at least."""
_FEWEST_ITERATIONS = 250
"""Iterations that a training must be expected to have. In a shorter one the network learns nothing
by heart, and needs every slice all the time."""
_FEWEST_VOXELS = 5000
"""Labelled voxels of a hidden slice. Fewer hardly move what is expected of the weight anyway: with
the 1,900 of a hippocampus, it would be 0.36 instead of 0.4."""
_HIDDEN = "unseen/hidden"
"""Name of the slices (n, 3), by axis, index and time, in the state that resuming needs."""


class UnseenSlices:
    """Hides some annotated slices from the network in the first half of a long training.

    A network knows the slices that it has learned from by heart, so they do not tell how good it is
    elsewhere. Slices that it has not seen yet do, beside a pixel classifier that has not seen them
    either. Then they join the training.

    Parameters
    ----------
    plan
        The training.
    sampler
        Draws its batches.

    Attributes
    ----------
    hidden
        The slices that are hidden now.
    weight
        The weight of the network, judged on slices that it had not seen; None while unknown.
    """

    def __init__(self, plan: TrainingPlan, sampler: PatchSampler) -> None:
        self._plan, self._sampler = plan, sampler
        self.hidden: frozenset[SliceRef] = frozenset()
        self.weight: float | None = None
        self._resumed: frozenset[SliceRef] = frozenset()
        """Slices that were hidden when a training stopped, which is resumed."""
        before = plan.start_from
        if before is None or not plan.keeps_head or before.intensity != plan.intensity:
            return  # a new network, or another stack
        self.weight = before.record.unseen_weight
        if plan.resume:
            self._resumed = _refs(before.state)

    def hide(self, expected: float | None) -> None:
        """Hide slices that can be spared; those of a resumed training, if it stopped before half.

        Parameters
        ----------
        expected
            Iterations that the training is expected to have; None where that is unknown.
        """
        plan, known = self._plan, {s.ref for s in self._plan.slices}
        if plan.start_from is None and expected and expected >= _FEWEST_ITERATIONS:
            hidden = _spared(plan)
        elif known.issuperset(self._resumed) and _others_hold_all(plan, self._resumed):
            hidden = self._resumed
        else:
            hidden = frozenset()
        if hidden:
            held_out = plan.annotation.held_out | hidden
            annotation = replace(plan.annotation, held_out=held_out)
            slices = annotation.labelled_voxels(ledger=plan.ledger)
            self._sampler.adopt(annotation, slices)
        self.hidden = hidden

    def is_due(self, fraction: float) -> bool:
        """Whether hidden slices are to be judged, when `fraction` of the budget is used."""
        return bool(self.hidden) and fraction >= _UNTIL

    def show(self) -> None:
        """Let the network learn from all slices from now on."""
        self.hidden = frozenset()
        self._sampler.adopt(self._plan.annotation, self._plan.slices)

    def adopt(self, plan: TrainingPlan) -> None:
        """Go on with another annotation, all of which the network sees."""
        self._plan, self.hidden = plan, frozenset()

    def state(self) -> dict[str, Tensor]:
        """What resuming needs."""
        refs = [[r.axis, r.index, r.time] for r in sorted(self.hidden)]
        return {_HIDDEN: torch.tensor(refs)} if refs else {}


def _refs(state: Mapping[str, Tensor]) -> frozenset[SliceRef]:
    """The slices that were hidden when a state was made; none where it is damaged."""
    refs = state.get(_HIDDEN)
    if refs is None or refs.ndim != 2 or refs.shape[1] != 3 or refs.is_floating_point():
        return frozenset()
    return frozenset(SliceRef(*ref) for ref in refs.tolist())


def _others_hold_all(plan: TrainingPlan, refs: Collection[SliceRef]) -> bool:
    """Whether every class is there without some slices."""
    kinds = {code for s in plan.slices for code in s.counts}
    return kinds == {code for s in plan.slices if s.ref not in refs for code in s.counts}


def _spared(plan: TrainingPlan) -> frozenset[SliceRef]:
    """Large slices with all classes, which the others still hold, too; near the middle."""
    slices = plan.slices
    kinds = {code for s in slices for code in s.counts}
    middle = (len(slices) - 1) / 2
    most = max(1, int(_HIDDEN_SHARE * len(slices))) if len(slices) >= _FEWEST_SLICES else 0
    spared: set[SliceRef] = set()
    for number in sorted(range(len(slices)), key=lambda i: abs(i - middle)):
        more = spared | {slices[number].ref}
        counts = slices[number].counts
        tells = kinds == set(counts) and sum(counts.values()) >= _FEWEST_VOXELS
        if tells and len(more) <= most and _others_hold_all(plan, more):
            spared = more
    return frozenset(spared)
