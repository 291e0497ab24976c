"""Sample data for File ▸ Open Sample. They are simulated, so nothing is downloaded."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_unet3d.data import samples
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.widgets.viewer.layers import (
    ANNOTATION_OPACITY,
    METADATA_KEY,
    class_colormap,
    class_features,
)

LayerData = tuple[Any, dict[str, Any], str]


def first_steps() -> list[LayerData]:
    """Simulated sparse nuclei with scribbles on three slices and a slice to measure on."""
    sample = samples.sparse_nuclei()
    held_out = sample.held_out_slices[:1]
    annotation = sample.scribble(sample.training_slices[:3])
    measured = sample.annotate(held_out)
    return _layers(sample, np.maximum(annotation, measured), held_out)


def tubules() -> list[LayerData]:
    """Simulated kidney tubules, with their ground truth in a hidden layer."""
    return _layers(samples.tubules())


def nuclei() -> list[LayerData]:
    """Simulated cell nuclei, with their ground truth in a hidden layer."""
    return _layers(samples.nuclei())


def _layers(
    sample: samples.Sample,
    annotation: np.ndarray | None = None,
    held_out: Sequence[SliceRef] = (),
) -> list[LayerData]:
    classes = [c.model_dump() for c in sample.classes]
    image = volume_layer(sample.image)
    # The classes are for a new annotation of this stack. The ground truth moves with the stack.
    owner = {"id": uuid.uuid4().hex, "name": sample.image.name, "path": None}
    image[1]["metadata"] = {METADATA_KEY: {"classes": classes, "id": owner["id"]}}
    truth = {
        **placement(sample.image),
        "name": f"{sample.image.name} truth",
        "visible": False,
        "opacity": 0.5,
        "colormap": class_colormap(sample.classes, annotation=False),
        "features": class_features(sample.classes, annotation=False),
        "metadata": {METADATA_KEY: {"role": "truth", "classes": classes, "images": [owner]}},
    }
    layers: list[LayerData] = [image, (sample.truth, truth, "labels")]
    if annotation is not None:
        painted = {
            "role": "annotation",
            "classes": classes,
            "images": [owner],
            "held_out": [[r.axis, r.index, r.time] for r in held_out],
        }
        options = {
            **placement(sample.image),
            "name": f"{sample.image.name} annotation",
            "opacity": ANNOTATION_OPACITY,
            "colormap": class_colormap(sample.classes, annotation=True),
            "features": class_features(sample.classes, annotation=True),
            "metadata": {METADATA_KEY: painted},
        }
        layers.append((annotation, options, "labels"))
    return layers


def volume_layer(volume: Volume) -> LayerData:
    """Data and options of the Image layer of a volume with axes ZYX, CZYX or TZYX."""
    plane = volume.crop(
        0, (volume.shape[0] // 2, 0, 0), (volume.shape[0] // 2 + 1, *volume.shape[1:])
    )
    low, high = np.percentile(plane, (0.5, 99.8))
    options = {
        **placement(volume),
        "name": volume.name,
        "contrast_limits": (float(low), float(max(high, low + 1e-6))),
    }
    return volume.data, options, "image"


def placement(volume: Volume, axes: str | None = None) -> dict[str, Any]:
    """Scale, position, units and axis labels of a layer that shows these axes of a volume."""
    axes = volume.axes if axes is None else axes
    step = volume.time_step
    time = (1.0, "pixel") if step is None or not step > 0 else (step, "second")
    more = [time if axis == "T" else (1.0, "pixel") for axis in axes[:-3]]
    unit = "um" if volume.unit == "µm" else volume.unit
    return {
        "scale": (*(scale for scale, _ in more), *volume.voxel_size),
        "translate": (0.0,) * len(more) + volume.translation,
        "units": (*(name for _, name in more), unit, unit, unit),
        "axis_labels": tuple(axes.lower()),
    }
