"""Shapes of any network, found by one forward pass on torch's meta device.

Meta tensors have a shape and no values, so a pass costs milliseconds and no memory whatever the
size of the tile. Hooks on convolutions, poolings and normalizations record their maps. Operations
that a network calls as functions, without a module, are not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm, prod
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from napari_unet3d.config import AXIS_NAMES, Triple
from napari_unet3d.networks.layers import ChannelNorm, SliceNorm

_FIRST_SIDE, _LAST_SIDE = 128, 512
"""Voxels: smallest and largest side of the cubes that are tried, until the network takes one. A
padded network that pools by up to 64 takes one of the first 64 cubes."""
_LONG_STEP = 2**6 * 3**3 * 5**2 * 7
"""Voxels by which an axis is lengthened to measure strides: divisible by every usual stride."""

_CONVOLUTIONS = (nn.Conv3d, nn.ConvTranspose3d)
_POOLINGS = (nn.MaxPool3d, nn.AvgPool3d)
_NORMALIZATIONS = (
    nn.BatchNorm3d,
    nn.InstanceNorm3d,
    nn.GroupNorm,
    nn.LayerNorm,
    ChannelNorm,
    SliceNorm,
)


class Traceable(Hashable, Protocol):
    """Builds a network; `architecture.Architecture` does."""

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def in_channels(self) -> int: ...  # noqa: D102
    @property
    def n_classes(self) -> int: ...  # noqa: D102
    def build(self) -> nn.Module: ...  # noqa: D102


Operation = Literal["convolution", "up-convolution", "pooling", "normalization"]


@dataclass(frozen=True)
class Layer:
    """One layer of a network applied to one tile.

    Attributes
    ----------
    name
        Name of the module.
    operation
        What the layer does. Only convolutions and up-convolutions have weights and a cost here.
    in_channels, out_channels
        Channels of the input and the output map.
    kernel
        Extent (z, y, x) of the kernel, dilation included, voxels of the input map; for an
        up-convolution, of the output map. 1 for a normalization.
    in_shape, shape
        Shape (z, y, x) of the input and the output map.
    weights
        Weights of a convolution, its biases left out.
    """

    name: str
    operation: Operation
    in_channels: int
    out_channels: int
    kernel: Triple
    in_shape: Triple
    shape: Triple
    weights: int = 0

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution, in either direction."""
        return self.operation in ("convolution", "up-convolution")

    @property
    def in_voxels(self) -> int:
        """Voxels of the input map."""
        return prod(self.in_shape)

    @property
    def voxels(self) -> int:
        """Voxels of the output map."""
        return prod(self.shape)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one forward pass."""
        # Each weight meets each input voxel of an up-convolution, and each output voxel otherwise.
        up = self.operation == "up-convolution"
        return self.weights * (self.in_voxels if up else self.voxels)


Walk = tuple[tuple[Layer, ...], Triple]
"""Layers in the order of the forward pass, and the shape of the output."""


@dataclass(frozen=True)
class Measured:
    """Facts of a network that hold for every tile.

    Attributes
    ----------
    base
        Shape (z, y, x) of a tile that the network takes.
    stride
        Admissible sizes repeat with this period, voxels.
    shrink
        Voxels by which the output is smaller than an admissible tile.
    """

    base: Triple
    stride: Triple
    shrink: Triple


def walk(config: Traceable, tile: Triple, shrink: Triple | None = None) -> Walk:
    """Layers that a tile goes through, and the shape of the output.

    Parameters
    ----------
    config, tile
        The network, and the tile (z, y, x) that goes in.
    shrink
        Voxels by which the output is smaller; measured, which takes long, unless given.

    Raises
    ------
    ValueError
        The network does not take such a tile.
    """
    traced = _trace(config, tile)
    if isinstance(traced, str):
        raise ValueError(traced)
    if shrink is None:
        shrink = measured(config).shrink
    for axis, (n, m) in enumerate(zip(tile, traced[1], strict=True)):
        if n - m != shrink[axis]:
            raise ValueError(
                f"a tile of {tile} voxels does not fit the network '{config.kind}': {n} voxels "
                f"along {AXIS_NAMES[axis]} give {m} instead of {n - shrink[axis]}"
            )
    return traced


def fits(config: Traceable, axis: int, size: int) -> bool:
    """Whether the network takes tiles of `size` voxels along `axis`.

    The axes are taken to be independent of each other: the other two have the size of
    `Measured.base`.
    """
    facts = measured(config)
    start, period = facts.base[axis], facts.stride[axis]
    if size >= start + period:
        size = start + (size - start) % period
    if size <= facts.shrink[axis]:
        return False
    output = _output(config, _replaced(facts.base, axis, size))
    return output is not None and size - output[axis] == facts.shrink[axis]


@lru_cache(maxsize=64)
def measured(config: Traceable) -> Measured:
    """Measure what holds for every tile.

    Raises
    ------
    ValueError
        The network takes no cube of a usual size, or gives more voxels than it takes.
    """
    cubes = ((n, n, n) for n in range(_FIRST_SIDE, _LAST_SIDE + 1))
    base, reason = None, ""
    for cube in cubes:
        traced = _trace(config, cube)
        if not isinstance(traced, str):
            base = cube
            break
        reason = traced
    if base is None:
        raise ValueError(
            f"the network '{config.kind}' takes no cube of {_FIRST_SIDE} to {_LAST_SIDE} voxels, "
            f"so its shapes cannot be measured; {reason}. Correct its forward pass, or let its "
            "class define `walk`, `fits`, `stride` and `receptive_field`"
        )
    stride = _triple(_period(config, base, axis) for axis in range(3))
    shrink = _triple(_shrink(config, base, stride, axis) for axis in range(3))
    return Measured(base, stride, shrink)


def _shrink(config: Traceable, base: Triple, stride: Triple, axis: int) -> int:
    """Voxels by which the output is smaller; some networks round other sizes up, and give more."""
    outputs = (
        (n, _output(config, _replaced(base, axis, n)))
        for n in range(base[axis], base[axis] + stride[axis])
    )
    lost = [n - output[axis] for n, output in outputs if output is not None]
    if max(lost) < 0:
        raise ValueError(f"the network '{config.kind}' gives more voxels than it takes")
    return min(n for n in lost if n >= 0)


@lru_cache(maxsize=64)
def receptive_field(config: Traceable, base: Triple | None = None) -> Triple:
    """Input voxels that one output voxel depends on at most; see `Architecture`.

    Parameters
    ----------
    config
        The network.
    base
        A tile that it takes, such as `Measured.base`; looked for, which takes long, unless given.
    """
    if base is None:
        base = measured(config).base
    return _triple(_reach(config, base, axis) for axis in range(3))


def parameter_count(config: Traceable) -> int:
    """Parameters of the network, those of normalizations left out."""
    with torch.device("meta"):
        modules = list(config.build().modules())
    counted = [m for m in modules if not isinstance(m, _NORMALIZATIONS)]
    return sum(p.numel() for module in counted for p in module.parameters(recurse=False))


def _reach(config: Traceable, base: Triple, axis: int) -> int:
    """Walk back from one output voxel; each layer widens the range of voxels it depends on."""
    reach, unit = 1, Fraction(1)  # voxels of a map, and input voxels per voxel of that map
    for layer, before, after in reversed(_strides(config, base, axis)):
        if layer.operation == "normalization":
            continue
        if after > unit:  # up-sampled without a module, or the end of another branch
            reach = _covered(reach, 2 * after / unit, after / unit)
        elif after < unit:
            reach = int(reach * unit / after)
        kernel = layer.kernel[axis]
        if after < before:
            reach = _covered(reach, kernel, before / after)
        else:
            reach = int((reach - 1) * after / before) + kernel
        unit = before
    return int(reach * unit)


def _covered(voxels: int, kernel: Fraction | int, factor: Fraction) -> int:
    """Most coarse voxels that a row of fine voxels depends on, after up-sampling by a factor."""
    return int((voxels + kernel - 2) // factor) + 1


def _period(config: Traceable, base: Triple, axis: int) -> int:
    """Smallest common multiple of the strides of all maps along an axis."""
    maps = _strides(config, base, axis)
    return lcm(*(stride.numerator for _, before, after in maps for stride in (before, after)))


def _strides(config: Traceable, base: Triple, axis: int) -> list[tuple[Layer, Fraction, Fraction]]:
    """Input voxels per voxel of each layer's input and output map, along an axis.

    They are measured with a longer tile: each map grows by the added voxels divided by its stride.
    Maps of a constant size, such as those of a global pooling, are left out.
    """
    short = _trace(config, base)
    long = _trace(config, _replaced(base, axis, base[axis] + _LONG_STEP))
    if isinstance(short, str) or isinstance(long, str):
        raise ValueError(f"the network '{config.kind}' does not take longer tiles: {long}")
    strides = []
    for a, b in zip(short[0], long[0], strict=True):
        before = b.in_shape[axis] - a.in_shape[axis]
        after = b.shape[axis] - a.shape[axis]
        if before > 0 and after > 0:
            strides.append((a, Fraction(_LONG_STEP, before), Fraction(_LONG_STEP, after)))
    return strides


def _output(config: Traceable, tile: Triple) -> Triple | None:
    """Shape of the output; None when the network does not take the tile."""
    traced = _trace(config, tile)
    return None if isinstance(traced, str) else traced[1]


@lru_cache(maxsize=1024)
def _trace(config: Traceable, tile: Triple) -> Walk | str:
    """Run the network on a tile without values; a text says why it does not take the tile."""
    layers: list[Layer] = []
    entered: list[str] = []
    with torch.device("meta"), torch.no_grad():
        network = config.build().eval()
        for name, module in network.named_modules():
            if isinstance(module, _NORMALIZATIONS):
                # Some refuse a map of a single voxel, and none changes a shape.
                module.forward = _unchanged  # type: ignore[method-assign]
            if (operation := _operation(module)) is not None:
                module.register_forward_pre_hook(lambda *_, name=name: entered.append(name))
                module.register_forward_hook(_recorder(layers, name, operation))
        try:
            output: Tensor = network(torch.empty(1, config.in_channels, *tile))
        except (RuntimeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            where = f" (at or after its layer '{entered[-1]}')" if entered else ""
            return (
                f"a tile of {tile} voxels does not fit the network '{config.kind}': {reason}{where}"
            )
    if output.ndim != 5 or tuple(output.shape[:2]) != (1, config.n_classes):
        raise ValueError(
            f"the network '{config.kind}' gives the shape {tuple(output.shape)} for a tile of "
            f"{tile} voxels: it must give (1, {config.n_classes}, z, y, x)"
        )
    return tuple(layers), _triple(output.shape[2:])


def _unchanged(x: Tensor) -> Tensor:
    return x


def _recorder(
    layers: list[Layer], name: str, operation: Operation
) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    """Hook that appends what a module did."""

    def record(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        maps = given[0], output
        if any(not isinstance(t, Tensor) or t.ndim != 5 for t in maps):
            return  # tokens or vectors, which have no place in space
        before, after = maps
        weights = module.weight.numel() if isinstance(module, _CONVOLUTIONS) else 0
        shape = _triple(after.shape[2:])
        if isinstance(module, SliceNorm):  # its statistics are those of a slice
            shape = _replaced(shape, module.axis, 1)
        layers.append(
            Layer(
                name,
                operation,
                before.shape[1],
                after.shape[1],
                _kernel(module),
                _triple(before.shape[2:]),
                shape,
                weights,
            )
        )

    return record


def _operation(module: nn.Module) -> Operation | None:
    if isinstance(module, nn.ConvTranspose3d):
        return "up-convolution"
    if isinstance(module, nn.Conv3d):
        return "convolution"
    if isinstance(module, _POOLINGS):
        return "pooling"
    return "normalization" if isinstance(module, _NORMALIZATIONS) else None


def _kernel(module: nn.Module) -> Triple:
    if not isinstance(module, _CONVOLUTIONS + _POOLINGS):
        return 1, 1, 1
    kernel = _three(module.kernel_size)
    dilation = _three(getattr(module, "dilation", 1))
    return _triple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))


def _three(value: int | tuple[int, ...]) -> Triple:
    return (value, value, value) if isinstance(value, int) else _triple(value)


def _replaced(tile: Triple, axis: int, size: int) -> Triple:
    return _triple(size if a == axis else n for a, n in enumerate(tile))


def _triple(values: Iterable[int]) -> Triple:
    z, y, x = values
    return z, y, x
