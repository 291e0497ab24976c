"""The slice ledger: the slices that hold paint, listed once and then kept up to date."""

from __future__ import annotations

import time as clock
from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from napari_unet3d.data.ledger_reading import CountedPlanes, PlaneBlock, Reading, block_shape
from napari_unet3d.data.paint_counts import PaintCounts, to_codes
from napari_unet3d.data.painted_slices import PaintedSlice, PaintedSlices
from napari_unet3d.data.slices import (
    SliceRef,
    at_time,
    check_layout,
    n_times,
    read_slice,
    space,
)

_BLOCK_BYTES = 2**22
"""Bytes read in one step, which takes a few milliseconds."""
_MOST_IN_BOX = 2**24
"""Voxels of a box. Index arrays in a larger box are not counted; the box is read again instead."""

_READING_VOXELS = 2**26
"""Voxels that another thread reads before it hands over: some 0.1 s of work."""

_KNOWN, _DOUBTED, _UNREAD = 0, 1, 2


def find_painted_slices(labels: Any) -> list[PaintedSlice]:
    """List every slice that holds paint, in any of the three orientations.

    Each labelled voxel belongs to one slice. A plane whose neighbors hold no paint is a slice
    (xy before xz before yz); otherwise the plane with most voxels is the next one, and takes
    its voxels away from those that cross it. Where most of a volume is labelled, or where there
    would be more than 128 xz and yz slices, all slices are xy slices.

    Parameters
    ----------
    labels
        Integers, ZYX or TZYX; in memory, zarr or dask.

    Returns
    -------
    list of PaintedSlice
        Sorted by time, axis and index.

    Raises
    ------
    BadInputError
        When the labels are no integers, or have neither 3 nor 4 axes.
    """
    ledger = SliceLedger(labels)
    ledger.work()
    return ledger.slices()


