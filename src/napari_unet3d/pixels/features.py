"""Features of voxels: smoothed gray value, edges and curvature at four or five scales.

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
"""Voxels, standard deviations of the Gaussians of every classifier. To a perceptron, a fifth scale
of 16 costs up to 0.07 IoU on five stacks and helps on two."""
MORE_SCALES = (*SCALES, 16.0)
"""The same of trees that were grown on several slices, see `pixels.fit.scales_of_trees`."""
PER_SCALE = 5
"""Features of a scale: smoothed gray value, length of the gradient, three eigenvalues of the
Hessian."""
_CUTOFF = 3
"""Standard deviations beyond which a Gaussian is cut off; 0.3 % of it lie there."""
_ISOTROPIC_RATIO = 2.0
"""Ratio of two voxel sizes. Voxels that are up to twice as large along an axis count as isotropic,
since microscopes resolve less along z: the IoU of plant cells rises by 0.03."""

Scales = tuple[float, ...]
"""Voxels: standard deviations of Gaussians, ascending."""

Read = Callable[[tuple[int, ...], tuple[int, ...]], Tensor]
"""Reads gray values (C, z, y, x) from start to stop, which may lie outside the volume."""


def feature_count(channels: int, scales: Scales = SCALES) -> int:
    """Number of features of a voxel in an image of so many channels."""
    return channels * (1 + PER_SCALE * len(scales))


def halo(voxel_size: VoxelSize, scales: Scales = SCALES) -> Triple:
    """Voxels (z, y, x) around a box from which `filter_bank` reads, at most."""
    widest = [0, 0, 0]
    for scale in scales:
        for axis, s in enumerate(_sigma(scale, voxel_size)):
            step = _step(s)
            # A grid may begin and end up to a step beyond the box.
            widest[axis] = max(widest[axis], _halo(s, step) + step)
    return widest[0], widest[1], widest[2]


def filter_bank(
    read: Read, start: Triple, stop: Triple, voxel_size: VoxelSize, scales: Scales = SCALES
) -> Tensor:
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
    scales
        Standard deviations of the Gaussians.

    Returns
    -------
    Tensor
        (features, z, y, x) float32, of the same order of magnitude as the gray values: first the
        gray values, then the features of each scale, so that those of more scales begin with
        those of fewer.
    """
    box = tuple(b - a for a, b in zip(start, stop, strict=True))
    image = read(start, stop)
    features = image.new_empty((feature_count(len(image), scales), *box))
    features[: len(image)] = image
    row = len(image)
    for scale in scales:
        sigma = _sigma(scale, voxel_size)
        step = [_step(s) for s in sigma]
        around = [_halo(s, f) for s, f in zip(sigma, step, strict=True)]
        # Down-sampled grids begin at multiples of the step, so that features of a voxel do not
        # depend on the box.
        extra = [a % f for a, f in zip(start, step, strict=True)]
        size = [-(-(n + e) // f) * f for n, e, f in zip(box, extra, step, strict=True)]
        low = tuple(a - e - h for a, e, h in zip(start, extra, around, strict=True))
        high = tuple(a + n + 2 * h for a, n, h in zip(low, size, around, strict=True))
        crop = read(low, high)
        if max(step) > 1:
            crop = functional.avg_pool3d(crop[None], step)[0]
        # The interpolation needs one voxel more on both sides.
        more = 1 if max(step) > 1 else 0
        wanted = [n // f + 2 * more for n, f in zip(size, step, strict=True)]
        remaining = [_remaining(s, f) / f for s, f in zip(sigma, step, strict=True)]
        for channel in crop:
            maps = _maps(channel, remaining, wanted)
            for axis, (f, e, n) in enumerate(zip(step, extra, box, strict=True), 1):
                maps = _interpolate(maps, axis, f, f * more + e, n)
            features[row : row + PER_SCALE] = maps
            row += PER_SCALE
    if _is_exporting():  # ONNX knows no copysign
        return features.abs().log1p() * features.sign()
    return features.abs().log1p_().copysign_(features)  # compresses heavy tails


def _is_exporting() -> bool:
    """Whether the operations are written down for another program; PyTorch 2.7 and later tell."""
    asks = getattr(torch.compiler, "is_exporting", None)
    return asks is not None and bool(asks())


def _sigma(scale: float, voxel_size: VoxelSize) -> list[float]:
    """Standard deviations (z, y, x) of a scale, voxels."""
    finest = min(voxel_size)
    return [scale * min(1.0, _ISOTROPIC_RATIO * finest / size) for size in voxel_size]


def _step(sigma: float) -> int:
    """By how much an axis is down-sampled: it leaves two voxels a standard deviation or more.

    Second derivatives need as many.
    """
    return max(1, 1 << int(np.log2(max(sigma / 2, 1))))


def _halo(sigma: float, step: int) -> int:
    """Voxels that are read on each side: for the Gaussian, derivatives and interpolation."""
    return step * int(np.ceil(_CUTOFF * sigma / step) + 3)


def _remaining(sigma: float, step: int) -> float:
    """Standard deviation that remains for a map that is averaged and interpolated over `step`."""
    if step == 1:
        return sigma
    return float(np.sqrt(sigma**2 - (step**2 - 1) / 12 - step**2 / 6))


def _maps(image: Tensor, sigma: list[float], wanted: list[int]) -> Tensor:
    """Features (5, z, y, x) of a scale, for as many voxels in the middle as are wanted.

    `sigma` is the smoothing along z, y, x in voxels. What the next step does not need is dropped
    after each: the halo of a slice has far more voxels than the slice.
    """
    smooth = image
    for axis, s in enumerate(sigma):
        smooth = _smooth(smooth, axis, s, wanted[axis] + 4)  # two on each side for derivatives
    # Derivatives per standard deviation are comparable between scales and between axes.
    first = [
        _derivative(_middle(smooth, [n + 2 + 2 * (a == axis) for a, n in enumerate(wanted)]), axis)
        * s
        for axis, s in enumerate(sigma)
    ]
    second = {}
    for i in range(3):
        for j in range(i, 3):
            part = _middle(first[i], [n + 2 * (a == j) for a, n in enumerate(wanted)])
            second[i, j] = _derivative(part, j) * sigma[j]
    slope = torch.stack([_middle(map_, wanted) for map_ in first]).square_().sum(0).sqrt_()
    return torch.stack([_middle(smooth, wanted), slope, *_eigenvalues(second)])


def _middle(image: Tensor, shape: list[int]) -> Tensor:
    """The part of this shape in the middle of an image."""
    for axis, n in enumerate(shape):
        image = image.narrow(axis, (image.shape[axis] - n) // 2, n)
    return image


def _smooth(image: Tensor, axis: int, sigma: float, wanted: int) -> Tensor:
    """An image that is smoothed along an axis; of that axis, the middle part that is wanted."""
    radius = max(1, int(np.ceil(_CUTOFF * sigma))) if sigma >= 0.25 else 0
    first = (image.shape[axis] - wanted) // 2
    middle: Tensor = image.narrow(axis, first, wanted)
    if not radius:
        return middle
    offset = torch.arange(radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    weights = (kernel / (2 * kernel.sum() - 1)).tolist()
    # Sums of shifted images: on a CPU, a convolution of one channel takes ten times as long.
    total: Tensor = middle * weights[0]
    for shift in range(1, radius + 1):
        both = image.narrow(axis, first - shift, wanted) + image.narrow(axis, first + shift, wanted)
        total.add_(both, alpha=weights[shift])
    return total


def _interpolate(maps: Tensor, axis: int, step: int, first: int, n: int) -> Tensor:
    """N voxels of an axis from `first` on, between those of a grid that is `step` times coarser."""
    if step == 1:
        return maps.narrow(axis, first, n)
    begin = first // step
    count = (first + n - 1) // step - begin + 1
    shape = [*maps.shape[:axis], count, step, *maps.shape[axis + 1 :]]
    between = maps.new_empty(shape)
    # Voxels at the same place between two of the grid share their weights, and their neighbors are
    # two views of the grid. Looking up the neighbors of each voxel takes twenty times as long.
    for phase in range(step):
        place = (phase + 0.5) / step - 0.5
        low = begin if place >= 0 else begin - 1
        below, above = (maps.narrow(axis, i, count) for i in (low, low + 1))
        torch.lerp(below, above, place % 1, out=between.select(axis + 1, phase))
    return between.flatten(axis, axis + 1).narrow(axis, first - begin * step, n)


def _derivative(image: Tensor, axis: int) -> Tensor:
    """Central differences along an axis, which loses a voxel on each side."""
    n = image.shape[axis]
    difference: Tensor = image.narrow(axis, 2, n - 2) - image.narrow(axis, 0, n - 2)
    return difference / 2


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
