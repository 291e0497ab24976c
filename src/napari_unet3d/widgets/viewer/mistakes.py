"""A layer that shows where a prediction is wrong on the held-out slices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils import DirectLabelColormap

from napari_unet3d.config import ClassInfo
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.slices import SliceRef, at_time, read_slice
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.prediction.mistakes import MISTAKES, find_mistakes
from napari_unet3d.widgets.viewer.belonging import bind
from napari_unet3d.widgets.viewer.layers import metadata_of, remember
from napari_unet3d.widgets.viewer.placement import spatial_transform

_IN_MEMORY = 2**28
"""Voxels of a stack up to which the layer holds an array; the mistakes of larger ones are kept in
chunks."""
_SHOWS = "mistakes"
"""Entry of the metadata that tells the layer from other companions."""


def map_mistakes(
    predicted: Any, annotation: SparseAnnotation, classes: Sequence[ClassInfo]
) -> dict[SliceRef, np.ndarray]:
    """Compare a prediction with the held-out slices of an annotation; may read large files.

    Parameters
    ----------
    predicted
        The segmentation (ZYX or TZYX).
    annotation
        What is painted; slices that are not held out are not read.
    classes
        The classes of the model that made the segmentation.

    Returns
    -------
    dict
        Slice → values of `Mistake`, 2D.
    """
    numbers = {info.value: info.output for info in classes}
    table = [
        info.model_copy(update={"output": numbers.get(info.value, info.output)})
        for info in annotation.classes
    ]
    return {
        ref: find_mistakes(read_slice(predicted, ref), annotation.held_out_target(ref), table)
        for ref in sorted(annotation.held_out)
    }


def mistakes_layer(
    mistakes: Mapping[SliceRef, np.ndarray], shape: tuple[int, ...], name: str, image: Image
) -> Labels:
    """Make the layer, which lies on the image.

    Parameters
    ----------
    mistakes
        As `map_mistakes` gives them.
    shape
        Of the layer, ZYX or TZYX.
    name
        Of the layer.
    image
        The image that was segmented.
    """
    layer = Labels(_array(mistakes, shape), name=name, **spatial_transform(image, len(shape)))
    colors: dict[int | None, str] = {m.value: m.color for m in MISTAKES}
    layer.colormap = DirectLabelColormap(
        color_dict={None: "transparent", 0: "transparent", **colors}
    )
    layer.features = {
        "index": [0, *(m.value for m in MISTAKES)],
        "mistake": ["none", *(m.name for m in MISTAKES)],
    }
    layer.opacity = 0.9
    layer.editable = False
    remember(layer, role="companion", shows=_SHOWS)
    bind(layer, image)
    return layer


def update_mistakes(layer: Labels, mistakes: Mapping[SliceRef, np.ndarray]) -> None:
    """Show other mistakes in a layer of `mistakes_layer`."""
    layer.data = _array(mistakes, tuple(int(n) for n in layer.data.shape))


def shows_mistakes(layer: Any) -> bool:
    """Whether a layer was made by `mistakes_layer`."""
    return isinstance(layer, Labels) and metadata_of(layer).get("shows") == _SHOWS


def _array(mistakes: Mapping[SliceRef, np.ndarray], shape: tuple[int, ...]) -> Any:
    large = math.prod(shape) > _IN_MEMORY
    array: Any = SparseLabels.create(shape) if large else np.zeros(shape, np.uint8)
    for ref, plane in mistakes.items():
        where: list[slice] = [slice(None)] * 3
        where[ref.axis] = slice(ref.index, ref.index + 1)
        index = at_time(array, ref.time, tuple(where))
        there = np.asarray(array[index])
        array[index] = np.maximum(there, np.expand_dims(plane, ref.axis))
    return array
