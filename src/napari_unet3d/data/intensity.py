"""Gray-value normalization: from raw intensities to the input of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_unet3d.config import CLIP_PERCENTILES
from napari_unet3d.data.clipping import LARGEST, Percentiles, ends, painted_values, widen
from napari_unet3d.data.labelled_voxels import LabelledVoxels
from napari_unet3d.data.volume import Volume

_SAMPLE_VOXELS = 4_000_000
"""Voxels of each channel from which percentiles, mean and std are computed."""
_SAMPLE_ALL_CHANNELS = 16_000_000
"""Voxels of all channels together: 128 MB as float64."""
_SINGLE_RANGE = (1e-30, 1e30)
"""Numbers that single precision subtracts and divides without loss."""
_RELATIVE_STD = 1e-9
"""Smallest std, as a share of the largest number: less is rounding."""
_EXACT_IN_SINGLE = 2  # bytes of the integers that float32 holds exactly

_Number = Annotated[float, Field(allow_inf_nan=False)]
_PerChannel = Annotated[tuple[_Number, ...], Field(min_length=1, max_length=64)]
_Percentile = Annotated[float, Field(ge=0, le=100)]


class IntensityNormalization(BaseModel):
    """Clip each channel to `low` … `high`, subtract `mean` and divide by `std`.

    Every stack is normalized by its own numbers. Those of the stack a network was trained on
    are saved with it, for information; its `percentiles` are those that every further stack is
    clipped at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: _PerChannel
    high: _PerChannel
    mean: _PerChannel
    std: Annotated[
        tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...],
        Field(min_length=1, max_length=64),
    ]
    percentiles: Annotated[tuple[tuple[_Percentile, _Percentile], ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _channels_match(self) -> Self:
        if not len(self.low) == len(self.high) == len(self.mean) == len(self.std):
            raise ValueError("low, high, mean and std must have one number per channel each")
        if any(a > b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low {self.low} must not be above high {self.high}")
        if len(self.percentiles) not in (0, len(self.low)):
            raise ValueError("percentiles must be two for each channel, or none")
        if any(a >= b for a, b in self.percentiles):
            raise ValueError(f"percentiles {self.percentiles} must be two rising numbers each")
        return self

    @property
    def n_channels(self) -> int:
        """Channels of the images it fits."""
        return len(self.low)

    @property
    def clip(self) -> tuple[Percentiles, ...]:
        """Percentiles of `low` and `high` of each channel."""
        return self.percentiles or (CLIP_PERCENTILES,) * self.n_channels

    @classmethod
    def estimate(
        cls,
        volume: Volume,
        percentiles: Percentiles | Sequence[Percentiles] = CLIP_PERCENTILES,
        painted: Sequence[LabelledVoxels] = (),
    ) -> Self:
        """Find the numbers for a volume, from at most about 4 million voxels per channel.

        The percentiles clip hot pixels away; values that are not finite are left out. The
        sampled planes are spread evenly over the stack and all time points. Percentiles beyond
        0.1 and 99.9 come from all voxels of a stack of up to 2³⁰.

        Parameters
        ----------
        volume
            The image; at most 64 channels.
        percentiles
            Of `low` and `high`: two numbers, or two for each channel.
        painted
            Voxels that were painted. Where the percentiles would cut a class (not the
            background), they are widened until they do not.

        Returns
        -------
        IntensityNormalization
            Always usable: a channel that is constant becomes 0. Estimating again with its
            `clip` gives the same numbers.
        """
        samples = _samples(volume)
        clip = _per_channel(percentiles, volume.n_channels)
        keep: list[tuple[float, float]] = []
        if painted:
            clip, keep = widen(volume, samples, clip, painted_values(volume, painted))
        limits = ends(volume, samples, clip)
        if keep:
            # A painted class may be so rare that not even a large sample holds it.
            limits = [
                (min(low, lowest), max(high, highest))
                for (low, high), (lowest, highest) in zip(limits, keep, strict=True)
            ]
        numbers = [_numbers(*both) for both in zip(samples, limits, strict=True)]
        low, high, mean, std = zip(*numbers, strict=True)
        return cls(low=low, high=high, mean=mean, std=std, percentiles=clip)

    def apply(self, crop: np.ndarray) -> np.ndarray:
        """Normalize voxels.

        Parameters
        ----------
        crop
            (C, z, y, x), as `Volume.crop` returns it; any number format. Not changed.

        Returns
        -------
        np.ndarray
            (C, z, y, x) float32; not-a-number becomes 0, which is the mean.

        Raises
        ------
        ValueError
            When the number of channels is another one.
        """
        if crop.shape[0] != self.n_channels:
            raise ValueError(f"{crop.shape[0]} channels where {self.n_channels} are expected")
        # Single precision would round numbers such as 1e9 + 1 before the mean is subtracted.
        exact = crop.dtype.itemsize <= _EXACT_IN_SINGLE
        exact |= crop.dtype == np.float32 and self._fits_single_precision
        out = crop.astype(np.float32 if exact else np.float64)
        for channel, low, high, mean, std in zip(
            out, self.low, self.high, self.mean, self.std, strict=True
        ):
            # Halves: the difference of the largest numbers is none.
            half = 0.5 if max(abs(low), abs(high)) > LARGEST else 1.0
            np.clip(channel, low, high, out=channel)
            channel *= half
            channel -= mean * half
            channel /= std * half
        if crop.dtype.kind == "f":
            out[np.isnan(out)] = 0
        return out.astype(np.float32, copy=False)

    @property
    def _fits_single_precision(self) -> bool:
        smallest, largest = _SINGLE_RANGE
        return min(self.std) > smallest and max(map(abs, (*self.low, *self.high))) < largest


def _per_channel(
    percentiles: Percentiles | Sequence[Percentiles], n_channels: int
) -> tuple[Percentiles, ...]:
    pairs = np.asarray(percentiles, float).reshape(-1, 2)
    if len(pairs) not in (1, n_channels):
        raise ValueError(f"{len(pairs)} pairs of percentiles for {n_channels} channels")
    chosen = [(float(low), float(high)) for low, high in pairs]
    return tuple(chosen * n_channels if len(chosen) == 1 else chosen)


def _samples(volume: Volume) -> list[np.ndarray]:
    """Finite gray values of each channel, float64, from all over the stack."""
    n_channels = volume.n_channels
    planes = list(volume.sample_planes(min(_SAMPLE_VOXELS, _SAMPLE_ALL_CHANNELS // n_channels)))
    samples = []
    for channel in range(n_channels):
        values = np.concatenate([plane[channel].ravel() for plane in planes]).astype(np.float64)
        samples.append(values[np.isfinite(values)])
    return samples


def _numbers(values: np.ndarray, limits: tuple[float, float]) -> tuple[float, float, float, float]:
    """Low, high, mean and std of one channel."""
    if not len(values):
        return 0.0, 0.0, 0.0, 1.0
    low, high = limits
    if low == high:
        # Signal in less than 0.1 % of the voxels must not be clipped away.
        low, high = float(values.min()), float(values.max())
    # A power of two changes no digit, and keeps squares of huge and tiny numbers in range.
    _, exponent = math.frexp(max(abs(low), abs(high)))
    scaled = np.ldexp(values.clip(low, high), -exponent)
    mean, std = float(scaled.mean()), max(float(scaled.std()), _RELATIVE_STD)
    smallest = float(np.finfo(np.float64).tiny)
    return low, high, math.ldexp(mean, exponent), max(math.ldexp(std, exponent), smallest)
