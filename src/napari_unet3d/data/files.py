"""Images and labels from files, and results into files, with voxel size and unit."""

from __future__ import annotations

import errno
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.data.tiff_files import create_tiff, read_tiff
from napari_unet3d.data.volume import AXES, Volume
from napari_unet3d.data.zarr_files import create_zarr, is_zarr, read_zarr
from napari_unet3d.errors import BadInputError, RunFailedError

_TIFF_ENDINGS = (".tif", ".tiff", ".btf", ".tf8")
_READ_ENDINGS = (*_TIFF_ENDINGS, ".lsm")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LABELS_COMPRESS = 4
"""Labels in a zarr become at least this much smaller."""


def read_volume(path: str | Path) -> Volume:
    """Open an image: TIFF, OME-TIFF, ImageJ TIFF, OME-Zarr (0.4, 0.5) or a zarr array.

    Uncompressed TIFF and zarr are read when voxels are needed, other TIFF at once. Of an image
    with several resolutions the finest is taken. Axes of length 1 are dropped.

    Parameters
    ----------
    path
        A file, or the folder of a zarr.

    Returns
    -------
    Volume
        With voxel size and unit of the file; 1 pixel where it does not say.

    Raises
    ------
    BadInputError
        When it is not there, not readable, damaged, or no 3D stack. The content is not checked:
        that is what `Volume.check` is for.
    """
    path = Path(path).expanduser()
    try:
        if path.is_dir():
            if not is_zarr(path):
                raise BadInputError(
                    f"'{path}' is a folder without a zarr image in it. Give a TIFF file, or the "
                    "folder of an OME-Zarr image."
                )
            return read_zarr(path)
        if not path.exists():
            raise BadInputError(
                f"There is no '{path}'. Check the path (looked for in {Path.cwd()})."
            )
        if path.suffix.lower() not in _READ_ENDINGS:
            raise BadInputError(
                f"'{path}': files ending in '{path.suffix}' cannot be read. Save the stack as "
                "TIFF (.tif) or OME-Zarr (.ome.zarr), e.g. with Fiji or napari."
            )
        return read_tiff(path)
    except OSError as error:
        raise BadInputError(
            f"'{path}' cannot be opened ({error.strerror or error}). Check that you may read it."
        ) from error


def read_labels(path: str | Path) -> Volume:
    """Open labels: integers, ZYX or TZYX, from any format of `read_volume`.

    Raises
    ------
    BadInputError
        As `read_volume`; also for numbers that are no integers, and for channels.
    """
    labels = read_volume(path)
    folder = Path(path).expanduser()
    if folder.is_dir() and (sparse := SparseLabels.open(folder)) is not None:
        labels = replace(labels, data=sparse)  # knows where paint is: need not read all
    if labels.dtype.kind not in "iu":
        raise BadInputError(
            f"'{path}' has numbers of type {labels.dtype}; labels are integers. Convert it, e.g. "
            "labels.astype('uint8'), and save it again."
        )
    if "C" in labels.axes:
        raise BadInputError(
            f"'{path}' has {labels.n_channels} channels; labels have none. Save one channel."
        )
    return labels


@dataclass(frozen=True)
class Geometry:
    """What a file says of its voxels: axes and shape as in `Volume`, sizes along z, y, x."""

    axes: str
    shape: tuple[int, ...]
    voxel_size: tuple[float, float, float]
    unit: str
    translation: tuple[float, float, float]
    time_step: float | None


def read_geometry(path: str | Path) -> Geometry | None:
    """Read the voxel size of a file; None where it cannot be read or does not say."""
    try:
        volume = read_volume(path)
    except BadInputError:
        return None
    if volume.unit == "pixel" and volume.voxel_size == (1.0, 1.0, 1.0):
        return None
    return Geometry(
        volume.axes,
        tuple(int(n) for n in volume.data.shape),
        volume.voxel_size,
        volume.unit,
        volume.translation,
        volume.time_step,
    )


