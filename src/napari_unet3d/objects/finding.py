"""`find_objects`: the classes of a segmentation in, numbered objects and their properties out."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from napari_unet3d.config import ObjectsConfig, Triple
from napari_unet3d.data.boxes import Box
from napari_unet3d.data.slices import at_time, check_layout, count_labels, n_times, space
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import ObjectsProgress
from napari_unet3d.objects.masks import grow, inside, voxel_edges, voxels_of
from napari_unet3d.objects.scratch import Scratch
from napari_unet3d.objects.separating import Separation, plan, separate
from napari_unet3d.objects.table import Measuring, ObjectTable

_LARGEST_GAP = 10.0
"""Shortest voxel edges from an object, up to which boundary voxels are given to it. Boundaries of
cells are 2 to 5 voxels wide; farther away lies something else."""

MakeOutput = Callable[[tuple[int, ...], np.dtype[Any]], Any]
"""Makes the array that takes the numbers, of this shape and type, with zeros in it."""


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of a segmentation.

    Parameters
    ----------
    numbers
        The array that `make_output` made: 0 outside, objects 1…n. Objects of all time points are
        numbered one after the other.
    table
        Their properties.
    separation
        The pieces, of which `number_objects` can make other objects.
    """

    numbers: Any
    table: ObjectTable
    separation: Separation


def find_objects(
    labels: Volume,
    config: ObjectsConfig,
    make_output: MakeOutput = np.zeros,
    *,
    image: Volume | None = None,
    names: Mapping[int, str] | None = None,
    background: Collection[int] = (0,),
    scratch: Scratch | None = None,
    block: Triple | None = None,
) -> Generator[ObjectsProgress, None, Objects]:
    """Find the objects of a segmentation, number them and measure them.

    Parameters
    ----------
    labels
        Integers, ZYX or TZYX; may be larger than the memory. Its voxel size matters.
    config
        Which classes, and how they are separated.
    make_output
        Called once, when the number of objects is known.
    image
        Its mean gray values in each object are measured; None for no gray values.
    names
        Words for classes.
    background
        Values that are no class.
    scratch
        Makes arrays that are needed for a while.
    block
        Voxels (z, y, x) of the blocks; planned when None. The result does not depend on it.

    Yields
    ------
    ObjectsProgress
        After each block.

    Returns
    -------
    Objects
        Numbers and properties; there may be no object at all.

    Raises
    ------
    BadInputError
        A class does not occur, or the settings or the image do not fit the stack. Nothing was
        written.
    """
    check_objects(labels, config, image)
    values = yield from _present(labels.data, background, block)
    chosen = choose_classes(values, config)
    separation = yield from separate(
        labels.data, config, labels.voxel_size, chosen,
        background=background, scratch=scratch, block=block,
    )  # fmt: skip
    return (
        yield from number_objects(separation, labels, config, make_output, image=image, names=names)
    )


def number_objects(
    separation: Separation,
    labels: Volume,
    config: ObjectsConfig,
    make_output: MakeOutput = np.zeros,
    *,
    image: Volume | None = None,
    names: Mapping[int, str] | None = None,
) -> Generator[ObjectsProgress, None, Objects]:
    """Number and measure the objects that pieces make up; parameters as in `find_objects`."""
    data, edges = labels.data, voxel_edges(labels.voxel_size)
    tables, count = separation.numbers(config.separation, least_voxels(labels, config))
    dtype = np.dtype(np.uint16 if count <= np.iinfo(np.uint16).max else np.uint32)
    out = make_output(tuple(int(n) for n in data.shape), dtype)
    measuring = Measuring(count, 0 if image is None else image.n_channels)
    blocks = separation.blocks
    done, total = 0, len(blocks) * n_times(data)
    for time, table in enumerate(tables):
        for box in blocks:
            if config.boundary is None or config.method != "boundary":
                numbers = table[np.asarray(separation.pieces[at_time(data, time, box.slices)])]
            else:
                numbers = _with_boundary(separation.pieces, data, table, time, box, config, edges)
            if numbers.any():
                out[at_time(data, time, box.slices)] = numbers.astype(dtype)
                gray = None if image is None else image.crop(time, box.start, box.stop)
                measuring.add(numbers, time, box, gray)
            done += 1
            yield ObjectsProgress("Measuring", done, total)
    properties = measuring.table(
        space(data),
        separation.values(tables, count),
        names or {},
        labels.voxel_size,
        labels.unit,
        translation=labels.translation,
        series=len(data.shape) == 4,
    )
    return Objects(out, properties, separation)


