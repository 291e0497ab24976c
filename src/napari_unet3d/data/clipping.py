"""Where gray values are clipped: percentiles of a stack that leave painted classes whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from napari_unet3d.config import CLIP_PERCENTILES, Triple
from napari_unet3d.data.labelled_voxels import LabelledVoxels
from napari_unet3d.data.volume import Volume

Percentiles = tuple[float, float]
"""Of the lower and the upper end, 0 … 100."""
_TAIL_VOXELS = 2**30
"""Voxels of each channel that are looked at for percentiles beyond the usual ones: all of a stack
of up to 1024³, since what is so rare may be missing in a sample."""
_CUT_SHARE, _CUT_VOXELS = 0.02, 3
"""Painted voxels of a class that may lie beyond the clip: saturating its brightest 2 % takes
nothing away, while beads in noise have nearly all of theirs there; one or two are hot pixels."""
_KEPT_RANGE = (0.005, 0.995)
"""Quantiles of a painted class between which nothing is clipped; hot pixels are outside."""
_VOXELS_OF_A_SLICE = 5000
"""Painted voxels of one class on one slice whose gray values are looked at."""
_BOX_VOXELS = 2**22
"""Voxels of all channels that are read at once to look up those of single voxels."""
LARGEST = 1e300
"""Gray value. Smaller ones can be subtracted from each other without an overflow."""
_LOW, _HIGH = 0, 1


def painted_values(volume: Volume, painted: Sequence[LabelledVoxels]) -> dict[int, np.ndarray]:
    """Gray values of the painted voxels.

    Parameters
    ----------
    volume
        The image.
    painted
        Voxels by slice.

    Returns
    -------
    dict of int to np.ndarray
        Code of each class that is painted (2, …: not the background) → (C, n) gray values.
    """
    values: dict[int, list[np.ndarray]] = {}
    for voxels in painted:
        for code in np.unique(voxels.codes):
            if code < 2:
                continue
            coordinates = voxels.of_class(int(code))
            coordinates = coordinates[:: -(-len(coordinates) // _VOXELS_OF_A_SLICE)]
            values.setdefault(int(code), []).append(_look_up(volume, voxels.ref.time, coordinates))
    return {code: np.concatenate(parts, 1) for code, parts in values.items()}


def _look_up(volume: Volume, time: int, coordinates: np.ndarray) -> np.ndarray:
    """Gray values (C, n) at voxels (n, 3), read box by box."""
    start, stop = coordinates.min(0), coordinates.max(0) + 1
    extent = stop - start
    if np.prod(extent, dtype=float) * volume.n_channels > _BOX_VOXELS and extent.max() > 1:
        axis = int(extent.argmax())
        first = coordinates[:, axis] < start[axis] + extent[axis] // 2
        values_there = np.empty((volume.n_channels, len(coordinates)), volume.dtype)
        for half in (first, ~first):
            if half.any():
                values_there[:, half] = _look_up(volume, time, coordinates[half])
        return values_there
    crop = volume.crop(time, _triple(start), _triple(stop))
    z, y, x = (coordinates - start).T
    picked: np.ndarray = crop[:, z, y, x]
    return picked


def _triple(position: np.ndarray) -> Triple:
    z, y, x = (int(n) for n in position)
    return z, y, x


def widen(
    volume: Volume,
    samples: Sequence[np.ndarray],
    clip: Sequence[Percentiles],
    classes: Mapping[int, np.ndarray],
) -> tuple[tuple[Percentiles, ...], list[tuple[float, float]]]:
    """Widen percentiles until they leave the painted classes whole.

    Parameters
    ----------
    volume
        The image.
    samples
        Of each channel, finite gray values from all over the stack.
    clip
        Percentiles of each channel.
    classes
        As `painted_values` gives them.

    Returns
    -------
    tuple of (low, high) percentiles, list of (low, high) gray values
        The percentiles of each channel, and the range of gray values that must be inside; that
        is empty (infinity, -infinity) where nothing would be cut.
    """
    bounds = []
    targets: dict[tuple[int, int], float] = {}
    for channel, sample in enumerate(samples):
        bound = _range_to_keep(sample, clip[channel], [v[channel] for v in classes.values()])
        bounds.append(bound)
        for side in (_LOW, _HIGH):
            if np.isfinite(bound[side]):
                targets[channel, side] = bound[side]
    if not targets:
        return tuple(clip), bounds
    wide = [list(ends) for ends in clip]
    for (channel, side), percentile in _ranks(volume, samples, targets).items():
        pick = max if side == _HIGH else min
        wide[channel][side] = pick(wide[channel][side], percentile)
    return tuple((low, high) for low, high in wide), bounds


def _range_to_keep(
    sample: np.ndarray, clip: Percentiles, classes: Sequence[np.ndarray]
) -> tuple[float, float]:
    kept = [np.inf, -np.inf]
    if not len(sample):
        return np.inf, -np.inf
    low, high = _percentiles(sample, clip)
    for values in classes:
        finite = _finite(values).astype(np.float64)
        enough = max(_CUT_VOXELS, _CUT_SHARE * len(finite))
        if np.count_nonzero(finite > high) >= enough:
            kept[_HIGH] = max(kept[_HIGH], np.quantile(finite, _KEPT_RANGE[1], method="lower"))
        if np.count_nonzero(finite < low) >= enough:
            kept[_LOW] = min(kept[_LOW], np.quantile(finite, _KEPT_RANGE[0], method="higher"))
    return float(kept[_LOW]), float(kept[_HIGH])


def _ranks(
    volume: Volume, samples: Sequence[np.ndarray], targets: Mapping[tuple[int, int], float]
) -> dict[tuple[int, int], float]:
    """The mildest percentiles whose values are not short of `targets`, by (channel, side)."""
    percentiles: dict[tuple[int, int], float] = {}
    for (channel, side), target in targets.items():
        sample = samples[channel]
        beyond = int(np.count_nonzero(_is_beyond(side, sample, target)))
        share = max(0, beyond - 1) / max(1, len(sample) - 1)
        percentiles[channel, side] = _percentile(side, share)
    rare = {key: targets[key] for key, p in percentiles.items() if _is_rare(key[1], p)}
    if not rare:
        return percentiles
    counts, total = dict.fromkeys(rare, 0), 0
    for box in volume.sample_boxes(_TAIL_VOXELS):
        total += box[0].size
        for (channel, side), target in rare.items():
            beyond = _is_beyond(side, _finite(box[channel].ravel()), target)
            counts[channel, side] += int(np.count_nonzero(beyond))
    for (channel, side), count in counts.items():
        # Half a voxel more: the same voxel is found again whatever is rounded.
        exact = _percentile(side, (max(0, count - 1) + 0.5) / total)
        percentiles[channel, side] = exact if _is_rare(side, exact) else CLIP_PERCENTILES[side]
    return percentiles


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)] if values.dtype.kind == "f" else values


def _is_beyond(side: int, values: np.ndarray, limit: Any) -> Any:
    """Where numbers are not short of a limit."""
    return values >= limit if side == _HIGH else values <= limit


def ends(
    volume: Volume, samples: Sequence[np.ndarray], clip: Sequence[Percentiles]
) -> list[tuple[float, float]]:
    """Gray values at the percentiles of each channel.

    They come from the samples; beyond the usual percentiles, from all voxels up to 2³⁰.
    """
    values = [
        _percentiles(sample, pair) if len(sample) else (0.0, 0.0)
        for sample, pair in zip(samples, clip, strict=True)
    ]
    rare = {
        (channel, side): _share(side, percentile)
        for channel, both in enumerate(clip)
        for side, percentile in enumerate(both)
        if _is_rare(side, percentile) and len(samples[channel])
    }
    if rare:
        for (channel, side), value in _tail_values(volume, rare).items():
            low, high = values[channel]
            values[channel] = (low, value) if side == _HIGH else (value, high)
    return values


def _percentiles(sample: np.ndarray, percentiles: Percentiles) -> tuple[float, float]:
    if max(-sample.min(), sample.max()) > LARGEST:
        low, high = 2 * np.percentile(sample / 2, percentiles)
    else:
        low, high = np.percentile(sample, percentiles)
    return float(low), float(high)


def _tail_values(
    volume: Volume, shares: Mapping[tuple[int, int], float]
) -> dict[tuple[int, int], float]:
    """Gray values beyond which a share of the voxels lies, by (channel, side)."""
    size = volume.n_times * np.prod(volume.shape, dtype=float)
    most = int(min(size, _TAIL_VOXELS + 2**24))  # and a box more than these
    tails = {key: _Tail(int(share * most) + 1, key[1]) for key, share in shares.items()}
    total = 0
    for box in volume.sample_boxes(_TAIL_VOXELS):
        total += box[0].size
        for (channel, _), tail in tails.items():
            tail.add(box[channel].ravel())
    return {key: tail.value(int(shares[key] * total)) for key, tail in tails.items()}


class _Tail:
    """The `count` largest (or smallest) of many numbers, which come piece by piece."""

    def __init__(self, count: int, side: int) -> None:
        self._count, self._side = count, side
        self._parts: list[np.ndarray] = []
        self._size = 0
        self._limit: Any = None

    def add(self, values: np.ndarray) -> None:
        values = _finite(values)
        if self._limit is not None:
            values = values[_is_beyond(self._side, values, self._limit)]
        self._parts.append(values)
        self._size += len(values)
        if self._size > 2 * self._count + 2**16:
            self._shrink()

    def value(self, rank: int) -> float:
        """The number that `rank` others are beyond."""
        self._shrink()
        ordered = np.sort(self._parts[0])
        rank = min(rank, len(ordered) - 1)
        return float(ordered[-1 - rank] if self._side == _HIGH else ordered[rank])

    def _shrink(self) -> None:
        values = np.concatenate(self._parts)
        if len(values) > self._count:
            if self._side == _HIGH:
                first = len(values) - self._count
                values = np.partition(values, first)[first:]
                self._limit = values[0]
            else:
                values = np.partition(values, self._count - 1)[: self._count]
                self._limit = values[-1]
        self._parts, self._size = [values.copy()], len(values)


def _is_rare(side: int, percentile: float) -> bool:
    usual = CLIP_PERCENTILES[side]
    return percentile > usual if side == _HIGH else percentile < usual


def _share(side: int, percentile: float) -> float:
    return (100 - percentile) / 100 if side == _HIGH else percentile / 100


def _percentile(side: int, share: float) -> float:
    return 100 * (1 - share) if side == _HIGH else 100 * share