class SliceLedger:
    """Knows the painted slices of labels that are being painted.

    It reads the labels once. Later it is told what changed, or which part it should read again.
    It keeps counts by line and plane and the voxels of painted xz and yz slices, which is little.

    Parameters
    ----------
    labels
        Integers, ZYX or TZYX; in memory, zarr or dask.
    encode
        Turns labels into the uint8 values that are counted instead of them; 0 is no paint.
    block_bytes
        Bytes of labels that are read in one step of `work`.

    Attributes
    ----------
    labels
        The labels it looks at.
    revision
        Counts how often `slices` may have changed.
    was_surprised
        Whether something was ever read again and had changed without being told.

    Raises
    ------
    BadInputError
        When the labels are no integers, or have neither 3 nor 4 axes.
    """

    def __init__(
        self,
        labels: Any,
        encode: Callable[[np.ndarray], np.ndarray] | None = None,
        block_bytes: int = _BLOCK_BYTES,
    ) -> None:
        check_layout(labels)
        self.labels = labels
        self.revision = 0
        self.was_surprised = False
        self._encode = encode
        self._exact = encode is not None or np.dtype(labels.dtype) == np.uint8
        self._shape = space(labels)
        self._planes, self._rows = block_shape(labels, block_bytes)
        times = n_times(labels) if all(self._shape) else 0
        self._status = np.full((times, self._shape[0]), _UNREAD, np.uint8)
        self._status[self._surely_empty()] = _KNOWN
        self._counts: dict[int, PaintCounts] = {}
        self._painted: dict[int, PaintedSlices] = {}
        self._stale: set[int] = set()
        self._job: Iterator[None] | None = None
        self._reading: tuple[int, int, int] | None = None
        self._elsewhere: Reading | None = None

    # ---- answers

    def slices(self) -> list[PaintedSlice]:
        """List the painted slices by time, axis and index, as far as `work` has come."""
        return [row for time in sorted(self._painted) for row in self._painted[time].rows]

    def share_read(self) -> float:
        """Tell how much of the labels was read at least once, 0 to 1."""
        return float(np.mean(self._status != _UNREAD)) if self._status.size else 1.0

    def is_behind(self) -> bool:
        """Whether `slices` is known to be incomplete or out of date."""
        return bool(self._stale or (self._status == _UNREAD).any())

    # ---- changes

    def change(
        self,
        box: tuple[slice, ...],
        old: np.ndarray | int,
        new: np.ndarray | int,
        mask: np.ndarray | None = None,
    ) -> None:
        """Take note of voxels that have other values now, or will have them soon.

        Parameters
        ----------
        box
            Where they lie: a slice for each axis of the labels.
        old, new
            Their values: one for all, or one for each, in the shape of the box or, with a mask,
            one-dimensional in its order.
        mask
            Which voxels of the box have changed, bool in the shape of the box; None for all.
        """
        ranges = [s.indices(n)[:2] for s, n in zip(box, self.labels.shape, strict=True)]
        shape = tuple(stop - start for start, stop in ranges)
        if not all(shape):
            return
        mask = np.ones(shape, bool) if mask is None else np.asarray(mask).reshape(shape)
        codes = [self._codes(values, mask) for values in (old, new)]
        if len(shape) == 3:
            ranges, mask = [(0, 1), *ranges], mask[None]
            codes = [c if isinstance(c, int) else c[None] for c in codes]
        start = ranges[1][0], ranges[2][0], ranges[3][0]
        for nth, time in enumerate(range(*ranges[0])):
            before, after = (c if isinstance(c, int) else c[nth] for c in codes)
            self._counts_at(time).change(start, mask[nth], before, after)
            self._touched(time, *ranges[1])

    def change_at(
        self, indices: tuple[np.ndarray, ...], old: np.ndarray | int, new: np.ndarray | int
    ) -> None:
        """Take note of changed voxels that are given by index arrays, one for each axis."""
        arrays = [np.asarray(i).ravel() for i in np.broadcast_arrays(*indices)]
        if not len(arrays[0]):
            return
        arrays = [np.where(i < 0, i + n, i) for i, n in zip(arrays, self.labels.shape, strict=True)]
        first = [int(i.min()) for i in arrays]
        box = tuple(slice(a, int(i.max()) + 1) for a, i in zip(first, arrays, strict=True))
        shape = tuple(s.stop - s.start for s in box)
        if np.prod(shape) > _MOST_IN_BOX:
            self.doubt(box)
            return
        inside = tuple(i - a for i, a in zip(arrays, first, strict=True))
        mask = np.zeros(shape, bool)
        mask[inside] = True
        values = []
        for given in (old, new):
            if np.ndim(given):
                full = np.zeros(shape, self.labels.dtype)
                full[inside] = np.ravel(given)
                given = full[mask]
            values.append(given)
        self.change(box, values[0], values[1], mask)

    def doubt(self, box: tuple[slice, ...] | None = None) -> None:
        """Read a box again, or everything: it may have changed in an unknown way.

        Until the box was read, `slices` lists what was known before.
        """
        box = (slice(None),) * len(self.labels.shape) if box is None else box
        times = box[0] if len(box) == 4 else slice(None)
        part = self._status[times, box[-3]]
        part[part == _KNOWN] = _DOUBTED
        self._status[self._surely_empty() & (self._status == _DOUBTED)] = _KNOWN
        self._job, self._reading = None, None
        if self._elsewhere is not None:
            self._elsewhere.disturb_all()

    # ---- work

    def work(self, seconds: float | None = None, *, reading: bool = True) -> bool:
        """Read the planes that were not read yet, and list the slices.

        Parameters
        ----------
        seconds
            Stop after about so long, and go on in the next call; None for no limit.
        reading
            Whether planes are read; otherwise only what was read already is listed, and `reading`
            says what another thread may read.

        Returns
        -------
        bool
            Whether all is done.
        """
        stop = None if seconds is None else clock.perf_counter() + seconds
        while True:
            if self._job is None:
                self._job = self._next_job(reading)
                if self._job is None:
                    return True
            for _ in self._job:
                if stop is not None and clock.perf_counter() > stop:
                    return False
            self._job, self._reading = None, None
            if stop is not None and clock.perf_counter() > stop:
                return not self._stale and not (reading and self._status.any())

    def reading(self) -> Reading | None:
        """The planes that are to be read next, for another thread; None when all are read.

        Give the result to `take_reading`. Only the last reading that was asked for is taken.
        """
        for wanted in (_UNREAD, _DOUBTED):
            if (planes := self._planes_to_read(wanted)) is not None:
                time, first = planes
                voxels, blocks = 0, list[PlaneBlock]()
                while first < self._shape[0] and (not blocks or voxels < _READING_VOXELS):
                    last = min(first + self._planes, self._shape[0])
                    if (self._status[time, first:last] == wanted).any():
                        blocks.append(self._block(time, first, last))
                        voxels += (last - first) * self._shape[1] * self._shape[2]
                    elif blocks:
                        break
                    first = last
                self._elsewhere = Reading(tuple(blocks))
                return self._elsewhere
        return None

    def take_reading(self, reading: Reading) -> bool:
        """Take over what another thread has read; return whether it was still true."""
        is_true = reading is self._elsewhere and not reading.is_disturbed
        self._elsewhere = None
        if is_true:
            self._job, self._reading = None, None
            for counted in reading.counted:
                self._take(counted)
        return is_true

    def _next_job(self, reading: bool) -> Iterator[None] | None:
        for wanted in (_UNREAD, _DOUBTED):
            if wanted == _UNREAD and not reading and (self._status == _UNREAD).any():
                return None  # another thread reads
            if wanted == _DOUBTED and self._stale:
                return self._find(min(self._stale))
            if reading and (planes := self._planes_to_read(wanted)) is not None:
                time, first = planes
                last = min(first + self._planes, self._shape[0])
                self._reading = time, first, last
                return self._read_planes(time, first, last)
        return None

    def _planes_to_read(self, wanted: int) -> tuple[int, int] | None:
        """Time point and first plane of the next block with this status."""
        first_plane = int((self._status == wanted).argmax()) if self._status.size else 0
        time, z = divmod(first_plane, max(1, self._status.shape[1]))
        if self._status.size and self._status[time, z] == wanted:
            return time, z - z % self._planes
        return None

    def _surely_empty(self) -> np.ndarray:
        """Which xy planes hold no paint, (T, Z) bool, as far as the labels know without a look.

        `SparseLabels` know it: they may be larger than any disk.
        """
        empty = np.zeros(self._status.shape, bool)
        if hasattr(self.labels, "painted_planes"):
            empty[:] = True
            for time in range(len(empty)):
                empty[time, self.labels.painted_planes(time)] = False
        return empty

    def _touched(self, time: int, first: int, last: int) -> None:
        """List the slices of a time point again, since voxels there have changed."""
        self._stale.add(time)
        if self._elsewhere is not None:
            self._elsewhere.disturb(time, first, last)
        if self._reading is None or (
            self._reading[0] == time and first < self._reading[2] and self._reading[1] < last
        ):
            self._job, self._reading = None, None

    def _counts_at(self, time: int) -> PaintCounts:
        if time not in self._counts:
            self._counts[time] = PaintCounts(self._shape)
        return self._counts[time]

    def _read(self, time: int, box: tuple[slice, ...]) -> np.ndarray:
        return np.asarray(self.labels[at_time(self.labels, time, box)])

    def _to_codes(self, block: np.ndarray) -> np.ndarray:
        return to_codes(block) if self._encode is None else self._encode(block)

    def _codes(self, values: np.ndarray | int, mask: np.ndarray) -> np.ndarray | int:
        """Return one code, or codes in the shape of a mask, of values as `change` takes them."""
        codes = self._to_codes(np.asarray(values, self.labels.dtype))
        if not codes.size or codes.min() == codes.max():
            return int(codes.flat[0]) if codes.size else 0
        if codes.size == mask.size:
            return codes.reshape(mask.shape)
        full = np.zeros(mask.shape, np.uint8)
        full[mask] = codes
        return full

    def _read_planes(self, time: int, first: int, last: int) -> Iterator[None]:
        """Count the paint of some xy planes."""
        counted = yield from self._block(time, first, last).count()
        self._take(counted)

    def _block(self, time: int, first: int, last: int) -> PlaneBlock:
        known = self._counts.get(time)
        cross = () if known is None else tuple(known.cross)
        return PlaneBlock(self.labels, time, first, last, self._rows, self._encode, cross)

    def _take(self, counted: CountedPlanes) -> None:
        """Take over the counts of planes that were read."""
        time, first = counted.time, counted.first
        last = first + len(counted.by_zy)
        known = self._counts.get(time)
        changed = False
        if known is not None:
            for y, lines in counted.lines:
                changed |= known.check_cross(first, y, lines)
        if known is not None or counted.by_value.any():
            changed |= self._counts_at(time).set_planes(
                first, counted.by_zy, counted.by_zx, counted.by_value
            )
        self.was_surprised |= changed and bool((self._status[time, first:last] == _DOUBTED).any())
        self._status[time, first:last] = _KNOWN
        if changed:
            self._stale.add(time)

    def _find(self, time: int) -> Iterator[None]:
        """Find the slices of a time point."""
        if time not in self._painted:
            self._painted[time] = PaintedSlices(
                self.labels,
                time,
                self._counts_at(time),
                lambda box: self._to_codes(self._read(time, box)),
                self._exact,
            )
        yield from self._painted[time].find()
        self._stale.discard(time)
        self.revision += 1

    # ---- the voxels of the slices

    def claimed_voxels(
        self, only: Collection[SliceRef] | None = None
    ) -> Iterator[tuple[SliceRef, np.ndarray, np.ndarray]]:
        """Read the voxels of each painted slice, or of those in `only`; `work` must be done.

        Yields
        ------
        ref : SliceRef
            The slice.
        coordinates : np.ndarray
            (n, 3) int32: z, y, x.
        codes : np.ndarray
            (n,) uint8, as `encode` returns them.
        """
        for ref in (painted.ref for painted in self.slices()):
            if only is not None and ref not in only:
                continue
            codes = self._to_codes(read_slice(self.labels, ref))
            codes = self._painted[ref.time].claimed(ref, codes)
            first, second = np.nonzero(codes)
            if len(first):
                position = [first, second]
                position.insert(ref.axis, np.full_like(first, ref.index))
                yield ref, np.stack(position, 1).astype(np.int32), codes[first, second]
