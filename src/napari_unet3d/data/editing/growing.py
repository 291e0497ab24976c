"""Grows a region from a click to the border of the object, by gray values.

The window around the click is smoothed, and each gray value is expressed as its distance from
that of the click: 0 is like the click, 1 is like the surroundings. The object is the part within a
tolerance that hangs together with the click, without its holes. It is cut off at necks, which join
it to its neighbors. The constants were chosen on clicks into 67 nuclei and 50 vessels of two
stacks, by the share of objects that reach an IoU of 0.8 (`benchmarks/tools.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu

from napari_unet3d.data.editing.region import Region

TOLERANCE = 0.7
"""Share of the way from the gray value of the click to that of the surroundings. Truth is drawn
around the blurred border: 0.5, the middle of it, gives objects that are too small."""
TOLERANCE_STEP = 0.05
"""Change of the tolerance by one step of the mouse wheel."""
LOWEST_TOLERANCE, HIGHEST_TOLERANCE = 0.1, 1.2
"""Shares as `TOLERANCE`: from little more than the click to all that is like the surroundings."""
_SMOOTHING = 1.5
"""Voxels (of the finer axis). Less leaves noise at the border, more hides gaps between objects."""
_NECK = 0.6
"""Share of the object's half width at the click. Narrower necks are cut."""
_RADII = (24, 48, 96, 192, 384)
"""Voxels (of the finer axis) from the click to the border of the window. The window grows until
the object fits, so that the surroundings of a small object are its own."""
_MOST_RADIUS = 96
"""Voxels from the click to the border of the window that are computed; larger windows are averaged
first, so that a step of the mouse takes less than 20 ms."""


_LEAST_SEPARATION = 0.7
"""Share of the variance, 0 to 1. Noise alone, which holds no object, is split with 0.64; the window
grows until it holds more than that."""


