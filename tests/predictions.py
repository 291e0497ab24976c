"""Small networks and stacks to be predicted, and a prediction in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import PredictionProgress
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.mixture import Calibration
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.prediction.engine import Engine
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.sampling.source import Source

CPU = torch.device("cpu")
SAME = UNetConfig(
    widths=(4, 8, 8),
    strides=((1, 2, 2), (2, 2, 2)),
    kernels=((3, 3, 3),) * 3,
    padding="same",
    normalization="channel",
)
VALID = SAME.model_copy(update={"padding": "valid"})
PAPER_LIKE = UNetConfig(
    widths=(4, 8, 8, 8), strides=((1, 2, 2),) * 3, kernels=((1, 3, 3),) * 4, padding="valid"
)
"""The paper's layout in the plane: its outputs (4, 12, 20…) are no multiples of its stride, 8."""


def blobs(shape=(13, 38, 45), seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy image and truth of bright blobs, class 2."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.standard_normal(shape), 2.5)
    truth = np.where(smooth > np.quantile(smooth, 0.7), 2, 0).astype(np.uint8)
    return (20 * truth + rng.normal(100, 12, shape)).astype(np.float32), truth


def run(bundle, volume, *, times=None, extra=True, **config):
    """Labels, probabilities, uncertainty and the events of a prediction."""
    config = {"device": "cpu", "precision": "fp32"} | config
    series = (volume.n_times,) if "T" in volume.axes else ()
    out = np.zeros((*series, *volume.shape), np.uint8)
    p = np.full((*series, bundle.network.n_classes, *volume.shape), np.nan, np.float32)
    u = np.full(out.shape, np.nan, np.float32)
    more = {"probabilities": p, "uncertainty": u} if extra else {}
    steps = predict(bundle, volume, out, times=times, config=PredictionConfig(**config), **more)
    return out, p, u, list(steps)


def with_pixels(bundle: ModelBundle) -> ModelBundle:
    """The same model with a random pixel classifier."""
    pixels = PixelClassifier(1, bundle.network.n_classes)
    both = Calibration(network=0.5, pixels=0.5)
    return bundle.model_copy(update={"pixels": pixels.state_dict(), "calibration": both})


def n_tiles(events) -> int:
    return [e for e in events if isinstance(e, PredictionProgress)][-1].total


def engine_of(
    bundle: ModelBundle, volume: Volume, *, device: torch.device = CPU, **options: Any
) -> Engine:
    """The model, not folded, in fp32, ready to predict boxes of a volume."""
    intensity = IntensityNormalization.estimate(volume, bundle.intensity.clip)
    source = Source(volume, intensity, device)
    return Engine(bundle.build_mixture(folded=False), source, "fp32", **options)
