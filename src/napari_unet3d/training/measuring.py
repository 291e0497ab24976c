"""Scores on the held-out slices of a running training."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from napari_unet3d.config import Triple
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.boxes import Box, plan_blocks, plan_parts, slice_box, spread_order
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.events import HeldOutScores
from napari_unet3d.model.evidence import ClassOnSlice, SliceScore
from napari_unet3d.networks.geometry import output_shape, total_stride
from napari_unet3d.prediction.engine import Engine, NotFiniteError
from napari_unet3d.prediction.scores import Overlap, label_table
from napari_unet3d.prediction.surfaces import SurfaceDistance, surface_distance
from napari_unet3d.training.plan import TrainingPlan
from napari_unet3d.training.tiles import LookTiles

_SCORED_SHARE = 0.75
"""Share of a thin tile that is scored on the way; what lies around it is left to the next part."""
_LARGEST_PLANE = 2**24
"""Voxels (4096²) of a slice on which distances between borders are measured: each class takes some
seconds there, and one second on 2048²."""


class HeldOutSlices:
    """The slices that a training does not see, and what is painted on them.

    Parameters
    ----------
    plan, tiles
        The training, and the tiles of its looks.
    interrupted
        Asked between parts of slices: when True, no further part is scored.
    """

    def __init__(
        self, plan: TrainingPlan, tiles: LookTiles, interrupted: Callable[[], bool]
    ) -> None:
        self._annotation, self._shape = plan.annotation, plan.volume.shape
        self._limits = plan.limits
        self._voxel_size, self._unit = plan.volume.voxel_size, plan.volume.unit
        self._trained = [s.ref for s in plan.slices]
        self._tiles, self._interrupted = tiles, interrupted
        self._labelled: dict[SliceRef, int] = {}
        self._kept: dict[SliceRef, np.ndarray] = {}

    def measure(
        self,
        make_engine: Callable[[Triple], Engine],
        iteration: int,
        elapsed: float,
        final: bool,
    ) -> HeldOutScores:
        """Score the slices; voxels that are not labelled there do not count.

        Slices are scored part by part, spread over all of them, until the time for it is over:
        large slices must not eat up the training. A part without labels costs nothing. The final
        measurement takes longer, and uses the tiles of the dense prediction, so that the scores
        are those of the result. On the way, there are no scores when the network gives no numbers.

        Parameters
        ----------
        make_engine
            Makes an engine for a tile (z, y, x).
        iteration, elapsed
            Iterations and seconds of the training until now.
        final
            Whether the model is finished.
        """
        limits = self._limits
        end = time.monotonic() + (limits.final_seconds if final else limits.look_seconds)
        table = label_table(self._annotation.classes)
        slices: dict[SliceRef, _MeasuredSlice] = {}
        total = sum(self._labelled_voxels(ref) for ref in self._annotation.held_out)
        scored = 0
        for ref, box, tile in self.parts(final):
            if scored and (self._interrupted() or time.monotonic() > end):
                break
            target = self._target(ref, box)
            labelled = int(np.count_nonzero(target))
            if not labelled:
                continue
            engine = make_engine(tile)
            try:
                probabilities = engine.predict(ref.time, box)
            except NotFiniteError:
                if final:
                    raise
                slices, scored = {}, 0
                break
            if ref not in slices:
                slices[ref] = _MeasuredSlice(table, self._plane(ref) if final else None)
            slices[ref].add(box_in_slice(box, ref), probabilities.argmax(0), target)
            scored += labelled
        overlap = Overlap(table[1:].tolist())
        overlap.add_all(measured.overlap for measured in slices.values())
        return HeldOutScores(
            iteration,
            elapsed,
            overlap.scores(),
            slices=tuple(str(ref) for ref in sorted(self._annotation.held_out)),
            distance=held_out_distance(self._annotation, self._trained),
            scored=min(scored / total, 1.0) if total else 0.0,
            final=final,
            by_slice=tuple(self._score(ref, slices[ref]) for ref in sorted(slices)),
            unit=self._unit,
        )

    @property
    def first_part_voxels(self) -> int:
        """Voxels that the network computes for the part that is always scored, on the way."""
        return max(prod(self._tiles.thin(axis)) for axis in self._axes)

    @property
    def first_part_pixels(self) -> int:
        """Voxels of the part that is always scored, on the way."""
        tiles = ((axis, self._tiles.thin(axis)) for axis in self._axes)
        return max(prod(tile) // tile[axis] for axis, tile in tiles)

    @property
    def _axes(self) -> set[int]:
        return {ref.axis for ref in self._annotation.held_out}

    def parts(self, final: bool) -> list[tuple[SliceRef, Box, Triple]]:
        """The held-out slices, cut where they are larger than a tile.

        Returns
        -------
        list of (SliceRef, Box, tile)
            The slice, a part of it, and the tile (z, y, x) that it is predicted with. Any number
            of parts taken from the beginning are spread over all slices. On the way, each part is
            the middle of a tile; in the end, it is as large as one, and its tiles overlap as in
            the dense prediction.
        """
        rng = np.random.default_rng(0)
        parts = []
        stride = total_stride(self._tiles.network)
        for number, ref in enumerate(sorted(self._annotation.held_out)):
            tile = self._tiles.dense if final else self._tiles.thin(ref.axis)
            out = output_shape(self._tiles.network, tile)
            whole = slice_box(self._shape, ref)
            if final:
                grid = plan_blocks(whole.shape, out, prod(out) // out[ref.axis])
            else:
                z, y, x = (
                    # A tile starts at a multiple of the stride before the part.
                    n if n <= m else max(1, min(int(m * _SCORED_SHARE), m - step + 1))
                    for n, m, step in zip(whole.shape, out, stride, strict=True)
                )
                grid = plan_parts(whole.shape, (z, y, x))
            grid = grid.moved(whole.start)
            for place, index in enumerate(spread_order(grid, rng)):
                parts.append(((place + 0.5) / len(grid), number, (ref, grid[index], tile)))
        return [part for *_, part in sorted(parts, key=lambda entry: entry[:2])]

    def _labelled_voxels(self, ref: SliceRef) -> int:
        """Labelled voxels of a held-out slice, counted once."""
        if ref not in self._labelled:
            target = self._annotation.held_out_target(ref)
            self._labelled[ref] = int(np.count_nonzero(target))
            kept = sum(kept.size for kept in self._kept.values())
            if kept + target.size <= self._limits.kept_labels:
                self._kept[ref] = np.expand_dims(target, ref.axis)
        return self._labelled[ref]

    def _plane(self, ref: SliceRef) -> np.ndarray | None:
        """Codes of a whole slice, one voxel thick; None where it is too large for distances."""
        plane = self._kept.get(ref)
        return plane if plane is not None and plane.size <= _LARGEST_PLANE else None

    def _score(self, ref: SliceRef, measured: _MeasuredSlice) -> SliceScore:
        labelled = self._labelled[ref]
        distances: dict[int, SurfaceDistance | None] = {}
        if measured.voxels == labelled and not self._interrupted():
            y, x = (s for axis, s in enumerate(self._voxel_size) if axis != ref.axis)
            distances = measured.distances((y, x), ref.axis)
        return SliceScore(str(ref), measured.classes(distances), measured.voxels, labelled)

    def _target(self, ref: SliceRef, box: Box) -> np.ndarray:
        """Codes (z, y, x) of the labels in a part of a held-out slice."""
        if ref in self._kept:
            return self._kept[ref][box_in_slice(box, ref)]
        return self._annotation.held_out_crop(ref.time, box.start, box.stop)


class _MeasuredSlice:
    """What was measured on one slice.

    Parameters
    ----------
    table
        (K,) label value of each output of the network; the first is background.
    target
        Codes of the whole slice, one voxel thick, for the distances between borders; None where
        these are not wanted.
    """

    def __init__(self, table: np.ndarray, target: np.ndarray | None) -> None:
        self._table, self._truth = table, target
        self._predicted = None if target is None else np.zeros(target.shape, np.uint8)
        self.overlap = Overlap(table[1:].tolist())
        self.voxels = 0

    def add(self, where: tuple[slice, ...], predicted: np.ndarray, target: np.ndarray) -> None:
        """Count a part of the slice.

        Parameters
        ----------
        where
            Its place in the whole slice.
        predicted
            (z, y, x) outputs of the network, 0 background.
        target
            (z, y, x) codes of the labels, 0 unlabelled.
        """
        if self._predicted is not None:
            self._predicted[where] = predicted
        mask = target > 0
        self.overlap.add(self._table[predicted], self._table[np.maximum(target, 1) - 1], mask)
        self.voxels += int(np.count_nonzero(mask))

    def distances(
        self, spacing: tuple[float, float], axis: int
    ) -> dict[int, SurfaceDistance | None]:
        """Distances between the borders of each class by its label value."""
        if self._truth is None or self._predicted is None:
            return {}
        truth, predicted = self._truth.squeeze(axis), self._predicted.squeeze(axis)
        return {
            value: surface_distance(predicted == output, truth == output + 1, truth > 0, spacing)
            for output, value in enumerate(self._table.tolist())
            if output
        }

    def classes(self, distances: Mapping[int, SurfaceDistance | None]) -> tuple[ClassOnSlice, ...]:
        """The counts of each class, with its distances where they are known."""
        return tuple(
            ClassOnSlice(
                value,
                *self.overlap.counts(value),
                *((found.mean, found.hausdorff95) if (found := distances.get(value)) else ()),
            )
            for value in self._table[1:].tolist()
        )


def box_in_slice(box: Box, ref: SliceRef) -> tuple[slice, ...]:
    """Where a part of a slice lies in the slice's own array, one voxel thick."""
    return tuple(
        slice(None) if axis == ref.axis else slice(box.start[axis], box.stop[axis])
        for axis in range(3)
    )


def held_out_distance(annotation: SparseAnnotation, trained: list[SliceRef]) -> int | None:
    """Slices between a held-out slice and the nearest trained one of the same orientation."""
    distances = [
        abs(ref.index - other.index)
        for ref in annotation.held_out
        for other in trained
        if (ref.axis, ref.time) == (other.axis, other.time)
    ]
    return min(distances, default=None)
