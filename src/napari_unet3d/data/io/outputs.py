"""Results into files, with voxel size, position and classes; and where they may be written."""

from __future__ import annotations

import errno
import math
import operator
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.io.atomic import Replacement, failure
from napari_unet3d.data.io.description import Description
from napari_unet3d.data.io.targets import check_target, follow_link
from napari_unet3d.data.io.tiff_output import TIFF_ENDINGS, check_tiff_type, create_tiff
from napari_unet3d.data.io.zarr_files import is_zarr
from napari_unet3d.data.io.zarr_output import check_zarr, create_zarr, is_image_group, is_zarr_array
from napari_unet3d.data.shapes import AXES
from napari_unet3d.errors import BadInputError, RunFailedError

_LIMITS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LABELS_COMPRESS = 4
"""Factor by which labels in a zarr become smaller at least."""
_LABELS = "labels"
"""Name of the group in an OME-Zarr image that holds its label images."""


class OutputArray:
    """An array in a file that is being written; indexed as a numpy array is.

    Reading returns copies: nothing keeps the file open after the end.
    """

    def __init__(self, array: Any, path: Path, complete: Callable[[OutputArray], None]) -> None:
        self._array, self._path, self._complete = array, path, complete
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self.ndim = len(self.shape)
        self.chunks: tuple[int, ...] | None = getattr(array, "chunks", None)
        grid = [-(-n // c) for n, c in zip(self.shape, self.chunks or (), strict=False)]
        self._written: np.ndarray | None = np.zeros(grid, bool) if self.chunks else None

    def __getitem__(self, key: Any) -> np.ndarray:
        return np.array(self._open()[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        try:
            self._open()[key] = value
        except OSError as error:
            needed = _size(math.prod(self.shape) * self.dtype.itemsize)
            raise failure(error, self._path, needed) from error
        if self.chunks is not None and self._written is not None:
            touched = _touched_chunks(key, self.shape, self.chunks)
            if touched is None:
                self._written = None
            else:
                self._written[touched] = True

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype=dtype)

    @property
    def chunks_written(self) -> int | None:
        """Chunks of a zarr that were written to; None where they cannot be counted."""
        return None if self._written is None else int(self._written.sum())

    def finish(self) -> None:
        """Check the file and give it its name, before the end of the block does.

        Several outputs that are finished one by one do not lose each other when one of them
        fails.

        Raises
        ------
        RunFailedError
            As `create_output`.
        """
        if self._array is None:
            return
        array, self._array = self._array, None
        try:
            if hasattr(array, "flush"):
                array.flush()
        except OSError as error:
            raise failure(error, self._path) from error
        del array  # Windows moves no file that is still mapped
        self._complete(self)

    def _open(self) -> Any:
        if self._array is None:
            raise ValueError("this output is closed: read the file that was written")
        return self._array

    def _close(self) -> None:
        self._array = None


@contextmanager
def create_output(
    path: str | Path,
    shape: Sequence[int],
    dtype: Any,
    axes: str = "ZYX",
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
    unit: str = "pixel",
    *,
    translation: Sequence[float] = (0.0, 0.0, 0.0),
    time_step: float | None = None,
    classes: Sequence[ClassInfo] = (),
    channel_names: Sequence[str] = (),
    overwrite: bool = True,
) -> Iterator[OutputArray]:
    """Write a result: an array in a file that appears under its name when all went well.

    Until then it has a temporary name beside it, which an error removes; a file that was there
    before stays as it is. What a killed process left is removed by the next call for the same
    name.

    Parameters
    ----------
    path
        ``*.tif`` (OME-TIFF, uncompressed) or ``*.zarr`` (OME-Zarr 0.4, compressed). A symbolic
        link is followed.
    shape, dtype, axes
        Of the array; axes "ZYX", "CZYX", "TZYX" or "TCZYX".
    voxel_size, unit
        Size of a voxel along z, y, x; "µm", "nm", "mm" or "pixel".
    translation
        Position of the first voxel's center along z, y, x, in `unit`.
    time_step
        Seconds between two time points; None when it is not known.
    classes
        Without a channel axis, the voxels are labels of these classes; with one, the channels
        are the probabilities of background and these classes.
    channel_names
        One name a channel, where the channels are no classes.
    overwrite
        Whether an existing file or folder of this name may be replaced. One that appears
        later is never replaced: the result gets another name then.

    Yields
    ------
    OutputArray
        Zeros, to be written to by index.

    Raises
    ------
    BadInputError
        Before anything is written: ending that is not known, folder that is missing or cannot
        be written to, a file that may not or cannot be replaced, not enough space.
    RunFailedError
        When the disk gets full, the unfinished file is removed, or the file cannot be put in
        its place; in the last case it is kept under another name, which the text says.
    """
    shape, dtype = tuple(int(n) for n in shape), np.dtype(dtype)
    z, y, x = (float(s) for s in voxel_size)
    dz, dy, dx = (float(t) for t in translation)
    if axes not in AXES or len(axes) != len(shape):
        raise ValueError(f"axes '{axes}' do not fit the shape {shape}")
    description = Description(
        axes, (z, y, x), unit, (dz, dy, dx), time_step, tuple(classes), tuple(channel_names)
    )
    channels = shape[axes.index("C")] if "C" in axes else 1
    n_names = len(description.names_of_channels())
    if n_names not in (0, channels):
        raise ValueError(f"{n_names} names do not fit {channels} channels")
    as_zarr = _check_kind(path)
    if not as_zarr:
        check_tiff_type(dtype)
    replacement = Replacement(path, folder=as_zarr, overwrite=overwrite)
    n_bytes = math.prod(shape) * dtype.itemsize
    compressed = n_bytes // _LABELS_COMPRESS if as_zarr and dtype.kind in "iu" else n_bytes
    check_space(path, compressed, one_file=not as_zarr)

    def complete(output: OutputArray) -> None:
        if as_zarr and (
            wrong := check_zarr(replacement.temporary, shape, dtype, output.chunks_written)
        ):
            raise RunFailedError(
                f"'{path}' was not written: its temporary '{replacement.temporary.name}' was "
                f"removed or changed while it was being written ({wrong}). Leave such names "
                "alone, and write it again."
            )
        replacement.commit()

    output = None
    try:
        temporary = replacement.temporary
        if as_zarr:
            array = create_zarr(temporary, shape, dtype, description, Path(path).name)
        else:
            array = create_tiff(temporary, shape, dtype, description)
        output = OutputArray(array, Path(path), complete)
        del array  # Windows moves no file that is still mapped
        yield output
        output.finish()
    except OSError as error:
        if error.errno in _LIMITS:
            raise failure(error, Path(path), _size(n_bytes)) from error
        raise
    finally:
        if output is not None:
            output._close()
        replacement.discard()


def check_output(path: str | Path, *, overwrite: bool = True) -> bool:
    """Raise unless a result can be written to `path`; tell whether it will be a zarr.

    Raises
    ------
    BadInputError
        As `create_output`, but for the space.
    """
    as_zarr = _check_kind(path)
    check_target(path, folder=as_zarr, overwrite=overwrite)
    return as_zarr


def check_space(path: str | Path, n_bytes: int, *, one_file: bool = True) -> None:
    """Raise BadInputError unless `n_bytes` are free on the disk of `path`, for one file or many."""
    folder = follow_link(path).parent
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise BadInputError(
            f"Not enough space for '{path}': it needs {_size(n_bytes)}, and {_size(free)} are "
            "free. Free some space, or write to another disk."
        )
    limit = _largest_file()
    if one_file and limit is not None and n_bytes > limit:
        raise BadInputError(
            f"'{path}' needs {_size(n_bytes)}, but this session may write files of "
            f"{_size(limit)} only. Raise the limit (ulimit -f)."
        )


def check_paths(outputs: Sequence[str | Path], inputs: Sequence[str | Path]) -> None:
    """Raise where writing an output would touch an input or another output.

    An input is the file or folder that is read; of an OME-Zarr, the whole image that it belongs
    to. Only new label images in the image's group ``labels`` are allowed.

    Raises
    ------
    BadInputError
        An output is, contains or lies in an input or another output.
    """
    sources = [(Path(path), follow_link(path).resolve()) for path in inputs]
    targets = [(Path(path), follow_link(path).resolve()) for path in outputs]
    for i, (path, target) in enumerate(targets):
        for given, source in sources:
            image = _whole_image(source)
            in_labels = _is_label_place(target) and _lies_in(target, image)
            touched = source if in_labels else image
            if _same(target, source):
                raise BadInputError(f"'{path}' is an input: choose another name for the output.")
            if _lies_in(touched, target):
                raise BadInputError(
                    f"'{path}' would replace the input '{given}', which lies in it. Choose "
                    "another name for the output."
                )
            if _lies_in(target, touched) and not in_labels:
                raise BadInputError(
                    f"'{path}' lies in '{image}', which is read. Choose a place outside of it"
                    + (f", or its group '{_LABELS}'." if is_image_group(image) else ".")
                )
        for other, taken in targets[:i]:
            if _lies_in(target, taken) or _lies_in(taken, target):
                raise BadInputError(
                    f"'{path}' is or touches another output, '{other}'. Choose another name."
                )


def _check_kind(path: str | Path) -> bool:
    """Whether `path` is to be a zarr, by its ending; raises for names that are neither."""
    target = follow_link(path)
    ending = Path(path).suffix.lower()
    as_zarr = ending == ".zarr" or (ending not in TIFF_ENDINGS and _is_label_place(target))
    if not as_zarr and ending not in TIFF_ENDINGS:
        raise BadInputError(
            f"'{path}': files ending in '{ending}' cannot be written. Choose a name that "
            "ends in .tif or .ome.zarr."
        )
    try:
        if as_zarr and os.path.lexists(target):
            empty = target.is_dir() and not any(target.iterdir())
            if not (empty or is_zarr(target)):
                raise BadInputError(
                    f"'{path}' is there and is no zarr: it is not overwritten. Choose another name."
                )
    except OSError as error:
        raise BadInputError(
            f"'{path}' cannot be looked into ({error.strerror or error}). Choose another name."
        ) from error
    return as_zarr


def _is_label_place(target: Path) -> bool:
    """Whether `target` is a place for a label image of an OME-Zarr: ``IMAGE/labels/NAME``."""
    group = target.parent
    return group.name == _LABELS and is_image_group(group.parent) and not is_zarr_array(group)


def _whole_image(source: Path) -> Path:
    """The OME-Zarr image that a level or label image belongs to, or `source` itself."""
    images = [folder for folder in (source, *source.parents) if is_image_group(folder)]
    return images[-1] if images else source


def _lies_in(path: Path, place: Path) -> bool:
    """Whether `path` is `place`, or lies in it."""
    return any(_same(part, place) for part in (path, *path.parents))


def is_same_file(a: str | Path, b: str | Path) -> bool:
    """Whether two paths, links followed, stand for one file."""
    return _same(follow_link(a).resolve(), follow_link(b).resolve())


def _same(a: Path, b: Path) -> bool:
    if sys.platform in ("win32", "darwin"):  # names that differ in their case only are one
        same_name = str(a).casefold() == str(b).casefold()
    else:
        same_name = a == b
    try:
        return same_name or a.samefile(b)
    except (OSError, ValueError):
        return same_name


def _largest_file() -> int | None:
    """Largest size of a file of this process, bytes; None without a limit."""
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if soft == resource.RLIM_INFINITY else soft


def _touched_chunks(
    key: Any, shape: tuple[int, ...], chunks: tuple[int, ...]
) -> tuple[slice, ...] | None:
    """The chunks that an index reaches, as slices of their grid; None for unusual indices."""
    keys = key if isinstance(key, tuple) else (key,)
    if any(k is Ellipsis for k in keys):
        i = next(i for i, k in enumerate(keys) if k is Ellipsis)
        full = (slice(None),) * (len(shape) - len(keys) + 1)
        keys = (*keys[:i], *full, *keys[i + 1 :])
    if len(keys) > len(shape):
        return None
    keys = (*keys, *(slice(None),) * (len(shape) - len(keys)))
    touched = []
    for k, n, chunk in zip(keys, shape, chunks, strict=True):
        if isinstance(k, slice):
            start, stop, step = k.indices(n)
            if step != 1:
                return None
        else:
            try:
                start = operator.index(k) % n
            except TypeError:
                return None
            stop = start + 1
        touched.append(slice(start // chunk, -(-stop // chunk) if stop > start else 0))
    return tuple(touched)


def _size(n_bytes: int) -> str:
    for unit, power in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= power:
            return f"{n_bytes / power:.1f} {unit}"
    return f"{n_bytes} bytes"
