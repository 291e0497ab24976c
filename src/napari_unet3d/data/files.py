"""Images and labels from files, with voxel size and unit."""

from __future__ import annotations

from pathlib import Path

from napari_unet3d.data.leftovers import restore
from napari_unet3d.data.tiff_files import read_tiff
from napari_unet3d.data.volume import Volume
from napari_unet3d.data.zarr_files import is_zarr, read_zarr
from napari_unet3d.errors import BadInputError

_TIFF_ENDINGS = (".tif", ".tiff", ".btf", ".tf8")
_READ_ENDINGS = (*_TIFF_ENDINGS, ".lsm")


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
    restore(path)
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
