"""The pixel classifier sees the same gray values, wherever they were read from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bundles import random_bundle
from napari_unet3d.data.boxes import Box
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.volume import Volume
from napari_unet3d.pixels.features import filter_bank, halo
from napari_unet3d.prediction.engine import Engine
from napari_unet3d.prediction.surroundings import read_around
from napari_unet3d.sampling.source import Source
from predictions import CPU, SAME, with_pixels


class CountingSource(Source):
    """Notes how many voxels are read."""

    voxels = 0

    def read(self, time, start, stop, beyond="mirror"):
        values = super().read(time, start, stop, beyond)
        self.voxels += values[0].numel()
        return values


def source_of(shape, voxel_size=(1.0, 1.0, 1.0)) -> CountingSource:
    rng = np.random.default_rng(0)
    volume = Volume(rng.normal(size=shape).astype(np.float32), voxel_size=voxel_size)
    return CountingSource(volume, IntensityNormalization.estimate(volume), CPU)


@pytest.mark.parametrize("voxel_size", [(1.0, 1.0, 1.0), (5.0, 1.0, 1.0)])
@pytest.mark.parametrize(
    "box",
    [Box((0, 0, 0), (12, 30, 20)), Box((3, 9, 5), (9, 20, 13)), Box((11, 29, 0), (12, 30, 20))],
    ids=["all", "inside", "edge"],
)
def test_features_are_the_same_and_read_once(voxel_size, box):
    source = source_of((12, 30, 20), voxel_size)
    expected = filter_bank(
        lambda a, b: source.read(0, a, b, beyond="nearest"), box.start, box.stop, voxel_size
    )
    source.voxels = 0
    features = filter_bank(read_around(source, 0, box), box.start, box.stop, voxel_size)
    assert torch.equal(features, expected)
    around = zip(box.shape, halo(voxel_size), strict=True)
    assert source.voxels == np.prod([n + 2 * h for n, h in around])


def test_what_lies_beyond_the_halo_is_read_anew():
    source = source_of((12, 30, 20))
    read = read_around(source, 0, Box((3, 9, 5), (9, 20, 13)))
    start, stop = (-60, 0, 0), (12, 30, 20)
    assert torch.equal(read(start, stop), source.read(0, start, stop, beyond="nearest"))


def test_a_block_of_several_parts_is_read_once(monkeypatch):
    monkeypatch.setattr("napari_unet3d.prediction.engine.PIXEL_CHUNK", 30_000)
    source = source_of((40, 64, 64))
    mixture = with_pixels(random_bundle(SAME)).build_mixture(folded=False)
    engine = Engine(mixture, source, "fp32", tile_shape=(40, 64, 64))
    box = Box((0, 0, 0), source.volume.shape)
    tiles = len(engine.tiles(box))
    assert engine.steps(box) >= tiles + 2, "it is one part"
    engine.predict(0, box)
    around = zip(box.shape, halo((1.0, 1.0, 1.0)), strict=True)
    assert source.voxels == tiles * 40 * 64 * 64 + np.prod([n + 2 * h for n, h in around])
