"""Images and labels from files, with voxel size and unit."""

from __future__ import annotations

import errno
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from napari_unet3d.data.io.file_metadata import Geometry, Wishes
from napari_unet3d.data.io.leftovers import restore
from napari_unet3d.data.io.paths import user_path
from napari_unet3d.data.io.tiff_files import read_tiff
from napari_unet3d.data.io.tiff_folder import read_folder, slice_files
from napari_unet3d.data.io.tiff_output import TIFF_ENDINGS
from napari_unet3d.data.io.zarr_files import is_zarr, read_zarr
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError

_READ_ENDINGS = (*TIFF_ENDINGS, ".lsm")


def read_volume(
    path: str | Path, *, axes: str | None = None, voxel_size: Sequence[float] | None = None
) -> Volume:
    """Open an image: TIFF, OME-TIFF, ImageJ TIFF, a folder of TIFF slices, OME-Zarr, zarr array.

    Uncompressed TIFF and zarr are read when voxels are needed, other TIFF at once. Of an image
    with several resolutions the finest is taken. Axes of length 1 are dropped. What the user
    should know of the reading is in the notes of the volume.

    Parameters
    ----------
    path
        A file, the folder of a zarr (OME-Zarr 0.1 to 0.6), or a folder of 2D TIFFs.
    axes
        The axes of the file, one letter each, such as "TZYX" or "ZYXC"; axes of length
        1 may be left out. Replaces the axes that the file names.
    voxel_size
        Size of a voxel along z, y, x, in place of the file's; in its unit, or in µm where it names
        none.

    Returns
    -------
    Volume
        With voxel size, unit, position and time step of the file; 1 pixel where it does not say.

    Raises
    ------
    BadInputError
        When it is not there, not readable, damaged, not complete, or no 3D stack; also for axes
        and voxel sizes that cannot be. The voxels are not checked: that is what `Volume.check` is
        for.
    """
    return _open(path, Wishes.check(axes, voxel_size))


def read_labels(
    path: str | Path, *, axes: str | None = None, voxel_size: Sequence[float] | None = None
) -> Volume:
    """Open labels: integers, ZYX or TZYX, from any format of `read_volume`.

    Parameters
    ----------
    path, axes, voxel_size
        As in `read_volume`.

    Raises
    ------
    BadInputError
        As `read_volume`; also for numbers that are no integers, and for channels.
    """
    labels = _open(path, Wishes.check(axes, voxel_size, labels=True))
    folder = user_path(path)
    if is_zarr(folder) and (sparse := SparseLabels.open(folder)) is not None:
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


def read_geometry(path: str | Path) -> Geometry | None:
    """Axes, shape, voxel size and place of an image in a file, without reading its voxels.

    Returns
    -------
    Geometry or None
        None for what `read_volume` would not open.
    """
    try:
        volume = _open(path, Wishes(), voxels=False)
    except BadInputError:
        return None
    return Geometry(
        volume.axes,
        tuple(int(n) for n in volume.data.shape),
        volume.voxel_size,
        volume.unit,
        volume.translation,
        volume.time_step,
        volume.file_axes,
    )


def _open(path: str | Path, wishes: Wishes, voxels: bool = True) -> Volume:
    path = existing(path)
    try:
        if path.is_dir():
            if is_zarr(path):
                return read_zarr(path, wishes)
            if slice_files(path):
                return read_folder(path, wishes, voxels=voxels)
            raise BadInputError(
                f"'{path}' is a folder without a zarr image or TIFF slices in it. Give a TIFF "
                "file, a folder of TIFFs with one slice each, or the folder of an OME-Zarr image."
            )
        if path.suffix.lower() not in _READ_ENDINGS:
            raise BadInputError(
                f"'{path}': files ending in '{path.suffix}' cannot be read. Save the stack as "
                "TIFF (.tif) or OME-Zarr (.ome.zarr), e.g. with Fiji or napari."
            )
        return read_tiff(path, wishes, voxels=voxels)
    except OSError as error:
        raise _cannot_be_opened(path, error) from error


def existing(path: str | Path) -> Path:
    """The path of a file or folder that is there, with ``~`` replaced.

    Raises
    ------
    BadInputError
        When there is none, or it is a pipe or a device, which would never end.
    """
    path = user_path(path)
    try:
        restore(path)
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise BadInputError(
            f"There is no '{path}'. Check the path (looked for in {Path.cwd()})."
        ) from error
    except OSError as error:
        raise _cannot_be_opened(path, error) from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise BadInputError(
            f"'{path}' is neither a file nor a folder, but a pipe or a device. Save the image in "
            "a file first."
        )
    return path


def _cannot_be_opened(path: Path, error: OSError) -> BadInputError:
    cures = {
        errno.ENOTDIR: "A part of the path is a file, no folder: check the path.",
    }
    cure = cures.get(error.errno or 0, "Check that you may read it.")
    return BadInputError(f"'{path}' cannot be opened ({error.strerror or error}). {cure}")
