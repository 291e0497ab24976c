"""Features of voxels: smoothed gray value, edges and curvature at four scales.

These are the features of interactive pixel classification (Berg et al. 2019, ilastik).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_unet3d.config import Triple, VoxelSize

SCALES = (1.0, 2.0, 4.0, 8.0)
"""Voxels, standard deviations of the Gaussians. A fifth scale of 16 helps on two stacks and costs
up to 0.07 IoU on five others."""
PER_SCALE = 5
"""Features of a scale: smoothed gray value, length of the gradient, three eigenvalues of the
Hessian."""
_CUTOFF = 3
"""Standard deviations beyond which a Gaussian is cut off; 0.3 % of it lie there."""
_ISOTROPIC_RATIO = 2.0
"""Ratio of two voxel sizes. Voxels that are up to twice as large along an axis count as isotropic,
since microscopes resolve less along z: the IoU of plant cells rises by 0.03."""

Read = Callable[[tuple[int, ...], tuple[int, ...]], Tensor]
"""Reads gray values (C, z, y, x) from start to stop, which may lie outside the volume."""


def feature_count(channels: int) -> int:
    """Number of features of a voxel in an image of so many channels."""
    return channels * (1 + PER_SCALE * len(SCALES))


def filter_bank(read: Read, start: Triple, stop: Triple, voxel_size: VoxelSize) -> Tensor:
    """Features of all voxels of a box.

    Coarse scales are computed on down-sampled crops, so that they cost no more than fine ones.

    Parameters
    ----------
    read
        Reads normalized gray values of the box and its halo, once for each scale and once more.
    start, stop
        The box, voxels (z, y, x).
    voxel_size
        (z, y, x) in any unit. Along an axis whose voxels are more than twice as large as the
        finest, the Gaussians span fewer voxels.

    Returns
    -------
    Tensor
        (features, z, y, x) float32, of the same order of magnitude as the gray values.
    """
    finest = min(voxel_size)
    relative = [min(1.0, _ISOTROPIC_RATIO * finest / size) for size in voxel_size]
    box = tuple(b - a for a, b in zip(start, stop, strict=True))
    image = read(start, stop)
    features = image.new_empty((feature_count(len(image)), *box))
    features[: len(image)] = image
    row = len(image)
    for scale in SCALES:
        sigma = [scale * r for r in relative]
        # Down-sampling leaves two voxels a standard deviation: enough for second derivatives.
        step = [max(1, 1 << int(np.log2(max(s / 2, 1)))) for s in sigma]
        halo = [f * int(np.ceil(_CUTOFF * s / f) + 3) for s, f in zip(sigma, step, strict=True)]
        # Down-sampled grids begin at multiples of the step, so that features of a voxel do not
        # depend on the box.
        extra = [a % f for a, f in zip(start, step, strict=True)]
        size = [-(-(n + e) // f) * f for n, e, f in zip(box, extra, step, strict=True)]
        low = tuple(a - e - h for a, e, h in zip(start, extra, halo, strict=True))
        high = tuple(a + n + 2 * h for a, n, h in zip(low, size, halo, strict=True))
        crop = read(low, high)
        if max(step) > 1:
            crop = functional.avg_pool3d(crop[None], step)[0]
        inner = [h // f for h, f in zip(halo, step, strict=True)]
        for channel in crop:
            remaining = [_remaining(s, f) / f for s, f in zip(sigma, step, strict=True)]
            maps = _maps(channel, remaining)
            for axis, (coarse_halo, n) in enumerate(zip(inner, size, strict=True), 1):
                # One voxel more on both sides, for the interpolation.
                maps = maps.narrow(axis, coarse_halo - 1, n // step[axis - 1] + 2)
            if max(step) > 1:
                whole = [n + 2 * f for n, f in zip(size, step, strict=True)]
                maps = functional.interpolate(maps[None], whole, mode="trilinear")[0]
            for axis, (f, e, n) in enumerate(zip(step, extra, box, strict=True), 1):
                maps = maps.narrow(axis, f + e, n)
            features[row : row + PER_SCALE] = maps
            row += PER_SCALE
    sign = features.sign()
    return features.abs_().log1p_().mul_(sign)  # compresses heavy tails


def _remaining(sigma: float, step: int) -> float:
    """Standard deviation that remains for a map that is averaged and interpolated over `step`."""
    if step == 1:
        return sigma
    return float(np.sqrt(sigma**2 - (step**2 - 1) / 12 - step**2 / 6))


def _maps(image: Tensor, sigma: list[float]) -> Tensor:
    """Features (5, z, y, x) of a scale; `sigma` is the smoothing along z, y, x in voxels."""
    smooth = image
    for axis, s in enumerate(sigma):
        smooth = _smooth(smooth, axis, s)
    # Derivatives per standard deviation are comparable between scales and between axes.
    first = [_derivative(smooth, axis) * s for axis, s in enumerate(sigma)]
    second = {(i, j): _derivative(first[i], j) * sigma[j] for i in range(3) for j in range(i, 3)}
    slope = (first[0] ** 2 + first[1] ** 2 + first[2] ** 2).sqrt()
    return torch.stack([smooth, slope, *_eigenvalues(second)])


def _smooth(image: Tensor, axis: int, sigma: float) -> Tensor:
    if sigma < 0.25:
        return image
    radius = max(1, int(np.ceil(_CUTOFF * sigma)))
    offset = torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    shape, padding = [1, 1, 1, 1, 1], [0, 0, 0]
    shape[2 + axis], padding[axis] = len(offset), radius
    kernel = (kernel / kernel.sum()).view(shape)
    # Each box has another shape, so a search for the fastest kernel costs more than it saves.
    # TF32 would round the features to three digits.
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        return functional.conv3d(image[None, None], kernel, padding=padding)[0, 0]


def _derivative(image: Tensor, axis: int) -> Tensor:
    n = image.shape[axis]
    inside = (image.narrow(axis, 2, n - 2) - image.narrow(axis, 0, n - 2)) / 2
    edge = torch.zeros_like(image.narrow(axis, 0, 1))  # lies in the halo
    return torch.cat([edge, inside, edge], axis)


def _eigenvalues(h: dict[tuple[int, int], Tensor]) -> list[Tensor]:
    """Eigenvalues of symmetric 3×3 matrices, largest first (Smith 1961, Commun. ACM 4, 168)."""
    mean = (h[0, 0] + h[1, 1] + h[2, 2]) / 3
    a, b, c = h[0, 0] - mean, h[1, 1] - mean, h[2, 2] - mean
    d, e, f = h[0, 1], h[0, 2], h[1, 2]
    off = d * d + e * e + f * f
    size = ((a * a + b * b + c * c + 2 * off) / 6).sqrt().clamp_(min=1e-12)
    determinant = a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)
    angle = torch.acos((determinant / (2 * size**3)).clamp_(-1, 1)) / 3
    largest = mean + 2 * size * torch.cos(angle)
    smallest = mean + 2 * size * torch.cos(angle + 2 * np.pi / 3)
    return [largest, 3 * mean - largest - smallest, smallest]
