"""Random warps and gray-value changes of training patches, on the training device.

A warp is drawn as a handful of numbers on the CPU (`draw_warp`); where a patch takes its
voxels from, and the resampling, are computed on the device in one pass (`Warp.sample`), so
that rotation, scaling and deformation together blur the image only once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_unet3d.config import AugmentationConfig, Triple, VoxelSize

_ISOTROPIC = 1.5
"""Axes whose voxel sizes differ by less than this factor may be turned into each other."""


@dataclass(frozen=True)
class Warp:
    """Where each voxel of a patch comes from: ``center + matrix · offset + displacement``.

    Attributes
    ----------
    shape
        Patch (z, y, x), voxels.
    center
        Center of the patch in the volume, voxel index.
    matrix
        3×3, from offsets in the patch to offsets in the volume, voxels.
    controls
        (3, gz, gy, gx) displacements of the B-spline control points, voxels, or None.
    spacing
        Voxels between control points, for each axis.
    """

    shape: Triple
    center: tuple[float, float, float]
    matrix: NDArray[np.float64]
    controls: NDArray[np.float64] | None = None
    spacing: tuple[float, float, float] = (32.0, 32.0, 32.0)

    def bounds(self, volume_shape: Triple) -> tuple[Triple, Triple]:
        """Start and stop of the part of the volume that the patch needs."""
        half = (np.asarray(self.shape) - 1) / 2
        reach = np.abs(self.matrix) @ half + 2
        if self.controls is not None:
            reach += np.abs(self.controls).max(axis=(1, 2, 3))
        low = np.floor(np.asarray(self.center) - reach).astype(int)
        high = np.ceil(np.asarray(self.center) + reach).astype(int) + 1
        limit = np.asarray(volume_shape)
        low = np.clip(low, 0, limit - 1)
        high = np.clip(high, low + 1, limit)
        return _triple(low), _triple(high)

    def coordinates(self, device: torch.device) -> Tensor:
        """(3, Z, Y, X) voxel indices in the volume, float32."""
        matrix = torch.as_tensor(self.matrix, dtype=torch.float32, device=device)
        out = torch.tensor(self.center, dtype=torch.float32, device=device).view(3, 1, 1, 1)
        for axis, n in enumerate(self.shape):
            offset = torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2
            view = [1, 1, 1, 1]
            view[axis + 1] = n
            out = out + matrix[:, axis].view(3, 1, 1, 1) * offset.view(view)
        if self.controls is not None:
            controls = torch.as_tensor(self.controls, dtype=torch.float32, device=device)
            for n, step in zip(self.shape, self.spacing, strict=True):
                basis = torch.as_tensor(
                    spline_basis(n, step, controls.shape[1]),
                    dtype=torch.float32,
                    device=device,
                )
                controls = torch.tensordot(controls, basis, dims=([1], [1]))
            # tensordot moved z, y, x to the end one by one: the order is right again.
            out = out + controls
        return out

    def sample(
        self, image: Tensor, target: Tensor, start: Triple, volume_shape: Triple
    ) -> tuple[Tensor, Tensor]:
        """Resample a crop of the volume: the image linearly, the target by nearest voxel.

        Parameters
        ----------
        image
            (C, z, y, x), the crop given by `bounds`.
        target
            (z, y, x) uint8, 0 unlabelled; same crop.
        start
            Voxel index of the crop's first voxel in the volume.
        volume_shape
            Shape of the whole volume; what lies outside it is unlabelled.

        Returns
        -------
        image, target
            (C, Z, Y, X) and (Z, Y, X), the patch.
        """
        where = self.coordinates(image.device)
        limit = torch.tensor(volume_shape, device=image.device).view(3, 1, 1, 1)
        inside = ((where > -0.5) & (where < limit - 0.5)).all(0)
        size = torch.tensor(image.shape[1:], device=image.device).view(3, 1, 1, 1)
        where = where - torch.tensor(start, device=image.device).view(3, 1, 1, 1)
        near = where.round().long().clamp_(min=torch.zeros_like(size), max=size - 1)
        flat = (near[0] * size[1] + near[1]) * size[2] + near[2]
        labels = target.reshape(-1)[flat] * inside
        grid = 2 * where / (size - 1).clamp(min=1) - 1
        patch = torch.nn.functional.grid_sample(
            image[None], grid.flip(0).movedim(0, -1)[None], padding_mode="border",
            align_corners=True,
        )  # fmt: skip
        return patch[0], labels


def spline_basis(n: int, spacing: float, n_controls: int) -> NDArray[np.float64]:
    """(n, n_controls) weights of a uniform cubic B-spline *approximation*.

    Interpolating through the control points would deform about 2.7 times more than the
    paper does (Çiçek et al. 2016, sec. 3; basis functions from the authors' released code).
    """
    at = np.arange(n) / spacing
    first = np.floor(at).astype(int)
    x = at - first
    weights = np.stack(
        [(1 - x) ** 3, 3 * x**3 - 6 * x**2 + 4, -3 * x**3 + 3 * x**2 + 3 * x + 1, x**3]
    )
    basis = np.zeros((n, n_controls))
    for i in range(4):
        basis[np.arange(n), first + i] = weights[i] / 6
    return basis


def draw_warp(
    rng: np.random.Generator,
    config: AugmentationConfig,
    shape: Triple,
    center: tuple[float, float, float],
    voxel_size: VoxelSize,
    thin_axis: int,
) -> Warp:
    """Draw a random warp of a patch.

    Parameters
    ----------
    rng
        Source of randomness.
    config
        How much.
    shape, center
        Of the patch, voxels.
    voxel_size
        (z, y, x); rotations and scalings act in physical space.
    thin_axis
        Axis perpendicular to the annotated slice: large rotations turn around it.
    """
    size = np.asarray(voxel_size, float)
    matrix = np.eye(3)
    controls = None
    spacing = np.full(3, float(config.deformation_spacing))
    if rng.random() < config.spatial_share:
        rotation = np.eye(3)
        for axis in range(3):
            a, b = (i for i in range(3) if i != axis)
            even = max(size[a], size[b]) < _ISOTROPIC * min(size[a], size[b])
            largest = config.rotation if axis == thin_axis and even else config.tilt
            angle = np.deg2rad(rng.uniform(-largest, largest))
            turn = np.eye(3)
            turn[a, a] = turn[b, b] = np.cos(angle)
            turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
            rotation = turn @ rotation
        factor = np.exp(rng.uniform(-1, 1) * -np.log1p(-config.scaling))
        matrix = np.diag(1 / size) @ rotation @ np.diag(size) * factor
        if config.deformation > 0:
            # The paper's voxels are almost cubic: its numbers are in units of the finest.
            relative = size.min() / size
            spacing = np.maximum(config.deformation_spacing * relative, 4.0)
            grid = [int((n - 1) // step) + 4 for n, step in zip(shape, spacing, strict=True)]
            controls = rng.normal(0, config.deformation, (3, *grid)) * relative[:, None, None, None]
    if config.flips:
        matrix = matrix * rng.choice([-1.0, 1.0], 3)
    return Warp(shape, center, matrix, controls, (spacing[0], spacing[1], spacing[2]))


def change_gray_values(
    image: Tensor, config: AugmentationConfig, rng: np.random.Generator, noise: torch.Generator
) -> Tensor:
    """Change contrast, brightness and gamma and add noise to a normalized (C, Z, Y, X) patch."""
    for channel in image:
        gamma = np.exp(rng.uniform(-1, 1) * np.log1p(config.gamma))
        contrast = 1 + rng.uniform(-config.contrast, config.contrast)
        shift = rng.uniform(-config.brightness, config.brightness)
        if config.gamma > 0:
            low, high = channel.amin(), channel.amax()
            span = (high - low).clamp(min=1e-6)
            channel.sub_(low).div_(span).clamp_(min=0).pow_(gamma).mul_(span).add_(low)
        channel.mul_(contrast).add_(shift)
    std = rng.uniform(0, config.noise)
    if std > 0:
        # Drawn in blocks of the patch's own device: no transfer, no wait.
        image.add_(torch.randn(image.shape, generator=noise, device=image.device), alpha=std)
    return image


def _triple(values: NDArray[np.int_]) -> Triple:
    return int(values[0]), int(values[1]), int(values[2])
