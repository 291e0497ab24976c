"""Slices of a stack: their names, reading them, counting the paint on them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_unet3d.config import AXIS_NAMES, PLANE_NAMES, UNLABELLED, Triple
from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.data.wording import counted
from napari_unet3d.errors import BadInputError

_BLOCK_BYTES = 2**22
_COUNTED_VOXELS = 2**18
"""Voxels that are counted at once: a histogram converts each to 8 bytes."""
_SMALL_VALUE = 8
"""Up to this highest value, counting each value by itself is quicker than a histogram."""
_TOKEN = re.compile(r"([zyxt])=([0-9]+(?:,[0-9]+)*)")


@dataclass(frozen=True, order=True)
class SliceRef:
    """One slice of a stack: perpendicular to `axis` (0, 1, 2 = z, y, x), at `index`."""

    axis: int
    index: int
    time: int = 0

    @property
    def plane(self) -> str:
        """The plane it lies in: "xy", "xz" or "yz"."""
        return PLANE_NAMES[self.axis]

    def __str__(self) -> str:
        """As in "z=12"; "t=3 z=12" at a later time point."""
        text = f"{AXIS_NAMES[self.axis]}={self.index}"
        return f"t={self.time} {text}" if self.time else text


def parse_slices(text: str) -> tuple[SliceRef, ...]:
    """Read slices from a text such as "z=12,30 x=4"; `str` of a slice is understood too.

    Parameters
    ----------
    text
        Terms separated by spaces or semicolons; "t=3" sets the time point of what follows.
        An empty text is no slice. Whether they lie in the stack is checked where they are used.

    Returns
    -------
    tuple of SliceRef
        In the order given, each once.

    Raises
    ------
    BadInputError
        When the text is something else.
    """
    compact = re.sub(r"\s*([=,])\s*", r"\1", text.strip().lower())
    slices: dict[SliceRef, None] = {}
    time = 0
    for token in filter(None, re.split(r"[\s;]+", compact)):
        match = _TOKEN.fullmatch(token)
        if match is None or (match[1] == "t" and "," in match[2]):
            raise BadInputError(
                f"'{token}' names no slice. Write the axis and the positions, counted from 0, "
                "as in z=12,30 x=4 (for a time series: t=2 z=12)."
            )
        if match[1] == "t":
            time = int(match[2])
            continue
        for index in match[2].split(","):
            slices[SliceRef(AXIS_NAMES.index(match[1]), int(index), time)] = None
    return tuple(slices)


# --- reading labels -------------------------------------------------------------------------


def space(labels: Any) -> Triple:
    """Voxels along z, y, x."""
    z, y, x = (int(n) for n in labels.shape[-3:])
    return z, y, x


def n_times(labels: Any) -> int:
    """Count the time points; 1 without a time axis."""
    return int(labels.shape[0]) if len(labels.shape) == 4 else 1


def at_time(labels: Any, time: int, box: tuple[Any, ...]) -> tuple[Any, ...]:
    """Index of a box (z, y, x) of labels with or without a time axis."""
    return (time, *box) if len(labels.shape) == 4 else box


def plane_index(axis: int, index: int | np.ndarray) -> tuple[Any, ...]:
    """Index of the plane, or of some planes, perpendicular to an axis."""
    return (*(slice(None),) * axis, index)


def read_slice(labels: Any, ref: SliceRef) -> np.ndarray:
    """Read one slice of labels, 2D."""
    box = [slice(None), slice(None), slice(None)]
    box[ref.axis] = slice(ref.index, ref.index + 1)  # zarr and dask take slices alike
    crop = np.asarray(labels[at_time(labels, ref.time, tuple(box))])
    return np.squeeze(crop, ref.axis)


def painted_planes(labels: Any, time: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield z and voxels (y, x) of every xy plane with paint, read in blocks."""
    depth, height, width = space(labels)
    plane_bytes = height * width * np.dtype(labels.dtype).itemsize
    if not plane_bytes:
        return
    planes = max(1, _BLOCK_BYTES // plane_bytes)
    chunks = getattr(labels, "chunks", None)
    if chunks:
        # Blocks that cut through chunks would decode them several times.
        chunk = chunks[-3] if isinstance(chunks[-3], int) else max(chunks[-3])
        planes = chunk * max(1, planes // chunk)
    starts: Iterable[int] = range(0, depth, planes)
    if hasattr(labels, "painted_planes"):  # `SparseLabels` know where to look
        starts = sorted({z - z % planes for z in labels.painted_planes(time)})
    for start in starts:
        box = (slice(start, min(start + planes, depth)), slice(None), slice(None))
        block = np.ascontiguousarray(labels[at_time(labels, time, box)])
        # As unsigned numbers, negative values count as paint too.
        unsigned = block.view(f"u{block.dtype.itemsize}").reshape(len(block), -1)
        for i in np.flatnonzero(unsigned.max(1)):
            yield start + int(i), block[i]


def count_labels(values: np.ndarray) -> dict[int, int]:
    """Count the voxels of each value but 0."""
    flat = values.ravel()
    total: dict[int, int] = {}
    for start in range(0, len(flat), _COUNTED_VOXELS):
        part = flat[start : start + _COUNTED_VOXELS]
        lowest, highest = part.min(), part.max()
        if lowest >= 0 and highest <= _SMALL_VALUE:
            present = np.arange(1, highest + 1)
            sizes = np.array([np.count_nonzero(part == value) for value in present])
        elif lowest >= 0 and highest < 2**16:
            counts = np.bincount(part.astype(np.intp, copy=False))  # uint64 is refused
            present = np.flatnonzero(counts)
            sizes = counts[present]
        else:
            present, sizes = np.unique(part, return_counts=True)
        for value, n in zip(present.tolist(), sizes.tolist(), strict=True):
            if value != UNLABELLED and n:
                total[value] = total.get(value, 0) + n
    return dict(sorted(total.items()))


@dataclass
class LabelCount:
    """How often a label value is painted, and where first."""

    voxels: int
    first: SliceRef

    def __str__(self) -> str:
        return f"{counted(self.voxels, 'voxel')}, first on slice {self.first}"


def _hide(plane: np.ndarray, z: int, slices: Iterable[SliceRef]) -> None:
    """Make the part of an xy plane unlabelled that lies on other slices."""
    for ref in slices:
        if ref.axis != 0:
            plane[plane_index(ref.axis - 1, ref.index)] = UNLABELLED
        elif ref.index == z:
            plane[:] = UNLABELLED


def count_values(labels: Any, without: Iterable[SliceRef] = ()) -> dict[int, LabelCount]:
    """Count the painted values, leaving out what lies on some slices."""
    check_layout(labels)
    by_value: dict[int, LabelCount] = {}
    for time in range(n_times(labels)):
        hidden = [ref for ref in without if ref.time == time]
        for z, plane in painted_planes(labels, time):
            if hidden:
                plane = plane.copy()
                _hide(plane, z, hidden)
            for value, voxels in count_labels(plane).items():
                count = by_value.setdefault(value, LabelCount(0, SliceRef(0, z, time)))
                count.voxels += voxels
    return by_value


# --- checks ---------------------------------------------------------------------------------


def check_layout(labels: Any) -> None:
    """Raise BadInputError unless labels are integers, ZYX or TZYX."""
    dtype = np.dtype(labels.dtype)
    shape = tuple(labels.shape)
    if dtype.kind not in "iu":
        raise BadInputError(
            f"The annotation has numbers of type {dtype}; labels are integers (0 unlabelled, "
            "1 background, 2… classes). Convert it, e.g. labels.astype('uint8'); in napari: "
            "right click on the layer > Convert data type."
        )
    if len(shape) not in (3, 4):
        raise BadInputError(
            f"The annotation has {len(shape)} axes ({describe_shape(shape)}); it needs those of "
            "the image without channels: z, y, x, or t, z, y, x for a time series."
        )


def check_in_stack(labels: Any, ref: SliceRef, text: str) -> None:
    """Raise BadInputError unless a slice, which messages call `text`, is in the stack."""
    size = space(labels)[ref.axis]
    if not 0 <= ref.index < size:
        raise BadInputError(
            f"{text} is outside of the stack, which has {AXIS_NAMES[ref.axis]}=0 to "
            f"{size - 1}. Positions count from 0."
        )
    if not 0 <= ref.time < n_times(labels):
        raise BadInputError(
            f"{text} is outside of the time series, which has t=0 to {n_times(labels) - 1}."
        )
