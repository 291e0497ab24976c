"""Labels to which slices are added while somebody reads them: those below are never written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_unet3d.data.slices import SliceRef, n_times, space


@dataclass(frozen=True, eq=False)
class SlicePaint:
    """The labels of one slice, as they are from now on.

    Parameters
    ----------
    ref
        The slice.
    labels
        (n, m) integers, all labels of the slice; a copy that nobody paints on any more.
    held_out
        Whether the slice is used to measure, and not to learn from.
    """

    ref: SliceRef
    labels: np.ndarray
    held_out: bool = False


class JoinedLabels:
    """Labels with whole slices laid over them; later slices lie above earlier ones.

    The labels below may be anything that can be read: a copy, a file, the layer of a window. They
    are never written, so a training can take in slices without changing what it was given.

    Parameters
    ----------
    below
        Integers, ZYX or TZYX; in memory, zarr or dask.

    Attributes
    ----------
    shape, dtype, ndim
        Those of the labels below.
    """

    def __init__(self, below: Any) -> None:
        self._below = below
        self.shape: tuple[int, ...] = tuple(below.shape)
        self.dtype = np.dtype(below.dtype)
        self.ndim = len(self.shape)
        self._slices: dict[SliceRef, np.ndarray] = {}
        if hasattr(below, "painted_planes"):
            # Only labels that know where they are empty have this method: readers ask for it.
            self.painted_planes: Callable[[int], list[int]] = self._painted_planes

    @property
    def chunks(self) -> Any:
        """Chunks of the labels below; None where they have none."""
        return getattr(self._below, "chunks", None)

    def lay(self, ref: SliceRef, labels: np.ndarray) -> None:
        """Lay a slice (2D) over the labels, above all slices that were laid before."""
        self._slices.pop(ref, None)
        self._slices[ref] = np.asarray(labels, self.dtype)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a box: slices along z, y, x, and before them a time point where there is a time."""
        values = np.asarray(self._below[key])
        if not self._slices:
            return values
        keys = key if isinstance(key, tuple) else (key,)
        keys = (*keys, *(slice(None),) * (self.ndim - len(keys)))
        places = [_places(k, n) for k, n in zip(keys, self.shape, strict=True)]
        box = np.array(values).reshape([len(p) for p in places])
        for ref, labels in self._slices.items():
            self._lay_into(box, places, ref, labels)
        return box.reshape(values.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[(slice(None),) * self.ndim], dtype)

    def _lay_into(
        self, box: np.ndarray, places: list[range], ref: SliceRef, labels: np.ndarray
    ) -> None:
        times, spatial = ([range(1)], places) if self.ndim == 3 else (places[:1], places[1:])
        if ref.index not in spatial[ref.axis] or ref.time not in times[0]:
            return
        others = [p for axis, p in enumerate(spatial) if axis != ref.axis]
        inside = labels[_slice(others[0]), _slice(others[1])]
        where: list[Any] = [slice(None)] * 3
        where[ref.axis] = spatial[ref.axis].index(ref.index)
        if self.ndim == 4:
            where.insert(0, times[0].index(ref.time))
        box[tuple(where)] = inside

    def _painted_planes(self, time: int = 0) -> list[int]:
        planes = set(self._below.painted_planes(time))
        for ref, labels in self._slices.items():
            if ref.time == time and ref.axis == 0:
                planes.add(ref.index)
            elif ref.time == time:
                planes.update(np.flatnonzero(labels.any(1)).tolist())
        return sorted(planes)


def check_paint(paint: SlicePaint, labels: Any) -> bool:
    """Whether a slice is one of these labels: it lies in them, has their size, and is integer."""
    ref, shape = paint.ref, space(labels)
    plane = tuple(n for axis, n in enumerate(shape) if axis != ref.axis)
    return (
        0 <= ref.index < shape[ref.axis]
        and 0 <= ref.time < n_times(labels)
        and paint.labels.shape == plane
        and paint.labels.dtype.kind in "iub"
    )


def _places(key: Any, n: int) -> range:
    """The positions that a slice or a number of an index stands for."""
    if isinstance(key, slice):
        return range(n)[key]
    position = int(key)
    return range(position, position + 1) if position >= 0 else range(n + position, n + position + 1)


def _slice(places: range) -> slice:
    stop = places.stop if places.stop >= 0 else None
    return slice(places.start, stop, places.step)
