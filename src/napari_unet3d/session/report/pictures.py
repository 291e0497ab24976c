"""Pictures of slices: gray values, and classes or mistakes in color on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_unet3d.config import ClassInfo, VoxelSize
from napari_unet3d.data.boxes import slice_box
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.prediction.mistakes import MISTAKES

_MOST_PIXELS = 480
"""Pixels of the longer side: a picture is at most 8 cm wide in print."""
_CONTRAST = (0.5, 99.5)
"""Percentiles of a slice that become black and white."""
_OPACITY, _MISTAKE_OPACITY = 0.5, 0.9
"""Shares of color. Classes let the image shine through; mistakes must be seen."""
_UNLABELLED = 0.45
"""Brightness of the voxels that nobody has painted, by their own: the truth is not known there."""


def gray(volume: Volume, ref: SliceRef) -> NDArray[np.uint8]:
    """A slice of an image as gray values (height, width, 3); channels are averaged."""
    box = slice_box(volume.shape, ref)
    crop = np.asarray(volume.crop(ref.time, box.start, box.stop), np.float32)
    planes = crop.squeeze(ref.axis + 1)
    scaled = np.zeros(planes.shape[1:], np.float32)
    for plane in planes:
        low, high = np.percentile(plane, _CONTRAST)
        scaled += np.clip((plane - low) / max(float(high - low), 1e-12), 0, 1)
    values = np.round(scaled * (255 / len(planes))).astype(np.uint8)
    return np.repeat(values[..., None], 3, axis=2)


def with_classes(
    pixels: NDArray[np.uint8], labels: NDArray[np.integer], classes: Sequence[ClassInfo]
) -> NDArray[np.uint8]:
    """Color a segmentation (0 background, classes by `ClassInfo.output_value`)."""
    return _colored(pixels, labels, {c.output_value: c.color for c in classes}, _OPACITY)


def with_truth(
    pixels: NDArray[np.uint8], codes: NDArray[np.uint8], classes: Sequence[ClassInfo]
) -> NDArray[np.uint8]:
    """Color what is painted (codes of `SparseAnnotation`), and darken what is not."""
    colors = {i + 2: c.color for i, c in enumerate(classes)}
    return _darkened(_colored(pixels, codes, colors, _OPACITY), codes)


def with_mistakes(
    pixels: NDArray[np.uint8], mistakes: NDArray[np.uint8], codes: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Color mistakes, and darken what is not painted."""
    colors = {m.value: m.color for m in MISTAKES}
    return _darkened(_colored(pixels, mistakes, colors, _MISTAKE_OPACITY), codes)


def reduced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A large picture with fewer pixels, each the mean of those that it replaces."""
    height, width = pixels.shape[:2]
    step = max(height, width) / _MOST_PIXELS
    if step <= 1:
        return pixels
    size = max(1, round(width / step)), max(1, round(height / step))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def pixel_ratio(voxel_size: VoxelSize, ref: SliceRef) -> float:
    """Height of a pixel of a slice by its width."""
    height, width = (s for axis, s in enumerate(voxel_size) if axis != ref.axis)
    return height / width


def _colored(
    pixels: NDArray[np.uint8],
    labels: NDArray[np.integer],
    colors: Mapping[int, str],
    opacity: float,
) -> NDArray[np.uint8]:
    mixed = pixels.astype(np.float32)
    for value, color in colors.items():
        where = labels == value
        rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], np.float32)
        mixed[where] = (1 - opacity) * mixed[where] + opacity * rgb
    return np.round(mixed).astype(np.uint8)


def _darkened(pixels: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    dark = pixels.copy()
    unknown = codes == 0
    dark[unknown] = np.round(dark[unknown] * _UNLABELLED).astype(np.uint8)
    return dark
