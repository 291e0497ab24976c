"""Planes of a TIFF series: whether they are all there, and where they lie in the file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_unet3d.data.io.ome import OmeImage, listed
from napari_unet3d.data.wording import either
from napari_unet3d.errors import BadInputError

_CURE = (
    "If its acquisition or its copying was stopped early, copy it again, or open the planes that "
    "are there in Fiji and save it as a new stack."
)
_SHOWN_AXES = {"T": "t", "C": "channel", "Z": "z", "I": "z", "Q": "z"}


class IncompleteError(BadInputError):
    """A file lacks planes that it promises."""


def check_complete(
    tif: tifffile.TiffFile, series: Sequence[Any], ome: OmeImage | None, path: Path
) -> None:
    """Raise `IncompleteError` unless the voxels that a TIFF promises are in the file.

    The planes that the descriptions promise (OME-XML, ImageJ's, tifffile's, Micro-Manager's) are
    counted against the pages that hold voxels within the length of their files.

    Parameters
    ----------
    tif, path
        The file.
    series
        Those of its series that make up the image: one, or many of one slice each.
    ome
        The promise of its OME-XML, if it has one.
    """
    for each in series:
        if missing := _missing_planes(tif, each):
            raise IncompleteError(_incomplete(path, missing, each))
    promised = _promised(tif, series[0], ome)
    held = sum(_n_planes(each, "YX" if tif.is_imagej else "YXS") for each in series)
    if promised > held:
        raise IncompleteError(
            f"'{path}' is damaged, or is not complete: its description promises {promised} "
            f"planes, and it holds {held}. {_CURE}"
        )
    _check_micromanager(tif, series[0], path)


def raw_places(series: Any, shape: Sequence[int]) -> list[tuple[Path, int]] | None:
    """File and first byte of each plane of a series; None where voxels must be decoded.

    `shape` is that of the series, the last two axes being rows and columns.
    """
    n_planes = math.prod(shape[:-2])
    plane_bytes = shape[-2] * shape[-1] * series.dtype.itemsize
    if series.dataoffset is not None and not series.is_multifile:
        path, first = Path(series.keyframe.parent.filehandle.path), int(series.dataoffset)
        return [(path, first + i * plane_bytes) for i in range(n_planes)]
    places: list[tuple[Path, int]] = []
    for page in series.pages:
        if page is None or not page.is_final or page.nbytes % plane_bytes:
            return None
        path, first = Path(page.parent.filehandle.path), int(page.dataoffsets[0])
        places += [(path, first + at) for at in range(0, page.nbytes, plane_bytes)]
    return places if len(places) == n_planes else None


def stored_dtype(series: Any) -> np.dtype[Any]:
    """The number format of a series, with the byte order that it has in the file."""
    dtype: np.dtype[Any] = series.dtype.newbyteorder(series.keyframe.parent.byteorder)
    return dtype


def _n_planes(series: Any, in_plane: str) -> int:
    """Planes of a series, which have the axes `in_plane`."""
    axes = zip(series.axes, series.shape, strict=True)
    return math.prod(n for axis, n in axes if axis not in in_plane)


def _missing_planes(tif: tifffile.TiffFile, series: Any) -> list[int]:
    """Numbers of the pages of a series that are not in the file, or not whole."""
    per_page = max(1, int(series.keyframe.size))
    n_pages = max(1, math.prod(series.shape) // per_page)
    pages = series._pages
    if len(pages) == 1 < n_pages:
        return list(range(_planes_behind(tif, pages[0], n_pages), n_pages))
    missing = [i for i, page in enumerate(pages) if not _is_whole(page)]
    return missing + list(range(len(pages), n_pages))


def _planes_behind(tif: tifffile.TiffFile, page: Any, promised: int) -> int:
    """Planes that follow each other from a page on which describes all of them."""
    start, size = int(page.dataoffsets[0]), int(page.nbytes)
    there = max(0, int(page.parent.filehandle.size) - start) // size
    if len(tif.pages) > page.index + 1:
        following = tif.pages[page.index + 1].dataoffsets
        if not following or following[0] < start + promised * size:
            # Not another image behind this one, but its own next plane: all planes have pages.
            there = min(there, len(tif.pages) - page.index)
    return min(there, promised)


def _is_whole(page: Any) -> bool:
    if page is None or not len(page.dataoffsets):
        return False
    size = page.parent.filehandle.size
    parts = zip(page.dataoffsets, page.databytecounts, strict=False)
    return all(offset > 0 and count > 0 and offset + count <= size for offset, count in parts)


def _promised(tif: tifffile.TiffFile, series: Any, ome: OmeImage | None) -> int:
    """Planes that the description of the file promises; 0 where it says nothing."""
    if ome is not None and not tif.is_imagej and series.kind != "mmstack":
        return ome.n_planes
    if series.kind in ("imagej", "uniform", "generic") and tif.imagej_metadata:
        said = tif.imagej_metadata
        try:
            sizes = [int(said.get(name, 1)) for name in ("slices", "frames", "channels")]
            images = int(said.get("images", 1))
        except (TypeError, ValueError):
            return 0
        return max(images, math.prod(sizes))
    return 0


def _check_micromanager(tif: tifffile.TiffFile, series: Any, path: Path) -> None:
    """Tifffile leaves planes out that other files of a set would hold."""
    if series.kind != "mmstack" or not tif.micromanager_metadata:
        return
    summary = tif.micromanager_metadata.get("Summary", {})
    there = dict(zip(series.axes, series.shape, strict=True))
    for axis, name in {"T": "Frames", "Z": "Slices", "C": "Channels"}.items():
        wanted = int(summary.get(name, 1) or 1)
        if wanted > there.get(axis, 1):
            raise IncompleteError(
                f"'{path}' is not complete: its description promises {wanted} {name.lower()}, and "
                f"it holds {there.get(axis, 1)}. Files of its set may be missing beside it. {_CURE}"
            )


def _incomplete(path: Path, missing: list[int], series: Any) -> str:
    is_are = either(len(missing), "is", "are")
    return (
        f"'{path}' is damaged, or is not complete: {_named(missing, series)} {is_are} not in the "
        f"file. {_CURE}"
    )


def _named(missing: list[int], series: Any) -> str:
    """Missing pages as positions along the axes of the series, such as "planes z=5, 6, 7"."""
    per_page = len(series.keyframe.shape)
    names, sizes = series.axes[:-per_page], series.shape[:-per_page]
    long = [(name, n) for name, n in zip(names, sizes, strict=True) if n > 1]
    plural = either(len(missing), "plane")
    if not long or math.prod(n for _, n in long) <= max(missing):
        return f"{len(missing)} {plural}"
    axes = [_SHOWN_AXES.get(name, name.lower()) for name, _ in long]
    positions = np.unravel_index(missing, [n for _, n in long])
    if len(axes) == 1:
        return f"{plural} {axes[0]}={listed([str(i) for i in positions[0]])}"
    texts = [
        " ".join(f"{axis}={i}" for axis, i in zip(axes, index, strict=True))
        for index in zip(*positions, strict=True)
    ]
    return f"{plural} {listed(texts)}"
