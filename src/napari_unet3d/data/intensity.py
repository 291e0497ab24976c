"""Gray-value normalization: what a network sees instead of raw intensities."""

from __future__ import annotations

from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_unet3d.data.volume import Volume

_SAMPLE_VOXELS = 4_000_000
_PERCENTILES = (0.1, 99.9)
_SMALLEST_STD = 1e-30
_RELATIVE_STD = 1e-9
_EXACT_IN_SINGLE = 2  # bytes of the integers that float32 holds exactly

_Number = Annotated[float, Field(allow_inf_nan=False)]
_PerChannel = Annotated[tuple[_Number, ...], Field(min_length=1, max_length=64)]


class IntensityNormalization(BaseModel):
    """Clip each channel to `low` … `high`, subtract `mean` and divide by `std`.

    Every stack is normalized by its own numbers. Those of the stack a network was trained on
    are saved with it, for information.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: _PerChannel
    high: _PerChannel
    mean: _PerChannel
    std: Annotated[
        tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...],
        Field(min_length=1, max_length=64),
    ]

    @model_validator(mode="after")
    def _channels_match(self) -> Self:
        if not len(self.low) == len(self.high) == len(self.mean) == len(self.std):
            raise ValueError("low, high, mean and std must have one number per channel each")
        if any(a > b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low {self.low} must not be above high {self.high}")
        return self

    @property
    def n_channels(self) -> int:
        """Channels of the images it fits."""
        return len(self.low)

    @classmethod
    def estimate(cls, volume: Volume) -> Self:
        """Find the numbers for a volume, from at most about 4 million voxels per channel.

        The percentiles 0.1 and 99.9 clip hot pixels away; values that are not finite are left
        out. The sampled planes are spread evenly over the stack and all time points.

        Parameters
        ----------
        volume
            The image; at most 64 channels.

        Returns
        -------
        IntensityNormalization
            Always usable: a channel that is constant becomes 0.
        """
        planes = list(volume.sample_planes(_SAMPLE_VOXELS))
        numbers = [
            _estimate(np.concatenate([plane[channel].ravel() for plane in planes]))
            for channel in range(volume.n_channels)
        ]
        low, high, mean, std = zip(*numbers, strict=True)
        return cls(low=low, high=high, mean=mean, std=std)

    def apply(self, crop: np.ndarray) -> np.ndarray:
        """Normalize voxels.

        Parameters
        ----------
        crop
            (C, z, y, x), as `Volume.crop` gives it; any number format. Left as it is.

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
        exact = crop.dtype.itemsize <= _EXACT_IN_SINGLE or crop.dtype == np.float32
        out = crop.astype(np.float32 if exact else np.float64)
        for channel, low, high, mean, std in zip(
            out, self.low, self.high, self.mean, self.std, strict=True
        ):
            np.clip(channel, low, high, out=channel)
            channel -= mean
            channel /= std
        if crop.dtype.kind == "f":
            out[np.isnan(out)] = 0
        return out.astype(np.float32, copy=False)


def _estimate(values: np.ndarray) -> tuple[float, float, float, float]:
    """Low, high, mean and std of one channel."""
    values = values.astype(np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 0.0, 0.0, 1.0
    low, high = (float(p) for p in np.percentile(values, _PERCENTILES))
    if low == high:
        # Signal in less than 0.1 % of the voxels must not be clipped away.
        low, high = float(values.min()), float(values.max())
    np.clip(values, low, high, out=values)
    floor = max(_RELATIVE_STD * max(abs(low), abs(high)), _SMALLEST_STD)
    return low, high, float(values.mean()), max(float(values.std()), floor)
