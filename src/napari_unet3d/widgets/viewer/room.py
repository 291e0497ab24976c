"""Checks whether annotations and results fit into the memory, and makes empty annotations."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch

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


def empty_labels(shape: tuple[int, ...]) -> Any:
    """Make zeros (uint8) in memory: ZYX or TZYX.

    Where they do not fit, only the chunks that hold paint take memory, compressed. Nothing is
    written to a disk: that is what the session folder is for.
    """
    return np.zeros(shape, np.uint8) if annotation_fits(shape) else SparseLabels.create(shape)


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


def _free() -> int:
    return free_memory(torch.device("cpu"))


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes < 1e11 else f"{n_bytes / 1e9:.0f} GB"