def least_voxels(labels: Volume, config: ObjectsConfig) -> int:
    """Smallest size of an object in voxels, from both settings of it."""
    if config.min_volume is None:
        return config.min_voxels
    return max(config.min_voxels, math.ceil(config.min_volume / math.prod(labels.voxel_size)))


def check_objects(labels: Volume, config: ObjectsConfig, image: Volume | None = None) -> None:
    """Raise BadInputError for settings and images that do not fit a segmentation."""
    check_layout(labels.data)
    if config.min_volume is not None and labels.unit == "pixel":
        raise BadInputError(
            f"The smallest volume is {config.min_volume:g}, but '{labels.name}' has no voxel size "
            "in µm, nm or mm. Give its voxel size, or the smallest size in voxels."
        )
    if config.method == "boundary" and config.boundary is None:
        raise BadInputError("The method 'boundary' needs the class between the objects: choose it.")
    if config.method == "boundary" and config.boundary in config.classes:
        raise BadInputError(
            f"Class {config.boundary} cannot be boundary and object at once: choose two classes."
        )
    if image is not None and (image.shape, image.n_times) != (labels.shape, n_times(labels.data)):
        raise BadInputError(
            f"The image '{image.name}' has {_size(image.shape, image.n_times)}, the labels "
            f"'{labels.name}' {_size(labels.shape, n_times(labels.data))}. Give the image that was "
            "segmented."
        )


def choose_classes(present: Collection[int], config: ObjectsConfig) -> tuple[int, ...]:
    """The classes that become objects.

    Parameters
    ----------
    present
        Classes that occur.
    config
        The settings.

    Raises
    ------
    BadInputError
        A class that is wanted does not occur, or none is left.
    """
    listed = ", ".join(map(str, sorted(present))) or "none"
    boundary = config.boundary if config.method == "boundary" else None
    for value in (*config.classes, *(() if boundary is None else (boundary,))):
        if value and value not in present:
            raise BadInputError(
                f"Class {value} does not occur in the segmentation. Its classes: {listed}."
            )
    if config.classes:
        return config.classes
    chosen = tuple(sorted(value for value in present if value != boundary))
    if not chosen:
        cure = (
            "Only the boundary's class occurs in the segmentation: choose 0 (background) as the "
            "class of the objects, or another boundary."
            if present
            else "All voxels of the segmentation are background: there is no object to find. "
            "Segment the stack first."
        )
        raise BadInputError(cure)
    return chosen


def _present(
    data: Any, background: Collection[int], block: Triple | None
) -> Generator[ObjectsProgress, None, tuple[int, ...]]:
    """The classes that occur."""
    values: set[int] = set()
    blocks = plan(space(data), block)
    total, done = n_times(data) * len(blocks), 0
    for time in range(n_times(data)):
        for box in blocks:
            values |= count_labels(np.asarray(data[at_time(data, time, box.slices)])).keys()
            done += 1
            yield ObjectsProgress("Reading", done, total)
    return tuple(sorted(values - set(background)))


def _with_boundary(
    pieces: Any,
    data: Any,
    table: NDArray[np.int64],
    time: int,
    box: Box,
    config: ObjectsConfig,
    edges: Sequence[float],
) -> NDArray[np.int64]:
    """The objects in a block; voxels of the boundary belong to the nearest one."""
    outer = grow(box, voxels_of(_LARGEST_GAP, edges), space(data))
    where = at_time(data, time, outer.slices)
    numbers = table[np.asarray(pieces[where])]
    free = np.zeros(numbers.shape, bool)
    core = inside(box, outer)
    free[core] = (np.asarray(data[where])[core] == config.boundary) & (numbers[core] == 0)
    if free.any() and numbers.any():
        distance, nearest = distance_transform_edt(
            numbers == 0, sampling=edges, return_indices=True
        )
        free &= distance <= _LARGEST_GAP
        numbers[free] = numbers[tuple(axis[free] for axis in nearest)]
    return np.asarray(numbers[core])


def _size(shape: Triple, times: int) -> str:
    text = " × ".join(map(str, shape)) + " voxels"
    return f"{times} time points of {text}" if times > 1 else text
