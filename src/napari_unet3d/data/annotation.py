"""Sparse annotations: which voxels are labelled, and on which painted slices they lie."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np

from napari_unet3d.config import (
    AXIS_NAMES,
    BACKGROUND,
    FIRST_CLASS,
    PLANE_NAMES,
    UNLABELLED,
    ClassInfo,
    Triple,
    default_class,
)
from napari_unet3d.data.volume import Volume, check_box, describe_shape
from napari_unet3d.errors import BadInputError

_BLOCK_BYTES = 2**22
_DENSE_SHARE = 0.5
_MAX_SPARSE_VOXELS = 2**24
_MAX_SAMPLED_VOXELS = 2**22
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


@dataclass(frozen=True)
class LabelledVoxels:
    """Labelled voxels of one painted slice, for drawing the centers of training patches.

    Parameters
    ----------
    ref
        The slice; its axis is the direction along which a patch can be thin.
    coordinates
        (n, 3) int32: z, y, x, sorted by code.
    codes
        (n,) uint8: output index of the network + 1.
    counts
        Code → voxels before thinning, by which classes and slices are weighted.
    """

    ref: SliceRef
    coordinates: np.ndarray
    codes: np.ndarray
    counts: Mapping[int, int]

    def of_class(self, code: int) -> np.ndarray:
        """Return the coordinates (n, 3) of the voxels with this code."""
        first, last = np.searchsorted(self.codes, [code, code + 1])
        return self.coordinates[first:last]


@dataclass(frozen=True)
class SparseAnnotation:
    """Labels painted on some voxels of a volume, with the classes they stand for.

    Parameters
    ----------
    labels
        Integers, ZYX, or TZYX for a time series; in memory, zarr or dask. 0 unlabelled,
        1 background, 2… classes. May change while it is used: nothing of it is kept.
    classes
        The class table; their order is that of the network's outputs.
    held_out
        Slices that are used to measure: their voxels are never trained on.
    """

    labels: Any
    classes: tuple[ClassInfo, ...]
    held_out: frozenset[SliceRef] = field(default_factory=frozenset)

    @classmethod
    def from_labels(
        cls,
        labels: Any,
        classes: Iterable[ClassInfo] | None = None,
        held_out: Iterable[SliceRef] = (),
    ) -> Self:
        """Make an annotation; the classes are those that occur when `classes` is None.

        Raises
        ------
        BadInputError
            When the classes cannot be found, because the labels are no integers in 0…255.
        """
        if not hasattr(labels, "shape"):
            labels = np.asarray(labels)
        if classes is None:
            counts = _count_values(labels)
            _check_range(counts)
            classes = (default_class(v) for v in sorted(counts) if v >= FIRST_CLASS)
        return cls(labels, tuple(classes), frozenset(held_out))

    def slices(self) -> list[PaintedSlice]:
        """List every slice that holds paint; see `find_painted_slices`."""
        return find_painted_slices(self.labels)

    def training_crop(self, time: int, start: Triple, stop: Triple) -> np.ndarray:
        """Read what the network is to learn in a box.

        Parameters
        ----------
        time
            Time point; 0 without a time axis.
        start, stop
            First voxel (z, y, x), and one past the last.

        Returns
        -------
        np.ndarray
            (z, y, x) uint8: output index + 1 (1 background, 2… classes in the order of the
            table), 0 for voxels that are unlabelled, on a held-out slice, or painted with a
            value outside of the class table.

        Raises
        ------
        IndexError
            When the box is not inside the volume.
        """
        check_box(start, stop, _space(self.labels))
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        codes = self._encode(np.asarray(self.labels[_at(self.labels, time, box)]))
        for ref in self.held_out:
            if ref.time == time and start[ref.axis] <= ref.index < stop[ref.axis]:
                codes[_plane(ref.axis, ref.index - start[ref.axis])] = 0
        return codes

    def held_out_target(self, ref: SliceRef) -> np.ndarray:
        """Read the labels on one slice, 2D, coded as in `training_crop` but nothing hidden."""
        return self._encode(_read_slice(self.labels, ref))

    def labelled_voxels(
        self, max_per_slice: int = 50_000, rng: np.random.Generator | None = None
    ) -> tuple[LabelledVoxels, ...]:
        """List the voxels that training may center patches on, by painted slice.

        Voxels on held-out slices are left out. Big slices are thinned at random, class by
        class, so that rare classes stay whole; with very many slices each is thinned more.

        Parameters
        ----------
        max_per_slice
            Most voxels of one slice.
        rng
            Source of the thinning; a generator with seed 0 when None.

        Returns
        -------
        tuple of LabelledVoxels
            One per slice with at least one voxel left, sorted by time, axis and index.
        """
        rng = np.random.default_rng(0) if rng is None else rng
        claims = [
            claim
            for time in range(_n_times(self.labels))
            for claim in _claims_for_training(self, time, max_per_slice, rng)
        ]
        limit = max(256, _MAX_SAMPLED_VOXELS // max(1, len(claims)))
        if limit < max_per_slice:
            claims = [_thinned(claim, limit, rng) for claim in claims]
        return tuple(claims)

    def check(self, volume: Volume) -> None:
        """Raise unless a network can be trained with these labels on this volume.

        Raises
        ------
        BadInputError
            Labels that are no integers in 0…255 or not of the volume's shape; nothing, or one
            class only, painted or left beside the held-out slices; values outside of the class
            table; held-out slices outside of the stack or without paint. The text names the
            value and the cure.
        """
        _check_layout(self.labels)
        _check_shape(self.labels, volume)
        _check_classes(self.classes)
        everything = _count_values(self.labels)
        _check_range(everything)
        self._check_painted(everything)
        self._check_held_out()
        self._check_left_to_train()

    def _check_held_out(self) -> None:
        for ref in sorted(self.held_out):
            text = f"Held-out slice {ref}"
            _check_in_stack(self.labels, ref, text)
            if not (_read_slice(self.labels, ref) != UNLABELLED).any():
                raise BadInputError(
                    f"{text} has no paint, so nothing can be measured on it. Paint it, or do "
                    "not hold it out."
                )

    def _check_painted(self, counts: Mapping[int, _Count]) -> None:
        if not counts:
            raise BadInputError(
                "Nothing is painted: all voxels of the annotation are 0 (unlabelled). Paint "
                f"some background ({BACKGROUND}) and at least one class ({FIRST_CLASS}, …)."
            )
        known = {BACKGROUND} | {c.value for c in self.classes}
        unknown = {v: c for v, c in counts.items() if v not in known}
        if unknown:
            values = "; ".join(f"{v}: {c}" for v, c in list(sorted(unknown.items()))[:5])
            table = ", ".join(f"{c.value} {c.name}" for c in self.classes) or "no class"
            raise BadInputError(
                f"Values that are not in the class table are painted ({values}). The table has "
                f"{BACKGROUND} background, {table}. Add a class for them, or repaint them."
            )
        if not self.classes:
            raise BadInputError(
                f"Only background ({BACKGROUND}) is painted and there is no class. Add a class "
                f"and paint it ({FIRST_CLASS}, …)."
            )
        if len(counts) == 1:
            raise BadInputError(
                f"Only {self._describe(next(iter(counts)))} is painted; at least two kinds of "
                f"voxels are needed. {self._cure(next(iter(counts)))}"
            )

    def _check_left_to_train(self) -> None:
        if not self.held_out:
            return
        left = _count_values(self.labels, self.held_out)
        held_out = ", ".join(str(ref) for ref in sorted(self.held_out))
        if not left:
            raise BadInputError(
                f"All paint is on held-out slices ({held_out}): nothing is left to train on. "
                "Hold out fewer slices, or paint another one."
            )
        if len(left) == 1:
            only = next(iter(left))
            raise BadInputError(
                f"Without the held-out slices ({held_out}) only {self._describe(only)} is "
                f"painted; at least two kinds of voxels are needed. Hold out fewer slices. Or: "
                f"{self._cure(only)}"
            )

    def _describe(self, value: int) -> str:
        names = {BACKGROUND: "background"} | {c.value: c.name for c in self.classes}
        return f"{names[value]} ({value})"

    @staticmethod
    def _cure(value: int) -> str:
        if value == BACKGROUND:
            return f"Paint a class ({FIRST_CLASS}, …) too."
        return (
            f"Paint background ({BACKGROUND}) or another class too, or press Complete slice, "
            "which makes the rest of a slice background."
        )

    @cached_property
    def _codes(self) -> np.ndarray:
        """Code of each label value; the last entry stands for values that are too big."""
        codes = np.zeros(257, np.uint8)
        codes[BACKGROUND] = 1
        for i, info in enumerate(self.classes):
            codes[info.value] = i + 2
        return codes

    def _encode(self, labels: np.ndarray) -> np.ndarray:
        if labels.dtype != np.uint8:
            # Paint of another value may come in after `check`: it must not break a training.
            labels = np.clip(labels, 0, 256).astype(np.int16)
        codes: np.ndarray = self._codes[labels]
        return codes


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
    _check_layout(labels)
    rows = []
    for time in range(_n_times(labels)):
        paint = _find_paint(labels, time)
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
    _check_layout(labels)
    _check_in_stack(labels, ref, f"Slice {ref}")
    first, second = np.nonzero(_read_slice(labels, ref) == UNLABELLED)
    position = np.full_like(first, ref.index)
    indices = [first, second]
    indices.insert(ref.axis, position)
    if len(labels.shape) == 4:
        indices.insert(0, np.full_like(first, ref.time))
    return tuple(indices)


# --- which slice a voxel belongs to ---------------------------------------------------------


@dataclass(frozen=True)
class _Paint:
    """The labelled voxels of one time point, sorted by z."""

    shape: Triple
    position: tuple[np.ndarray, np.ndarray, np.ndarray]
    value: np.ndarray


def _find_paint(
    labels: Any, time: int, encode: Callable[[np.ndarray], np.ndarray] | None = None
) -> _Paint | None:
    """Find the labelled voxels of a time point; None when there are too many to list.

    `encode` turns labels into the values that are kept; 0 is no paint.
    """
    shape = _space(labels)
    most = min(_MAX_SPARSE_VOXELS, int(_DENSE_SHARE * np.prod(shape)))
    found: list[tuple[int, np.ndarray, np.ndarray]] = []
    total = 0
    for z, plane in _painted_planes(labels, time):
        codes = plane if encode is None else encode(plane)
        flat = codes.ravel()
        indices = np.flatnonzero(flat != 0)
        if len(indices):
            found.append((z, indices, flat[indices]))
            total += len(indices)
            if total > most:
                return None
    if not found:
        return _Paint(shape, (np.empty(0, np.uint16),) * 3, np.empty(0, np.uint8))
    # 16 bits, where they do, make the sorting below a radix sort.
    dtype = np.uint16 if max(shape) <= 2**16 else np.int64
    index = np.concatenate([i for _, i, _ in found])
    z_position = np.repeat(np.array([z for z, _, _ in found], dtype), [len(i) for _, i, _ in found])
    y = index // shape[2]
    x = index - y * shape[2]
    position = (z_position, y.astype(dtype), x.astype(dtype))
    return _Paint(shape, position, np.concatenate([v for _, _, v in found]))


def _claims(paint: _Paint) -> list[tuple[int, int, np.ndarray]]:
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


def _rows(paint: _Paint, time: int) -> list[PaintedSlice]:
    labelled = [
        np.bincount(p, minlength=n) for p, n in zip(paint.position, paint.shape, strict=True)
    ]
    rows = []
    for axis, index, members in _claims(paint):
        area = _area(paint.shape, axis)
        rows.append(
            PaintedSlice(
                ref=SliceRef(axis, index, time),
                counts=_count(paint.value[members]),
                state="complete" if labelled[axis][index] == area else "partial",
                n_voxels=area,
            )
        )
    return sorted(rows, key=lambda row: row.ref)


def _dense_rows(labels: Any, time: int) -> list[PaintedSlice]:
    area = _area(_space(labels), 0)
    rows = []
    for z, plane in _painted_planes(labels, time):
        counts = _count(plane)
        state: Literal["partial", "complete"] = (
            "complete" if sum(counts.values()) == area else "partial"
        )
        rows.append(PaintedSlice(SliceRef(0, z, time), counts, state, area))
    return rows


def _claims_for_training(
    annotation: SparseAnnotation, time: int, max_per_slice: int, rng: np.random.Generator
) -> Iterator[LabelledVoxels]:
    held_out = [ref for ref in annotation.held_out if ref.time == time]
    for ref, coordinates, codes in _claimed_codes(annotation, time):
        hidden = np.zeros(len(codes), bool)
        for other in held_out:
            hidden |= coordinates[:, other.axis] == other.index
        if hidden.all():
            continue
        coordinates, codes = coordinates[~hidden], codes[~hidden]
        order = np.argsort(codes, kind="stable")
        voxels = LabelledVoxels(ref, coordinates[order], codes[order], _count(codes))
        yield _thinned(voxels, max_per_slice, rng)


def _claimed_codes(
    annotation: SparseAnnotation, time: int
) -> Iterator[tuple[SliceRef, np.ndarray, np.ndarray]]:
    """Yield slice, coordinates (n, 3) and codes (n,) of what is painted at a time point."""
    paint = _find_paint(annotation.labels, time, annotation._encode)
    if paint is not None:
        # Held-out slices take part here, or they would tear the slices that cross them apart.
        for axis, index, members in sorted(_claims(paint), key=lambda claim: claim[:2]):
            coordinates = np.stack([p[members] for p in paint.position], 1).astype(np.int32)
            yield SliceRef(axis, index, time), coordinates, paint.value[members]
        return
    for z, plane in _painted_planes(annotation.labels, time):
        codes = annotation._encode(plane)
        y, x = np.nonzero(codes)
        if len(y):
            coordinates = np.stack([np.full_like(y, z), y, x], 1).astype(np.int32)
            yield SliceRef(0, z, time), coordinates, codes[y, x]


def _thinned(voxels: LabelledVoxels, limit: int, rng: np.random.Generator) -> LabelledVoxels:
    """Keep at most `limit` of the voxels, taken from the frequent classes first."""
    if len(voxels.codes) <= limit:
        return voxels
    present, sizes = np.unique(voxels.codes, return_counts=True)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    keep: dict[int, np.ndarray] = {}
    for rank, i in enumerate(np.argsort(sizes, kind="stable")):
        share = limit // (len(present) - rank)
        size = int(sizes[i])
        chosen = np.arange(size) if size <= share else rng.choice(size, share, replace=False)
        keep[int(i)] = starts[i] + np.sort(chosen)
        limit -= len(chosen)
    kept = np.concatenate([keep[i] for i in sorted(keep)])
    return LabelledVoxels(voxels.ref, voxels.coordinates[kept], voxels.codes[kept], voxels.counts)


# --- reading labels -------------------------------------------------------------------------


def _space(labels: Any) -> Triple:
    z, y, x = (int(n) for n in labels.shape[-3:])
    return z, y, x


def _n_times(labels: Any) -> int:
    return int(labels.shape[0]) if len(labels.shape) == 4 else 1


def _at(labels: Any, time: int, box: tuple[Any, ...]) -> tuple[Any, ...]:
    return (time, *box) if len(labels.shape) == 4 else box


def _plane(axis: int, index: int) -> tuple[Any, ...]:
    return (*(slice(None),) * axis, index)


def _area(shape: Triple, axis: int) -> int:
    return shape[0] * shape[1] * shape[2] // shape[axis]


def _read_slice(labels: Any, ref: SliceRef) -> np.ndarray:
    box = [slice(None), slice(None), slice(None)]
    box[ref.axis] = slice(ref.index, ref.index + 1)  # zarr and dask take slices alike
    crop = np.asarray(labels[_at(labels, ref.time, tuple(box))])
    return np.squeeze(crop, ref.axis)


def _painted_planes(labels: Any, time: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield z and voxels (y, x) of every xy plane with paint, read in blocks."""
    depth, height, width = _space(labels)
    plane_bytes = height * width * np.dtype(labels.dtype).itemsize
    planes = max(1, _BLOCK_BYTES // max(1, plane_bytes))
    chunks = getattr(labels, "chunks", None)
    if chunks:
        # Blocks that cut through chunks would decode them several times.
        chunk = chunks[-3] if isinstance(chunks[-3], int) else max(chunks[-3])
        planes = chunk * max(1, planes // chunk)
    for start in range(0, depth, planes):
        box = (slice(start, min(start + planes, depth)), slice(None), slice(None))
        block = np.ascontiguousarray(labels[_at(labels, time, box)])
        # As unsigned numbers, negative values count as paint too.
        unsigned = block.view(f"u{block.dtype.itemsize}").reshape(len(block), -1)
        for i in np.flatnonzero(unsigned.max(1)):
            yield start + int(i), block[i]


def _hide(plane: np.ndarray, z: int, held_out: Iterable[SliceRef], value: int) -> None:
    """Set what held-out slices cover of an xy plane to `value`."""
    for ref in held_out:
        if ref.axis != 0:
            plane[_plane(ref.axis - 1, ref.index)] = value
        elif ref.index == z:
            plane[:] = value


def _count(values: np.ndarray) -> dict[int, int]:
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
class _Count:
    """How often a label value is painted, and where first."""

    voxels: int
    first: SliceRef

    def __str__(self) -> str:
        return f"{self.voxels} voxels, first on slice {self.first}"


def _count_values(labels: Any, held_out: Iterable[SliceRef] = ()) -> dict[int, _Count]:
    """Count the painted values, without what lies on held-out slices."""
    _check_layout(labels)
    found: dict[int, _Count] = {}
    for time in range(_n_times(labels)):
        hidden = [ref for ref in held_out if ref.time == time]
        for z, plane in _painted_planes(labels, time):
            if hidden:
                plane = plane.copy()
                _hide(plane, z, hidden, UNLABELLED)
            for value, voxels in _count(plane).items():
                count = found.setdefault(value, _Count(0, SliceRef(0, z, time)))
                count.voxels += voxels
    return found


# --- checks ---------------------------------------------------------------------------------


def _check_layout(labels: Any) -> None:
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


def _check_shape(labels: Any, volume: Volume) -> None:
    times = volume.n_times
    matches = _space(labels) == volume.shape and _n_times(labels) == times
    if not matches:
        expected = volume.shape if times == 1 else (times, *volume.shape)
        raise BadInputError(
            f"The annotation ({describe_shape(labels.shape)}) and the image '{volume.name}' "
            f"({describe_shape(expected)} without channels) differ in shape. Choose the "
            "annotation of this image, or make a new one for it."
        )


def _check_classes(classes: tuple[ClassInfo, ...]) -> None:
    values = [c.value for c in classes]
    for info in classes:
        if values.count(info.value) > 1:
            raise BadInputError(
                f"The class table has the label value {info.value} more than once. Give every "
                "class a value of its own."
            )


def _check_range(counts: Mapping[int, _Count]) -> None:
    for value, count in sorted(counts.items()):
        if value < 0:
            raise BadInputError(
                f"The annotation has the negative value {value} ({count}). Use 0 for "
                "unlabelled, 1 for background, 2… for classes."
            )
        if value > 255:
            raise BadInputError(
                f"The annotation has the value {value} ({count}); 255 is the largest. Is it an "
                "image with one number per object? Paint classes: 1 background, 2… classes."
            )


def _check_in_stack(labels: Any, ref: SliceRef, text: str) -> None:
    size = _space(labels)[ref.axis]
    if not 0 <= ref.index < size:
        raise BadInputError(
            f"{text} is outside of the stack, which has {AXIS_NAMES[ref.axis]}=0 to "
            f"{size - 1}. Positions count from 0."
        )
    if not 0 <= ref.time < _n_times(labels):
        raise BadInputError(
            f"{text} is outside of the time series, which has t=0 to {_n_times(labels) - 1}."
        )
