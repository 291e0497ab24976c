"""Arrays brought to a device, and linear interpolation there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor


def to_device(values: ArrayLike, device: torch.device) -> Tensor:
    """An array as a tensor on a device; float64, which Apple GPUs lack, becomes float32.

    A copy to an NVIDIA GPU goes through pinned memory, so that nothing waits for the work that
    the GPU still has to do.
    """
    array = np.asarray(values)
    if array.dtype == np.float64:
        array = array.astype(np.float32)
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def all_to_device(arrays: Sequence[ArrayLike], device: torch.device) -> list[Tensor]:
    """Small arrays as float32 tensors on a device; to an NVIDIA GPU they go in one copy.

    Each copy takes the CPU as long as several launches.
    """
    if device.type != "cuda":
        return [to_device(values, device) for values in arrays]
    given = [np.asarray(values, np.float32) for values in arrays]
    packed = to_device(np.concatenate([array.ravel() for array in given]), device)
    parts = packed.split([array.size for array in given])
    return [part.view(array.shape) for part, array in zip(parts, given, strict=True)]


def sample_linearly(image: Tensor, where: Tensor) -> Tensor:
    """Gray values of an image at fractional voxel indices, interpolated linearly.

    Parameters
    ----------
    image
        (C, z, y, x) float32.
    where
        (3, Z, Y, X) float32, voxel indices along z, y and x. Outside the image, edge voxels are
        repeated.

    Returns
    -------
    Tensor
        (C, Z, Y, X) float32.
    """
    if image.device.type == "mps":
        # PyTorch has had a 3D grid_sample for Apple GPUs only since its pull request 160541.
        return gather_linearly(image, where)
    size = image.shape[1:]
    grid = torch.stack(
        [2 * index / max(n - 1, 1) - 1 for index, n in zip(where, size, strict=True)][::-1], -1
    )
    sampled: Tensor = torch.nn.functional.grid_sample(
        image[None], grid[None], padding_mode="border", align_corners=True
    )
    return sampled[0]


def gather_linearly(image: Tensor, where: Tensor) -> Tensor:
    """The same as `sample_linearly`, from eight look-ups of single voxels."""
    channels, *size = image.shape
    low, share = [], []
    for index, n in zip(where, size, strict=True):
        inside = index.clamp(0, n - 1)
        floor = inside.floor().clamp(max=max(n - 2, 0))
        low.append(floor.long())
        share.append(inside - floor)
    flat = image.reshape(channels, -1)
    sampled = torch.zeros((channels, *where.shape[1:]), device=image.device)
    for corner in product((0, 1), repeat=3):
        index = torch.zeros_like(low[0])
        weight = torch.ones_like(share[0])
        for step, start, part, n in zip(corner, low, share, size, strict=True):
            # Along an axis of a single voxel the upper corner is that voxel, with weight 0.
            index = index * n + (start + min(step, n - 1))
            weight = weight * (part if step else 1 - part)
        sampled += weight * flat[:, index]
    return sampled
