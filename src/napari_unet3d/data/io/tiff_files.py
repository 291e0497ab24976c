"""TIFF files: plain, ImageJ's and OME-TIFF, with axes and voxel size."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from napari_unet3d.data.io.axes import arrange_axes
from napari_unet3d.data.io.file_metadata import (
    Length,
    Placement,
    Wishes,
    make_volume,
    parse_seconds,
    parse_unit,
    settle_geometry,
)
from napari_unet3d.data.io.ome import OmeImage, check_files, parse_ome
from napari_unet3d.data.io.tiff_planes import (
    IncompleteError,
    check_complete,
    raw_places,
    stored_dtype,
)
from napari_unet3d.data.lazy import RawPlanes, Unread
from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError


def read_tiff(path: Path, wishes: Wishes, *, voxels: bool = True) -> Volume:
    """Open a TIFF file; of uncompressed ones, voxels are read when they are needed.

    Parameters
    ----------
    path
        A regular file.
    wishes
        Axes and sizes that the caller gives in place of those of the file.
    voxels
        False leaves the voxels out: `Volume.data` has only a shape and a type.

    Raises
    ------
    BadInputError
        When the file is damaged or lacks planes that it promises, or is no 3D stack.
    """
    with _damage_reported(path):
        with tifffile.TiffFile(path) as tif:
            ome = _ome_of(tif)
            if ome is None or ome.metadata_file is None:
                return _read(tif, ome, path, wishes, voxels)
        described_in = _companion(path, ome.metadata_file)
        if described_in.suffix.lower() in (".tif", ".tiff"):
            return read_tiff(described_in, wishes, voxels=voxels)
        with tifffile.TiffFile(path, omexml=described_in.read_text(encoding="utf-8")) as tif:
            return _read(tif, _ome_of(tif), path, wishes, voxels)


@dataclass(frozen=True)
class Slice:
    """One 2D image of a folder.

    `place` says where its voxels lie; None where they had to be decoded, into `data`.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    place: tuple[Path, int] | None
    data: np.ndarray | None
    placement: Placement


def read_slice_file(path: Path, *, voxels: bool = True) -> Slice:
    """Open one slice of a stack that is a folder of TIFFs.

    Raises
    ------
    BadInputError
        When it is damaged, or holds something else than one 2D image.
    """
    with _damage_reported(path), tifffile.TiffFile(path) as tif:
        if not tif.series:
            raise BadInputError(f"'{path}' has no images in it. Export the stack again.")
        series = tif.series[0]
        shape = tuple(n for n in series.shape if n != 1)
        if len(tif.series) > 1 or len(shape) != 2:
            raise BadInputError(
                f"'{path}' is not a single 2D gray image ({describe_shape(series.shape)}). A "
                "folder of TIFFs is a stack when each of them is one slice. Move the file away, "
                "or give the path of the file that holds the stack."
            )
        check_complete(tif, [series], None, path)
        places = raw_places(series, shape)
        data = series.asarray().reshape(shape) if voxels and places is None else None
        ome = _ome_of(tif)
        place = None if places is None else places[0]
        return Slice(shape, stored_dtype(series), place, data, _placement(tif, ome, path))


def files_of_set(path: Path) -> tuple[str, ...]:
    """Names of the files that hold an image together with `path`; () where it stands alone."""
    with _damage_reported(path), tifffile.TiffFile(path) as tif:
        ome = _ome_of(tif)
    return () if ome is None else ome.files


def _read(
    tif: tifffile.TiffFile, ome: OmeImage | None, path: Path, wishes: Wishes, voxels: bool
) -> Volume:
    what, notes = f"'{path.name}'", []
    n_pages = len(tif.pages)  # walks the whole file: a truncated one shows
    if ome is not None:
        check_files(ome, path)
    if not tif.series or not n_pages:
        raise BadInputError(f"'{path}' has no images in it. Export the stack again.")
    series = tif.series[0]
    stacked = _is_pages_one_by_one(tif.series)
    names, shape = str(series.axes), tuple(series.shape)
    if _colors_are_a_guess(series):
        names = names.replace("S", "Q")
        notes.append(
            f"{what} marks its {shape[-3]} planes as colors, but was saved as an array without "
            "colors: they are taken for slices along z."
        )
    if stacked:
        names, shape = "Z" + names, (len(tif.series), *shape)
        if series.kind == "ome":
            notes.append(f"The {shape[0]} images of {what} are taken for slices along z.")
    elif len(tif.series) > 1:
        notes.append(f"{what} holds {len(tif.series)} images: the first one is used.")
    if len(series.levels) > 1:
        notes.append(f"{what} has {len(series.levels)} resolutions: the finest is used.")
    parts = tif.series if stacked else [series]
    if "S" not in names or wishes.axes is not None:  # a color image is refused below
        check_complete(tif, parts, ome, path)
    order, axes, noted = arrange_axes(names, shape, what, wishes)
    placement = _placement(tif, ome, path)
    geometry, remarks = settle_geometry(
        axes, tuple(shape[i] for i in order), placement, wishes, what
    )
    data: Any = Unread(shape, series.dtype)
    if voxels:
        data = _voxels(parts, shape)
    said = (*notes, *noted, *remarks)
    channels = _channel_names(tif, ome, axes, geometry.shape)
    return make_volume(data, order, names, geometry, path.name, said, channels)


