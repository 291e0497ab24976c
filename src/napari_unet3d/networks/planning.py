"""Sizes of batches, patches and tiles, chosen from the network, the stack and the hardware."""

from __future__ import annotations

from math import prod

from napari_unet3d.config import Triple
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.geometry import (
    feature_map_values,
    is_padded,
    next_fitting,
    output_shape,
    receptive_field,
    smallest_map,
)


def plan_batch(accelerator: bool, precision: str) -> int:
    """Patches of one training step.

    Two in fp32 on a CPU: torch's convolutions of small maps are many times slower in a batch of
    one (`unet.Convolution`). Elsewhere one: more steps a minute learn more than larger ones.
    """
    return 2 if precision == "fp32" and not accelerator else 1


def training_bytes(network: Architecture, patch: Triple, precision: str) -> int:
    """Bytes that training on one patch needs at the most, weights left out.

    10.4 bytes per value of a feature map were measured in fp32 with batch norm; half the
    maps are kept in half precision under autocast.
    """
    return int(feature_map_values(network, patch) * (10.4 if precision == "fp32" else 7.0))


def prediction_bytes(network: Architecture, tile: Triple, precision: str) -> int:
    """Bytes that predicting one tile needs at the most, weights left out."""
    return int(feature_map_values(network, tile) * (4.0 if precision == "fp32" else 3.0))


def plan_patch(
    network: Architecture, stack_shape: Triple, thin_axis: int, voxels: int, depth: int
) -> Triple:
    """Training patch, thin along the axis of the annotated slice.

    Parameters
    ----------
    network
        The network; the patch is one that it admits.
    stack_shape
        (Z, Y, X), voxels.
    thin_axis
        Axis perpendicular to the annotated slice.
    voxels
        Size of the patch, about.
    depth
        Voxels along the thin axis, about; no more than the network sees at once.
    """
    if not is_padded(network):
        return _shrink_to(network, next_fitting(network, (116, 132, 132)), voxels)
    # Few slices see the annotated one where z is coarse: more labelled voxels a second.
    depth = min(depth, receptive_field(network)[thin_axis])
    shape = [min(depth, n) if a == thin_axis else n for a, n in enumerate(stack_shape)]
    flat = [a for a in range(3) if a != thin_axis]
    area = max(1, voxels // shape[thin_axis])
    side = max(16, int(area**0.5))
    first, second = sorted(flat, key=lambda a: shape[a])
    shape[first] = min(shape[first], side)
    shape[second] = min(shape[second], max(side, area // shape[first]))
    return _normalizable(network, next_fitting(network, (shape[0], shape[1], shape[2])))


def plan_patches(
    network: Architecture,
    stack_shape: Triple,
    accelerator: bool,
    memory: int,
    precision: str,
    small: bool = False,
) -> dict[int, Triple]:
    """Training patch for slices perpendicular to each axis, that fits into `memory` bytes.

    `small` ones have a third of the voxels, for the first part of a training; an unpadded
    network has no use for them.
    """
    voxels, depth = (2_000_000, 32) if accelerator else (300_000, 16)
    if not is_padded(network):
        voxels *= 8  # only the middle of an unpadded patch is learned from
    elif small:
        voxels //= 3
    shapes = {}
    for axis in range(3):
        shape = plan_patch(network, stack_shape, axis, voxels, depth)
        while training_bytes(network, shape, precision) > memory:
            smaller = halve(network, shape)
            if smaller is None:
                break
            shape = smaller
        shapes[axis] = shape
    return shapes


def plan_tile(network: Architecture, stack_shape: Triple, voxels: int) -> Triple:
    """Prediction tile of about `voxels` voxels at the most; no larger than the stack needs."""
    return _shrink_to(network, _normalizable(network, _covering(network, stack_shape)), voxels)


def halve(network: Architecture, shape: Triple) -> Triple | None:
    """The patch or tile with about half the voxels; None when there is no smaller one."""
    for axis in sorted(range(3), key=lambda a: -shape[a]):
        smaller = list(shape)
        smaller[axis] = max(1, shape[axis] // 2)
        fitting = next_fitting(network, (smaller[0], smaller[1], smaller[2]))
        if fitting[axis] < shape[axis] and smallest_map(network, fitting) > 1:
            return fitting
    return None


def _normalizable(network: Architecture, shape: Triple) -> Triple:
    """Smallest patch or tile, not below `shape`, of which no map has a single voxel.

    A normalization has no statistics of one voxel. Such a map comes about where a network that
    was planned for a large stack meets a small one.
    """
    while smallest_map(network, shape) == 1:
        z, y, x = shape
        larger = ((z + 1, y, x), (z, y + 1, x), (z, y, x + 1))
        shape = min((next_fitting(network, s) for s in larger), key=prod)
    return shape


def _covering(network: Architecture, stack_shape: Triple) -> Triple:
    """Smallest tile whose output covers the stack."""
    tile = next_fitting(network, stack_shape)
    for _ in range(64):
        out = output_shape(network, tile)
        lacking = [max(0, n - m) for n, m in zip(stack_shape, out, strict=True)]
        if not any(lacking):
            return tile
        z, y, x = (t + n for t, n in zip(tile, lacking, strict=True))
        tile = next_fitting(network, (z, y, x))
    return tile


def _shrink_to(network: Architecture, shape: Triple, voxels: int) -> Triple:
    while prod(shape) > voxels:
        smaller = halve(network, shape)
        if smaller is None:
            break
        shape = smaller
    return shape
