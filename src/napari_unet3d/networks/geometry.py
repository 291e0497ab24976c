"""Arithmetic of a 3D U-Net: shapes, receptive field, size of the feature maps. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from napari_unet3d.config import AXIS_NAMES, NetworkConfig, Triple

MOST_STRIDE = 64
"""Voxels that are pooled to one along an axis: six poolings by 2, the most that the seven levels
of a network usually have. Networks planned here, and the paper's, pool by 8."""
MOST_VALUES = 1 << 27
"""Values of all feature maps of the smallest tile: 0.5 GiB in fp32. The paper's network, whose tile
has 92 voxels along each axis, takes 82 million; networks planned here take below a million."""


@dataclass(frozen=True)
class Convolution:
    """One convolution of the network applied to one tile.

    Attributes
    ----------
    name
        ``encoder.I.J``, ``up.I``, ``decoder.I.J`` or ``head``.
    in_channels, out_channels
        Channels.
    kernel
        Kernel (z, y, x); the stride of an up-convolution.
    in_voxels, voxels
        Voxels of the input and of the output map.
    """

    name: str
    in_channels: int
    out_channels: int
    kernel: Triple
    in_voxels: int
    voxels: int

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one forward pass."""
        # Every output voxel of an up-convolution is reached by one weight only.
        taps = 1 if self.name.startswith("up") else prod(self.kernel)
        return self.in_channels * self.out_channels * taps * self.voxels


def total_stride(config: NetworkConfig) -> Triple:
    """Pooling from the finest to the coarsest level, along z, y and x."""
    return _triple(prod(stride[axis] for stride in config.strides) for axis in range(3))


def walk(config: NetworkConfig, tile: Triple) -> tuple[list[Convolution], Triple]:
    """Every convolution that a tile goes through, and the shape that comes out.

    Parameters
    ----------
    config
        The network.
    tile
        Shape (z, y, x) of the tile that goes in, voxels.

    Returns
    -------
    convolutions, output shape
        In the order of the forward pass.

    Raises
    ------
    ValueError
        The tile does not fit: an axis is too short or does not divide.
    """
    levels = len(config.widths)
    shape = tile
    channels = config.in_channels
    found: list[Convolution] = []
    skips: list[Triple] = []

    def convolve(name: str, out_channels: int, kernel: Triple) -> None:
        nonlocal shape, channels
        before = prod(shape)
        if config.padding == "valid":
            shape = _triple(n - k + 1 for n, k in zip(shape, kernel, strict=True))
        if min(shape) < 1:
            raise ValueError(f"a tile of {tile} voxels is too small for this network")
        found.append(Convolution(name, channels, out_channels, kernel, before, prod(shape)))
        channels = out_channels

    for level, width in enumerate(config.widths):
        first = first_width(config, level)
        convolve(f"encoder.{level}.0", first, config.kernels[level])
        convolve(f"encoder.{level}.1", width, config.kernels[level])
        if level < levels - 1:
            skips.append(shape)
            stride = config.strides[level]
            if any(n % s for n, s in zip(shape, stride, strict=True)):
                raise ValueError(
                    f"a tile of {tile} voxels does not divide: {shape} at level {level} is "
                    f"pooled by {stride}"
                )
            shape = _triple(n // s for n, s in zip(shape, stride, strict=True))
    for level in reversed(range(levels - 1)):
        stride, width = config.strides[level], config.widths[level]
        before = prod(shape)
        shape = _triple(n * s for n, s in zip(shape, stride, strict=True))
        up = channels if config.keep_up_channels else width
        found.append(Convolution(f"up.{level}", channels, up, stride, before, prod(shape)))
        channels = up + width
        if any(n > m for n, m in zip(shape, skips[level], strict=True)):
            raise ValueError(f"a tile of {tile} voxels is too small for this network")
        convolve(f"decoder.{level}.0", width, config.kernels[level])
        convolve(f"decoder.{level}.1", width, config.kernels[level])
    convolve("head", config.n_classes, (1, 1, 1))
    return found, shape


def first_width(config: NetworkConfig, level: int) -> int:
    """Channels after the first convolution of an encoder level."""
    width = config.widths[level]
    if not config.widen_before_pool:
        return width
    return width // 2 if level == 0 else max(config.widths[level - 1], width // 2)


def parameter_count(config: NetworkConfig) -> int:
    """Weights of all convolutions and biases but those of the up-convolutions."""
    tile = next_fitting(config, receptive_field(config))
    count = 0
    for c in walk(config, tile)[0]:
        count += c.in_channels * c.out_channels * prod(c.kernel)
        count += 0 if c.name.startswith("up") else c.out_channels
    return count


def output_shape(config: NetworkConfig, tile: Triple) -> Triple:
    """Shape that comes out for a tile; ``ValueError`` when the tile does not fit."""
    return walk(config, tile)[1]


def fits(config: NetworkConfig, axis: int, size: int) -> bool:
    """Whether a tile of `size` voxels along `axis` can go in."""
    cut = 2 if config.padding == "valid" else 0
    skips = []
    for level, kernel in enumerate(config.kernels):
        size -= cut * (kernel[axis] - 1)
        if size < 1:
            return False
        if level < len(config.strides):
            skips.append(size)
            if size % config.strides[level][axis]:
                return False
            size //= config.strides[level][axis]
    for level in reversed(range(len(config.strides))):
        size *= config.strides[level][axis]
        if size > skips[level]:
            return False
        size -= cut * (config.kernels[level][axis] - 1)
        if size < 1:
            return False
    return True


def next_fitting(config: NetworkConfig, shape: Triple) -> Triple:
    """Smallest tile that can go in and is not smaller than `shape` on any axis."""
    return _triple(_next_fitting(config, axis, n) for axis, n in enumerate(shape))


def shrink(config: NetworkConfig) -> Triple:
    """Voxels by which the output is smaller than the tile, along z, y and x."""
    tile = next_fitting(config, (1, 1, 1))
    return _triple(n - m for n, m in zip(tile, output_shape(config, tile), strict=True))


def receptive_field(config: NetworkConfig) -> Triple:
    """Input voxels that one output voxel sees at the most, along z, y and x."""
    return _triple(
        max(_seen(config, axis, at) for at in range(total_stride(config)[axis]))
        for axis in range(3)
    )


def _seen(config: NetworkConfig, axis: int, at: int) -> int:
    """Voxels that reach the output voxel `at`: more or fewer by its place in the pooling cell."""
    low = high = at
    reach = [kernel[axis] - 1 for kernel in config.kernels]  # of two convolutions, to each side
    steps = [stride[axis] for stride in config.strides]
    for level in range(len(steps)):
        low, high = (low - reach[level]) // steps[level], (high + reach[level]) // steps[level]
    low, high = low - reach[-1], high + reach[-1]
    for level in reversed(range(len(steps))):
        low = low * steps[level] - reach[level]
        high = high * steps[level] + steps[level] - 1 + reach[level]
    return high - low + 1


def smallest_map(config: NetworkConfig, tile: Triple) -> int:
    """Voxels of the smallest map; normalization over space needs two at least."""
    return min(c.voxels for c in walk(config, tile)[0])


def feature_map_values(config: NetworkConfig, tile: Triple) -> int:
    """Sum of channels × voxels over the outputs of all convolutions of one tile."""
    return sum(c.out_channels * c.voxels for c in walk(config, tile)[0])


def largest_map(config: NetworkConfig, tile: Triple) -> int:
    """Values of the largest map, channels × voxels, that goes into or out of a convolution."""
    return max(
        max(c.in_channels * c.in_voxels, c.out_channels * c.voxels) for c in walk(config, tile)[0]
    )


def excess(config: NetworkConfig) -> str | None:
    """Why no small stack can be predicted with a network; None when one can.

    A tile cannot be smaller than the total stride, nor than what an unpadded network cuts off.
    A few weights can thus ask for any amount of memory.
    """
    for axis, stride in zip(AXIS_NAMES, total_stride(config), strict=True):
        if stride > MOST_STRIDE:
            return f"it pools by {stride} along {axis}, and {MOST_STRIDE} is the most"
    tile = next_fitting(config, (1, 1, 1))
    values = feature_map_values(config, tile)
    if values > MOST_VALUES:
        shape = " × ".join(str(n) for n in tile)
        return (
            f"its smallest tile, {shape} voxels, takes {values:.1e} values of feature maps, and "
            f"{MOST_VALUES:.1e} are the most"
        )
    return None


def _next_fitting(config: NetworkConfig, axis: int, size: int) -> int:
    """The arithmetic of one axis alone: walk it with the other two left out."""
    step = total_stride(config)[axis]
    # Admissible sizes repeat with the total stride; the smallest is found by trying.
    limit = size + step + 4 * receptive_field(config)[axis]
    for candidate in range(max(size, 1), limit + 1):
        if fits(config, axis, candidate):
            return candidate
    raise AssertionError(f"no admissible size in {size}…{limit}")  # pragma: no cover


def _triple(values: Iterable[int]) -> Triple:
    z, y, x = values
    return z, y, x
