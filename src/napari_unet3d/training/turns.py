"""A stack that a network is trained on, and what is drawn from it."""

from __future__ import annotations

import torch
from torch import Tensor

from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.errors import RunFailedError
from napari_unet3d.networks.geometry import shrink
from napari_unet3d.networks.planning import halve
from napari_unet3d.sampling.patches import PatchSampler
from napari_unet3d.sampling.source import open_source
from napari_unet3d.training.losses import balanced_weights
from napari_unet3d.training.plan import TrainingPlan

Batch = tuple[Tensor, Tensor]
"""Images (N, C, Z, Y, X) float32 and targets (N, Z', Y', X') uint8, on the device."""


class Turn:
    """One of the stacks that train a network; usually there is one.

    Parameters
    ----------
    plan
        The training on this stack.

    Attributes
    ----------
    plan
        The training on this stack; another one after slices have joined.
    sampler
        Draws the batches.
    patches
        Patches in use, by the axis of the annotated slice.
    class_weights
        (K,) weights of the classes; None weighs all alike.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        self.plan = plan
        self.sampler = PatchSampler(
            open_source(plan.volume, plan.intensity, plan.device),
            plan.annotation,
            shrink(plan.network),
            plan.config.rare_share,
            plan.config.seed,
            plan.slices,
        )
        self._small_patches, self._patches = dict(plan.small_patches), dict(plan.patches)
        self.patches = self._patches
        self.class_weights = self._make_class_weights()

    def adopt(self, plan: TrainingPlan) -> None:
        """Train on the annotation of another plan from now on, which is the same otherwise."""
        self.plan = plan
        self.sampler.adopt(plan.annotation, plan.slices)
        weights = self._make_class_weights()
        if self.class_weights is not None and weights is not None:
            self.class_weights.copy_(weights)  # in place: recordings read them there

    def draw(self, iteration: int, fraction: float) -> Batch:
        """The batch of an iteration, when `fraction` of the budget is used."""
        config = self.plan.config
        small = fraction < config.small_patch_share
        self.patches = self._small_patches if small else self._patches
        batch_size = self.plan.batch_size
        return self.sampler.batch(iteration, batch_size, self.patches, config.augmentation)

    def halve_patches(self, reason: str) -> None:
        """Take half of the patch from now on.

        Parameters
        ----------
        reason
            What is said about the memory that did not suffice.

        Raises
        ------
        RunFailedError
            The patch cannot be smaller.
        """
        for axis in self.plan.axes:
            patch = self.patches[axis]
            smaller = halve(self.plan.network, patch)
            if smaller is None:
                raise RunFailedError(
                    f"out of memory: even a patch of {describe_shape(patch)} voxels does not "
                    f"fit; close other programs, or choose the preset 'fast' ({reason})"
                )
            self.patches[axis] = smaller

    def _make_class_weights(self) -> Tensor | None:
        if self.plan.config.class_weights != "balanced":
            return None
        counts = torch.as_tensor(self.plan.class_counts, dtype=torch.float32)
        return balanced_weights(counts).to(self.plan.device)
