"""Training patches around labelled voxels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from napari_unet3d.config import AugmentationConfig, Triple
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.labelled_voxels import LabelledVoxels
from napari_unet3d.networks.resampling import to_device
from napari_unet3d.sampling.augmentation import Warp, change_gray_values, draw_warp
from napari_unet3d.sampling.source import Source

_TRIALS = 4
"""Warps drawn for a patch until it holds a labelled voxel: a warp that is tilted, scaled or near
the border of the volume may lose the only stroke."""


class PatchSampler:
    """Draws patches that hold labelled voxels; batch `i` depends on seed and `i` only.

    Every patch is placed around a labelled voxel, as in the authors' released code of
    Çiçek et al. 2016; a share of them around a voxel of a class drawn uniformly, so that
    rare classes are seen.

    Parameters
    ----------
    source
        Gray values of the stack; its device is the device of the patches.
    annotation
        Labels of the stack, read crop by crop.
    margin
        Voxels (z, y, x) by which the output of the network is smaller than its input.
    rare_share
        Share of the patches that are placed around a voxel of a class drawn uniformly.
    seed
        Seed of everything random.
    slices
        The labelled voxels, where they are known already; None searches the annotation.
    """

    def __init__(
        self,
        source: Source,
        annotation: SparseAnnotation,
        margin: Triple = (0, 0, 0),
        rare_share: float = 0.33,
        seed: int = 0,
        slices: tuple[LabelledVoxels, ...] | None = None,
    ) -> None:
        self.source, self.annotation = source, annotation
        self.rare_share, self.seed = rare_share, seed
        self.slices = annotation.labelled_voxels() if slices is None else slices
        self._margin = margin
        self._counts = self._count()

    def adopt(self, annotation: SparseAnnotation, slices: tuple[LabelledVoxels, ...]) -> None:
        """Draw from another annotation of the same stack and classes from now on."""
        self.annotation, self.slices = annotation, slices
        self._counts = self._count()

    def _count(self) -> np.ndarray:
        """(slices, codes): labelled voxels before thinning, the weights of a draw."""
        codes = range(len(self.annotation.classes) + 2)
        return np.array([[s.counts.get(code, 0) for code in codes] for s in self.slices], float)

    @property
    def class_counts(self) -> np.ndarray:
        """(K,) labelled voxels of background and each class, without held-out slices."""
        counts: np.ndarray = self._counts.sum(0)[1:]
        return counts

    def batch(
        self,
        number: int,
        size: int,
        shapes: Mapping[int, Triple],
        augmentation: AugmentationConfig | None,
    ) -> tuple[Tensor, Tensor]:
        """Draw a batch; all its patches are thin along the same axis.

        Parameters
        ----------
        number
            Number of the batch, which with the seed decides everything random.
        size
            Patches of the batch.
        shapes
            Patch (z, y, x) in voxels for annotated slices perpendicular to axis 0, 1 and 2.
        augmentation
            Random changes of the patches; None gives plain crops.

        Returns
        -------
        images, targets
            (N, C, Z, Y, X) float32 and (N, Z', Y', X') uint8. Targets are 0 where unlabelled,
            output index + 1 elsewhere.
        """
        device, volume = self.source.device, self.source.volume
        rng = np.random.default_rng([self.seed, number, augmentation is None])
        noise = torch.Generator(device).manual_seed(int(rng.integers(2**31)))
        images, targets = [], []
        axis: int | None = None
        for _ in range(size):
            time, voxel, axis = self._draw(rng, axis)
            for _ in range(_TRIALS):
                warp = self._place(rng, voxel, axis, shapes[axis], augmentation)
                start, stop = warp.bounds(volume.shape)
                codes = self.annotation.training_crop(time, start, stop)
                image, target = warp.sample(
                    self.source.crop(time, start, stop),
                    to_device(codes, device),
                    start,
                    volume.shape,
                )
                for a, (n, m) in enumerate(zip(warp.shape, self._margin, strict=True)):
                    target = target.narrow(a, m // 2, n - m)
                if device.type == "cpu":
                    labelled = bool(target.any())
                else:
                    # The drawn voxel is 0 in the crop if its paint was erased meanwhile.
                    drawn = codes[tuple(voxel - np.asarray(start))]
                    labelled = bool(drawn) and warp.covers(voxel, self._margin)
                if labelled:
                    break
            if augmentation is not None:
                image = change_gray_values(image, augmentation, rng, noise)
            images.append(image)
            targets.append(target)
        return torch.stack(images), torch.stack(targets)

    def _draw(self, rng: np.random.Generator, axis: int | None) -> tuple[int, np.ndarray, int]:
        """Time point, labelled voxel, and the axis its slice is perpendicular to."""
        counts = self._counts
        if axis is not None:
            counts = counts * np.array([[s.ref.axis == axis] for s in self.slices])
        if rng.random() < self.rare_share:
            code = int(rng.choice(np.flatnonzero(counts.sum(0))))
            row = _pick(rng, counts[:, code])
        else:
            row = _pick(rng, counts.sum(1))
            code = _pick(rng, counts[row])
        chosen = self.slices[row]
        voxels = chosen.of_class(code)
        return chosen.ref.time, voxels[rng.integers(len(voxels))], chosen.ref.axis

    def _place(
        self,
        rng: np.random.Generator,
        voxel: np.ndarray,
        axis: int,
        shape: Triple,
        augmentation: AugmentationConfig | None,
    ) -> Warp:
        center = voxel.astype(float)
        if not any(self._margin):
            # Padded networks learn from the whole patch: the voxel may lie off its center,
            # and the patch is kept inside the volume.
            center = center + rng.uniform(-0.25, 0.25, 3) * shape
            for a, (n, total) in enumerate(zip(shape, self.source.volume.shape, strict=True)):
                low, high = (n - 1) / 2, total - 1 - (n - 1) / 2
                center[a] = np.clip(center[a], low, high) if low <= high else (total - 1) / 2
        # Whole steps, so that a patch that is not warped is not blurred either.
        half = np.array([(n - 1) / 2 % 1 for n in shape])
        center = np.floor(center - half + 0.5) + half
        where = (float(center[0]), float(center[1]), float(center[2]))
        if augmentation is None:
            return Warp(shape, where, np.eye(3))
        return draw_warp(rng, augmentation, shape, where, self.source.volume.voxel_size, axis)


def _pick(rng: np.random.Generator, weights: np.ndarray) -> int:
    return int(rng.choice(len(weights), p=weights / weights.sum()))
