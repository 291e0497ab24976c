"""TIFF files: plain, ImageJ's and OME-TIFF, with axes and voxel size."""

from __future__ import annotations

import errno
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from napari_unet3d.data.description import Description
from napari_unet3d.data.file_metadata import arrange_axes, common_unit
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError

_log = logging.getLogger(__name__)
TIFF_ENDINGS = (".tif", ".tiff", ".btf", ".tf8")
_BIG = 3_900_000_000
_OME_TYPES = ("bool", "uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")
_CLASS_NAMES = "napari-unet3d/class-names"
_CLASS_COLORS = "napari-unet3d/class-colors"
_Sizes = tuple[tuple[float, float, float], str]


def read_tiff(path: Path) -> Volume:
    """Open a TIFF file; uncompressed ones are memory-mapped.

    Raises
    ------
    BadInputError
        When the file is damaged, or is no 3D stack.
    """
    with _damage_reported(path), tifffile.TiffFile(path) as tif:
        n_pages = len(tif.pages)  # walks the whole file: a truncated one shows
        if not tif.series or not n_pages:
            raise BadInputError(f"'{path}' has no images in it. Export the stack again.")
        stacked = _is_pages_one_by_one(tif.series)
        series = tif.series[0]
        names, shape = str(series.axes), tuple(series.shape)
        if stacked:
            names, shape = "Z" + names, (len(tif.series), *shape)
        elif len(tif.series) > 1:
            _log.info("%s holds %d images: the first one is used", path, len(tif.series))
        if len(series.levels) > 1:
            _log.info("%s has %d resolutions: the finest is used", path, len(series.levels))
        order, axes = arrange_axes(names, shape, f"'{path.name}'")
        try:
            voxel_size, unit = _voxel_size(tif)
        except (ElementTree.ParseError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s: the voxel size cannot be read (%s)", path, error)
            voxel_size, unit = (1.0, 1.0, 1.0), "pixel"
        data = _read_all(tif) if stacked else _map_or_read(path, series)
    singletons = tuple(i for i in range(len(shape)) if i not in order)
    data = data.reshape(shape).transpose(*singletons, *order)
    data = data.reshape(data.shape[len(singletons) :]) if singletons else data
    return Volume(data, axes, voxel_size, unit, path.name)


def create_tiff(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], about: Description
) -> np.memmap[Any, Any]:
    """Make an uncompressed OME-TIFF, to be written through the returned memory map.

    Raises
    ------
    BadInputError
        When OME-TIFF has no such number format.
    OSError
        When the disk is full.
    """
    check_tiff_type(dtype)
    n_bytes = math.prod(shape) * dtype.itemsize
    array = tifffile.memmap(
        path,
        shape=shape,
        dtype=dtype,
        ome=True,
        bigtiff=n_bytes > _BIG,
        photometric="minisblack",
        metadata=_ome_metadata(shape, about),
    )
    _reserve(path)
    return array


def check_tiff_type(dtype: np.dtype[Any]) -> None:
    """Raise `BadInputError` unless OME-TIFF has this number format."""
    if dtype.name not in _OME_TYPES:
        raise BadInputError(
            f"OME-TIFF cannot hold numbers of type {dtype.name}. Use one of "
            f"{', '.join(_OME_TYPES)}, or write OME-Zarr."
        )


def _ome_metadata(shape: tuple[int, ...], about: Description) -> dict[str, Any]:
    """Attributes and elements of OME-XML, as tifffile takes them."""
    metadata: dict[str, Any] = {"axes": about.axes}
    if about.unit != "pixel" or about.voxel_size != (1.0, 1.0, 1.0):
        for name, size in zip("ZYX", about.voxel_size, strict=True):
            metadata |= {f"PhysicalSize{name}": size, f"PhysicalSize{name}Unit": about.unit}
    if about.seconds is not None:
        metadata |= {"TimeIncrement": about.seconds, "TimeIncrementUnit": "s"}
    if about.is_moved:
        metadata["Plane"] = _plane_positions(shape, about)
    channel: dict[str, Any] = {}
    if names := about.names_of_channels():
        channel["Name"] = names
    if colors := about.colors_of_channels():
        channel["Color"] = [_ome_color(color) for color in colors]
    if channel:
        metadata["Channel"] = channel
    if about.is_labels:
        names_by_label = {str(value): name for value, name in about.label_names().items()}
        colors_by_label = {str(c.output_value): c.color for c in about.classes}
        metadata["Description"] = "Labels: " + ", ".join(
            f"{value} {name}" for value, name in names_by_label.items()
        )
        metadata["MapAnnotation"] = [
            {"Namespace": _CLASS_NAMES, "Value": names_by_label},
            {"Namespace": _CLASS_COLORS, "Value": colors_by_label},
        ]
    return metadata


