"""Ask for a file, and write a prediction with its voxel size, plane by plane."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer
from qtpy.QtWidgets import QFileDialog, QMessageBox, QWidget

from napari_unet3d.config import ClassInfo
from napari_unet3d.model.bundle import SUFFIX
from napari_unet3d.widgets.viewer.layers import read_classes, role_of, voxel_size_of

BUNDLE_FILTER = f"Trained model (*{SUFFIX});;All files (*)"
_SEGMENTATION_FILTER = "OME-TIFF (*.ome.tif *.tif);;OME-Zarr (*.ome.zarr)"


def complete_path(path: str, chosen_filter: str) -> Path:
    """`path` with the suffix of the chosen kind, when the user typed none."""
    if path.lower().endswith((".tif", ".tiff", ".zarr")):
        return Path(path)
    return Path(path + (".ome.zarr" if "Zarr" in chosen_filter else ".ome.tif"))


def complete_model_path(path: str, _chosen_filter: str = "") -> Path:
    """`path` with the suffix of models, when the user did not type it."""
    return Path(path if path.lower().endswith(SUFFIX) else path + SUFFIX)


def ask_segmentation(parent: QWidget, name: str) -> Path | None:
    """Ask for a file to write a segmentation to; None when the user cancels."""
    return _ask(parent, "Save segmentation", f"{name}.ome.tif", _SEGMENTATION_FILTER, complete_path)


def ask_model(parent: QWidget) -> Path | None:
    """Ask for a file to write a model to; None when the user cancels."""
    return _ask(parent, "Save model", f"model{SUFFIX}", BUNDLE_FILTER, complete_model_path)


def _ask(
    parent: QWidget,
    title: str,
    suggestion: str,
    filters: str,
    complete: Callable[[str, str], Path],
) -> Path | None:
    """Ask for a file; what is there is replaced only after a question about its true name.

    The dialog's own question about overwriting is asked before the suffix is complete: for
    "result" nobody would be asked about "result.ome.tif". So it is asked here.
    """
    while True:
        path, kind = QFileDialog.getSaveFileName(
            parent, title, suggestion, filters, "", QFileDialog.Option.DontConfirmOverwrite
        )
        if not path:
            return None
        target = complete(path, kind)
        if not target.exists():
            return target
        answer = QMessageBox.question(
            parent, title, f"{target.name} exists already.\nReplace it?\n\n{target}"
        )
        if answer == QMessageBox.StandardButton.Yes:
            return target
        suggestion = str(target)


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
    """Write ZYX or TZYX labels; yields the fraction done.

    Raises
    ------
    BadInputError, RunFailedError
        The folder cannot be written to; the disk is full.
    """
    from napari_unet3d.data.io.outputs import create_output

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
    """Write a prediction layer with its voxel size, position, time step and classes.

    Raises
    ------
    BadInputError
        The layer has no usable voxel size; as `save_labels`.
    RunFailedError
        As `save_labels`.
    """
    voxel_size, unit = voxel_size_of(layer)
    return save_labels(
        layer.data,
        path,
        voxel_size,
        unit,
        translation=_position(layer, voxel_size),
        time_step=_time_step(layer),
        classes=read_classes(layer),
    )


def check_not_open(path: Path, layers: Iterable[Layer]) -> None:
    """Raise where writing `path` would touch the file of an image or annotation that is open.

    Raises
    ------
    BadInputError
        It would replace, or lie in, such a file or folder.
    """
    from napari_unet3d.data.io.outputs import check_paths

    sources = [
        layer.source.path
        for layer in layers
        if layer.source.path is not None
        and (isinstance(layer, Image) or role_of(layer) == "annotation")
    ]
    check_paths([path], [source for source in sources if Path(source).exists()])


def _position(layer: Labels, voxel_size: tuple[float, float, float]) -> tuple[float, float, float]:
    """Where the first voxel lies, in the unit of the voxel size."""
    first = np.asarray(layer.data_to_world((0,) * layer.ndim), float)[-3:]
    z, y, x = (
        float(p * v / s) for p, v, s in zip(first, voxel_size, layer.scale[-3:], strict=True)
    )
    return z, y, x


def _time_step(layer: Labels) -> float | None:
    """Seconds between two time points; None where the layer does not say."""
    if layer.ndim < 4:
        return None
    try:
        return float((float(layer.scale[0]) * layer.units[0]).to("second").magnitude)
    except Exception:  # whatever pint says of a unit that is no time
        return None
