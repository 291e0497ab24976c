"""Which slice to paint next, and why.

A slice is worth painting for what it tells about its neighbors. So each slice has a weight, and a
painted slice covers its neighbors, the less the farther they are. The next slice is the one that
covers most of the weight that is not covered yet (a facility-location gain, which is what makes a
choice diverse; Wei, Iyer, Bilmes 2015, ICML). The strategies differ in the weight: the same for
all slices, or more where the model is unsure about a class. No query of active learning beats
random slices with foreground on every stack (nnActive 2025), so those are offered as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import AXIS_NAMES, PLANE_NAMES, Triple, VoxelSize
from napari_unet3d.data.slice_summary import SliceSummary
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.wording import counted, either, joined

Strategy = Literal["unsure", "spread", "random"]
Purpose = Literal["train", "measure"]
Floats = NDArray[np.float64]

STRATEGIES: dict[Strategy, tuple[str, str]] = {
    "unsure": (
        "Where the model is unsure",
        "Prefers slices on which the model is unsure about a class, far from the painted ones.",
    ),
    "spread": (
        "Evenly spaced",
        "Takes the middle of the widest gap between painted slices.",
    ),
    "random": (
        "At random, with structure",
        "Draws slices at random, more often those on which a class is likely. It is the baseline "
        "of studies: few methods beat it.",
    ),
}
"""Name and explanation of each strategy."""
DEFAULT_STRATEGY: Strategy = "unsure"
"""See docs/benchmarks.md, "Which slice next"."""

_POSITIONS = 160
"""Slices of an axis that are compared; of more, evenly spaced ones are, so that a ranking takes
about 10 ms."""
_UNSURE_SHARE = 0.5
"""Share of the weight that follows the uncertainty; the rest is the same for all slices. With all
of it, the choice crowds where an early model is wrong about its own uncertainty."""
_ENOUGH_TO_MEASURE = 3
"""Painted slices, from which on one more to measure is suggested: fewer are all needed to train."""
_MUCH = 1.25
"""Ratio to the mean of all slices from which on a sentence says that a class is unsure."""
_USUAL_ASPECT = 2.0
"""Ratio of the voxel sizes within a slice, up to which it is as good to paint as a square one."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What a suggestion depends on, at one time point.

    Attributes
    ----------
    shape, voxel_size, unit
        Of the image: voxels (z, y, x), their size, and its unit.
    time
        The time point.
    painted
        The slices that hold paint, the held-out ones included.
    held_out
        The slices to measure on.
    class_names
        Of the classes of the summary, without background.
    summary
        What the newest prediction says about each slice; None before there is one.
    content
        For each axis, how much there is to see on each slice (`gray_content`); None while unknown.
    """

    shape: Triple
    voxel_size: VoxelSize = (1.0, 1.0, 1.0)
    unit: str = "pixel"
    time: int = 0
    painted: frozenset[SliceRef] = frozenset()
    held_out: frozenset[SliceRef] = frozenset()
    class_names: tuple[str, ...] = ()
    summary: SliceSummary | None = None
    content: Sequence[Floats] | None = None

    def known(self) -> SliceSummary | None:
        """The summary, where it is one of this image and these classes."""
        found = self.summary
        if found is None or found.shape != self.shape:
            return None
        return found if found.n_classes == len(self.class_names) + 1 else None


@dataclass(frozen=True)
class Suggestion:
    """A slice to paint.

    Attributes
    ----------
    ref
        The slice.
    reason
        Why, as words that follow "because".
    brief
        Why, in a few words, as a list shows it.
    purpose
        'train' to learn from it; 'measure' to hold it out.
    """

    ref: SliceRef
    reason: str
    brief: str
    purpose: Purpose = "train"

    def __str__(self) -> str:
        if self.purpose == "measure":
            return f"To measure: {self.ref}, because {self.reason}"
        return f"{self.ref}, because {self.reason}"


def suggest(
    scene: Scene, strategy: Strategy = DEFAULT_STRATEGY, count: int = 6, seed: int = 0
) -> tuple[Suggestion, ...]:
    """Rank the slices to paint next, over all three orientations.

    Each suggestion assumes that those before it get painted, so that they differ from each other.
    Painted slices, the held-out ones among them, are never suggested. With three slices to
    train on and none to measure on, the last suggestion is one to hold out.

    Parameters
    ----------
    scene
        The stack, what is painted, and what is known about its slices.
    strategy
        One of `STRATEGIES`. Without a prediction, 'unsure' and 'random' go by gray values.
    count
        Suggestions at most.
    seed
        Of 'random'.

    Returns
    -------
    tuple of Suggestion
        Best first; empty where every slice is painted.
    """
    wants_measure = not scene.held_out and len(scene.painted) >= _ENOUGH_TO_MEASURE
    rng = np.random.default_rng([seed, len(scene.painted)])
    suggestions: list[Suggestion] = []
    now, ranking = scene, _Ranking(scene, _weights(scene, strategy))
    for _ in range(count - wants_measure):
        ref = _drawn(now, rng) if strategy == "random" else ranking.take()
        if ref is None:
            break
        suggestions.append(Suggestion(ref, *_words(scene, strategy, ref, not suggestions)))
        now = replace(now, painted=now.painted | {ref})
    if wants_measure and (ref := _Ranking(now, _weights(now, "random")).take()) is not None:
        suggestions.append(Suggestion(ref, _measure_reason(scene), "To measure on", "measure"))
    return tuple(suggestions)


# --- weights ----------------------------------------------------------------------------------


def _weights(scene: Scene, strategy: Strategy) -> list[Floats]:
    """Weight of each slice, for each axis; the sum over an axis is 1."""
    known = scene.known()
    even = [np.full(n, 1 / n) for n in scene.shape]
    if strategy == "spread" or (known is None and scene.content is None):
        return even
    if known is None:
        assert scene.content is not None
        return [_share(np.asarray(c, float)) for c in scene.content]
    if strategy == "random":
        return [_stratified(known.amounts[axis]) for axis in range(3)]
    return [
        _UNSURE_SHARE * _stratified(known.unsure[axis]) + (1 - _UNSURE_SHARE) * even[axis]
        for axis in range(3)
    ]


def _stratified(sums: Floats) -> Floats:
    """The mean over the classes of the shares of the slices, so that rare classes count alike."""
    of_classes = [sums[:, c] for c in range(1, sums.shape[1]) if sums[:, c].sum() > 0]
    return np.mean([_share(c) for c in of_classes], 0) if of_classes else _share(sums.sum(1))


def _share(values: Floats) -> Floats:
    total = values.sum()
    share: Floats = values / total if total > 0 else np.full(len(values), 1 / len(values))
    return share


def _orientation(scene: Scene, axis: int) -> float:
    """How good the slices of an orientation are to paint: 1 for the best.

    Small slices say less, and those with long voxels are hard to read.
    """
    areas = [math.prod(scene.shape) / n for n in scene.shape]
    sizes = [s for a, s in enumerate(scene.voxel_size) if a != axis]
    aspect = min(1.0, _USUAL_ASPECT * min(sizes) / max(sizes))
    return aspect * math.sqrt(areas[axis] / max(areas))


# --- choices ----------------------------------------------------------------------------------


class _Ranking:
    """Takes one slice after the other, each time the best one, as if the others were painted."""

    def __init__(self, scene: Scene, weights: Sequence[Floats]) -> None:
        self._time, self._weights = scene.time, weights
        self._painted = [_indices(scene, axis) for axis in range(3)]
        self._worth = [_orientation(scene, axis) for axis in range(3)]
        # The best orientation comes first, and is taken where another one is not better.
        self._axes = sorted(range(3), key=lambda axis: -self._worth[axis])
        self._best = [self._best_of(axis) for axis in range(3)]

    def take(self) -> SliceRef | None:
        """The slice that covers most of the weight that is not covered; None without any."""
        chosen: tuple[float, int, int] | None = None
        for axis in self._axes:
            best = self._best[axis]
            if best is not None and (chosen is None or best[0] > chosen[0] * (1 + 1e-9)):
                chosen = best[0], axis, best[1]
        if chosen is None:
            return None
        _, axis, index = chosen
        self._painted[axis] = sorted([*self._painted[axis], index])
        self._best[axis] = self._best_of(axis)
        return SliceRef(axis, index, self._time)

    def _best_of(self, axis: int) -> tuple[float, int] | None:
        candidates, gains = _gains(self._weights[axis], self._painted[axis])
        if not len(candidates):
            return None
        # Of equals the middle one: the sums differ by rounding only.
        top = np.flatnonzero(gains >= gains.max() * (1 - 1e-9))
        i = int(top[len(top) // 2])
        return float(gains[i]) * self._worth[axis], int(candidates[i])


def _gains(weights: Floats, painted: Sequence[int]) -> tuple[NDArray[np.intp], Floats]:
    """Slices that are not painted, and how much uncovered weight each would cover."""
    n = len(weights)
    places = np.unique(np.linspace(0, n - 1, min(n, _POSITIONS)).round().astype(np.intp))
    at = weights[places]
    reach = n / (len(painted) + 2)
    covered = np.zeros(len(places))
    if len(painted):
        distance = np.abs(places[:, None] - np.asarray(painted)).min(1)
        covered = np.maximum(0, 1 - distance / reach)
    candidates = np.setdiff1d(places, painted)
    if not len(candidates):
        candidates = np.setdiff1d(np.arange(n), painted)[:1]
    cover = np.maximum(0, 1 - np.abs(candidates[:, None] - places) / reach)
    return candidates, (np.maximum(0, cover - covered) * at).sum(1)


def _drawn(scene: Scene, rng: np.random.Generator) -> SliceRef | None:
    """A slice at random, in proportion to the amount of the classes on it."""
    weights = _weights(scene, "random")
    free = []
    for axis, weight in enumerate(weights):
        weight = weight.copy()
        weight[_indices(scene, axis)] = 0
        free.append(weight)
    # An orientation that is hard to paint is drawn as rarely as the other strategies choose it.
    chance = [_orientation(scene, a) ** 4 * (free[a].sum() > 0) for a in range(3)]
    if not sum(chance):
        return None
    axis = int(rng.choice(3, p=np.array(chance) / sum(chance)))
    index = int(rng.choice(len(free[axis]), p=free[axis] / free[axis].sum()))
    return SliceRef(axis, index, scene.time)


def _indices(scene: Scene, axis: int) -> list[int]:
    """Positions of the painted slices of an orientation."""
    return sorted(r.index for r in scene.painted if r.axis == axis and r.time == scene.time)


# --- words ------------------------------------------------------------------------------------


def _words(scene: Scene, strategy: Strategy, ref: SliceRef, first: bool) -> tuple[str, str]:
    """Why a slice is suggested: words that follow "because", and a few words for a list."""
    if strategy == "random":
        return _drawn_words(scene, ref)
    gap, brief_gap = _gap(scene, ref)
    known = scene.known()
    by_content = strategy == "unsure" and known is None and scene.content is not None
    if not any(r.time == scene.time for r in scene.painted):
        where = "it lies in the middle" if first else "it is far from the suggestions before it"
        where = "much varies on it and around it" if first and by_content else where
        return f"{where}, and nothing is painted yet", "Nothing painted yet"
    if by_content:
        return f"much varies around it, and {gap}", brief_gap
    if strategy == "spread" or known is None:
        return gap, brief_gap
    ratios = _ratios(known.unsure[ref.axis], ref.index)
    ranked = sorted(zip(ratios, scene.class_names, strict=True), reverse=True)
    names = [f"'{name}'" for ratio, name in ranked if ratio >= _MUCH][:2]
    if not names:
        return f"{gap}, and no slice is much less sure than the others", brief_gap
    verb = either(len(names), "is", "are")
    brief = f"{', '.join(names)} unsure"
    return f"{joined(names)} {verb} unsure here, and {gap}", brief


def _drawn_words(scene: Scene, ref: SliceRef) -> tuple[str, str]:
    known = scene.known()
    amounts = None if known is None else known.amounts[ref.axis]
    if amounts is None or not amounts[ref.index, 1:].any():
        return "it was drawn at random", "Drawn at random"
    name = scene.class_names[int(np.argmax(_ratios(amounts, ref.index)))]
    return f"it was drawn at random, and '{name}' is likely on it", f"Drawn, '{name}' is likely"


def _measure_reason(scene: Scene) -> str:
    every = "every class is likely on it" if scene.known() is not None else "it is a typical slice"
    return f"no slice is held out to measure on, and {every}"


def _ratios(sums: Floats, index: int) -> list[float]:
    """For each class, the value of a slice relative to the mean of all slices."""
    means = sums.mean(0)
    return [float(sums[index, c] / means[c]) if means[c] else 0.0 for c in range(1, sums.shape[1])]


def _gap(scene: Scene, ref: SliceRef) -> tuple[str, str]:
    """How far the nearest painted slice of the orientation is, in a clause and in a few words."""
    painted = _indices(scene, ref.axis)
    if not painted:
        words = f"no {PLANE_NAMES[ref.axis]} slice is painted yet"
        return words, f"No {PLANE_NAMES[ref.axis]} slice yet"
    near = min(painted, key=lambda i: abs(i - ref.index))
    slices = abs(near - ref.index)
    far = brief = counted(slices, "slice")
    if scene.unit != "pixel":
        brief = f"{slices * scene.voxel_size[ref.axis]:.3g} {scene.unit}"
        far += f" ({brief})"
    name = f"{AXIS_NAMES[ref.axis]}={near}"
    return f"the nearest painted slice, {name}, is {far} away", f"{brief} from {name}".capitalize()
