"""What the numbers of an annotation mean: ours, or those of a dense segmentation.

*Sparse*, our own: 0 unlabelled, 1 background, 2… classes. *Dense*, everybody else's: 0 background,
1, 2… classes. A dense segmentation that is trained as a sparse one loses its background, and its
first class becomes background, so it is recognized and turned into ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from napari_unet3d.config import BACKGROUND, FIRST_CLASS, UNLABELLED, ClassInfo, default_class
from napari_unet3d.data.slices import (
    check_layout,
    count_labels,
    n_times,
    painted_planes,
    space,
)
from napari_unet3d.data.wording import counted
from napari_unet3d.errors import BadInputError

Labels = Literal["auto", "sparse", "dense"]
"""How labels are read: "auto" as they look, "sparse" with 0 as unlabelled, "dense" with 0 as
background."""

MOST_CLASSES = 32
"""Different labels that count as classes where there is no class table; more look like objects."""
_LARGEST = 255
"""Largest number of a class, in a segmentation as in an annotation."""
_SOLID = 0.3
"""Share of the painted voxels. Dense stacks that were tried had 0.46 to 0.89, complete slices 0,
strokes at random places of every slice up to 0.2. Strokes that retrace those of the slice before
are taken for dense: the user is asked."""
_GAPS = 0.1
"""Share of the boxes around the paint. A part of a stack that is painted completely has no gaps;
dense stacks that were tried had 0.25 to 0.88."""
_FEW_SLICES = 5
"""Slices. Paint on fewer xy slices is not called dense: people paint neighboring slices, too."""


@dataclass(frozen=True)
class Convention:
    """What decides how an annotation is to be read.

    Parameters
    ----------
    counts
        Value → voxels, of every value but 0.
    zeros
        Voxels that are 0, on slices with paint and on those without.
    painted
        (T, Z) bool: which xy slices hold paint.
    complete_slices
        How many of them hold no 0.
    solid
        Share of the painted voxels whose predecessors along z, y and x are painted as well:
        high in dense segmentations, low in slices and strokes of any orientation.
    gaps
        Share of 0 in the boxes around the paint, taken slice by slice.
    """

    counts: Mapping[int, int]
    zeros: int
    painted: np.ndarray = field(repr=False, compare=False)
    complete_slices: int
    solid: float
    gaps: float

    @property
    def painted_slices(self) -> int:
        """How many xy slices hold paint."""
        return int(self.painted.sum())

    @property
    def n_slices(self) -> int:
        """How many xy slices there are, all time points together."""
        return int(self.painted.size)

    @property
    def is_solid(self) -> bool:
        """Whether paint goes on from slice to slice, as in a dense segmentation."""
        return self.painted_slices >= min(_FEW_SLICES, self.painted.shape[1]) and (
            self.solid >= _SOLID
        )

    @property
    def is_mask(self) -> bool:
        """Whether 1 or 255 is the only value, as in masks; as an annotation it is useless."""
        return len(self.counts) == 1 and next(iter(self.counts)) in (BACKGROUND, _LARGEST)

    @property
    def is_dense(self) -> bool:
        """Whether 0 seems to mean background."""
        return self.is_mask or (
            self.is_solid and self.gaps >= _GAPS and min(self.counts, default=0) > 0
        )


@dataclass(frozen=True)
class DenseReport:
    """Why labels look dense.

    Parameters
    ----------
    text
        One or two sentences for the user.
    convention
        The counts of the labels.
    """

    text: str
    convention: Convention


def read_convention(labels: Any) -> Convention:
    """Count what tells sparse annotations and dense segmentations apart.

    Parameters
    ----------
    labels
        Integers, ZYX or TZYX; in memory, zarr or dask. Read once, a few planes at a time.

    Raises
    ------
    BadInputError
        When the labels are no integers, or have neither 3 nor 4 axes.
    """
    check_layout(labels)
    depth, height, width = space(labels)
    painted = np.zeros((n_times(labels), depth), bool)
    counts: dict[int, int] = {}
    voxels = boxes = solid = complete = 0
    for time in range(len(painted)):
        before, last = np.empty(0, bool), -2
        for z, plane in painted_planes(labels, time):
            painted[time, z] = True
            for value, n in count_labels(plane).items():
                counts[value] = counts.get(value, 0) + n
            paint = plane != UNLABELLED
            here = int(np.count_nonzero(paint))
            voxels += here
            boxes += _box_area(paint)
            complete += here == height * width
            if z == last + 1:
                corner = paint[1:, 1:] & before[1:, 1:] & paint[:-1, 1:] & paint[1:, :-1]
                solid += int(np.count_nonzero(corner))
            before, last = paint, z
    return Convention(
        counts=dict(sorted(counts.items())),
        zeros=painted.size * height * width - voxels,
        painted=painted,
        complete_slices=complete,
        solid=solid / voxels if voxels else 0.0,
        gaps=1 - voxels / boxes if boxes else 0.0,
    )


def looks_dense(labels: Any) -> DenseReport | None:
    """Tell why labels seem to be a dense segmentation; None when they do not.

    Parameters
    ----------
    labels
        As in `read_convention`.
    """
    return dense_report(read_convention(labels))


def dense_report(convention: Convention) -> DenseReport | None:
    """Tell why the counted labels seem to be a dense segmentation; None when they do not."""
    if not convention.is_dense:
        return None
    if convention.is_mask:
        (value,) = convention.counts
        what = f"The only value is {value}, so this looks like a mask: 0 background, {value} the"
        return DenseReport(f"{what} class. {_OURS}", convention)
    classes = ", ".join(str(value) for value in list(convention.counts)[:5])
    dots = ", …" if len(convention.counts) > 5 else ""
    kinds = "classes" if len(convention.counts) > 1 else "the class"
    return DenseReport(
        f"0 stands beside paint on {convention.painted_slices - convention.complete_slices} of "
        f"{convention.n_slices} slices, and the paint goes on from slice to slice, so this looks "
        f"like a dense segmentation: 0 background, {classes}{dots} {kinds}. {_OURS}",
        convention,
    )


def is_annotation(convention: Convention) -> bool:
    """Tell whether 1 seems to be background beside other values, as in our annotations.

    So it is where most painted slices are complete, or where paint does not go on from slice to
    slice, as that of objects would.
    """
    if BACKGROUND not in convention.counts or len(convention.counts) == 1:
        return False
    return 2 * convention.complete_slices > convention.painted_slices or not convention.is_solid


def on_single_slices(convention: Convention) -> bool:
    """Tell whether paint stands on few xy slices that are apart from each other."""
    painted = convention.painted
    near = np.zeros_like(painted)
    near[:, 1:] |= painted[:, :-1]
    near[:, :-1] |= painted[:, 1:]
    alone = int(np.count_nonzero(painted & ~near))
    return (
        0 < 2 * convention.painted_slices <= convention.n_slices
        and 2 * alone > convention.painted_slices
    )


def dense_classes(
    labels: Any, names: Mapping[int, str] | None = None, *, convention: Convention | None = None
) -> tuple[ClassInfo, ...]:
    """Find the classes of a dense segmentation, for the annotation that `from_dense` makes.

    Parameters
    ----------
    labels
        As in `read_convention`.
    names
        Name by number in the segmentation; "class 1", … where it is missing.
    convention
        The result of `read_convention`, when it is known already.

    Returns
    -------
    tuple of ClassInfo
        `value` is the label value in the annotation, `output` the number in the segmentation.

    Raises
    ------
    BadInputError
        Nothing but 0, numbers outside of 0…255, or more than 32 of them.
    """
    convention = convention or read_convention(labels)
    _check_values(convention.counts)
    return tuple(
        default_class(code, (names or {}).get(value) or f"class {value}").model_copy(
            update={"output": value}
        )
        for value, code in sorted(_codes(convention.counts).items(), key=lambda pair: pair[1])
    )


def from_dense(labels: Any) -> np.ndarray:
    """Turn a dense segmentation into an annotation; see `DenseLabels`.

    Returns
    -------
    np.ndarray
        uint8 of the same shape, a copy.

    Raises
    ------
    BadInputError
        As `dense_classes`.
    """
    return DenseLabels(labels)[...]


class DenseLabels:
    """A dense segmentation, seen as an annotation: converted where it is read.

    On xy slices with paint, 0 becomes 1 (background), and v becomes v + 1. (255 has no successor:
    it becomes the smallest value that is free.) Slices without paint stay 0, unlabelled: nobody
    may have looked at them.

    Parameters
    ----------
    labels
        Integers 0…255, ZYX or TZYX; in memory, zarr or dask.
    convention
        The result of `read_convention`, when it is known already.

    Raises
    ------
    BadInputError
        As `dense_classes`.
    """

    def __init__(self, labels: Any, convention: Convention | None = None) -> None:
        convention = convention or read_convention(labels)
        _check_values(convention.counts)
        self._labels = labels
        self._painted = convention.painted if len(labels.shape) == 4 else convention.painted[0]
        self._table = np.zeros(_LARGEST + 1, np.uint8)
        self._table[UNLABELLED] = BACKGROUND
        for value, code in _codes(convention.counts).items():
            self._table[value] = code
        self.shape: tuple[int, ...] = tuple(int(n) for n in labels.shape)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(np.uint8)
        self.chunks = getattr(labels, "chunks", None)

    def __getitem__(self, key: Any) -> np.ndarray:
        keys = key if isinstance(key, tuple) else (key,)
        if Ellipsis in keys:
            i = keys.index(Ellipsis)
            keys = (*keys[:i], *(slice(None),) * (self.ndim - len(keys) + 1), *keys[i + 1 :])
        keys = (*keys, *(slice(None),) * (self.ndim - len(keys)))
        block = np.asarray(self._labels[keys])
        if block.dtype != np.uint8:
            block = np.clip(block, 0, _LARGEST).astype(np.uint8)
        codes = np.asarray(self._table[block])
        painted = np.asarray(self._painted[keys[:-2]], np.uint8)
        in_plane = sum(isinstance(k, slice) for k in keys[-2:])
        return np.asarray(codes * painted.reshape(painted.shape + (1,) * in_plane))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype=dtype)


def describe_values(convention: Convention, classes: Sequence[ClassInfo], *, dense: bool) -> str:
    """Write what each value of an annotation is taken for, with its voxels.

    Parameters
    ----------
    convention
        The counts of the labels.
    classes
        The class table of the annotation.
    dense
        Whether it is read as a dense segmentation.
    """
    names = {c.output_value if dense else c.value: c.name for c in classes}
    if dense:
        plane = convention.zeros + sum(convention.counts.values())
        empty = (convention.n_slices - convention.painted_slices) * (
            plane // max(1, convention.n_slices)
        )
        rest = f", and {empty:,} on slices without paint, ignored" if empty else ""
        parts = [f"0 background ({counted(convention.zeros - empty, 'voxel')}{rest})"]
    else:
        names |= {BACKGROUND: ""}
        parts = [f"0 unlabelled ({counted(convention.zeros, 'voxel')}, ignored)"]
    for value, n in convention.counts.items():
        word = "background" if value == BACKGROUND and not dense else f"'{names.get(value, '?')}'"
        parts.append(f"{value} {word} ({counted(n, 'voxel')})")
    return "; ".join(parts)


_OURS = "In an annotation 0 is unlabelled (ignored), 1 background, 2… classes."


def _box_area(paint: np.ndarray) -> int:
    """Area of the smallest box around the paint of a plane."""
    rows, columns = np.flatnonzero(paint.any(1)), np.flatnonzero(paint.any(0))
    return int((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1))


def _codes(values: Iterable[int]) -> dict[int, int]:
    """Label value in the annotation by number in the segmentation."""
    codes = {value: value + 1 for value in values if value < _LARGEST}
    if _LARGEST in values:
        taken = set(codes.values())
        codes[_LARGEST] = next(c for c in range(FIRST_CLASS, _LARGEST + 1) if c not in taken)
    return codes


def _check_values(counts: Mapping[int, int]) -> None:
    if not counts:
        raise BadInputError("All voxels of the segmentation are 0 (background): no class is there.")
    if len(counts) > MOST_CLASSES:
        raise BadInputError(
            f"The segmentation holds {len(counts)} different numbers: these look like numbered "
            "objects. Give all objects of a kind the same number: 1 for the first class, 2 for "
            "the second; 0 for background."
        )
    wrong = [value for value in counts if not 0 < value <= _LARGEST]
    if wrong:
        raise BadInputError(
            f"The segmentation holds the value {wrong[0]}; the numbers of classes are 1 to "
            f"{_LARGEST}, and 0 is background. Renumber the classes."
        )
