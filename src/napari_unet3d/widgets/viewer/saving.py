"""Writes Labels layers to files, with voxel size, position and classes."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.io.outputs import check_paths, create_output
from napari_unet3d.widgets.viewer.image_volume import voxel_size_of
from napari_unet3d.widgets.viewer.layers import read_classes, role_of


def save_labels(
    labels: np.ndarray,
    path: Path,
    voxel_size: tuple[float, float, float],
    unit: str,
    *,
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0),
    time_step: float | None = None,
    classes: Sequence[ClassInfo] = (),
) -> Generator[float, None, Path]:
    """Write labels plane by plane.

    Parameters
    ----------
    labels
        ZYX or TZYX.
    path
        The file (OME-TIFF) or folder (OME-Zarr).
    voxel_size, unit
        Along z, y, x.
    translation
        Position of the first voxel along z, y, x, in `unit`.
    time_step
        Seconds between two time points; None where it is not known.
    classes
        The classes, for the names in the file.

    Yields
    ------
    float
        Fraction of the planes that is written, 0 to 1.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    BadInputError
        The folder cannot be written to.
    RunFailedError
        Writing failed, for instance because the disk is full.
    """
    axes = "TZYX" if labels.ndim == 4 else "ZYX"
    with create_output(
        path,
        labels.shape,
        labels.dtype,
        axes,
        voxel_size,
        unit,
        translation=translation,
        time_step=time_step,
        classes=classes,
    ) as out:
        planes: list[Any] = list(np.ndindex(labels.shape[:-2]))
        for done, plane in enumerate(planes, start=1):
            out[plane] = labels[plane]
            yield done / len(planes)
    return path


def save_layer(layer: Labels, path: Path) -> Generator[float, None, Path]:
    """Write a Labels layer with its voxel size, position, time step and classes.

    Yields and returns as `save_labels`.

    Raises
    ------
    BadInputError
        The voxel size of the layer cannot be used, or as `save_labels`.
    RunFailedError
        As `save_labels`.
    """
    voxel_size, unit = voxel_size_of(layer)
    return save_labels(
        layer.data,
        path,
        voxel_size,
        unit,
        translation=position_of(layer, voxel_size),
        time_step=_time_step(layer),
        classes=read_classes(layer),
    )


def check_not_open(path: Path, layers: Iterable[Layer]) -> None:
    """Check that writing `path` touches no file of an open image or annotation.

    Raises
    ------
    BadInputError
        `path` is such a file or folder, or lies in it.
    """
    sources = [
        layer.source.path
        for layer in layers
        if layer.source.path is not None
        and (isinstance(layer, Image) or role_of(layer) == "annotation")
    ]
    check_paths([path], [source for source in sources if Path(source).exists()])


def position_of(
    layer: Labels, voxel_size: tuple[float, float, float]
) -> tuple[float, float, float]:
    """Position of the first voxel along z, y, x, in the unit of the voxel size."""
    first = np.asarray(layer.data_to_world((0,) * layer.ndim), float)[-3:]
    z, y, x = (
        float(p * v / s) for p, v, s in zip(first, voxel_size, layer.scale[-3:], strict=True)
    )
    return z, y, x


def _time_step(layer: Labels) -> float | None:
    """Seconds between two time points; None where the layer has no unit of time."""
    if layer.ndim < 4:
        return None
    try:
        return float((float(layer.scale[0]) * layer.units[0]).to("second").magnitude)
    except Exception:  # pint raises various errors for a unit that is no time
        return None
