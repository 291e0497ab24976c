"""Slices of a stack, and which of them hold paint."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from napari_unet3d.config import AXIS_NAMES, PLANE_NAMES, UNLABELLED, Triple
from napari_unet3d.data.volume import describe_shape
from napari_unet3d.errors import BadInputError

_BLOCK_BYTES = 2**22
_DENSE_SHARE = 0.5
_MAX_SPARSE_VOXELS = 2**24
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


@dataclass(frozen=True)
class PaintedSlice:
    """A row of the slice ledger.

    Parameters
    ----------
    ref
        The slice.
    counts
        Label value → voxels, of the paint that belongs to this slice: a voxel where slices
        cross belongs to one of them.
    state
        "complete" when every voxel of the slice is labelled.
    n_voxels
        Area of the slice.
    """

    ref: SliceRef
    counts: Mapping[int, int]
    state: Literal["partial", "complete"]
    n_voxels: int


def find_painted_slices(labels: Any) -> list[PaintedSlice]:
    """List every slice that holds paint, in any of the three orientations.

    Each labelled voxel belongs to one slice. A plane whose neighbors hold no paint is a slice
    (xy before xz before yz); otherwise the plane with most voxels is the next one, and takes
    its voxels away from those that cross it. Where most of a volume is labelled, all slices
    are xy slices.

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
    check_layout(labels)
    rows = []
    for time in range(n_times(labels)):
        paint = find_paint(labels, time)
        rows += _dense_rows(labels, time) if paint is None else _rows(paint, time)
    return rows


def voxels_to_complete(labels: Any, ref: SliceRef) -> tuple[np.ndarray, ...]:
    """Find the unlabelled voxels of a slice, which "Complete slice" makes background.

    Returns
    -------
    tuple of np.ndarray
        One index array per axis of `labels`, as napari's ``data_setitem`` takes them.

    Raises
    ------
    BadInputError
        When the slice is not in the stack.
    """
    check_layout(labels)
    check_in_stack(labels, ref, f"Slice {ref}")
    first, second = np.nonzero(read_slice(labels, ref) == UNLABELLED)
    position = np.full_like(first, ref.index)
    indices = [first, second]
    indices.insert(ref.axis, position)
    if len(labels.shape) == 4:
        indices.insert(0, np.full_like(first, ref.time))
    return tuple(indices)


# --- which slice a voxel belongs to ---------------------------------------------------------


@dataclass(frozen=True)
class Paint:
    """The labelled voxels of one time point, sorted by z."""

    shape: Triple
    position: tuple[np.ndarray, np.ndarray, np.ndarray]
    value: np.ndarray


def find_paint(
    labels: Any, time: int, encode: Callable[[np.ndarray], np.ndarray] | None = None
) -> Paint | None:
    """Find the labelled voxels of a time point; None when there are too many to list.

    `encode` turns labels into the values that are kept; 0 is no paint.
    """
    shape = space(labels)
    most = min(_MAX_SPARSE_VOXELS, int(_DENSE_SHARE * np.prod(shape)))
    found: list[tuple[int, np.ndarray, np.ndarray]] = []
    total = 0
    for z, plane in painted_planes(labels, time):
        codes = plane if encode is None else encode(plane)
        flat = codes.ravel()
        indices = np.flatnonzero(flat != 0)
        if len(indices):
            found.append((z, indices, flat[indices]))
            total += len(indices)
            if total > most:
                return None
    if not found:
        return Paint(shape, (np.empty(0, np.uint16),) * 3, np.empty(0, np.uint8))
    # 16 bits, where they do, make the sorting below a radix sort.
    dtype = np.uint16 if max(shape) <= 2**16 else np.int64
    index = np.concatenate([i for _, i, _ in found])
    z_position = np.repeat(np.array([z for z, _, _ in found], dtype), [len(i) for _, i, _ in found])
    y = index // shape[2]
    x = index - y * shape[2]
    position = (z_position, y.astype(dtype), x.astype(dtype))
    return Paint(shape, position, np.concatenate([v for _, _, v in found]))


