"""Sparse annotations: the labels on a few slices, from which a network learns."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
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
from napari_unet3d.data.conventions import (
    MOST_CLASSES,
    DenseLabels,
    Labels,
    dense_classes,
    looks_dense,
    read_convention,
)
from napari_unet3d.data.labelled_voxels import LabelledVoxels, list_labelled_voxels
from napari_unet3d.data.lazy import as_bad_input
from napari_unet3d.data.ledger import SliceLedger, find_painted_slices
from napari_unet3d.data.painted_slices import PaintedSlice
from napari_unet3d.data.shapes import check_box, describe_shape
from napari_unet3d.data.slices import (
    LabelCount,
    SliceRef,
    at_time,
    check_in_stack,
    check_layout,
    count_values,
    n_times,
    plane_index,
    read_slice,
    space,
)
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError


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
        *,
        convention: Labels = "auto",
    ) -> Self:
        """Make an annotation; the classes are those that occur when `classes` is None.

        Parameters
        ----------
        labels
            As in `SparseAnnotation`, or a dense segmentation.
        classes
            The class table, where it is known.
        held_out
            As in `SparseAnnotation`.
        convention
            "sparse": 0 unlabelled, 1 background, 2… classes. "dense", as most programs write it:
            0 background, 1, 2… classes; the model's segmentations have the same numbers, and xy
            slices without paint stay unlabelled. "auto": sparse, but refused when `classes` is
            None and it looks dense.

        Raises
        ------
        BadInputError
            When the classes cannot be told, because the labels are no integers in 0…255, or
            because it is not clear what 0 means.
        """
        if not hasattr(labels, "shape"):
            labels = np.asarray(labels)
        if convention == "dense":
            reading = read_convention(labels)
            classes = classes or dense_classes(labels, convention=reading)
            return cls(DenseLabels(labels, reading), tuple(classes), frozenset(held_out))
        if classes is None:
            with as_bad_input():
                counts = count_values(labels)
            _check_range(counts)
            if len(counts) > MOST_CLASSES:
                raise BadInputError(
                    f"The annotation holds {len(counts)} different labels: these look like "
                    "numbered objects. Give all objects of a kind the same number: 2 for the "
                    "first class, 3 for the second; 1 for background."
                )
            if convention == "auto" and (report := looks_dense(labels)) is not None:
                raise BadInputError(
                    f"{report.text} Say convention='dense' if 0 is background, "
                    "convention='sparse' if 0 is unlabelled."
                )
            classes = (default_class(v) for v in sorted(counts) if v >= FIRST_CLASS)
        return cls(labels, tuple(classes), frozenset(held_out))

    def slices(self) -> list[PaintedSlice]:
        """List every slice that holds paint; see `find_painted_slices`."""
        return find_painted_slices(self.labels)

    def training_crop(self, time: int, start: Triple, stop: Triple) -> np.ndarray:
        """Read the labels of a box, coded as the network learns them.

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
        codes = self.held_out_crop(time, start, stop)
        for ref in self.held_out:
            if ref.time == time and start[ref.axis] <= ref.index < stop[ref.axis]:
                codes[plane_index(ref.axis, ref.index - start[ref.axis])] = 0
        return codes

    def held_out_crop(self, time: int, start: Triple, stop: Triple) -> np.ndarray:
        """Read a box as `training_crop` does, but with nothing hidden."""
        check_box(start, stop, space(self.labels))
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        return self._encode(np.asarray(self.labels[at_time(self.labels, time, box)]))

    def held_out_target(self, ref: SliceRef) -> np.ndarray:
        """Read the labels on one slice, 2D, coded as in `training_crop` but nothing hidden."""
        return self._encode(read_slice(self.labels, ref))

    def ledger(self) -> SliceLedger:
        """The slice ledger of the labels, coded as in `training_crop` but nothing hidden."""
        return SliceLedger(self.labels, self._encode)

    def labelled_voxels(
        self,
        max_per_slice: int = 50_000,
        rng: np.random.Generator | None = None,
        ledger: SliceLedger | None = None,
        only: Collection[SliceRef] | None = None,
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
        ledger
            The ledger of the labels, where there is one; else the labels are searched.
        only
            The slices that are listed; None lists all of them.

        Returns
        -------
        tuple of LabelledVoxels
            One per slice with at least one voxel left, sorted by time, axis and index.
        """
        rng = np.random.default_rng(0) if rng is None else rng
        # Held-out slices take part in the claims, or they would tear the slices that cross them
        # apart.
        ledger = self.ledger() if ledger is None else ledger
        return list_labelled_voxels(ledger, self.held_out, max_per_slice, rng, only)

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
        with as_bad_input():
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
        names = {c.value: f"{c.name} ({c.output_value})" for c in self.classes}
        return names.get(value, f"background ({value})")

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

    @cached_property
    def _kept(self) -> int:
        """Label values below this one are their own codes."""
        changed = np.flatnonzero(self._codes != np.arange(len(self._codes)))
        return int(changed[0])  # there is one: the last code is 0

    def _encode(self, labels: np.ndarray) -> np.ndarray:
        if labels.dtype == np.uint8:
            # Copied first: somebody may paint another value meanwhile.
            copy = labels.copy()
            if copy.max(initial=0) < self._kept:
                return copy
            labels = copy
        if labels.dtype != np.uint8:
            # Paint of another value may come in after `check`: it must not break a training.
            labels = np.clip(labels, 0, 256).astype(np.int16)
        codes: np.ndarray = self._codes[labels]
        return codes


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
