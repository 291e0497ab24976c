"""Which trainings an experiment consists of: methods, slices, folds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from napari_unet3d.config import AugmentationConfig, TrainingConfig, Triple
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.networks import available_networks, kind_of
from napari_unet3d.reproduction.paper import COUNTS

Experiment = Literal["semi", "slices", "full", "family"]
EXPERIMENTS: tuple[Experiment, ...] = ("semi", "slices", "full", "family")
ScaleName = Literal["laptop", "paper"]

_ORIENTATIONS = (2, 1, 0)
"""Axes that slices of yz, xz and xy are perpendicular to, in the paper's order."""
_SLICES_OF_FOLDS = (6, 6, 6)
"""Slices of each orientation that the cross-validation annotates; the paper has 7, 5, 21."""
_FOLDS = 3
_MEASURED = (0.28, 0.72)
"""Places, as shares of an axis, of the slices that are measured while the annotated ones grow."""


@dataclass(frozen=True)
class Method:
    """A network and its settings.

    Attributes
    ----------
    key
        Name in files.
    title
        Name in tables.
    settings
        Changes of the training settings.
    """

    key: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def applied_to(self, config: TrainingConfig, seed: int) -> TrainingConfig:
        """The settings of a training with this method; it adds to those of the network."""
        of_network = (config.network_settings, self.settings.get("network_settings", ""))
        together = {"network_settings": "; ".join(filter(None, of_network))}
        return config.model_copy(update={**self.settings, **together, "seed": seed})


PAPER_METHODS = (
    Method("3d", "3D, no normalization", {"normalization": "none"}),
    Method("3d_norm", "3D, batch norm of the tile", {"normalization": "tile"}),
    Method(
        "2d_norm",
        "2D, batch norm of the slice",
        {"network": "unet_2d", "normalization": "tile", "network_settings": "orientation=mean"},
    ),
)
"""The three networks of the paper's tables. Batch norm uses the statistics of the current tile, or
slice, also in a prediction. The paper has one 2D network that is shown slices of all orientations;
ours has one for each orientation, and the mean of the three counts, so that each slice is seen in
its own orientation."""


def family(seconds: float) -> tuple[Method, ...]:
    """Every network as it is planned by default, trained for so many seconds."""
    budget = {"seconds": seconds, "iterations": None}
    return tuple(
        Method(kind_of(network), kind_of(network), {"network": kind_of(network), **budget})
        for network in available_networks()
    )


OWN_SETTINGS = ("seconds", "iterations", "seed", "network", "normalization")
"""Settings that the experiments set themselves."""

SCALES: Mapping[ScaleName, TrainingConfig] = MappingProxyType(
    {
        # The network is compared, so no pixel classifier stands beside it.
        "laptop": TrainingConfig(
            seconds=None, iterations=200, batch_size=1, pixel_classifier=False
        ),
        "paper": TrainingConfig(
            preset="paper",
            seconds=None,
            iterations=70_000,
            optimizer="sgd",
            batch_size=1,
            dice_share=0.0,
            class_weights="balanced",
            schedule="polynomial",
            weight_averaging=0.0,
            small_patch_share=0.0,
            rare_share=0.0,
            pixel_classifier=False,
            augmentation=AugmentationConfig(flips=False, noise=0.0, spatial_share=1.0),
        ),
    }
)
"""How long and how a training goes on. Iterations are counted, so that a table does not depend on
how fast the computer is, and a batch has one patch, whose statistics are those of batch norm.
'laptop': up to three minutes each on two cores. 'paper': stochastic gradient descent, batches of
one, weighted cross-entropy, patches centered on labelled voxels, 70,000 iterations, deformation by
B-splines (Çiçek et al. 2016, sec. 3). What is not published is ours: learning rate and its decay,
Nesterov's momentum, weight decay, warm-up, the limit of the gradient, class weights, the ranges of
rotation and gray values. The first bias begins at 0, not at the -0.1 of the released network."""


@dataclass(frozen=True)
class Trial:
    """One training and what it is measured on.

    Attributes
    ----------
    experiment
        Which table it belongs to.
    method
        What is trained.
    label
        Row or fold of the table, such as "fold 1" or "2, 2, 1".
    seed
        Seed of everything random.
    trained, measured
        Slices that are annotated, and those that are measured; not for `full`.
    left_out
        Number of the stack that is measured, for `full`.
    """

    experiment: Experiment
    method: Method
    label: str
    seed: int
    trained: tuple[SliceRef, ...] = ()
    measured: tuple[SliceRef, ...] = ()
    left_out: int = 0

    @property
    def key(self) -> str:
        """Name of the trial in files."""
        return f"{self.experiment}-{self.method.key}-{self.label.replace(', ', '_')}-{self.seed}"


def spread_slices(shape: Triple, counts: Sequence[int]) -> tuple[SliceRef, ...]:
    """So many slices of yz, xz and xy, evenly spaced; no more than the stack has."""
    refs = []
    for axis, wanted in zip(_ORIENTATIONS, counts, strict=True):
        n = min(wanted, shape[axis])
        refs += [SliceRef(axis, int((i + 0.5) * shape[axis] / n)) for i in range(n)]
    return tuple(refs)


def semi_automated(shape: Triple, methods: Iterable[Method], seeds: int) -> list[Trial]:
    """Cross-validation over slices: two thirds are annotated, one third is measured (Table 1)."""
    refs = spread_slices(shape, _SLICES_OF_FOLDS)
    return [
        Trial(
            "semi",
            method,
            f"fold {fold + 1}",
            seed,
            tuple(r for i, r in enumerate(refs) if i % _FOLDS != fold),
            tuple(r for i, r in enumerate(refs) if i % _FOLDS == fold),
        )
        for method in methods
        for fold in range(_FOLDS)
        for seed in range(seeds)
    ]


def by_slices(shape: Triple, method: Method, seeds: int) -> list[Trial]:
    """More and more annotated slices, measured on the same others (Table 2)."""
    annotated = {counts: spread_slices(shape, counts) for counts in COUNTS}
    taken = {ref for refs in annotated.values() for ref in refs}
    measured = []
    for axis in _ORIENTATIONS:
        for place in _MEASURED:
            free = (i for i in _nearest(int(place * shape[axis]), shape[axis]))
            index = next((i for i in free if SliceRef(axis, i) not in taken), None)
            if index is not None:
                measured.append(SliceRef(axis, index))
                taken.add(measured[-1])
    return [
        Trial("slices", method, ", ".join(map(str, counts)), seed, refs, tuple(measured))
        for counts, refs in annotated.items()
        for seed in range(seeds)
    ]


def fully_automated(stacks: int, methods: Iterable[Method], seeds: int) -> list[Trial]:
    """All stacks but one are trained on, the other one is measured (Table 3)."""
    return [
        Trial("full", method, f"stack {number + 1}", seed, left_out=number)
        for method in methods
        for number in range(stacks)
        for seed in range(seeds)
    ]


def compared(shape: Triple, seconds: float, seeds: int) -> list[Trial]:
    """Every network on the same slices for the same time."""
    trials = by_slices(shape, PAPER_METHODS[0], 1)
    last = trials[-1]
    return [
        Trial("family", method, f"{seconds:g} s", seed, last.trained, last.measured)
        for method in family(seconds)
        for seed in range(seeds)
    ]


def _nearest(middle: int, n: int) -> list[int]:
    """All indices of an axis, those near the middle first."""
    return sorted(range(n), key=lambda i: (abs(i - middle), i))