class OutputArray:
    """An array in a file that is being written; indexed as a numpy array is.

    What is read from it is a copy: nothing keeps the file open after the end.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.array(self._open()[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._open()[key] = value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype=dtype)

    def _open(self) -> Any:
        if self._array is None:
            raise ValueError("this output is closed: read the file that was written")
        return self._array

    def _close(self) -> None:
        if hasattr(self._array, "flush"):
            self._array.flush()
        self._array = None


@contextmanager
def create_output(
    path: str | Path,
    shape: Sequence[int],
    dtype: Any,
    axes: str = "ZYX",
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
    unit: str = "pixel",
) -> Iterator[OutputArray]:
    """Write a result: an array in a file that appears under its name when all went well.

    Until then it has a temporary name beside it, which an error removes; a file that was there
    before stays as it is.

    Parameters
    ----------
    path
        ``*.tif`` (OME-TIFF, uncompressed) or ``*.zarr`` (OME-Zarr 0.4, compressed).
    shape, dtype, axes
        Of the array; axes "ZYX", "CZYX", "TZYX" or "TCZYX".
    voxel_size, unit
        Size of a voxel along z, y, x; "µm", "nm", "mm" or "pixel".

    Yields
    ------
    OutputArray
        Zeros, to be written to by index.

    Raises
    ------
    BadInputError
        Before anything is written: ending that is not known, folder that is missing or cannot
        be written to, not enough space.
    RunFailedError
        When the disk gets full, or the file cannot be put in its place.
    """
    path = Path(path).expanduser()
    shape, dtype = tuple(int(n) for n in shape), np.dtype(dtype)
    z, y, x = (float(s) for s in voxel_size)
    if axes not in AXES or len(axes) != len(shape):
        raise ValueError(f"axes '{axes}' do not fit the shape {shape}")
    as_zarr = check_output(path)
    n_bytes = math.prod(shape) * dtype.itemsize
    check_space(path, n_bytes // _LABELS_COMPRESS if as_zarr and dtype.kind in "iu" else n_bytes)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        if as_zarr:
            array = create_zarr(temporary, shape, dtype, axes, (z, y, x), unit, path.name)
        else:
            array = create_tiff(temporary, shape, dtype, axes, (z, y, x), unit)
        output = OutputArray(array)
        del array  # Windows moves no file that is still mapped
        try:
            yield output
        finally:
            output._close()
        _move_into_place(temporary, path)
    except OSError as error:
        if error.errno in _FULL:
            raise RunFailedError(
                f"The disk got full while '{path}' was written: it needs "
                f"{_size(n_bytes)}. Free some space, or write to another disk."
            ) from error
        raise
    finally:
        _remove(temporary)


def check_output(path: str | Path) -> bool:
    """Raise unless a result can be written to `path`; tell whether it will be a zarr.

    Raises
    ------
    BadInputError
        As `create_output`, but for the space.
    """
    path = Path(path).expanduser()
    as_zarr = path.suffix.lower() == ".zarr"
    if not as_zarr and path.suffix.lower() not in _TIFF_ENDINGS:
        raise BadInputError(
            f"'{path}': files ending in '{path.suffix}' cannot be written. Choose a name that "
            "ends in .tif or .ome.zarr."
        )
    if as_zarr and path.exists() and not (path.is_dir() and (is_zarr(path) or _is_empty(path))):
        raise BadInputError(
            f"'{path}' is there and is no zarr: it is not overwritten. Choose another name."
        )
    if not as_zarr and path.is_dir():
        raise BadInputError(f"'{path}' is a folder. Choose the name of a file.")
    check_writable(path)
    return as_zarr


def check_writable(path: str | Path) -> None:
    """Raise BadInputError unless a file can be made in the folder of `path`."""
    folder = Path(path).expanduser().parent
    if not folder.is_dir():
        raise BadInputError(f"There is no folder '{folder}'. Make it, or choose another one.")
    probe = folder / f".{uuid.uuid4().hex}.probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise BadInputError(
            f"The folder '{folder}' cannot be written to ({error.strerror or error}). Choose "
            "another one, or change its permissions."
        ) from error


def check_space(path: str | Path, n_bytes: int) -> None:
    """Raise BadInputError unless `n_bytes` are free on the disk of `path`."""
    folder = Path(path).expanduser().parent
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise BadInputError(
            f"Not enough space for '{path}': it needs {_size(n_bytes)}, and {_size(free)} are "
            "free. Free some space, or write to another disk."
        )


def _move_into_place(temporary: Path, path: Path) -> None:
    try:
        if path.is_dir():  # a folder cannot be replaced at once
            old = temporary.with_suffix(".old")
            os.replace(path, old)
            try:
                os.replace(temporary, path)
            except OSError:
                os.replace(old, path)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, path)
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise RunFailedError(
            f"'{path}' cannot be replaced ({error.strerror or error}). Close the programs that "
            "use it, or write under another name."
        ) from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def _size(n_bytes: int) -> str:
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= power:
            return f"{n_bytes / power:.1f} {unit}"
    return f"{n_bytes} bytes"
