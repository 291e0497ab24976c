"""Sizes of batches, patches and tiles, chosen from the network, the stack and the hardware."""

from __future__ import annotations

from math import prod

from napari_unet3d.config import Triple
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.geometry import (
    feature_map_values,
    next_fitting,
    output_shape,
    receptive_field,
    shrink,
    smallest_map,
)

_TRAINING_BYTES_FP32, _TRAINING_BYTES_HALF, _TRAINING_BYTES_HALF_ON_GPU = 10.4, 7.0, 6.5
"""Bytes per value of a feature map. The first was measured on a CPU with batch norm, the second is
an estimate for autocast, which keeps half of the maps in half precision. The third is 1.06 times
the 6.11 measured in a patch of 32 × 128 × 128 on an H100 with torch 2.11; larger patches took
5.7."""
_PREDICTION_BYTES_FP32, _PREDICTION_BYTES_HALF, _PREDICTION_BYTES_HALF_ON_GPU = 3.2, 1.6, 2.0
"""Bytes per value of a feature map: at the peak, two thirds of the maps are there. On a CPU, 2.7 to
3.15 and 1.3 to 1.5 (bf16) were measured in tiles from 64³ to 144³ (torch 2.13). The third is 1.18
times the 1.69 measured on an H100 with torch 2.11, in tiles from 16 × 128 × 128 to
128 × 384 × 384."""
_IMAGE_BYTES, _PROBABILITY_BYTES = 6, 10
"""Bytes of a voxel for each channel and each class: an fp32 image with its copy in half precision;
logits in half precision and fp32, and probabilities."""
_SMALL_PATCH = 50_000
"""Voxels. Where the stack leaves no larger patches, a batch has two of them: its statistics would
come from too few voxels. On the hippocampus (42 × 47 × 41 voxels, patches of 18,000), that raises
the IoU after 60 s in bf16 from 0.19 and 0.24 (two seeds) to 0.38 and 0.32. With patches of 100,000
it lowers it by 0.004 and 0.006, on plant cells and tubules."""
_UNPADDED_PATCH = (116, 132, 132)
"""Voxels (z, y, x) of the paper's patch, from which the patch of a network that cuts off most of it
is halved."""
_UNPADDED_FACTOR = 8
"""Factor on the voxels of a patch of such a network, which learns from the middle only: the paper's
patch has 37 times as many voxels as its output."""
_SHORTEST_SIDE = 16
"""Voxels: shortest side of a patch within the annotated slice, unless the stack is smaller. Three
poolings leave 2 of 16."""
_SMALL_DEPTH = 8
"""Voxels. On a CPU the first patches are half as deep as later ones, where the network's stride
allows it, and twice as wide, so they hold twice as many labelled voxels. After 60 iterations on a
full grid, the IoU of the network alone rises from 0.724 to 0.738 on plant cells and from 0.783 to
0.786 on vessels."""
_CPU_TILE_VOXELS, _CPU_TILE_WORK = 3_000_000, 1.6e11
"""Voxels, and multiply-adds, of the largest tile on a CPU, whichever allows more. The second take 1
to 3 seconds on two cores, for which a cancel waits; tiles of half the work would compute each voxel
1.2 times as often. The first are 144³: the paper's network needs no smaller ones."""
_GROWTH_STEPS = 64
"""Steps by which a patch grows until no normalized map has a single voxel. Few are needed; a map
that has one voxel whatever the patch must not be waited for."""


def plan_batch(
    network: Architecture, stack_shape: Triple, accelerator: bool, precision: str
) -> int:
    """Patches of one training step.

    One, since many steps a minute learn more than few large ones. Two in fp32 on a CPU, where torch
    computes small maps many times slower in a batch of one (`layers.Convolution`), and for a stack
    so small that its patches are.

    Parameters
    ----------
    network
        The network.
    stack_shape
        (Z, Y, X), voxels.
    accelerator
        Whether the network runs on a GPU.
    precision
        Number format of the convolutions.
    """
    if precision == "fp32" and not accelerator:
        return 2
    patches = plan_patches(network, stack_shape, accelerator, 1 << 62, precision, small=True)
    return 2 if max(prod(patch) for patch in patches.values()) < _SMALL_PATCH else 1


def training_bytes(
    network: Architecture, patch: Triple, precision: str, accelerator: bool = False
) -> int:
    """Bytes that training on one patch needs at most, weights left out."""
    half = _TRAINING_BYTES_HALF_ON_GPU if accelerator else _TRAINING_BYTES_HALF
    bytes_per_value = _TRAINING_BYTES_FP32 if precision == "fp32" else half
    return int(feature_map_values(network, patch) * bytes_per_value)


def prediction_bytes(
    network: Architecture, tile: Triple, precision: str, accelerator: bool = False
) -> int:
    """Bytes that predicting one tile needs at most; weights, image and result left out."""
    half = _PREDICTION_BYTES_HALF_ON_GPU if accelerator else _PREDICTION_BYTES_HALF
    bytes_per_value = _PREDICTION_BYTES_FP32 if precision == "fp32" else half
    maps = int(feature_map_values(network, tile) * bytes_per_value)
    # With many channels or classes, the image and the probabilities take more than the maps.
    ends = _IMAGE_BYTES * network.in_channels + _PROBABILITY_BYTES * network.n_classes
    return max(maps, prod(tile) * ends)