def claim_slices(paint: Paint) -> list[tuple[int, int, np.ndarray]]:
    """List axis, index and voxels (positions in `paint`) of every slice, as claimed."""
    remaining = [
        np.bincount(p, minlength=n) for p, n in zip(paint.position, paint.shape, strict=True)
    ]
    bounds = [np.concatenate([[0], np.cumsum(counts)]) for counts in remaining]
    order: list[np.ndarray | None] = [None, None, None]
    taken = [np.zeros(n, bool) for n in paint.shape]
    free = np.ones(len(paint.value), bool)
    claims = []
    left = len(free)
    while left:
        axis, index = _next_slice(remaining, taken)
        members: np.ndarray
        first, last = bounds[axis][index], bounds[axis][index + 1]
        if axis == 0:
            members = np.arange(first, last)
        else:
            sorting = order[axis]
            if sorting is None:
                sorting = order[axis] = np.argsort(paint.position[axis], kind="stable")
            members = sorting[first:last]
        members = members[free[members]]
        free[members] = False
        left -= len(members)
        for other in range(3):
            if left and other != axis:
                there = paint.position[other][members]
                remaining[other] -= np.bincount(there, minlength=paint.shape[other])
        remaining[axis][index] = 0
        taken[axis][index] = True
        claims.append((axis, index, members))
    return claims


def _next_slice(counts: list[np.ndarray], taken: list[np.ndarray]) -> tuple[int, int]:
    """Find the next slice to claim from the free voxels on each plane, and those claimed."""
    for axis, along in enumerate(counts):
        # Strokes of another orientation would reach into a neighboring plane; into one that is
        # claimed they may have.
        busy = (along > 0) | taken[axis]
        alone = along > 0
        alone[1:] &= ~busy[:-1]
        alone[:-1] &= ~busy[1:]
        if alone.any():
            return axis, int(np.argmax(np.where(alone, along, 0)))
    axis = max(range(3), key=lambda a: counts[a].max())  # the first of equals: z
    return axis, int(counts[axis].argmax())


def _rows(paint: Paint, time: int) -> list[PaintedSlice]:
    labelled = [
        np.bincount(p, minlength=n) for p, n in zip(paint.position, paint.shape, strict=True)
    ]
    rows = []
    for axis, index, members in claim_slices(paint):
        area = _area(paint.shape, axis)
        rows.append(
            PaintedSlice(
                ref=SliceRef(axis, index, time),
                counts=count_labels(paint.value[members]),
                state="complete" if labelled[axis][index] == area else "partial",
                n_voxels=area,
            )
        )
    return sorted(rows, key=lambda row: row.ref)


def _dense_rows(labels: Any, time: int) -> list[PaintedSlice]:
    area = _area(space(labels), 0)
    rows = []
    for z, plane in painted_planes(labels, time):
        counts = count_labels(plane)
        state: Literal["partial", "complete"] = (
            "complete" if sum(counts.values()) == area else "partial"
        )
        rows.append(PaintedSlice(SliceRef(0, z, time), counts, state, area))
    return rows


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


def plane_index(axis: int, index: int) -> tuple[Any, ...]:
    """Index of the plane perpendicular to an axis."""
    return (*(slice(None),) * axis, index)


def _area(shape: Triple, axis: int) -> int:
    return shape[0] * shape[1] * shape[2] // shape[axis]


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
    if not len(flat):
        return {}
    if flat.min() >= 0 and flat.max() < 2**16:
        counts = np.bincount(flat.astype(np.intp, copy=False))  # uint64 is refused
        present = np.flatnonzero(counts)
        return {int(v): int(counts[v]) for v in present if v != UNLABELLED}
    present, sizes = np.unique(flat, return_counts=True)
    return {int(v): int(n) for v, n in zip(present, sizes, strict=True) if v != UNLABELLED}


@dataclass
class LabelCount:
    """How often a label value is painted, and where first."""

    voxels: int
    first: SliceRef

    def __str__(self) -> str:
        return f"{self.voxels} voxels, first on slice {self.first}"


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
    found: dict[int, LabelCount] = {}
    for time in range(n_times(labels)):
        hidden = [ref for ref in without if ref.time == time]
        for z, plane in painted_planes(labels, time):
            if hidden:
                plane = plane.copy()
                _hide(plane, z, hidden)
            for value, voxels in count_labels(plane).items():
                count = found.setdefault(value, LabelCount(0, SliceRef(0, z, time)))
                count.voxels += voxels
    return found


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