def _channel_names(
    tif: tifffile.TiffFile, ome: OmeImage | None, axes: str, shape: Sequence[int]
) -> Sequence[str | None]:
    """What the file calls its channels; () where it does not say.

    ImageJ has no names of channels, but labels of planes, which run through the channels first. A
    label names a channel when all planes of the channel have it, and no other channel has.
    """
    if "C" not in axes:
        return ()
    if ome is not None:
        return ome.channel_names
    labels = (tif.imagej_metadata or {}).get("Labels") if tif.is_imagej else None
    if not isinstance(labels, Sequence) or isinstance(labels, str):
        return ()
    n = shape[axes.index("C")]
    each = [{_POSITION.sub("", str(label)) for label in labels[c::n]} for c in range(n)]
    names = [name for one in each if len(one) == 1 for name in one]
    return names if len(set(names)) == n else ()


def _ome_of(tif: tifffile.TiffFile) -> OmeImage | None:
    """The promise of the OME-XML of a file; None where it has none, or a broken one."""
    if not tif.is_ome or not tif.ome_metadata:
        return None
    try:
        return parse_ome(tif.ome_metadata)
    except (ElementTree.ParseError, ValueError, TypeError):
        return None


def _companion(path: Path, name: str) -> Path:
    """The file beside `path` that describes it."""
    companion = path.parent / name
    if not companion.is_file() or companion.samefile(path):
        raise BadInputError(
            f"'{path}' is one of several files of an image, and '{name}', which describes them, "
            "is missing beside it. Copy all of them into one folder, or export the stack as one "
            "file."
        )
    return companion


def _is_pages_one_by_one(series: list[Any]) -> bool:
    """Whether the slices were written as so many single images."""
    first = series[0]
    return (
        len(series) > 1
        and first.ndim == 2
        and all(s.shape == first.shape and s.dtype == first.dtype for s in series)
    )


def _colors_are_a_guess(series: Any) -> bool:
    """Whether tifffile wrote 3 or 4 slices as planes of color, since it takes these for RGB.

    So napari saves stacks, too. tifffile notes the true shape beside, without a name of the axes.
    """
    return bool(
        series.kind == "shaped"
        and series.ndim >= 3
        and series.axes[-3:] == "SYX"
        and series.keyframe.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    )


def _voxels(series: list[Any], shape: tuple[int, ...]) -> Any:
    """The voxels of one series, or of many with one slice each."""
    each = shape[1:] if len(series) > 1 else shape
    places: list[tuple[Path, int]] = []
    for one in series:
        own = raw_places(one, each) if one.axes[-2:] == "YX" else None
        if own is None:
            return np.stack([s.asarray() for s in series]).reshape(shape)
        places += own
    return RawPlanes(shape, stored_dtype(series[0]), places)


def _placement(tif: tifffile.TiffFile, ome: OmeImage | None, path: Path) -> Placement:
    """Size and position of the voxels, as the file describes them."""
    try:
        if ome is not None:
            return ome.placement
        if tif.is_imagej and tif.imagej_metadata is not None:
            return _imagej_placement(tif, path)
        if tif.is_lsm and tif.lsm_metadata:
            x, y, z = (
                Length.parse(1e6 * float(tif.lsm_metadata[f"VoxelSize{name}"]), "µm")
                for name in "XYZ"
            )
            return Placement((z, y, x))
    except (ValueError, KeyError, TypeError):
        note = f"What '{path.name}' says about its voxel size cannot be understood."
        return Placement(notes=(note,))
    return Placement()


