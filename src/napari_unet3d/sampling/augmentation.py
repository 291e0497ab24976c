"""Random warps and gray-value changes of training patches, on the training device.

A warp is drawn as a handful of numbers on the CPU (`draw_warp`) and carried out on the device in
one resampling (`Warp.sample`), so that rotation, scaling and deformation together blur the image
only once. Nothing here waits for a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from napari_unet3d.config import AugmentationConfig, Triple, VoxelSize
from napari_unet3d.networks.resampling import all_to_device, sample_linearly

_ISOTROPIC = 1.5
"""Ratio of two voxel sizes. Below it, a patch may be turned by any angle in the plane of the two
axes; above it only by `tilt`, since the axes differ too much in resolution."""

_FIXED_POINT_STEPS = 3
"""Steps that invert a deformation at one voxel. The slope of a deformation is far below 1, so the
error falls below a tenth of a voxel."""


@dataclass(frozen=True)
class Warp:
    """The source of each voxel of a patch: ``center + matrix · offset + displacement``.

    Attributes
    ----------
    shape
        Shape of the patch (z, y, x), voxels.
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
        offsets = [np.arange(n, dtype=np.float32) - (n - 1) / 2 for n in self.shape]
        bases: list[NDArray[np.float64]] = []
        if self.controls is not None:
            bases = [
                spline_basis(n, step, count)
                for n, step, count in zip(
                    self.shape, self.spacing, self.controls.shape[1:], strict=True
                )
            ]
        given: list[ArrayLike] = [self.matrix, self.center, *offsets, *bases]
        if self.controls is not None:
            given.append(self.controls)
        matrix, center, *axes = all_to_device(given, device)
        out = center.view(3, 1, 1, 1)
        for axis, offset in enumerate(axes[:3]):
            view = [1, 1, 1, 1]
            view[axis + 1] = -1
            out = out + matrix[:, axis].view(3, 1, 1, 1) * offset.view(view)
        if self.controls is not None:
            controls = axes[-1]
            for basis in axes[3:-1]:
                controls = torch.tensordot(controls, basis, dims=([1], [1]))
            # tensordot moved z, y and x to the end one by one, so they are in order again.
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
            Shape of the whole volume; voxels outside it are unlabelled.

        Returns
        -------
        image, target
            (C, Z, Y, X) and (Z, Y, X), the patch.
        """
        where = self.coordinates(image.device)
        inside = torch.ones(self.shape, dtype=torch.bool, device=image.device)
        flat = torch.zeros(self.shape, dtype=torch.long, device=image.device)
        for index, first, n, total in zip(where, start, target.shape, volume_shape, strict=True):
            inside &= (index > -0.5) & (index < total - 0.5)
            index -= first
            flat.mul_(n).add_(index.round().long().clamp_(0, n - 1))
        labels = target.reshape(-1)[flat] * inside
        return sample_linearly(image, where), labels

    def covers(self, voxel: NDArray[np.integer[Any]], margin: Triple) -> bool:
        """Whether a voxel of the volume comes to lie in the patch without its margin.

        Computed for this one voxel on the CPU: a GPU cannot be asked about a patch without
        waiting for all the work before it.

        Parameters
        ----------
        voxel
            Voxel index (z, y, x) in the volume.
        margin
            Voxels (z, y, x) by which the output of the network is smaller than the patch.
        """
        half = (np.asarray(self.shape) - 1) / 2
        inverse = np.linalg.inv(self.matrix)
        offset = inverse @ (voxel - np.asarray(self.center))
        for _ in range(_FIXED_POINT_STEPS if self.controls is not None else 0):
            moved = self._displacement(np.clip(offset + half, 0, 2 * half))
            offset = inverse @ (voxel - np.asarray(self.center) - moved)
        return bool((np.abs(offset) <= half - np.asarray(margin) / 2 + 0.5).all())

    def _displacement(self, place: NDArray[np.float64]) -> NDArray[np.float64]:
        """(3,) displacement, voxels, at one place (z, y, x) of the patch."""
        assert self.controls is not None
        first = [int(index / step) for index, step in zip(place, self.spacing, strict=True)]
        z, y, x = (
            _cubic(index / step - low) / 6
            for index, step, low in zip(place, self.spacing, first, strict=True)
        )
        # Only the four nearest control points along an axis have a weight.
        near = self.controls[(slice(None), *(slice(low, low + 4) for low in first))]
        moved: NDArray[np.float64] = near @ x @ y @ z
        return moved


def spline_basis(n: int, spacing: float, n_controls: int) -> NDArray[np.float64]:
    """(n, n_controls) weights of a uniform cubic B-spline *approximation*.

    An interpolation through the control points would deform 2.7 times more than the paper does
    (Çiçek et al. 2016, sec. 3; basis functions from the authors' released code).
    """
    at = np.arange(n) / spacing
    first = np.floor(at).astype(int)
    weights = _cubic(at - first)
    basis = np.zeros((n, n_controls))
    for i in range(4):
        basis[np.arange(n), first + i] = weights[i] / 6
    return basis


def _cubic(x: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """(4, …) weights, times 6, of four control points at 0…1 between the middle two."""
    return np.array([(1 - x) ** 3, 3 * x**3 - 6 * x**2 + 4, -3 * x**3 + 3 * x**2 + 3 * x + 1, x**3])


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
        Strength of each change.
    shape
        Shape of the patch (z, y, x), voxels.
    center
        Center of the patch in the volume, voxel index.
    voxel_size
        (z, y, x), any unit; rotations and scalings act in physical space.
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
            # The paper's voxels are almost cubic: its numbers are taken in units of the finest.
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
    """Change contrast, brightness and gamma of a normalized (C, Z, Y, X) patch, and add noise.

    The patch itself is changed and returned. `noise` draws on the device of the patch, so that
    nothing is copied.
    """
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
        image.add_(torch.randn(image.shape, generator=noise, device=image.device), alpha=std)
    return image


def _triple(values: NDArray[np.int_]) -> Triple:
    return int(values[0]), int(values[1]), int(values[2])
