"""Sample data for File ▸ Open Sample; made by code, so no network is needed."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_unet3d.data import samples
from napari_unet3d.data.volume import Volume
from napari_unet3d.widgets.layers import METADATA_KEY, class_colormap, class_features

LayerData = tuple[Any, dict[str, Any], str]


def tubules() -> list[LayerData]:
    """Simulated kidney tubules, with their ground truth in a hidden layer."""
    return _layers(samples.tubules())


def nuclei() -> list[LayerData]:
    """Simulated cell nuclei, with their ground truth in a hidden layer."""
    return _layers(samples.nuclei())


def _layers(sample: samples.Sample) -> list[LayerData]:
    classes = [c.model_dump() for c in sample.classes]
    image = volume_layer(sample.image)
    # A new annotation of this stack begins with its classes.
    image[1]["metadata"] = {METADATA_KEY: {"classes": classes}}
    truth = {
        **_placement(sample.image),
        "name": f"{sample.image.name} truth",
        "visible": False,
        "opacity": 0.5,
        "colormap": class_colormap(sample.classes, annotation=False),
        "features": class_features(sample.classes, annotation=False),
        "metadata": {METADATA_KEY: {"role": "truth", "classes": classes}},
    }
    return [image, (sample.truth, truth, "labels")]


def volume_layer(volume: Volume) -> LayerData:
    """The Image layer of a volume with axes ZYX, CZYX or TZYX."""
    plane = volume.crop(
        0, (volume.shape[0] // 2, 0, 0), (volume.shape[0] // 2 + 1, *volume.shape[1:])
    )
    low, high = np.percentile(plane, (0.5, 99.8))
    options = {
        **_placement(volume),
        "name": volume.name,
        "contrast_limits": (float(low), float(high)),
    }
    return volume.data, options, "image"


def _placement(volume: Volume) -> dict[str, Any]:
    unit = "um" if volume.unit == "µm" else volume.unit
    axes = volume.axes.lower()
    more = len(axes) - 3
    return {
        "scale": (1.0,) * more + volume.voxel_size,
        "units": ("pixel",) * more + (unit,) * 3,
        "axis_labels": tuple(axes),
    }
