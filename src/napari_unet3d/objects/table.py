"""The properties of objects: size, place and gray values; as a table, a file, a sentence."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from napari_unet3d.config import Triple
from napari_unet3d.data.boxes import Box
from napari_unet3d.errors import BadInputError

_GRAY = "mean gray value"


@dataclass(frozen=True, eq=False)
class ObjectTable:
    """One row for each object; the arrays have one entry for each.

    Parameters
    ----------
    labels
        Numbers of the objects.
    times
        Time points.
    values, names
        Their classes, as numbers and as words.
    voxels
        Sizes.
    centroids
        (n, 3), centers along z, y, x, in `unit`.
    boxes
        (n, 6): first voxel (z, y, x), and one past the last.
    at_border
        Whether an object touches the border of the stack, so that a part of it may be missing.
    gray
        (n, channels) mean gray values; no channels without an image.
    voxel_size, unit
        Of the stack.
    series
        Whether the stack has a time axis.
    """

    labels: NDArray[np.int64]
    times: NDArray[np.int64]
    values: NDArray[np.int64]
    names: tuple[str, ...]
    voxels: NDArray[np.int64]
    centroids: NDArray[np.float64]
    boxes: NDArray[np.int64]
    at_border: NDArray[np.bool_]
    gray: NDArray[np.float64]
    voxel_size: tuple[float, float, float]
    unit: str
    series: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_unit(self) -> bool:
        """Whether the size of a voxel is a length; otherwise volumes are voxels."""
        return self.unit != "pixel"

    @property
    def volumes(self) -> NDArray[np.float64]:
        """Volumes in the cubed unit; in voxels where the unit is "pixel"."""
        each = math.prod(self.voxel_size) if self.has_unit else 1.0
        return np.asarray(self.voxels * each, np.float64)

    @property
    def median_volume(self) -> float | None:
        """Median of the volumes; None without objects."""
        return float(np.median(self.volumes)) if len(self) else None

    @property
    def diameters(self) -> NDArray[np.float64]:
        """Diameters of balls of the same volumes, in the unit."""
        return np.asarray(np.cbrt(6 * self.voxels * math.prod(self.voxel_size) / math.pi), float)

    def columns(self) -> dict[str, Any]:
        """The columns by their titles, which name the units."""
        unit = self.unit
        first = self.boxes.T
        columns: dict[str, Any] = {"label": self.labels}
        if self.series:
            columns["time"] = self.times
        columns |= {"class": list(self.names), "class number": self.values, "voxels": self.voxels}
        if self.has_unit:
            columns[f"volume ({unit}³)"] = self.volumes
        columns[f"equivalent diameter ({unit})"] = self.diameters
        columns |= {
            f"centroid {axis} ({unit})": self.centroids[:, i] for i, axis in enumerate("zyx")
        }
        columns |= {f"first {axis} (voxel)": first[i] for i, axis in enumerate("zyx")}
        columns |= {f"last {axis} (voxel)": first[3 + i] - 1 for i, axis in enumerate("zyx")}
        columns["touches border"] = self.at_border
        channels = self.gray.shape[1]
        for i in range(channels):
            title = _GRAY if channels == 1 else f"{_GRAY}, channel {i}"
            columns[title] = self.gray[:, i]
        return columns

    def features(self) -> dict[str, Any]:
        """The columns for a Labels layer of napari, whose ``index`` is the label."""
        columns = self.columns()
        return {"index": columns.pop("label"), **columns}

    def csv(self) -> str:
        """The table as text with commas, its titles in the first row."""
        columns = self.columns()
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow([_written(value) for value in row])
        return text.getvalue()

    @classmethod
    def from_csv(cls, text: str, voxel_size: tuple[float, float, float], unit: str) -> Self:
        """Read the text that `csv` wrote.

        Parameters
        ----------
        text
            The table.
        voxel_size, unit
            Of the stack.

        Raises
        ------
        BadInputError
            It is no such table.
        """
        reader = csv.DictReader(io.StringIO(text, newline=""))
        rows, titles = list(reader), list(reader.fieldnames or ())
        if "label" not in titles:
            raise BadInputError("This is no table of objects. Find them again.")

        def column(*names: str, dtype: Any = np.int64) -> NDArray[Any]:
            values = [[row[name] for name in names] for row in rows]
            return np.asarray(values, dtype).reshape(len(rows), len(names))

        try:
            return cls(
                labels=column("label")[:, 0],
                times=column("time")[:, 0] if "time" in titles else np.zeros(len(rows), np.int64),
                values=column("class number")[:, 0],
                names=tuple(row["class"] for row in rows),
                voxels=column("voxels")[:, 0],
                centroids=column(*(f"centroid {a} ({unit})" for a in "zyx"), dtype=float),
                boxes=np.hstack(
                    [
                        column(*(f"first {a} (voxel)" for a in "zyx")),
                        column(*(f"last {a} (voxel)" for a in "zyx")) + 1,
                    ]
                ),
                at_border=np.asarray([row["touches border"] == "yes" for row in rows], bool),
                gray=column(*(t for t in titles if t.startswith(_GRAY)), dtype=float),
                voxel_size=voxel_size,
                unit=unit,
                series="time" in titles,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BadInputError(
                f"This is no table of objects ({error}). Find them again."
            ) from error

    def sentence(self) -> str:
        """Write how many objects there are, and how large: "312 objects, median volume 412 µm³"."""
        n, median = len(self), self.median_volume
        if median is None:
            return "No objects"
        unit = f"{self.unit}³" if self.has_unit else "voxels"
        size = show_volume(median)
        text = "1 object, volume" if n == 1 else f"{n:,} objects, median volume"
        border = int(self.at_border.sum())
        return f"{text} {size} {unit}" + (
            f"; {border:,} at the border of the stack" if border else ""
        )


def show_volume(volume: float) -> str:
    """Write a volume with three digits, but large ones whole."""
    return f"{volume:,.0f}" if volume >= 100 else f"{volume:.3g}"


def _written(value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float | np.floating) else value


class Measuring:
    """Adds up the properties of objects, block by block.

    Parameters
    ----------
    count
        Number of the last object.
    channels
        Channels of the image; 0 without one.
    """

    def __init__(self, count: int, channels: int = 0) -> None:
        self._voxels = np.zeros(count + 1, np.int64)
        self._times = np.zeros(count + 1, np.int64)
        self._sums = np.zeros((count + 1, 3))
        self._gray = np.zeros((count + 1, channels))
        self._first = np.full((count + 1, 3), np.iinfo(np.int64).max)
        self._stop = np.zeros((count + 1, 3), np.int64)

    def add(
        self, numbers: NDArray[np.int64], time: int, box: Box, gray: NDArray[Any] | None = None
    ) -> None:
        """Add a block.

        Parameters
        ----------
        numbers
            Object of each voxel; 0 for none.
        time, box
            Where the block lies.
        gray
            (channels, z, y, x) gray values of the block.
        """
        where = np.nonzero(numbers)
        of_voxels = numbers[where]
        if not len(of_voxels):
            return
        low, high = int(of_voxels.min()), int(of_voxels.max())
        local, n, rows = of_voxels - low, high - low + 1, slice(low, high + 1)
        sizes = np.bincount(local, minlength=n)
        self._voxels[rows] += sizes
        self._times[rows][sizes > 0] = time
        for axis, positions in enumerate(where):
            start = box.start[axis]
            self._sums[rows, axis] += np.bincount(local, positions, n) + sizes * start
        for channel in range(self._gray.shape[1]):
            if gray is not None:
                self._gray[rows, channel] += np.bincount(local, gray[channel][where], n)
        shifted = np.where(numbers > 0, numbers - (low - 1), 0).astype(np.int32)
        for i, place in enumerate(find_objects(shifted, n)):
            if place is None:
                continue
            for axis, (part, start) in enumerate(zip(place, box.start, strict=True)):
                first, stop = self._first[low + i], self._stop[low + i]
                first[axis] = min(first[axis], part.start + start)
                stop[axis] = max(stop[axis], part.stop + start)

    def table(
        self,
        shape: Triple,
        values: NDArray[np.int64],
        names: Mapping[int, str],
        voxel_size: tuple[float, float, float],
        unit: str,
        *,
        translation: Sequence[float] = (0.0, 0.0, 0.0),
        series: bool = False,
    ) -> ObjectTable:
        """The table of all objects that have a voxel.

        Parameters
        ----------
        shape
            Of the stack (z, y, x), voxels.
        values
            Class of each object, by its number.
        names
            Words for classes.
        voxel_size, unit
            Of the stack.
        translation
            Position of the center of the first voxel, in `unit`.
        series
            Whether the stack has a time axis.
        """
        labels = np.flatnonzero(self._voxels)
        sizes = self._voxels[labels]
        first, stop = self._first[labels], self._stop[labels]
        centroids = self._sums[labels] / sizes[:, None] * np.asarray(voxel_size)
        return ObjectTable(
            labels=labels,
            times=self._times[labels],
            values=values[labels],
            names=tuple(names.get(int(v), f"class {v}") for v in values[labels]),
            voxels=sizes,
            centroids=centroids + np.asarray(translation, float),
            boxes=np.hstack([first, stop]),
            at_border=((first == 0) | (stop == np.asarray(shape))).any(1),
            gray=self._gray[labels] / sizes[:, None],
            voxel_size=voxel_size,
            unit=unit,
            series=series,
        )
