"""An array of the size of a stack, of which only one slice holds values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.data.slices import SliceRef, space


class OneSlice:
    """Values of one slice of a stack, ZYX or TZYX, and 0 elsewhere; read as numpy is.

    It shows what is known about the slice in view without the memory of a stack.

    Parameters
    ----------
    shape
        As numpy's.
    dtype
        Of the values.

    Attributes
    ----------
    ref
        The slice that holds values; None at first.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.ndim = len(self.shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.ref: SliceRef | None = None
        self._plane = np.zeros((0, 0), self.dtype)

    def clear(self, ref: SliceRef | None = None) -> None:
        """Forget all values, and take those of another slice from now on."""
        self.ref = ref
        sides = () if ref is None else [n for a, n in enumerate(space(self)) if a != ref.axis]
        self._plane = np.zeros(sides or (0, 0), self.dtype)

    def write(self, start: tuple[int, int], values: NDArray[Any]) -> None:
        """Set values (h, w) of the slice, from the row and column `start` on."""
        (row, column), (h, w) = start, values.shape
        self._plane[row : row + h, column : column + w] = values

    def __getitem__(self, key: Any) -> NDArray[Any]:
        keys = key if isinstance(key, tuple) else (key,)
        if Ellipsis in [k for k in keys if not isinstance(k, np.ndarray)]:
            at = next(i for i, k in enumerate(keys) if k is Ellipsis)
            gap = self.ndim - len(keys) + 1
            keys = (*keys[:at], *(slice(None),) * gap, *keys[at + 1 :])
        keys = (*keys, *(slice(None),) * (self.ndim - len(keys)))
        indices = [np.arange(n)[k] for n, k in zip(self.shape, keys, strict=True)]
        if all(np.ndim(k) for k in keys if not isinstance(k, slice)) and not any(
            isinstance(k, slice) for k in keys
        ):
            return self._points(np.broadcast_arrays(*indices))
        sizes = [np.atleast_1d(i) for i in indices]
        values = np.zeros([len(i) for i in sizes], self.dtype)
        if self.ref is not None:
            hidden = self.ndim - 3 + self.ref.axis
            place = [np.arange(len(i)) for i in sizes]
            place[hidden] = np.flatnonzero(sizes[hidden] == self.ref.index)
            if self.ndim == 4:
                place[0] = np.flatnonzero(sizes[0] == self.ref.time)
            rows, columns = (i for a, i in enumerate(sizes[-3:]) if a != self.ref.axis)
            plane = np.expand_dims(self._plane[np.ix_(rows, columns)], self.ref.axis)
            values[np.ix_(*place)] = plane
        left: NDArray[Any] = values[tuple(0 if np.ndim(i) == 0 else slice(None) for i in indices)]
        return left

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)

    def _points(self, indices: Any) -> NDArray[Any]:
        values = np.zeros(indices[0].shape, self.dtype)
        if self.ref is not None:
            inside = indices[self.ndim - 3 + self.ref.axis] == self.ref.index
            if self.ndim == 4:
                inside &= indices[0] == self.ref.time
            rows, columns = (i for a, i in enumerate(indices[-3:]) if a != self.ref.axis)
            values[inside] = self._plane[rows[inside], columns[inside]]
        return values
