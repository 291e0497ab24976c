"""One box of a stack: what the engine promises of its probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bundles import random_bundle
from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.boxes import Box, slice_box
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import Notice, drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.geometry import (
    largest_map,
)
from napari_unet3d.networks.unet import UNet3D
from napari_unet3d.prediction.engine import CPU_TILE, Engine, NotFiniteError
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.sampling.source import Source
from predictions import SAME, blobs, engine_of, run, with_pixels


def test_one_slice_equals_the_slice_of_the_whole(trained):
    image = blobs()[0]
    bundle = trained["channel"]
    _, p, _, _ = run(bundle, Volume(image), tile_shape=(16, 40, 48))
    engine = engine_of(bundle, Volume(image), tile_shape=(16, 40, 48))
    for axis, index in ((0, 0), (0, 7), (1, 37), (2, 20)):
        box = slice_box(image.shape, SliceRef(axis, index))
        plane = engine.predict(0, box).squeeze(axis + 1)
        np.testing.assert_allclose(plane, p.take(index, axis + 1), atol=1e-5)


def test_only_one_tile_gives_no_numbers(monkeypatch):
    forward = UNet3D.forward
    calls = []

    def broken(self, x):
        calls.append(x.shape)
        logits = forward(self, x)
        return logits * torch.nan if len(calls) == 5 else logits

    monkeypatch.setattr(UNet3D, "forward", broken)
    volume = Volume(blobs((13, 52, 60))[0])
    out = np.full(volume.shape, 99, np.uint8)
    config = PredictionConfig(device="cpu", precision="fp32", tile_shape=(16, 32, 32))
    with pytest.raises(NotFiniteError):
        list(predict(random_bundle(SAME), volume, out, config=config))
    assert len(calls) == 5
    assert (out == 99).all()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("normalization", ["none", "batch", "channel"])
def test_a_model_that_gives_no_numbers_fails_and_says_so(normalization, precision):
    bundle = random_bundle(SAME.model_copy(update={"normalization": normalization}))
    volume = Volume(blobs((6, 20, 22))[0])
    run(bundle, volume)  # precondition: it works
    out = np.full(volume.shape, 99, np.uint8)
    config = PredictionConfig(device="cpu", precision=precision)
    with pytest.raises(NotFiniteError, match=r"no numbers.*weights are too large.*Train it again"):
        list(predict(scaled(bundle, 1e25), volume, out, config=config))
    assert (out == 99).all(), "something was written"


def test_a_pixel_classifier_that_gives_no_numbers_fails_and_says_so():
    bundle = with_pixels(random_bundle(SAME))
    bundle = bundle.model_copy(
        update={"pixels": {n: t * (1e30 if "layers" in n else 1) for n, t in bundle.pixels.items()}}
    )
    with pytest.raises(NotFiniteError, match="pixel classifier gives no numbers"):
        run(bundle, Volume(blobs((6, 20, 22))[0]))


def test_a_format_that_is_too_short_gives_way_to_fp32(monkeypatch):
    """As fp16 does, which ends at 65504, and which a CPU is too slow for."""
    volume = Volume(blobs()[0])
    bundle = random_bundle(SAME)
    expected, p, _, _ = run(bundle, volume)
    forward = UNet3D.forward

    def short(self, x):
        logits = forward(self, x)
        return logits * torch.inf if torch.is_autocast_enabled("cpu") else logits

    monkeypatch.setattr(UNet3D, "forward", short)
    labels, q, _, events = run(bundle, volume, precision="bf16")
    (notice,) = [e for e in events if isinstance(e, Notice)]
    assert "bf16" in notice.text
    assert "fp32" in notice.text
    np.testing.assert_array_equal(q, p)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize(("kind", "most"), [("cuda", 2**31 - 1), ("mps", 2**30)])
def test_no_map_has_more_values_than_the_libraries_can_count(kind, most):
    huge = Volume(np.broadcast_to(np.float32(1), (4096, 4096, 4096)))
    intensity = random_bundle(SAME).intensity
    mixture = random_bundle(SAME).build_mixture(folded=False)
    source = Source(huge, intensity, torch.device(kind))  # nothing is computed: no GPU is needed
    tile = Engine(mixture, source, "fp32", memory=1 << 50).plan()
    assert most / 4 < largest_map(SAME, tile) <= most


def test_little_memory_plans_small_tiles():
    volume = Volume(blobs((64, 128, 128))[0])
    bundle = random_bundle(SAME)
    plans = [engine_of(bundle, volume, memory=m).plan() for m in (2**30, 2**24, 2**20)]
    sizes = [np.prod(plan) for plan in plans]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[0] <= CPU_TILE


def test_a_stack_is_clipped_at_the_percentiles_of_the_model():
    image, _ = blobs()
    narrow = random_bundle(SAME)
    ends = {"percentiles": ((20.0, 80.0),)}
    wide = narrow.model_copy(update={"intensity": narrow.intensity.model_copy(update=ends)})
    results = []
    for bundle in (narrow, wide):
        assert bundle.intensity.clip == (((20, 80),) if bundle is wide else ((0.1, 99.9),))
        p = np.zeros((2, *image.shape), np.float32)
        labels, exact = np.zeros(image.shape, np.uint8), PredictionConfig(precision="fp32")
        list(predict(bundle, Volume(image), labels, probabilities=p, config=exact))
        engine = engine_of(bundle, Volume(image))  # normalizes by the percentiles it is given
        expected = engine.predict(0, Box((0, 0, 0), image.shape))
        np.testing.assert_allclose(p, expected, atol=1e-4)
        results.append(p)
    assert abs(results[0] - results[1]).max() > 0.05


def scaled(bundle: ModelBundle, factor: float) -> ModelBundle:
    weights = {n: t * factor if t.is_floating_point() else t for n, t in bundle.weights.items()}
    return bundle.model_copy(update={"weights": weights})


def test_a_given_tile_with_a_map_that_is_too_large_is_refused():
    with pytest.raises(BadInputError, match=r"1024.*too large.*leave the tile shape empty"):
        run(random_bundle(SAME), Volume(blobs()[0]), tile_shape=(1024, 1024, 1024))


def test_the_steps_of_a_box_are_known_before():
    volume = Volume(blobs((13, 52, 60))[0])
    engine = engine_of(with_pixels(random_bundle(SAME)), volume, tile_shape=(16, 32, 32))
    for box in (Box((0, 0, 0), volume.shape), slice_box(volume.shape, SliceRef(1, 3))):
        reported = []
        drain(engine.probabilities(0, box), reported.append)
        assert reported == list(range(1, engine.steps(box) + 1))
        assert len(engine.tiles(box)) < len(reported)


def test_two_engines_of_one_model_do_not_share_their_plans():
    volume = Volume(blobs()[0])
    bundle = random_bundle(SAME)
    first, second = (engine_of(bundle, volume, tile_shape=(16, 40, 48)) for _ in range(2))
    assert first.halve_tile()
    assert first.plan() != (16, 40, 48) == second.plan()
