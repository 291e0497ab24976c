"""A 3D image, in memory or not, with size and position of its voxels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from napari_unet3d.config import Triple
from napari_unet3d.data.lazy import as_bad_input, rearranged
from napari_unet3d.data.shapes import (
    AXES,
    RGB,
    TWO_D,
    check_box,
    describe_shape,
    looks_like_rgb,
    unnamed_axes,
)
from napari_unet3d.errors import BadInputError, RunFailedError

_BLOCK_VOXELS = 2**22
"""Voxels of all channels together that a check reads at once: a few MB."""
_LARGEST_CHUNK = 2**26
"""Voxels of a row of chunks that are read together; larger chunks are unpacked several times."""
_WHOLE_IN_MEMORY = 2**31
"""Voxels of an image in memory that is searched whole for values that are no numbers: seconds."""
_WHOLE_LAZY = 2**26
"""Voxels of such an image that must be unpacked first: also seconds."""
_SAMPLE_VOXELS = 2**24
"""Voxels of a larger image that are searched."""
_SAMPLE_BOX, _SAMPLE_BOX_VOXELS = (64, 256, 1024), 2**24
"""Voxels (z, y, x) of a box of `sample_boxes`, which holds several usual chunks; and the most
voxels of all channels in it."""
_GOLDEN_RATIO = 0.618033988749895
"""Its multiples modulo 1 are spread evenly, however many there are."""


@dataclass(frozen=True)
class Volume:
    """A 3D image, maybe with channels and time points.

    Nothing is checked on construction: `check` does that, before anything long starts.

    Parameters
    ----------
    data
        Anything with ``shape``, ``dtype`` and slicing: numpy, memmap, zarr, dask.
    axes
        Order of the axes of `data`: "ZYX", "CZYX", "TZYX" or "TCZYX".
    voxel_size
        Size of a voxel along z, y, x, in `unit`.
    unit
        "µm", "nm", "mm" or "pixel".
    name
        What messages call the image.
    translation
        Position of the first voxel's center along z, y, x, in `unit`.
    time_step
        Seconds between two time points; None where the file does not say.
    notes
        Whole sentences about how the image was read that the user should know, such as "the file
        has no voxel size".
    file_axes
        What the file calls the axes, in its own order, such as "ZCYX"; "Q", "I" or "?" stands for
        an axis without a name. "" where the image is in no file.
    channel_names
        What the file calls its channels, one name each; () where it does not say.
    """

    data: Any
    axes: str = "ZYX"
    voxel_size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    unit: str = "pixel"
    name: str = "image"
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    time_step: float | None = None
    notes: tuple[str, ...] = ()
    file_axes: str = ""
    channel_names: tuple[str, ...] = ()

    @classmethod
    def from_array(
        cls,
        data: Any,
        axes: str | None = None,
        *,
        voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
        unit: str = "pixel",
        name: str = "image",
    ) -> Self:
        """Make a volume from an array; its dimensions tell its axes when they are not given.

        Parameters
        ----------
        data
            3, 4 or 5 dimensions. Without `axes`, leading ones of length 1 are dropped.
        axes
            Needed for 4 dimensions, the first of which may be channels or time points.
        voxel_size
            Size of a voxel along z, y, x, in `unit`.
        unit, name
            As in `Volume`.

        Raises
        ------
        BadInputError
            When the axes cannot be told from the dimensions.
        """
        if not hasattr(data, "shape"):
            data = np.asarray(data)
        if axes is None:
            axes = unnamed_axes(data.shape, name)
            kept = len(axes)
            while kept > 3 and data.shape[-kept] == 1:
                kept -= 1
            data, axes = rearranged(data, range(len(axes) - kept, len(axes))), axes[-kept:]
        sizes = tuple(float(s) for s in voxel_size)
        return cls(data, axes.upper(), sizes, unit, name)  # type: ignore[arg-type]

    @property
    def shape(self) -> Triple:
        """Voxels along z, y, x."""
        z, y, x = (int(n) for n in self.data.shape[-3:])
        return z, y, x

    @property
    def n_channels(self) -> int:
        """Channels; 1 without a channel axis."""
        return int(self.data.shape[self.axes.index("C")]) if "C" in self.axes else 1

    @property
    def n_times(self) -> int:
        """Time points; 1 without a time axis."""
        return int(self.data.shape[0]) if "T" in self.axes else 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number format of the data."""
        dtype: np.dtype[Any] = np.dtype(self.data.dtype)
        return dtype

    def crop(self, time: int, start: Triple, stop: Triple) -> np.ndarray:
        """Read the voxels of a box at one time point.

        Parameters
        ----------
        time
            Time point; 0 without a time axis.
        start, stop
            First voxel (z, y, x), and one past the last.

        Returns
        -------
        np.ndarray
            (C, z, y, x), in the image's own number format; a view where that is possible.

        Raises
        ------
        IndexError
            When the box or the time point is not inside the volume.
        RunFailedError
            When the voxels cannot be read, since their file is damaged or gone.
        """
        check_box(start, stop, self.shape)
        if not 0 <= time < self.n_times:
            raise IndexError(f"time point {time} is not among the {self.n_times} of the volume")
        box: tuple[Any, ...] = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        if "C" in self.axes:
            box = (slice(None), *box)
        if "T" in self.axes:
            box = (time, *box)
        crop = self._read(box)
        return crop if "C" in self.axes else crop[None]

    def in_memory(self, most: int) -> Volume:
        """The volume with its voxels read, where these are at most `most` bytes.

        Patches and tiles overlap: chunks of a compressed file would be unpacked again for each.
        """
        size = math.prod(self.data.shape) * self.dtype.itemsize
        if isinstance(self.data, np.ndarray) or size > most:
            return self
        return replace(self, data=self._read(...))

    def _read(self, box: Any) -> np.ndarray:
        try:
            return np.asarray(self.data[box])
        except (RunFailedError, BadInputError, MemoryError):
            raise
        except Exception as error:  # lazy arrays have errors of every type
            raise RunFailedError(
                f"'{self.name}' cannot be read ({error}). Its file is damaged, was changed or "
                "cannot be reached: check it, then open it again."
            ) from error

    def sample_planes(self, max_voxels: int) -> Iterator[np.ndarray]:
        """Yield planes spread evenly over the stack and all time points, for statistics.

        Parameters
        ----------
        max_voxels
            Approximate number of voxels per channel in all planes together. Where a few planes have
            more, their voxels are thinned.

        Yields
        ------
        np.ndarray
            (C, y, x), one plane, maybe thinned.
        """
        depth, height, width = self.shape
        planes = min(depth * self.n_times, max(8, max_voxels // (height * width)))
        step = max(1, math.ceil(math.sqrt(planes * height * width / max_voxels)))
        n_times = min(self.n_times, planes)
        per_time = min(depth, max(1, planes // n_times))
        for i in range(n_times):
            # A different offset per time point, so that few planes still see all depths.
            offset = (0.5 + i * _GOLDEN_RATIO) % 1
            time = int((i + 0.5) * self.n_times / n_times)
            for j in range(per_time):
                yield self._thinned_plane(time, int((j + offset) * depth / per_time), step)

    def sample_boxes(self, max_voxels: int) -> Iterator[np.ndarray]:
        """Yield boxes spread evenly over the stack and all time points, for statistics.

        Unlike `sample_planes`, it reads each chunk of a file only a few times. Which boxes are
        taken does not depend on how the voxels are stored.

        Parameters
        ----------
        max_voxels
            Approximate number of voxels per channel in all boxes together; all of a smaller stack.

        Yields
        ------
        np.ndarray
            (C, z, y, x).
        """
        side = list(_SAMPLE_BOX)
        while math.prod(side) * self.n_channels > _SAMPLE_BOX_VOXELS:
            longest = side.index(max(side))
            side[longest] //= 2
        counts = [math.ceil(n / s) for n, s in zip(self.shape, side, strict=True)]
        n_boxes = self.n_times * math.prod(counts)
        share = min(1.0, max_voxels / (self.n_times * math.prod(self.shape)))
        # Multiples of the golden ratio are spread evenly, and repeat no pattern of the boxes.
        order = np.argsort(np.arange(n_boxes) * _GOLDEN_RATIO % 1, kind="stable")
        for number in np.sort(order[: max(1, math.ceil(share * n_boxes))]):
            time, *index = (int(i) for i in np.unravel_index(number, (self.n_times, *counts)))
            start = tuple(i * s for i, s in zip(index, side, strict=True))
            stop = tuple(min(a + s, n) for a, s, n in zip(start, side, self.shape, strict=True))
            yield self.crop(time, start, stop)  # type: ignore[arg-type]

    def _thinned_plane(self, time: int, z: int, step: int) -> np.ndarray:
        """Every `step`-th voxel of a plane, (C, y, x); a copy, which keeps nothing alive."""
        _, height, width = self.shape
        parts = []
        rows = self._rows_at_once()
        for y in range(0, height, rows):
            band = self.crop(time, (z, y, 0), (z + 1, min(y + rows, height), width))
            parts.append(band[:, 0, -y % step :: step, ::step].copy())
        return np.concatenate(parts, 1)

    def _rows_at_once(self) -> int:
        """Rows of a plane that are read together: few in a wide image, whole chunks if possible."""
        _, height, width = self.shape
        row = width * self.n_channels
        rows = max(1, _BLOCK_VOXELS // row)
        chunks = getattr(self.data, "chunks", None)
        chunk = chunks[-2] if chunks is not None and len(chunks) >= 2 else 1
        if isinstance(chunk, int) and chunk * row <= _LARGEST_CHUNK:
            rows = max(1, rows // chunk) * chunk
        return min(rows, height)

    def check_header(self) -> None:
        """Raise for every fault of the image that shows without reading a voxel.

        Raises
        ------
        BadInputError
            As `check`, but for not-a-number, infinite and constant values.
        """
        self._check_layout()
        self._check_voxel_size()

    def check(self) -> None:
        """Raise unless a network can be trained on, or applied to, this image.

        Not-a-number and infinite values are looked for in the whole image when it is in
        memory (or uncompressed in a file) and below 2³¹ voxels, else in a sample of its planes.

        Raises
        ------
        BadInputError
            2D, RGB-like, empty or constant image; NaN or infinity in it; numbers that are no
            intensities; axes that do not match; a voxel size that is not positive; voxels that
            cannot be read. The text names the value and the cure.
        """
        self.check_header()
        quick = isinstance(self.data, np.ndarray) or getattr(self.data, "quick", False)
        with as_bad_input():
            if self.dtype.kind == "f" and math.prod(self.data.shape) < (
                _WHOLE_IN_MEMORY if quick else _WHOLE_LAZY
            ):
                self._check_whole()
            else:
                self._check_sample()

    def _check_layout(self) -> None:
        shape = tuple(int(n) for n in self.data.shape)
        what = f"'{self.name}' ({describe_shape(shape)})"
        if len(shape) == 2:
            raise BadInputError(TWO_D.format(what=what))
        if self.axes not in AXES:
            raise BadInputError(
                f"{what} has axes '{self.axes}', which is none of {', '.join(AXES)}. "
                "Reorder the axes of the image."
            )
        if len(shape) != len(self.axes):
            raise BadInputError(
                f"{what} has {len(shape)} axes, but '{self.axes}' names {len(self.axes)}. "
                "Give axes that match: ZYX, CZYX (channels), TZYX (time points) or TCZYX."
            )
        if self.dtype.kind not in "buif":
            raise BadInputError(
                f"{what} has numbers of type {self.dtype}, which are no intensities. Convert it "
                "to unsigned integers or floating point, e.g. image.astype('float32')."
            )
        if 0 in shape:
            raise BadInputError(f"{what} is empty. Open an image that has voxels along all axes.")
        if looks_like_rgb(shape):
            raise BadInputError(RGB.format(what=what, n=shape[-1]))
        for axis, size in zip("zyx", self.shape, strict=True):
            if size == 1:
                raise BadInputError(
                    TWO_D.format(what=f"{what} has only one voxel along {axis}: it")
                )

    def _check_voxel_size(self) -> None:
        if len(self.voxel_size) != 3 or not all(
            math.isfinite(s) and s > 0 for s in self.voxel_size
        ):
            sizes = ", ".join(f"{s:g}" for s in self.voxel_size)
            raise BadInputError(
                f"'{self.name}' has voxel size ({sizes}) {self.unit}; it takes three numbers "
                "(z, y, x) above zero. Set the scale of the layer, or the voxel size in the "
                "file; 1, 1, 1 when it is not known."
            )

    def _check_whole(self) -> None:
        low, high = np.inf, -np.inf
        for first_z, first_y, block in self._blocks():
            smallest, largest = float(block.min()), float(block.max())
            if not math.isfinite(smallest) or not math.isfinite(largest):
                z, y, x = np.argwhere(~np.isfinite(block))[0]
                self._raise_not_finite(f"first at z={first_z + z}, y={first_y + y}, x={x}")
            low, high = min(low, smallest), max(high, largest)
        if low == high:
            self._raise_constant(low)

    def _check_sample(self) -> None:
        low, high = np.inf, -np.inf
        for plane in self.sample_planes(_SAMPLE_VOXELS):
            smallest, largest = float(plane.min()), float(plane.max())
            if not math.isfinite(smallest) or not math.isfinite(largest):
                self._raise_not_finite("seen in a sample of its planes")
            low, high = min(low, smallest), max(high, largest)
            if low < high and self.dtype.kind != "f":
                return
        # Where the sample is constant, the planes in between may still differ.
        if low == high and all((block == low).all() for *_, block in self._blocks()):
            self._raise_constant(low)

    def _blocks(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield first z, first y and voxels (z, y, x) of blocks that make up the whole."""
        depth, height, width = self.shape
        rows = self._rows_at_once()
        planes = max(1, _BLOCK_VOXELS // (rows * width * self.n_channels)) if rows == height else 1
        for time in range(self.n_times):
            for z in range(0, depth, planes):
                for y in range(0, height, rows):
                    stop = (min(z + planes, depth), min(y + rows, height), width)
                    for channel in self.crop(time, (z, y, 0), stop):
                        yield z, y, channel

    def _raise_not_finite(self, where: str) -> None:
        raise BadInputError(
            f"'{self.name}' has values that are not a number or infinite ({where}). Replace "
            "them, e.g. with numpy.nan_to_num(image), or crop them away."
        )

    def _raise_constant(self, value: float) -> None:
        raise BadInputError(
            f"All voxels of '{self.name}' have the same value ({value:g}), so there is nothing "
            "to learn from. Choose another image, or check how it was exported."
        )
