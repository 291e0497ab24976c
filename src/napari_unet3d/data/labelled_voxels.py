"""The labelled voxels around which training patches are drawn."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from napari_unet3d.data.ledger import SliceLedger
from napari_unet3d.data.slices import SliceRef, count_labels

_MAX_SAMPLED_VOXELS = 2**22
"""Voxels kept of all slices together, 13 bytes each."""
_FEWEST = 256
"""Voxels kept of a slice, however many slices there are."""


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


def list_labelled_voxels(
    ledger: SliceLedger,
    held_out: Collection[SliceRef],
    max_per_slice: int,
    rng: np.random.Generator,
    only: Collection[SliceRef] | None = None,
) -> tuple[LabelledVoxels, ...]:
    """List the labelled voxels by painted slice; see `SparseAnnotation.labelled_voxels`."""
    ledger.work()
    slices = list(_by_slice(ledger, held_out, max_per_slice, rng, only))
    number = len(slices) if only is None else len(ledger.slices())
    limit = max(_FEWEST, _MAX_SAMPLED_VOXELS // max(1, number))
    if limit < max_per_slice:
        slices = [_thinned(voxels, limit, rng) for voxels in slices]
    return tuple(slices)


def _by_slice(
    ledger: SliceLedger,
    held_out: Collection[SliceRef],
    max_per_slice: int,
    rng: np.random.Generator,
    only: Collection[SliceRef] | None,
) -> Iterator[LabelledVoxels]:
    for ref, coordinates, codes in ledger.claimed_voxels(only):
        hidden = np.zeros(len(codes), bool)
        for other in held_out:
            if other.time == ref.time:
                hidden |= coordinates[:, other.axis] == other.index
        if hidden.all():
            continue
        coordinates, codes = coordinates[~hidden], codes[~hidden]
        order = np.argsort(codes, kind="stable")
        voxels = LabelledVoxels(ref, coordinates[order], codes[order], count_labels(codes))
        yield _thinned(voxels, max_per_slice, rng)


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
