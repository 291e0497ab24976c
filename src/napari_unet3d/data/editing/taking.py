"""Takes labels from a prediction, or from another slice, into an annotation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_unet3d.config import BACKGROUND, UNLABELLED, ClassInfo
from napari_unet3d.data.edits import SliceEdit
from napari_unet3d.data.slices import SliceRef


def label_map(
    predicted: Sequence[ClassInfo], annotated: Sequence[ClassInfo]
) -> tuple[dict[int, int], tuple[ClassInfo, ...]]:
    """Match the classes of a prediction with those of an annotation: by name, then by value.

    Parameters
    ----------
    predicted
        Classes of the model.
    annotated
        Classes of the annotation.

    Returns
    -------
    mapping : dict
        Label value in the annotation, by number in the prediction; without background.
    missing : tuple of ClassInfo
        Classes of the model that the annotation does not have.
    """
    by_name = {c.name: c.value for c in annotated}
    values = {c.value for c in annotated}
    known = {c.name for c in predicted}
    mapping, missing = {}, []
    for info in predicted:
        if info.name in by_name:
            mapping[info.output_value] = by_name[info.name]
        # A class that was renamed since the training; not one that another class is.
        elif info.value in values and not any(
            c.value == info.value and c.name in known for c in annotated
        ):
            mapping[info.output_value] = info.value
        else:
            missing.append(info)
    return mapping, tuple(missing)


def translated(
    plane: NDArray[np.integer], mapping: Mapping[int, int], background: int = BACKGROUND
) -> NDArray[np.uint8]:
    """Labels of an annotation (h, w) for a plane of a prediction.

    Parameters
    ----------
    plane
        Numbers of a prediction, (h, w).
    mapping
        Label value in the annotation, by number in the prediction.
    background
        What 0 becomes. A number that is not in `mapping` stays unlabelled.
    """
    table = np.full(max(mapping, default=0) + 2, UNLABELLED, np.uint8)
    table[0] = background
    for number, value in mapping.items():
        table[number] = value
    labels: NDArray[np.uint8] = table.take(plane, mode="clip")
    return labels


def unlabelled_edit(
    ref: SliceRef, plane: NDArray[np.integer], labels: NDArray[np.integer]
) -> SliceEdit | None:
    """The edit that gives the unlabelled voxels of a slice new labels; None if nothing changes.

    Parameters
    ----------
    ref
        The slice.
    plane
        Its labels, (h, w); what is painted stays.
    labels
        The new labels, (h, w); unlabelled voxels among them change nothing.
    """
    return SliceEdit.between(ref, plane, np.where(plane == UNLABELLED, labels, plane))
