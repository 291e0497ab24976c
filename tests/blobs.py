"""The stack of the command line's tests: bright blobs in noise, class 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from scipy.ndimage import gaussian_filter

from napari_unet3d.data.io.outputs import create_output

SHAPE = (10, 32, 36)
VOXEL = (0.5, 0.2, 0.15)
QUICK = [
    "--device", "cpu", "--preset", "fast", "--set", "patch_shape=[8,24,24]",
    "--set", "learning_rate=0.01",
]  # fmt: skip
"""Options of `train` for a network that learns the blobs in a few iterations."""


def blobs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, truth and sparse annotation; slices z=2, z=5 and z=8 are painted."""
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.standard_normal(SHAPE), 2.5)
    truth = np.where(smooth > np.quantile(smooth, 0.7), 2, 0).astype(np.uint8)
    image = (20 * truth + rng.normal(100, 12, SHAPE)).astype(np.uint16)
    labels = np.zeros_like(truth)
    for z in (2, 5, 8):
        labels[z] = np.maximum(truth[z], 1)
    return image, truth, labels


IMAGE, TRUTH, LABELS = blobs()


def write(path: Path, data: np.ndarray, axes: str = "ZYX") -> Path:
    """Write a file as the product does, with the voxel size of the blobs."""
    with create_output(path, data.shape, data.dtype, axes, VOXEL, "µm") as out:
        out[...] = data
    return path


def plain(path: Path, data: np.ndarray, **more: Any) -> Path:
    """Write a TIFF file as other programs do."""
    tifffile.imwrite(path, data, **more)
    return path