def plan_patch(
    network: Architecture, stack_shape: Triple, thin_axis: int, voxels: int, depth: int
) -> Triple:
    """Shape (z, y, x) of the training patch, thin along the axis of the annotated slice.

    Parameters
    ----------
    network
        The network, which takes the patch.
    stack_shape
        (Z, Y, X), voxels.
    thin_axis
        Axis perpendicular to the annotated slice.
    voxels
        Approximate size of the patch; of its output, where the network cuts off less than most.
    depth
        Approximate size along the thin axis, voxels. It is reduced to the receptive field.
    """
    if _cuts_off_most(network):
        return _shrink_to(network, next_fitting(network, _UNPADDED_PATCH), voxels)
    # What lies farther from the annotated slice than the network sees teaches nothing.
    depth = min(depth, receptive_field(network)[thin_axis])
    shape = [min(depth, n) if a == thin_axis else n for a, n in enumerate(stack_shape)]
    cut = shrink(network)
    z, y, x = (n + m for n, m in zip(shape, cut, strict=True))
    shape[thin_axis] = next_fitting(network, (z, y, x))[thin_axis] - cut[thin_axis]
    flat = [a for a in range(3) if a != thin_axis]
    area = max(1, voxels // shape[thin_axis])
    side = max(_SHORTEST_SIDE, int(area**0.5))
    first, second = sorted(flat, key=lambda a: shape[a])
    shape[first] = min(shape[first], side)
    shape[second] = min(shape[second], max(side, area // shape[first]))
    z, y, x = (n + m for n, m in zip(shape, cut, strict=True))
    return normalizable(network, next_fitting(network, (z, y, x)))


def plan_patches(
    network: Architecture,
    stack_shape: Triple,
    accelerator: bool,
    memory: int,
    precision: str,
    small: bool = False,
) -> dict[int, Triple]:
    """Shape of the training patch for annotated slices perpendicular to each axis.

    Parameters
    ----------
    network
        The network, which takes the patches.
    stack_shape
        (Z, Y, X), voxels.
    accelerator
        Whether the network runs on a GPU, which computes larger patches in the same time.
    memory
        Bytes that training on one patch may take. The smallest patch may take more.
    precision
        Number format of the convolutions.
    small
        Whether the patches are for the first part of a training: a third of the voxels. Those of
        a network that cuts off most of a patch stay as large, since its output would become tiny.

    Returns
    -------
    dict
        Axis → shape (z, y, x).
    """
    voxels, depth = (2_000_000, 32) if accelerator else (300_000, 16)
    if small and not accelerator:
        depth = _SMALL_DEPTH
    if _cuts_off_most(network):
        voxels *= _UNPADDED_FACTOR
    elif small:
        voxels //= 3
    shapes = {}
    for axis in range(3):
        shape = plan_patch(network, stack_shape, axis, voxels, depth)
        while training_bytes(network, shape, precision, accelerator) > memory:
            smaller = halve(network, shape)
            if smaller is None:
                break
            shape = smaller
        shapes[axis] = shape
    return shapes


def plan_tile(network: Architecture, stack_shape: Triple, voxels: int) -> Triple:
    """Shape of a prediction tile of at most `voxels` voxels, and no larger than the stack needs.

    It has more voxels where the network takes no smaller tile.
    """
    return _shrink_to(network, normalizable(network, _covering(network, stack_shape)), voxels)


def largest_cpu_tile(network: Architecture) -> int:
    """Voxels of the largest prediction tile on a CPU."""
    tile = next_fitting(network, receptive_field(network))
    work = sum(layer.multiply_adds for layer in network.walk(tile)[0])
    return max(_CPU_TILE_VOXELS, int(_CPU_TILE_WORK * prod(tile) / max(work, 1)))


def halve(network: Architecture, shape: Triple) -> Triple | None:
    """Halve the longest axis of a patch or tile that can be halved; None when none can."""
    for axis in sorted(range(3), key=lambda a: -shape[a]):
        smaller = list(shape)
        smaller[axis] = max(1, shape[axis] // 2)
        fitting = next_fitting(network, (smaller[0], smaller[1], smaller[2]))
        if fitting[axis] < shape[axis] and smallest_map(network, fitting) > 1:
            return fitting
    return None


def _cuts_off_most(network: Architecture) -> bool:
    """Whether a network without padding, such as the paper's, uses little of a patch.

    It cuts off more than half of the paper's patch along an axis.
    """
    pairs = zip(shrink(network), _UNPADDED_PATCH, strict=True)
    return any(2 * cut > n for cut, n in pairs)


def normalizable(network: Architecture, shape: Triple) -> Triple:
    """Grow a patch or tile until no normalized map has a single voxel, which has no statistics.

    `shape` must fit the network. Such maps arise when a network planned for a large stack is used
    on a small one.
    """
    for _ in range(_GROWTH_STEPS):
        if smallest_map(network, shape) > 1:
            break
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