def _plane_positions(shape: tuple[int, ...], about: Description) -> dict[str, list[Any]]:
    """Where the first voxel of each plane lies, plane by plane in the order of the file."""
    z, y, x = about.translation
    planes = math.prod(shape[:-2])
    depths = np.arange(shape[-3]) * about.voxel_size[0] + z
    positions = {"Z": np.resize(depths, planes).tolist(), "Y": [y] * planes, "X": [x] * planes}
    return {f"Position{name}": values for name, values in positions.items()} | {
        f"Position{name}Unit": [about.unit] * planes for name in "ZYX"
    }


def _ome_color(color: tuple[int, int, int]) -> int:
    """OME's color: red, green, blue and opacity as one signed number of 32 bits."""
    return int.from_bytes(bytes((*color, 255)), "big", signed=True)


def _reserve(path: Path) -> None:
    """Give a sparse file its blocks: a full disk would else kill the process (SIGBUS)."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not every disk can
                raise


def _is_pages_one_by_one(series: list[Any]) -> bool:
    """Whether the slices were written as so many single images."""
    first = series[0]
    return (
        len(series) > 1
        and first.ndim == 2
        and all(s.shape == first.shape and s.dtype == first.dtype for s in series)
    )


def _read_all(tif: tifffile.TiffFile) -> np.ndarray:
    return np.stack([series.asarray() for series in tif.series])


def _map_or_read(path: Path, series: Any) -> np.ndarray:
    if series.dataoffset is not None:
        try:
            return tifffile.memmap(path, mode="r", series=0, level=0)
        except (ValueError, OSError) as error:
            _log.info("%s is read instead of memory-mapped: %s", path, error)
    data: np.ndarray = series.asarray()
    return data


def _voxel_size(tif: tifffile.TiffFile) -> _Sizes:
    """Voxel size along z, y, x, and its unit; 1 pixel where the file does not say."""
    if tif.is_ome and tif.ome_metadata:
        found = _ome_voxel_size(tif.ome_metadata)
    elif tif.is_imagej and tif.imagej_metadata is not None:
        found = _imagej_voxel_size(tif)
    elif tif.is_lsm and tif.lsm_metadata:
        sizes = [1e6 * float(tif.lsm_metadata[f"VoxelSize{name}"]) for name in "ZYX"]
        found = common_unit(sizes, ["µm"] * 3)
    else:
        found = None
    return found or ((1.0, 1.0, 1.0), "pixel")


def _ome_voxel_size(xml: str) -> _Sizes | None:
    pixels = ElementTree.fromstring(xml).find(".//{*}Image/{*}Pixels")
    if pixels is None:
        return None
    texts = [pixels.get(f"PhysicalSize{name}") for name in "ZYX"]
    units = [pixels.get(f"PhysicalSize{name}Unit", "µm") for name in "ZYX"]
    known = [(float(t), u) for t, u in zip(texts, units, strict=True) if t is not None]
    if not known:
        return None
    # What is missing is taken to be as large as x, or as what there is.
    sizes = [known[-1][0] if t is None else float(t) for t in texts]
    units = [known[-1][1] if t is None else u for t, u in zip(texts, units, strict=True)]
    return common_unit(sizes, units)


def _imagej_voxel_size(tif: tifffile.TiffFile) -> _Sizes:
    metadata = tif.imagej_metadata or {}
    tags = tif.pages.first.tags
    unit = metadata.get("unit")
    along = {}
    for name in ("XResolution", "YResolution"):
        tag = tags.get(name)
        # Pixels per unit. Without a named unit, dots per inch of a printer are meant.
        dpi = unit is None and tif.pages.first.resolutionunit != tifffile.RESUNIT.NONE
        pixels, length = (1, 1) if tag is None or dpi else tag.value
        along[name] = length / pixels if pixels else 1.0
    # ImageJ leaves a spacing of 1 out.
    sizes = (float(metadata.get("spacing", 1.0)), along["YResolution"], along["XResolution"])
    return common_unit(sizes, [unit] * 3)


class _Complaints(logging.Handler):
    """Keeps what tifffile only logs, though it then reads less than the file should hold."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "TiffPages" in text or "corrupted" in text or "failed" in text:
            self.texts.append(text)


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    logger = logging.getLogger("tifffile")
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
        if complaints.texts:
            raise BadInputError(_damaged(path, complaints.texts[0])) from error
        if isinstance(error, BadInputError):
            raise
        if "imagecodecs" in str(error):
            raise BadInputError(
                f"'{path}' is compressed in a way that needs another package ({error}). Install "
                "it (pip install imagecodecs), or save the stack uncompressed."
            ) from error
        raise BadInputError(_damaged(path, str(error))) from error
    finally:
        logger.removeHandler(complaints)
    if complaints.texts:
        raise BadInputError(_damaged(path, complaints.texts[0]))


def _damaged(path: Path, reason: str) -> str:
    return (
        f"'{path}' is no TIFF file, is damaged, or is not complete ({reason}). Copy or export it "
        "again."
    )
