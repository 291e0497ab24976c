"""Open the images and annotations of a command line, tell them apart, and explain them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_unet3d.cli.terminal import errors
from napari_unet3d.config import FIRST_CLASS, ClassInfo
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.conventions import (
    Convention,
    Labels,
    dense_report,
    describe_values,
    read_convention,
)
from napari_unet3d.data.io.reading import read_labels, read_volume
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.model.bundle import SUFFIX

SWAPPED = "are the two swapped? predict takes MODEL IMAGE"
_SAMPLE_VOXELS = 2**22
"""Voxels of an image that are read to tell whether it holds labels; that takes milliseconds."""
_MOST_LABEL_VALUES = 32
"""Different values in an annotation; `SparseAnnotation` refuses more, and images have more."""


@dataclass(frozen=True)
class Painted:
    """An annotation, and the counts of its file.

    Attributes
    ----------
    annotation
        The annotation as it is trained on.
    convention
        How often each value occurs in the file.
    dense
        Whether the file is read as a dense segmentation, with 0 for background.
    """

    annotation: SparseAnnotation
    convention: Convention
    dense: bool

    def say(self, classes: Sequence[ClassInfo]) -> None:
        """Tell what each value of the file is taken for."""
        how = "Annotation (--labels dense)" if self.dense else "Annotation"
        errors.note(f"{how}: {describe_values(self.convention, classes, dense=self.dense)}")


def open_image(path: Path, usage: str, reading: Mapping[str, Any] | None = None) -> Volume:
    """Open an image, and tell the notes of its reader.

    Parameters
    ----------
    path
        A file or the folder of a zarr.
    usage
        What the message says when the file is a model.
    reading
        Axes and voxel size that replace those of the file; see `read_volume`.
    """
    refuse_model(path, usage)
    volume = read_volume(path, **(reading or {}))
    for note in volume.notes:
        errors.note(note)
    return volume


def refuse_model(path: Path, usage: str) -> None:
    """Raise BadInputError when a model stands where something else belongs."""
    if path.suffix == SUFFIX:
        raise BadInputError(f"'{path}' is a model: {usage}.")


def open_annotation(
    path: Path, volume: Volume, labels: Labels, held_out: Iterable[SliceRef]
) -> Painted:
    """Open the annotation of an image.

    Raises
    ------
    BadInputError
        It cannot be read, its numbers are no labels, or 0 seems to mean background and `labels`
        does not say so.
    """
    held_out = frozenset(held_out)
    try:
        data = read_labels(path).data
        convention = read_convention(data)
        annotation = SparseAnnotation.from_labels(
            data, held_out=held_out, convention="dense" if labels == "dense" else "sparse"
        )
    except BadInputError as error:
        if path.exists() and _holds_labels(volume):
            raise BadInputError(
                f"{error} Are the two swapped? train takes IMAGE ANNOTATION."
            ) from error
        raise
    if labels == "auto":
        _refuse_dense(path, convention)
    return Painted(annotation, convention, dense=labels == "dense")


def _refuse_dense(path: Path, convention: Convention) -> None:
    report = dense_report(convention)
    if report is None:
        return
    other = (
        f"paint a class ({FIRST_CLASS}, …) if 1 is background"
        if convention.is_mask
        else "say --labels sparse if 0 is unlabelled"
    )
    raise BadInputError(
        f"'{path}': {report.text} Nothing was trained: say --labels dense if 0 is background, or "
        f"{other}."
    )


def _holds_labels(volume: Volume) -> bool:
    """Tell whether an image looks like an annotation."""
    if volume.dtype.kind not in "iu" or "C" in volume.axes:
        return False
    values: set[int] = set()
    for plane in volume.sample_planes(_SAMPLE_VOXELS):
        values.update(int(v) for v in np.unique(plane))
        if len(values) > _MOST_LABEL_VALUES:
            return False
    return min(values) >= 0
