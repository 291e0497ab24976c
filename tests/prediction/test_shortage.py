"""What a prediction does where memory is short."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bundles import random_bundle
from napari_unet3d.data.boxes import Box, slice_box
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import RunFailedError
from napari_unet3d.events import Notice, PredictionProgress
from napari_unet3d.networks.planning import halve
from napari_unet3d.networks.unet import UNet3D
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.prediction.engine import Engine
from napari_unet3d.prediction.shortage import BoxTooLargeError, MemoryPlan, ShortageError
from napari_unet3d.sampling.source import GIVEN_UP, ResidentSource, resident_bytes
from predictions import CPU, SAME, blobs, engine_of, n_tiles, run, with_pixels


def short_of_memory(monkeypatch, most_voxels: int, error=None) -> list[tuple[int, ...]]:
    """Let the network run out of memory above so many voxels; returns the shapes it ran on."""
    seen = []
    forward = UNet3D.forward

    def limited(self, x):
        if x[0, 0].numel() > most_voxels:
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        seen.append(tuple(x.shape[2:]))
        return forward(self, x)

    monkeypatch.setattr(UNet3D, "forward", limited)
    return seen


@pytest.mark.parametrize(
    "error",
    [
        None,
        MemoryError("cannot allocate"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
    ],
    ids=["torch", "python", "cpu allocator"],
)
def test_out_of_memory_halves_the_tile_and_goes_on(trained, monkeypatch, error):
    volume = Volume(blobs()[0])
    bundle = trained["channel"]
    expected, p, _, _ = run(bundle, volume, tile_shape=(16, 40, 48))
    seen = short_of_memory(monkeypatch, 9_000, error)
    labels, q, _, events = run(bundle, volume, tile_shape=(16, 40, 48))
    notices = [e for e in events if isinstance(e, Notice)]
    assert notices
    assert "16 × 40 × 48" in notices[0].text
    assert "halved" in notices[0].text
    assert max(np.prod(s) for s in seen) <= 9_000
    progress = [e for e in events if isinstance(e, PredictionProgress)]
    assert progress[-1].done == progress[-1].total > 1
    assert np.abs(p - q).mean() < 0.02
    assert (expected == labels).mean() > 0.98


def test_out_of_memory_in_a_later_block_keeps_the_count_right(monkeypatch):
    """Memory that another program takes in the middle of a prediction."""
    volume = Volume(blobs((40, 30, 30))[0])
    calls = []
    forward = UNet3D.forward

    def limited(self, x):
        calls.append(x[0, 0].numel())
        if len(calls) > 6 and calls[-1] > 3_000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x)

    monkeypatch.setattr(UNet3D, "forward", limited)
    _out, p, _, events = run(
        random_bundle(SAME), volume, tile_shape=(16, 16, 16), overlap=0.0, memory=60_000
    )
    at = next(i for i, e in enumerate(events) if isinstance(e, Notice))
    assert at > 3, "the first block was not done yet"
    progress = [e for e in events if isinstance(e, PredictionProgress)]
    assert progress[-1].done == progress[-1].total
    assert all(e.done <= e.total for e in progress)
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-5)


def test_out_of_memory_in_the_pixel_classifier_halves_what_it_judges_at_once(monkeypatch):
    volume = Volume(blobs((32, 64, 64))[0])
    bundle = with_pixels(random_bundle(SAME))
    expected, *_ = run(bundle, volume)
    judge = PixelClassifier.log_probabilities
    seen = []

    def limited(self, read, start, stop, voxel_size):
        seen.append(math.prod(b - a for a, b in zip(start, stop, strict=True)))
        if seen[-1] > 100_000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return judge(self, read, start, stop, voxel_size)

    monkeypatch.setattr(PixelClassifier, "log_probabilities", limited)
    labels, _, _, events = run(bundle, volume)
    assert seen == [131_072, 65_536, 65_536]
    assert not any(isinstance(e, Notice) for e in events), "the tile is as it was"
    assert np.array_equal(labels, expected)


def test_a_shortage_that_passes_does_not_leave_small_tiles(monkeypatch):
    """Another program takes the memory for a moment; the next block has the planned tile."""
    volume = Volume(blobs((140, 24, 24))[0])
    tile = (16, 24, 24)
    settings = {"tile_shape": tile, "overlap": 0.0, "memory": 1_200_000}
    expected, p, _, plain = run(random_bundle(SAME), volume, **settings)
    seen = []
    forward = UNet3D.forward

    def once(self, x):
        seen.append(tuple(x.shape[2:]))
        if len(seen) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x)

    monkeypatch.setattr(UNet3D, "forward", once)
    labels, q, _, events = run(random_bundle(SAME), volume, **settings)
    assert sum(isinstance(e, Notice) for e in events) == 1
    smaller = [n for n, shape in enumerate(seen) if shape != tile]
    assert smaller, "no tile was halved"
    assert len(seen) - smaller[-1] > 3, "it was the last block"
    last = [e for e in events if isinstance(e, PredictionProgress)][-1]
    assert n_tiles(plain) < last.done == last.total
    np.testing.assert_array_equal(q[:, 40:], p[:, 40:])
    assert (labels == expected).mean() > 0.95


def test_a_shortage_that_stays_is_not_run_into_again_and_again(monkeypatch):
    volume = Volume(blobs((160, 16, 16))[0])
    failed = []
    forward = UNet3D.forward

    def limited(self, x):
        if x[0, 0].numel() > 2000:
            failed.append(tuple(x.shape[2:]))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x)

    monkeypatch.setattr(UNet3D, "forward", limited)
    settings = {"tile_shape": (16, 16, 16), "overlap": 0.0, "memory": 500_000}
    _, p, _, events = run(random_bundle(SAME), volume, **settings)
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-5)
    first = [n for n, shape in enumerate(failed) if shape == (16, 16, 16)]
    assert len(first) == 4  # once, and three times to see whether it has passed
    notices = [e.text for e in events if isinstance(e, Notice)]
    assert [("halved" in text, "as before" in text) for text in notices[-3:]] == [(False, True)] * 3


def short_of_zeros(monkeypatch, most: int, kind: str = "cpu") -> list[tuple[int, ...]]:
    """Let the sums of blocks run out of memory above so many values; returns their shapes."""
    made = []
    zeros = torch.zeros

    def limited(*size, **more):
        shape = size[0] if isinstance(size[0], tuple) else size
        place = torch.device(more.get("device", "cpu")).type
        if len(shape) >= 3 and place == kind and math.prod(shape) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        made.append(shape if len(shape) >= 3 else (0,))
        return zeros(*size, **more)

    monkeypatch.setattr(torch, "zeros", limited)
    return made


def test_out_of_memory_in_the_sum_halves_the_block_and_not_the_tile(trained, monkeypatch):
    volume = Volume(blobs((40, 40, 48))[0])
    bundle = trained["channel"]
    expected, p, _, _ = run(bundle, volume, tile_shape=(16, 40, 48))
    tiles = short_of_memory(monkeypatch, 16 * 40 * 48)
    made = short_of_zeros(monkeypatch, 2 * 12 * 40 * 48)
    labels, q, _, events = run(bundle, volume, tile_shape=(16, 40, 48))
    assert set(tiles) == {(16, 40, 48)}
    assert max(map(math.prod, made)) <= 2 * 12 * 40 * 48
    notices = [e.text for e in events if isinstance(e, Notice)]
    assert "result of 40 × 40 × 48" in notices[0]
    assert "halves" in notices[0]
    assert not any("tile" in text for text in notices)
    progress = [e for e in events if isinstance(e, PredictionProgress)]
    assert progress[-1].done == progress[-1].total
    assert all(e.done <= e.total for e in progress)
    assert np.abs(p - q).mean() < 0.005
    assert (expected == labels).mean() > 0.99


def test_a_sum_that_stays_too_large_is_not_tried_for_every_block(monkeypatch):
    volume = Volume(blobs((160, 16, 16))[0])
    short_of_zeros(monkeypatch, 2 * 16 * 16 * 10)
    settings = {"tile_shape": (16, 16, 16), "overlap": 0.0, "memory": 500_000}
    _, p, _, events = run(random_bundle(SAME), volume, **settings)
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-5)
    assert n_tiles(events) >= 2 * 10, "fewer than ten blocks, or not all were halved"
    assert sum(isinstance(e, Notice) for e in events) == 4  # once, and three times again


def test_a_sum_that_never_fits_is_not_blamed_on_the_tile(monkeypatch):
    bundle, volume = random_bundle(SAME), Volume(blobs((4, 12, 12))[0])
    short_of_zeros(monkeypatch, 0)
    with pytest.raises(RunFailedError, match="out of memory: not even the result") as caught:
        run(bundle, volume)
    assert "tile" not in str(caught.value)


def test_a_box_without_progress_is_predicted_in_halves_too(trained, monkeypatch):
    image = blobs((16, 40, 48))[0]
    engine = engine_of(trained["channel"], Volume(image), tile_shape=(16, 40, 48))
    box = slice_box(image.shape, SliceRef(0, 7))
    expected = engine.predict(0, box)
    short_of_zeros(monkeypatch, 2 * 40 * 24)
    np.testing.assert_allclose(engine.predict(0, box), expected, atol=1e-5)


def test_the_sum_of_a_full_gpu_is_kept_in_the_main_memory(trained, monkeypatch):
    """The sum is to lie on a GPU that never has room for it."""
    volume = Volume(blobs((16, 40, 48))[0])
    engine = engine_of(
        trained["channel"], volume, tile_shape=(16, 40, 48), sum_device=torch.device("cuda")
    )
    short_of_zeros(monkeypatch, 0, "cuda")
    steps = engine.probabilities(0, slice_box(volume.shape, SliceRef(0, 7)))
    first = next(steps)
    assert isinstance(first, Notice)
    assert "main memory" in first.text
    assert next(steps) == 1
    with pytest.raises(StopIteration) as end:
        next(steps)
    probabilities = end.value.value
    assert probabilities.device == CPU
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    assert engine.plan() == (16, 40, 48)


@pytest.mark.parametrize(("place", "held"), [("tile", False), ("sum", True)])
def test_an_image_that_is_kept_on_the_device_makes_way_for_the_network(
    trained, monkeypatch, place, held
):
    """Before the tile is halved; not where the main memory is short, which this cannot help."""
    volume = Volume(blobs((16, 40, 48))[0])
    engine = engine_of(trained["channel"], volume, tile_shape=(16, 40, 48))
    resident = ResidentSource(volume, engine.source.intensity, CPU, resident_bytes(volume))
    engine = Engine(engine.mixture, resident, "fp32", tile_shape=(16, 40, 48))
    box = slice_box(volume.shape, SliceRef(0, 7))
    expected = engine.predict(0, box)
    if place == "tile":
        forward, failures = UNet3D.forward, [torch.OutOfMemoryError("CUDA out of memory")]

        def short_once(self, x):
            if failures:
                raise failures.pop()
            return forward(self, x)

        monkeypatch.setattr(UNet3D, "forward", short_once)
        steps = engine.probabilities(0, box)
        assert next(steps) == Notice(GIVEN_UP)
        assert next(steps) == 1
    else:
        short_of_zeros(monkeypatch, 0)
        with pytest.raises(BoxTooLargeError):
            list(engine.probabilities(0, box))
        monkeypatch.undo()
    assert resident.give_up() == held
    assert engine.plan() == (16, 40, 48)
    np.testing.assert_array_equal(engine.predict(0, box), expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_a_real_gpu_that_is_full_gives_the_same(trained, monkeypatch):
    volume = Volume(blobs((30, 40, 48))[0])
    settings = {"device": "cuda", "tile_shape": (16, 40, 48)}
    expected, p, _, _ = run(trained["channel"], volume, **settings)
    short_of_zeros(monkeypatch, 0, "cuda")
    labels, q, _, events = run(trained["channel"], volume, **settings)
    assert any("main memory" in e.text for e in events if isinstance(e, Notice))
    np.testing.assert_allclose(p, q, atol=1e-5)
    assert (labels == expected).mean() > 0.999


def test_a_pixel_classifier_that_never_fits_is_not_blamed_on_the_tile(monkeypatch):
    bundle = with_pixels(random_bundle(SAME))

    def short(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PixelClassifier, "log_probabilities", short)
    with pytest.raises(RunFailedError, match="out of memory: the features of the pixel") as caught:
        run(bundle, Volume(blobs((16, 32, 32))[0]))
    assert "tile" not in str(caught.value)


def test_memory_that_never_suffices_is_a_clear_failure(monkeypatch):
    short_of_memory(monkeypatch, 0)
    with pytest.raises(RunFailedError, match=r"out of memory.*(close|smaller)"):
        run(random_bundle(SAME), Volume(blobs((4, 12, 12))[0]))


# --- the plan alone ---------------------------------------------------------------------------

TILE = (16, 32, 32)
BOX = Box((0, 0, 0), (16, 40, 48))


def plan_on(device: str) -> MemoryPlan:
    return MemoryPlan(SAME, TILE, torch.device(device))


def test_the_network_gets_half_of_the_tile_down_to_the_smallest():
    plan = plan_on("cpu")
    tiles = [plan.tile]
    with pytest.raises(RunFailedError, match=r"even a tile of .* does not fit"):
        while True:
            text = plan.answer(ShortageError("tile", "CUDA out of memory"), BOX)
            tiles.append(plan.tile)
            assert "halved" in text
    sizes = [math.prod(tile) for tile in tiles]
    assert sizes == sorted(set(sizes), reverse=True)
    assert halve(SAME, tiles[-1]) is None


def test_where_no_tile_is_small_enough_the_sum_leaves_the_gpu_and_the_tile_is_as_planned():
    plan = plan_on("cuda")
    while plan.sum_device.type == "cuda":
        text = plan.answer(ShortageError("tile", "CUDA out of memory"), BOX)
    assert "main memory" in text
    assert plan.tile == TILE


def test_a_plan_that_failed_is_tried_again_for_the_next_boxes_only_a_few_times():
    plan = plan_on("cpu")
    tried = []
    for _ in range(6):
        plan.recover()
        tried.append(plan.tile == TILE)
        if plan.tile == TILE:
            plan.answer(ShortageError("tile", "CUDA out of memory"), BOX)
    assert tried == [True] * 4 + [False] * 2  # once, and three times again


def test_a_box_that_fits_gives_the_tries_back():
    plan = plan_on("cpu")
    for _ in range(6):
        plan.recover()
        plan.answer(ShortageError("tile", "CUDA out of memory"), BOX)
        plan.recover()  # the box after it is not short of memory
        assert plan.tile == TILE


def test_the_box_whose_sum_does_not_fit_is_halved_until_memory_recovers():
    plan = plan_on("cpu")
    with pytest.raises(BoxTooLargeError, match="out of memory"):
        plan.answer(ShortageError("sum", "CUDA out of memory"), BOX)
    assert plan.box_voxels == 16 * 40 * 24
    plan.recover()
    assert plan.box_voxels == math.inf


def test_a_tile_that_is_halved_for_good_stays_so():
    plan = plan_on("cpu")
    assert plan.halve_tile()
    halved = plan.tile
    plan.answer(ShortageError("tile", "CUDA out of memory"), BOX)
    plan.recover()
    assert plan.tile == halved != TILE
