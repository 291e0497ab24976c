"""Checks whether annotations and results fit into the memory, and makes empty annotations."""

from __future__ import annotations

import math
import re
import shutil
import time
import weakref
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from qtpy.QtCore import QStandardPaths

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.shapes import describe_shape
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.networks.device import free_memory
from napari_unet3d.prediction.outputs import chosen_outputs
from napari_unet3d.session.room import SHARE_FOR_ANNOTATION, annotation_fits

_SHARE_FOR_RESULT = 0.9
"""Share of the free memory. The rest is for the network, whose tiles shrink to fit into it."""


def empty_labels(shape: tuple[int, ...], name: str) -> Any:
    """Make zeros (uint8) in memory, or in a folder if they do not fit.

    The folder lies among the user's data and has the name of the image and the date. It is removed
    when nothing was painted.

    Parameters
    ----------
    shape
        ZYX or TZYX.
    name
        Name of the image.
    """
    if annotation_fits(shape):
        return np.zeros(shape, np.uint8)
    data = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.GenericDataLocation)
    folder = Path(data) / "napari-unet3d" / "annotations"
    folder.mkdir(parents=True, exist_ok=True)
    path = _unused(folder, name)
    labels = SparseLabels.create(shape, path)
    weakref.finalize(labels, _remove_unpainted, path, labels.painted)
    return labels


def snapshot(labels: Any) -> tuple[Any, str]:
    """Copy labels, so that a training does not see what is painted meanwhile.

    Returns
    -------
    labels : array
        The copy; the labels themselves if they lie on disk and do not fit into the memory.
    note : str
        A sentence for the user if the labels were not copied, else "".
    """
    if isinstance(labels, SparseLabels):
        return labels.snapshot(), ""
    if not isinstance(labels, np.ndarray):
        n_bytes = math.prod(labels.shape) * np.dtype(labels.dtype).itemsize
        if n_bytes > SHARE_FOR_ANNOTATION * _free():
            return labels, (
                "The annotation is too large to be copied into the memory: paint that you add "
                "while the training runs is trained on too."
            )
    return np.array(labels), ""


def result_problem(shape: Sequence[int], name: str, bytes_per_voxel: int = 1) -> str:
    """Say that a result does not fit into the memory, with the cure; "" when it does.

    Parameters
    ----------
    shape
        Of the labels, ZYX or TZYX.
    name
        What the text calls the image.
    bytes_per_voxel
        Of all arrays together; the labels alone take 1.
    """
    needed, free = bytes_per_voxel * math.prod(shape), _free()
    if needed <= _SHARE_FOR_RESULT * free:
        return ""
    return (
        f"The segmentation of '{name}' ({describe_shape(shape)}) takes {_size(needed)}, and "
        f"{_size(free)} of memory are free. Train and segment it with the command line, which "
        "writes to a file (napari-unet3d train, napari-unet3d predict)"
        + (", or without additional images." if bytes_per_voxel > 1 else ".")
    )


def check_result(
    volume: Volume, classes: Sequence[ClassInfo], wanted: Collection[str] = ()
) -> None:
    """Raise BadInputError when the arrays of a prediction do not fit into the memory.

    `wanted` are the names of the outputs that are wanted beside the labels.
    """
    times = (volume.n_times,) if "T" in volume.axes else ()
    bytes_per_voxel = sum(output.bytes_per_voxel(classes) for output in chosen_outputs(wanted))
    problem = result_problem((*times, *volume.shape), volume.name, bytes_per_voxel)
    if problem:
        raise BadInputError(problem)


def _remove_unpainted(path: Path, painted: Collection[Any]) -> None:
    if not painted:
        shutil.rmtree(path, ignore_errors=True)


def _free() -> int:
    return free_memory(torch.device("cpu"))


def _unused(folder: Path, name: str) -> Path:
    plain = re.sub(r"[^\w.-]+", "-", name)[:80].strip("-.") or "image"
    name = f"{plain} {time.strftime('%Y-%m-%d %H.%M.%S')}"
    paths = (folder / f"{name}{suffix}.zarr" for suffix in ("", *(f" {i}" for i in range(2, 999))))
    return next(path for path in paths if not path.exists())


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes < 1e11 else f"{n_bytes / 1e9:.0f} GB"
