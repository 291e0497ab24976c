"""TIFF files: plain, ImageJ's and OME-TIFF, with axes and voxel size."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from napari_unet3d.data.file_metadata import arrange_axes, common_unit
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError

_log = logging.getLogger(__name__)
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