def _imagej_placement(tif: tifffile.TiffFile, path: Path) -> Placement:
    said = tif.imagej_metadata or {}
    tags = tif.pages.first.tags
    unit = _text(said.get("unit"))
    along = {}
    for axis in "XY":
        tag = tags.get(f"{axis}Resolution")
        # Pixels per unit. Without a named unit, dots per inch of a printer are meant.
        dpi = unit is None and tif.pages.first.resolutionunit != tifffile.RESUNIT.NONE
        pixels, length = (1, 1) if tag is None or dpi else tag.value
        along[axis] = length / pixels if pixels else None
    units = {axis: _text(said.get(f"{axis.lower()}unit")) or unit for axis in "ZYX"}
    # ImageJ leaves a spacing of 1 out.
    notes: tuple[str, ...] = ()
    if "spacing" not in said and parse_unit(units["Z"])[0] != "pixel":
        notes = (
            f"'{path.name}' has no spacing along z: 1 {units['Z']} is taken, as ImageJ does. If "
            "it is another one, give the voxel size.",
        )
    sizes = {"Z": said.get("spacing", 1.0), "Y": along["Y"], "X": along["X"]}
    lengths = [Length.parse(sizes[a], units[a]) for a in "ZYX"]
    # ImageJ's origin is the voxel at position 0.
    zero = [Length.parse(said.get(f"{axis}origin")).value or 0.0 for axis in "zyx"]
    origin = [
        Length(-at * abs(length.value or 0.0), length.unit)
        for at, length in zip(zero, lengths, strict=True)
    ]
    step = parse_seconds(said.get("finterval"), _text(said.get("tunit")) or "s")
    place = (origin[0], origin[1], origin[2])
    return Placement((lengths[0], lengths[1], lengths[2]), place, step, notes)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


_POSITION = re.compile(r"^(?:[cztCZT]:\d+/\d+[\s;,]*)+(?:- )?")
"""What Bio-Formats writes before the label of a plane: "c:1/2 z:3/10 - "."""
_LOST_TAG = re.compile(r"TiffTag (\d+) @\d+> invalid value offset")
"""What tifffile logs of a tag whose value lies beyond the end of the file."""
_DESCRIBING_TAGS = frozenset({270, 282, 283, 34412, 50838, 50839})
"""Tags that axes, voxel size or planes are known from; many programs write the first one last, so
that a truncated file lacks it while its voxels are there."""


class _Complaints(logging.Handler):
    """Keeps what tifffile only logs, though it then reads less than the file should hold."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def damage(self) -> str | None:
        """The first record that tells of damage."""
        for record in self.records:
            text = record.getMessage()
            lost = _LOST_TAG.search(text)
            if lost is not None and int(lost[1]) in _DESCRIBING_TAGS:
                return "its description lies beyond its end"
            words = ("TiffPages", "corrupted", "failed")
            if record.levelno >= logging.ERROR and any(word in text for word in words):
                return text
        return None


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    logger = logging.getLogger("tifffile")
    heard = logger.hasHandlers()
    complaints = _Complaints()
    logger.addHandler(complaints)
    try:
        yield
    except PermissionError:
        raise
    except MemoryError as error:
        raise BadInputError(
            f"'{path}' does not fit into memory ({error}). Save it uncompressed or as OME-Zarr, "
            "which are read piece by piece."
        ) from error
    except Exception as error:  # a damaged file can make tifffile raise anything
        if isinstance(error, IncompleteError):
            raise
        if isinstance(error, BadInputError) and complaints.damage is None:
            raise
        if "imagecodecs" in str(error):
            raise BadInputError(
                f"'{path}' is compressed in a way that needs another package ({error}). Install "
                "it (pip install imagecodecs), or save the stack uncompressed."
            ) from error
        raise BadInputError(_damaged(path, complaints.damage or str(error))) from error
    finally:
        logger.removeHandler(complaints)
    if complaints.damage is not None:
        raise BadInputError(_damaged(path, complaints.damage))
    if not heard and logging.lastResort is not None:
        # Our handler kept these from the terminal, where they appear when nobody listens.
        for record in complaints.records:
            logging.lastResort.handle(record)


def _damaged(path: Path, reason: str) -> str:
    return (
        f"'{path}' is no TIFF file, is damaged, or is not complete ({reason}). Copy or export it "
        "again."
    )
