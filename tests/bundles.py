"""Untrained models for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from napari_unet3d.config import TrainingConfig, default_class
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.record import TrainingRecord
from napari_unet3d.networks.unet import UNet3D, UNetConfig


def random_bundle(
    network: UNetConfig, values: Sequence[int] | None = None, *, seed: int = 0, **changes: Any
) -> ModelBundle:
    """A model with random weights; of the classes 2, 3, … where no `values` are given."""
    values = values or range(2, network.n_classes + 1)
    network = network.model_copy(update={"n_classes": len(values) + 1})
    zeros, ones = (0.0,) * network.in_channels, (1.0,) * network.in_channels
    torch.manual_seed(seed)
    given = {
        "network": network,
        "classes": tuple(default_class(v) for v in values),
        "intensity": IntensityNormalization(low=zeros, high=ones, mean=zeros, std=ones),
        "voxel_size": (1.0, 1.0, 1.0),
        "unit": "pixel",
        "record": TrainingRecord(
            config=TrainingConfig(),
            iterations=0,
            seconds=0,
            device="cpu",
            precision="fp32",
            patch_shape=(8, 32, 32),
        ),
        "weights": UNet3D(network).state_dict(),
    }
    return ModelBundle(**(given | changes))
