"""Write a prediction with its voxel size, plane by plane."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

SEGMENTATION_FILTER = "OME-TIFF (*.ome.tif *.tif);;OME-Zarr (*.ome.zarr)"


def complete_path(path: str, chosen_filter: str) -> Path:
    """`path` with the suffix of the chosen kind, when the user typed none."""
    if path.lower().endswith((".tif", ".tiff", ".zarr")):
        return Path(path)
    return Path(path + (".ome.zarr" if "Zarr" in chosen_filter else ".ome.tif"))


def save_labels(
    labels: np.ndarray, path: Path, voxel_size: tuple[float, float, float], unit: str
) -> Generator[float, None, Path]:
    """Write ZYX or TZYX labels; yields the fraction done.

    Raises
    ------
    BadInputError, RunFailedError
        The folder cannot be written to; the disk is full.
    """
    from napari_unet3d.data.files import create_output

    axes = "TZYX" if labels.ndim == 4 else "ZYX"
    with create_output(path, labels.shape, labels.dtype, axes, voxel_size, unit) as out:
        planes: list[Any] = list(np.ndindex(labels.shape[:-2]))
        for done, plane in enumerate(planes, start=1):
            out[plane] = labels[plane]
            yield done / len(planes)
    return path
