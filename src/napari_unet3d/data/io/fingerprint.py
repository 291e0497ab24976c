"""Tells whether an image is the one that was annotated, wherever it lies now."""

from __future__ import annotations

import datetime
import hashlib
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.data.volume import Volume

_SIDE = 128
"""Voxels along y and x of each part that is read: few enough to take milliseconds, and enough to
differ between two stacks with equal borders."""


class Fingerprint(BaseModel):
    """What tells one image from another.

    Attributes
    ----------
    axes, shape, dtype
        Of its array, such as "TZYX"; shape in the order of the axes.
    checksum
        SHA-256 of the center of three planes (first, middle, last) of the first and last time
        point.
    file_bytes, file_time
        Size of the file and when it was written (seconds since 1970), as a hint for messages; None
        for a folder and for an image that is in no file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    axes: str
    shape: tuple[int, ...]
    dtype: str
    checksum: str
    file_bytes: int | None = None
    file_time: float | None = None

    @classmethod
    def of(cls, volume: Volume, path: Path | None = None) -> Fingerprint:
        """Take the fingerprint of an image.

        Parameters
        ----------
        volume
            The image; some of its voxels are read.
        path
            The file that it was read from.

        Raises
        ------
        RunFailedError
            The voxels cannot be read.
        """
        size, written = _file_facts(path)
        return cls(
            axes=volume.axes,
            shape=tuple(int(n) for n in volume.data.shape),
            dtype=volume.dtype.newbyteorder("=").name,
            checksum=_checksum(volume),
            file_bytes=size,
            file_time=written,
        )

    def differences(self, other: Fingerprint) -> tuple[str, ...]:
        """Say in what `other`, the image as it is now, differs; () when it is the same image."""
        if (self.axes, self.shape) != (other.axes, other.shape):
            was, now = describe_shape(self.shape), describe_shape(other.shape)
            if was == now:
                return (f"its axes were {self.axes} and are {other.axes} now",)
            return (f"it had {was} voxels and has {now} now",)
        if self.dtype != other.dtype:
            return (f"its numbers were {self.dtype} and are {other.dtype} now",)
        if self.checksum == other.checksum:
            return ()
        text = "its gray values are others now"
        if other.file_time is not None and other.file_time != self.file_time:
            when = datetime.datetime.fromtimestamp(other.file_time)
            text += f" (the file was written on {when:%Y-%m-%d at %H:%M})"
        return (text,)


def _checksum(volume: Volume) -> str:
    digest = hashlib.sha256()
    depth, height, width = volume.shape
    top, left = max(0, (height - _SIDE) // 2), max(0, (width - _SIDE) // 2)
    bottom, right = min(height, top + _SIDE), min(width, left + _SIDE)
    for time in sorted({0, volume.n_times - 1}):
        for z in sorted({0, depth // 2, depth - 1}):
            part = volume.crop(time, (z, top, left), (z + 1, bottom, right))
            little = np.ascontiguousarray(part).astype(part.dtype.newbyteorder("<"), copy=False)
            digest.update(little.tobytes())
    return digest.hexdigest()


def _file_facts(path: Path | None) -> tuple[int | None, float | None]:
    if path is None:
        return None, None
    try:
        status = path.stat()
    except OSError:
        return None, None
    return (status.st_size, status.st_mtime) if path.is_file() else (None, None)
