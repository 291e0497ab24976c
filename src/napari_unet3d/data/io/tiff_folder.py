"""A folder of TIFFs, each of which is one slice of a stack."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.data.io.axes import arrange_axes
from napari_unet3d.data.io.file_metadata import (
    Wishes,
    make_volume,
    settle_geometry,
)
from napari_unet3d.data.io.ome import listed
from napari_unet3d.data.io.tiff_files import Slice, files_of_set, read_slice_file, read_tiff
from napari_unet3d.data.lazy import RawPlanes, Unread
from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError

ENDINGS = (".tif", ".tiff", ".btf", ".tf8")
_MOST_GAPS = 1000
"""Numbers between two file names; a larger distance is no gap but another way of counting."""


def slice_files(folder: Path) -> list[Path]:
    """The TIFFs of a folder in natural order: im_2.tif comes before im_10.tif."""
    names = [
        p for p in folder.iterdir() if p.suffix.lower() in ENDINGS and not p.name.startswith(".")
    ]
    return sorted((p for p in names if p.is_file()), key=_natural)


def read_folder(folder: Path, wishes: Wishes, *, voxels: bool = True) -> Volume:
    """Open a folder of 2D TIFFs as a stack, in the natural order of their names.

    Raises
    ------
    BadInputError
        When it holds fewer than two TIFFs, one that is no single slice, or slices that differ in
        size or number format. The text names the file.
    """
    files = slice_files(folder)
    if len(files) < 2:
        raise BadInputError(
            f"'{folder}' holds a single TIFF, which is no stack. If '{files[0].name}' is one, give "
            f"its path: {files[0]}"
        )
    parts = files_of_set(files[0])
    if len(parts) > 1:
        return _read_set(folder, files, parts, wishes, voxels)
    first = read_slice_file(files[0], voxels=voxels)
    slices = [first, *(_like(first, files[0], path, voxels) for path in files[1:])]
    what = f"'{folder.name}'"
    shape = (len(slices), *first.shape)
    order, axes, noted = arrange_axes("ZYX", shape, what, wishes)
    geometry, remarks = settle_geometry(
        axes, tuple(shape[i] for i in order), first.placement, wishes, what
    )
    data = _voxels(slices, shape) if voxels else Unread(shape, first.dtype)
    notes = (*_unlike_names(files, what), *noted, *remarks)
    return make_volume(data, order, "ZYX", geometry, folder.name, notes)


def _read_set(
    folder: Path, files: Sequence[Path], parts: Sequence[str], wishes: Wishes, voxels: bool
) -> Volume:
    """A folder that holds the files of one OME-TIFF."""
    others = [path.name for path in files if path.name not in parts]
    if others:
        raise BadInputError(
            f"'{folder}' holds an image of {len(parts)} files and others "
            f"({listed([repr(name) for name in others])}). Move these away, or give the path of "
            f"one file of the image: {files[0]}"
        )
    return read_tiff(files[0], wishes, voxels=voxels)


def _like(first: Slice, first_path: Path, path: Path, voxels: bool) -> Slice:
    plane = read_slice_file(path, voxels=voxels)
    if plane.shape != first.shape:
        raise BadInputError(
            f"'{path}' has {describe_shape(plane.shape)} voxels, but '{first_path.name}' has "
            f"{describe_shape(first.shape)}. All slices of a stack need the same size: crop them "
            "alike, or move the file away."
        )
    if plane.dtype.newbyteorder("=") != first.dtype.newbyteorder("="):
        raise BadInputError(
            f"'{path}' has numbers of type {plane.dtype.name}, but '{first_path.name}' has "
            f"{first.dtype.name}. Save all slices with the same type, or move the file away."
        )
    return plane


def _voxels(slices: Sequence[Slice], shape: tuple[int, ...]) -> Any:
    places = [s.place for s in slices if s.place is not None and s.dtype == slices[0].dtype]
    if len(places) == len(slices):
        return RawPlanes(shape, slices[0].dtype, places)
    stack = np.empty(shape, slices[0].dtype.newbyteorder("="))
    for z, one in enumerate(slices):
        stack[z] = RawPlanes(one.shape, one.dtype, [one.place])[:] if one.place else one.data
    return stack


def _unlike_names(files: Sequence[Path], what: str) -> list[str]:
    """Notes on numbers that are left out, and on names that differ in more than a number."""
    numbered = [re.fullmatch(r"(.*?)(\d+)(\D*)", path.stem, re.DOTALL) for path in files]
    if any(match is None for match in numbered):
        return []
    matches = [match for match in numbered if match is not None]
    kinds = Counter((match[1], match[3]) for match in matches)
    if len(kinds) > 1:
        names = listed([f"'{head}…{tail}'" for head, tail in kinds])
        return [
            f"The file names in {what} differ in more than a number ({names}): all "
            f"{len(files)} files are taken for slices of one stack."
        ]
    numbers = [int(match[2]) for match in matches]
    steps = Counter(b - a for a, b in itertools.pairwise(numbers))
    usual = steps.most_common(1)[0][0]
    if usual < 1 or len(steps) == 1 or numbers[-1] - numbers[0] > _MOST_GAPS + len(numbers):
        return []
    lost = sorted(set(range(numbers[0], numbers[-1], usual)) - set(numbers))
    if not lost:
        return []
    return [
        f"The numbers of the files in {what} leave out {listed([str(n) for n in lost])}: the "
        "slices around are taken for neighbors."
    ]


def _natural(path: Path) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", path.name.lower())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]
