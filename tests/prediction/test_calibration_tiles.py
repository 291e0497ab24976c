"""Tiles that show a network's range of values: how large they are, and how many."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch

from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.networks.planning import prediction_bytes
from napari_unet3d.networks.unet import PAPER_NETWORK, UNetConfig
from napari_unet3d.prediction.calibration_tiles import calibration_tiles
from napari_unet3d.sampling.source import open_source

GIB = 1 << 30
PAPER = PAPER_NETWORK.model_copy(update={"in_channels": 1, "n_classes": 2})


def tiles(network: UNetConfig, shape: tuple[int, int, int], memory: int) -> list[tuple[int, ...]]:
    volume = Volume(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    intensity = IntensityNormalization.estimate(volume, (0.1, 99.9))
    source = open_source(volume, intensity, torch.device("cpu"), None)
    return [tuple(tile.shape[2:]) for tile in calibration_tiles(source, network, [0], memory)]


def test_a_network_without_padding_gets_few_tiles_since_they_are_large() -> None:
    assert tiles(PAPER, (28, 44, 44), 64 * GIB) == [(116, 132, 132)] * 4
    network = UNetConfig.plan(
        "fast", (1, 1, 1), (64, 64, 64), in_channels=1, n_classes=2, accelerator=False
    )
    assert tiles(network, (64, 64, 64), 64 * GIB) == [(48, 48, 48)] * 12


def test_tiles_are_smaller_where_memory_is_short() -> None:
    network = UNetConfig.plan(
        "fast", (1, 1, 1), (64, 64, 64), in_channels=1, n_classes=2, accelerator=False
    )
    memory = int(1.6 * prediction_bytes(network, (48, 48, 48), "fp32"))
    (tile, *_) = tiles(network, (64, 64, 64), memory)
    assert 10_000 <= prod(tile) < 48**3
    assert 3 * prediction_bytes(network, tile, "fp32") <= memory


def test_a_comparison_of_few_voxels_would_tell_nothing() -> None:
    with pytest.raises(BadInputError, match=r"int8 does not apply: .* takes .* GiB, and 1\.0 GiB"):
        tiles(PAPER, (28, 44, 44), GIB)