class Plane(Protocol):
    """A slice of gray values, (h, w): a numpy array, or what reads the boxes it is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""

    def __getitem__(self, box: tuple[slice, slice], /) -> Any:
        """Read a box."""


@dataclass(frozen=True, eq=False)
class Growth:
    """What may be grown from one click; `region` says how much of it is.

    Parameters
    ----------
    distance
        (h, w) float32: 0 for the gray value of the click, 1 for that of the surroundings.
    separation
        Share of the variance of the gray values that two groups, object and surroundings, explain.
    seed
        Row and column of the click in `distance`.
    start
        Row and column of the slice where `distance` begins.
    step
        Voxels of the slice along each axis of a voxel of `distance`.
    spacing
        Size of the voxels of `distance`, in units of the finer axis of the slice.
    size
        Rows and columns of the window, in voxels of the slice.
    radius
        From the click to the border of the window, in units of the finer axis of the slice.
    """

    distance: NDArray[np.float32]
    separation: float
    seed: tuple[int, int]
    start: tuple[int, int]
    step: tuple[int, int]
    spacing: tuple[float, float]
    size: tuple[int, int]
    radius: float

    def region(self, tolerance: float = TOLERANCE, radius: float | None = None) -> Region:
        """The region of a tolerance.

        Parameters
        ----------
        tolerance
            0 to 1: share of the way from the gray value of the click to that of the surroundings.
        radius
            The region reaches no further from the click than this, in units of the finer axis of
            the slice; None for no bound.
        """
        inside = self.distance <= min(max(tolerance, LOWEST_TOLERANCE), HIGHEST_TOLERANCE)
        inside[self.seed] = True
        mask = _cut_necks(_without_holes(_connected(inside, self.seed)), self.seed, self.spacing)
        if radius is not None:
            rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
            squared = ((rows - self.seed[0]) * self.spacing[0]) ** 2
            squared = squared + ((columns - self.seed[1]) * self.spacing[1]) ** 2
            mask = _connected(mask & (squared <= radius**2), self.seed)
        region = Region.of(_enlarged(mask, self.step, self.size), self.start)
        assert region is not None  # it holds the click
        return region

    def touches_window(self, region: Region, shape: tuple[int, ...]) -> bool:
        """Return whether a region ends at the window, and not at the border of the slice."""
        for axis in (0, 1):
            first, last = self.start[axis], self.start[axis] + self.size[axis]
            if region.start[axis] <= first and first > 0:
                return True
            if region.box[axis].stop >= last and last < shape[axis]:
                return True
        return False


def grow(
    plane: Plane, seed: tuple[int, int], spacing: tuple[float, float], reach: float = 0.0
) -> Growth:
    """Prepare to grow a region from a click.

    Parameters
    ----------
    plane
        Gray values, (h, w); or (C, h, w) boxes of several channels.
    seed
        Row and column of the click.
    spacing
        Size of the voxels along the rows and columns, in any unit.
    reach
        Least distance from the click to the border of the window, in units of the finer axis.

    Raises
    ------
    ValueError
        The click is outside of the slice.
    """
    shape = plane.shape[-2:]
    if not all(0 <= i < n for i, n in zip(seed, shape, strict=True)):
        raise ValueError(f"the click {seed} is outside of a slice of {shape}")
    fine = min(spacing)
    relative = spacing[0] / fine, spacing[1] / fine
    growth: Growth | None = None
    for radius in _RADII:
        if radius < reach and radius != _RADII[-1]:
            continue
        growth = _grow_within(plane, seed, relative, radius)
        fits = not growth.touches_window(growth.region(), (shape[0], shape[1]))
        if fits and growth.separation > _LEAST_SEPARATION:
            break
    assert growth is not None
    return growth


def _grow_within(
    plane: Plane, seed: tuple[int, int], spacing: tuple[float, float], radius: int
) -> Growth:
    shape = plane.shape[-2:]
    reduced = max(1, radius // _MOST_RADIUS)
    step = max(1, round(reduced / spacing[0])), max(1, round(reduced / spacing[1]))
    box, window_seed = [], []
    for axis in (0, 1):
        half = max(2, round(radius / spacing[axis]))
        start, stop = max(0, seed[axis] - half), min(shape[axis], seed[axis] + half + 1)
        box.append(slice(start, stop))
        window_seed.append((seed[axis] - start) // step[axis])
    window = _averaged(_one_channel(np.asarray(plane[box[0], box[1]])), step)
    coarse = step[0] * spacing[0], step[1] * spacing[1]
    sigma = [_SMOOTHING * min(coarse) / size for size in coarse]
    smooth = ndimage.gaussian_filter(window, sigma)
    at = window_seed[0], window_seed[1]
    distance, separation = _distance(smooth, at)
    return Growth(
        distance=distance,
        separation=separation,
        seed=at,
        start=(box[0].start, box[1].start),
        step=step,
        spacing=coarse,
        size=(box[0].stop - box[0].start, box[1].stop - box[1].start),
        radius=float(radius),
    )


def _one_channel(window: np.ndarray) -> NDArray[np.float32]:
    """Gray values (h, w) of a window; channels (C, h, w) count alike, whatever their range is."""
    gray = np.nan_to_num(window.astype(np.float32), posinf=0.0, neginf=0.0)
    if gray.ndim == 2:
        return gray
    spread = gray.std((1, 2), keepdims=True)
    mean: NDArray[np.float32] = (gray / np.where(spread > 0, spread, 1)).mean(0)
    return mean


def _averaged(window: NDArray[np.float32], step: tuple[int, int]) -> NDArray[np.float32]:
    """Means of blocks of `step` voxels; the last block repeats the last voxels."""
    if step == (1, 1):
        return window
    missing = [(0, -n % s) for n, s in zip(window.shape, step, strict=True)]
    padded = np.pad(window, missing, mode="edge")
    height, width = padded.shape[0] // step[0], padded.shape[1] // step[1]
    blocks = padded.reshape(height, step[0], width, step[1])
    return np.asarray(blocks.mean((1, 3)), np.float32)


def _enlarged(
    mask: NDArray[np.bool_], step: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.bool_]:
    if step == (1, 1):
        return mask
    rows, columns = (
        (np.arange(n) + 0.5) / s - 0.5 for n, s in zip(size, step, strict=True)
    )  # centers of the voxels of the slice
    smooth = ndimage.map_coordinates(
        mask.astype(np.float32), np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest"
    )
    return np.asarray(smooth > 0.5)


def _distance(
    smooth: NDArray[np.float32], seed: tuple[int, int]
) -> tuple[NDArray[np.float32], float]:
    """Distance of gray values from that of the click, and the separation; see `Growth`."""
    row, column = seed
    clicked = np.median(smooth[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2])
    difference = np.abs(smooth - clicked)
    if smooth.max() > smooth.min():
        threshold = threshold_otsu(smooth)  # type: ignore[no-untyped-call]
        above = smooth > threshold
        low, high = smooth[~above], smooth[above]
        if len(low) and len(high):
            others = low if clicked > threshold else high
            contrast = abs(float(np.median(others)) - float(clicked))
            between = len(low) * len(high) / smooth.size**2 * (high.mean() - low.mean()) ** 2
            if contrast > 0:
                distance = np.asarray(difference / contrast, np.float32)
                return distance, float(between / smooth.var())
    return np.zeros_like(smooth), 0.0


def _connected(mask: NDArray[np.bool_], seed: tuple[int, int]) -> NDArray[np.bool_]:
    parts, _ = ndimage.label(mask)
    return np.asarray((parts == parts[seed]) & mask)


def _without_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    outside, _ = ndimage.label(~np.pad(mask, 1))
    return np.asarray(outside != outside[0, 0])[1:-1, 1:-1]


def _cut_necks(
    mask: NDArray[np.bool_], seed: tuple[int, int], spacing: tuple[float, float]
) -> NDArray[np.bool_]:
    """Cut a mask at its narrow places: open it, and keep the part with the click."""
    whole = Region.of(mask)
    assert whole is not None
    # One voxel more, since the border of the slice is no border of the object.
    box = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in whole.box)
    inner = mask[box]
    if inner.all():
        return mask
    row, column = seed[0] - box[0].start, seed[1] - box[1].start
    depth = ndimage.distance_transform_edt(inner, sampling=spacing)
    # The half width of the object is that of the deepest voxel near the click.
    near = [max(1, int(np.ceil(depth[row, column] / size))) for size in spacing]
    around = depth[
        max(0, row - near[0]) : row + near[0] + 1, max(0, column - near[1]) : column + near[1] + 1
    ]
    width = _NECK * float(around.max())
    if width <= max(spacing):
        return mask  # too thin to have necks
    cores, _ = ndimage.label(depth > width)
    distance, index = ndimage.distance_transform_edt(
        cores == 0, sampling=spacing, return_indices=True
    )
    nearest = cores[tuple(index)]
    kept = inner & (nearest == nearest[row, column]) & (distance <= width)
    if not kept[row, column]:
        return mask  # the click lies in the neck
    result = np.zeros_like(mask)
    result[box] = _connected(kept, (row, column))
    return result
