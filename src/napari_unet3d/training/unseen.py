"""Slices that the network does not see at first, so that they tell how far it can be trusted."""

from __future__ import annotations

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
_HIDDEN = "unseen/hidden"
"""Name of the slices (n, 3), by axis, index and time, in the state that resuming needs."""
_NONE = torch.empty((0, 3), dtype=torch.int64)


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
        The weight that it deserves, judged on slices that it had not seen; None while unknown.
    """

    def __init__(self, plan: TrainingPlan, sampler: PatchSampler) -> None:
        self._plan, self._sampler = plan, sampler
        self.hidden: frozenset[SliceRef] = frozenset()
        self.weight: float | None = None
        self._resumed: list[SliceRef] = []
        """Slices that were hidden when a training stopped, which is resumed."""
        before = plan.start_from
        if before is None or not plan.keeps_head or before.intensity != plan.intensity:
            return  # a new network, or another stack
        self.weight = before.record.unseen_weight
        if plan.resume:
            self._resumed = [SliceRef(*ref) for ref in before.state.get(_HIDDEN, _NONE).tolist()]

    def hide(self, expected: float | None) -> None:
        """Hide slices that can be spared; those of a resumed training, if it stopped before half.

        Parameters
        ----------
        expected
            Iterations that the training is expected to have; None where that is unknown.
        """
        if self._plan.start_from is None and expected and expected >= _FEWEST_ITERATIONS:
            self.hidden = frozenset(_spared(self._plan))
        else:
            self.hidden = frozenset(self._resumed) & {s.ref for s in self._plan.slices}
        if self.hidden:
            annotation = self._plan.annotation
            annotation = replace(annotation, held_out=annotation.held_out | self.hidden)
            slices = tuple(s for s in self._plan.slices if s.ref not in self.hidden)
            self._sampler.adopt(annotation, slices)

    def is_due(self, fraction: float, iterations: int) -> bool:
        """Whether hidden slices are to be judged.

        Parameters
        ----------
        fraction
            Share of the budget, or of the round, that is used.
        iterations
            Iterations of the training.
        """
        enough = iterations >= _UNTIL * _FEWEST_ITERATIONS
        return bool(self.hidden) and enough and fraction >= _UNTIL

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


def _spared(plan: TrainingPlan) -> list[SliceRef]:
    """Slices that hold all classes, as the others still do without them; near the middle."""
    slices = plan.slices
    kinds = {code for s in slices for code in s.counts}
    middle = (len(slices) - 1) / 2
    most = max(1, int(_HIDDEN_SHARE * len(slices))) if len(slices) >= _FEWEST_SLICES else 0
    spared: set[int] = set()
    for number in sorted(range(len(slices)), key=lambda i: abs(i - middle)):
        rest = (s for i, s in enumerate(slices) if i not in spared and i != number)
        seen = {code for s in rest for code in s.counts}
        if len(spared) < most and kinds == set(slices[number].counts) == seen:
            spared.add(number)
    return [slices[i].ref for i in spared]
