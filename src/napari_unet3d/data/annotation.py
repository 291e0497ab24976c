"""Sparse annotations: what is painted on a few slices, and what a network learns from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np

from napari_unet3d.config import (
    BACKGROUND,
    FIRST_CLASS,
    UNLABELLED,
    ClassInfo,
    Triple,
    default_class,
)
from napari_unet3d.data.slices import (
    LabelCount,
    PaintedSlice,
    SliceRef,
    at_time,
    check_in_stack,
    check_layout,
    claim_slices,
    count_labels,
    count_values,
    find_paint,
    find_painted_slices,
    n_times,
    painted_planes,
    parse_slices,
    plane_index,
    read_slice,
    space,
    voxels_to_complete,
)
from napari_unet3d.data.volume import Volume, check_box, describe_shape
from napari_unet3d.errors import BadInputError

__all__ = [
    "LabelledVoxels",
    "PaintedSlice",
    "SliceRef",
    "SparseAnnotation",
    "find_painted_slices",
    "parse_slices",
    "voxels_to_complete",
]

_MAX_SAMPLED_VOXELS = 2**22


MOST_FOUND = 32
"""Different labels; more are numbered objects where no class table says they are classes."""


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
            counts = count_values(labels)
            _check_range(counts)
            if len(counts) > MOST_FOUND:
                raise BadInputError(
                    f"The annotation holds {len(counts)} different labels: these look like "
                    "numbered objects. Give all objects of a kind the same number: 2 for the "
                    "first class, 3 for the second; 1 for background."
                )
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
        check_box(start, stop, space(self.labels))
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        codes = self._encode(np.asarray(self.labels[at_time(self.labels, time, box)]))
        for ref in self.held_out:
            if ref.time == time and start[ref.axis] <= ref.index < stop[ref.axis]:
                codes[plane_index(ref.axis, ref.index - start[ref.axis])] = 0
        return codes

    def held_out_target(self, ref: SliceRef) -> np.ndarray:
        """Read the labels on one slice, 2D, coded as in `training_crop` but nothing hidden."""
        return self._encode(read_slice(self.labels, ref))

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
            for time in range(n_times(self.labels))
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
        check_layout(self.labels)
        _check_shape(self.labels, volume)
        _check_classes(self.classes)
        everything = count_values(self.labels)
        _check_range(everything)
        self._check_painted(everything)
        self._check_held_out()
        self._check_left_to_train()

    def _check_held_out(self) -> None:
        for ref in sorted(self.held_out):
            text = f"Held-out slice {ref}"
            check_in_stack(self.labels, ref, text)
            if not (read_slice(self.labels, ref) != UNLABELLED).any():
                raise BadInputError(
                    f"{text} has no paint, so nothing can be measured on it. Paint it, or do "
                    "not hold it out."
                )

    def _check_painted(self, counts: Mapping[int, LabelCount]) -> None:
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
        left = count_values(self.labels, self.held_out)
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
            f"Paint background ({BACKGROUND}) or another class too. In napari, Complete slice "
            "makes the rest of a slice background."
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


# --- voxels to train on ---------------------------------------------------------------------


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
        voxels = LabelledVoxels(ref, coordinates[order], codes[order], count_labels(codes))
        yield _thinned(voxels, max_per_slice, rng)


def _claimed_codes(
    annotation: SparseAnnotation, time: int
) -> Iterator[tuple[SliceRef, np.ndarray, np.ndarray]]:
    """Yield slice, coordinates (n, 3) and codes (n,) of what is painted at a time point."""
    paint = find_paint(annotation.labels, time, annotation._encode)
    if paint is not None:
        # Held-out slices take part here, or they would tear the slices that cross them apart.
        for axis, index, members in sorted(claim_slices(paint), key=lambda claim: claim[:2]):
            coordinates = np.stack([p[members] for p in paint.position], 1).astype(np.int32)
            yield SliceRef(axis, index, time), coordinates, paint.value[members]
        return
    for z, plane in painted_planes(annotation.labels, time):
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


# --- checks ---------------------------------------------------------------------------------


def _check_shape(labels: Any, volume: Volume) -> None:
    times = volume.n_times
    matches = space(labels) == volume.shape and n_times(labels) == times
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


def _check_range(counts: Mapping[int, LabelCount]) -> None:
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
