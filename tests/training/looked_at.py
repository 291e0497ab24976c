"""Looks at a network that has learned nothing, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.samples import Sample
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.networks.device import Precision
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.learner import Learner
from napari_unet3d.training.limits import LookLimits
from napari_unet3d.training.listening import Listener
from napari_unet3d.training.looks import Looks
from napari_unet3d.training.plan import plan_training

HELD = (SliceRef(0, 5), SliceRef(0, 11))
SMALL_TILES = LookLimits(cpu_tile=2048, look_voxels=2048, statistics_voxels=2048)


class CountedLabels:
    """Labels that count how many of their voxels are read."""

    def __init__(self, labels: np.ndarray) -> None:
        self.labels, self.shape, self.dtype, self.read = labels, labels.shape, labels.dtype, 0

    def __getitem__(self, key: Any) -> np.ndarray:
        part = self.labels[key]
        self.read += part.size
        return part


def look_at(
    sample: Sample,
    hidden: Sequence[tuple[SliceRef, Any]] = (),
    precision: Precision = "fp32",
    **limits: Any,
) -> tuple[Looks, CountedLabels]:
    """Looks at a network that has learned nothing, and the labels that they read from now on.

    Parameters
    ----------
    sample
        The stack; `HELD` are held out.
    hidden
        Parts of these slices whose labels are erased.
    precision
        Of the network.
    limits
        Replace those of `SMALL_TILES`.
    """
    labels = sample.annotate((*sample.training_slices, *HELD))
    for ref, box in hidden:
        labels[ref.index][box] = 0
    annotation = SparseAnnotation(labels, sample.classes, frozenset(HELD))
    config = TrainingConfig(device="cpu", precision=precision)
    plan = plan_training(sample.image, annotation, config)
    counted = CountedLabels(labels)
    plan = replace(
        plan,
        annotation=replace(plan.annotation, labels=counted),
        limits=replace(SMALL_TILES, **limits),
    )
    return Looks(Learner(plan, Listener(TrainingControl())), lambda: False), counted
