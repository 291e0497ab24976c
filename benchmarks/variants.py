"""Variants of a stack that change what a method must cope with, but not the truth.

A constant that was tuned to a stack is not tuned to its variants. Each variant is a function of an
image and its truth; all are repeatable. `cases` gives each stack as it is and some of its variants,
in turn, so that all stacks together have all variants several times.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from protocol import Labels, load_stack
from scipy.ndimage import gaussian_filter

from napari_unet3d.config import VoxelSize
from napari_unet3d.data.volume import Volume

Image = NDArray[Any]
Variant = Callable[[Volume, Labels], tuple[Volume, Labels]]

_CLIPPED = (2.0, 99.0)
"""Percent. Gray values outside of these percentiles are clipped in 8 bits."""
_SEPARATOR = ": "
"""Between the names of a stack and of its variant."""
_LEAST_PLANES = 12
"""Planes that thinning along z must leave, so that there are slices to annotate and to score."""


def _spread(image: Image) -> tuple[float, float]:
    """The 1st and the 99th percentile of the gray values."""
    low, high = np.percentile(image, (1, 99))
    return float(low), float(max(high, low + 1e-6))


def _scaled(image: Image) -> NDArray[np.float32]:
    """Gray values with the 1st percentile at 0 and the 99th at 1."""
    low, high = _spread(image)
    return ((image.astype(np.float32) - low) / (high - low)).astype(np.float32)


def _with(volume: Volume, image: Image, voxel_size: VoxelSize | None = None) -> Volume:
    return replace(volume, data=image, voxel_size=voxel_size or volume.voxel_size)


def _inverted(volume: Volume, truth: Labels) -> tuple[Volume, Labels]:
    return _with(volume, 1 - _scaled(volume.data)), truth


def _gamma(power: float) -> Variant:
    def change(volume: Volume, truth: Labels) -> tuple[Volume, Labels]:
        return _with(volume, np.clip(_scaled(volume.data), 0, 1) ** power), truth

    return change


def _noisy(volume: Volume, truth: Labels) -> tuple[Volume, Labels]:
    image = _scaled(volume.data)
    rng = np.random.default_rng(zlib.crc32(volume.data.shape.__repr__().encode()))
    return _with(volume, image + rng.normal(0, 0.2, image.shape).astype(np.float32)), truth


def _blurred(volume: Volume, truth: Labels) -> tuple[Volume, Labels]:
    finest = min(volume.voxel_size)
    sigma = [1.5 * finest / size for size in volume.voxel_size]
    sigma = [0.0] * (volume.data.ndim - 3) + sigma
    return _with(volume, gaussian_filter(_scaled(volume.data), sigma)), truth


def _thinned(step: int) -> Variant:
    def change(volume: Volume, truth: Labels) -> tuple[Volume, Labels]:
        z, y, x = volume.voxel_size
        image = volume.data[..., ::step, :, :]
        return _with(volume, np.ascontiguousarray(image), (z * step, y, x)), truth[::step].copy()

    return change


def _swapped(volume: Volume, truth: Labels) -> tuple[Volume, Labels]:
    z, y, x = volume.voxel_size
    image = np.ascontiguousarray(volume.data.swapaxes(-3, -2))
    return _with(volume, image, (y, z, x)), truth.swapaxes(0, 1).copy()


def _half(volume: Volume, truth: Labels) -> tuple[Volume, Labels]:
    middle = volume.shape[2] // 2
    return _with(volume, volume.data[..., :middle].copy()), truth[..., :middle].copy()


def _uneven(volume: Volume, truth: Labels) -> tuple[Volume, Labels]:
    image = _scaled(volume.data)
    z, y, x = (np.linspace(0, 1, n, dtype=np.float32) for n in volume.shape)
    light = 0.4 + 0.6 * y[:, None] * np.sin(np.pi * x) + 0.3 * (1 - z)[:, None, None]
    return _with(volume, image * light.astype(np.float32)), truth


def _clipped(volume: Volume, truth: Labels) -> tuple[Volume, Labels]:
    low, high = np.percentile(volume.data, _CLIPPED)
    image = (volume.data.astype(np.float32) - low) / max(high - low, 1e-6)
    return _with(volume, (np.clip(image, 0, 1) * 255).round().astype(np.uint8)), truth


VARIANTS: dict[str, Variant] = {
    "inverted": _inverted,
    "gamma 0.5": _gamma(0.5),
    "noise": _noisy,
    "thinned by 2": _thinned(2),
    "axes swapped": _swapped,
    "uneven light": _uneven,
    "blur": _blurred,
    "half": _half,
    "gamma 2": _gamma(2.0),
    "8 bits, clipped": _clipped,
    "thinned by 4": _thinned(4),
}
"""Name → variant."""


def fits(name: str, volume: Volume) -> bool:
    """Whether a variant leaves enough of a stack."""
    if name.startswith("thinned"):
        return volume.shape[0] // int(name[-1]) >= _LEAST_PLANES
    if name == "axes swapped":
        return volume.shape[1] <= 256  # a stack with its long axis first has too many slices
    return True


def variant_names(number: int, volume: Volume, count: int) -> list[str]:
    """Variants of the stack with this number: the next ones in turn that fit."""
    names = list(VARIANTS)
    begin = number * count % len(names)
    order = names[begin:] + names[:begin]
    return [name for name in order if fits(name, volume)][:count]


def cases(
    stacks: Sequence[tuple[str, Volume, Labels]], count: int
) -> Iterator[tuple[str, Volume, Labels]]:
    """Each stack as it is, and `count` of its variants, named 'stack: variant'."""
    for number, (name, volume, truth) in enumerate(stacks):
        yield name, volume, truth
        for variant in variant_names(number, volume, count):
            changed, its_truth = VARIANTS[variant](volume, truth)
            yield f"{name}{_SEPARATOR}{variant}", changed, its_truth


def case_names(folder: Path | None, names: Sequence[str], count: int) -> list[str]:
    """The names of `cases` of the stacks in a folder, for `load_case`."""
    found = []
    for number, name in enumerate(names):
        chosen = variant_names(number, load_stack(folder, name)[0], count) if count else []
        found += [name, *(f"{name}{_SEPARATOR}{variant}" for variant in chosen)]
    return found


def load_case(folder: Path | None, name: str) -> tuple[Volume, Labels]:
    """Image and truth of a stack, or of a variant of it."""
    stack, _, variant = name.partition(_SEPARATOR)
    volume, truth = load_stack(folder, stack)
    return VARIANTS[variant](volume, truth) if variant else (volume, truth)
