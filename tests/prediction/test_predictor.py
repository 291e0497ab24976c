"""Prediction: any array in, any array out, tiled as if it were not."""

from __future__ import annotations

import gc
import os
import threading
import weakref

import numpy as np
import pytest
import tifffile
import torch
import zarr

from bundles import random_bundle
from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.boxes import Box
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import Notice, PredictionProgress, drain
from napari_unet3d.model.mixture import Mixture
from napari_unet3d.networks import quantizing
from napari_unet3d.networks.geometry import (
    next_fitting,
    output_shape,
    shrink,
    total_stride,
)
from napari_unet3d.networks.unet import UNet3D
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.prediction.stack_plan import TileRules
from predictions import PAPER_LIKE, SAME, VALID, blobs, n_tiles, run


@pytest.mark.parametrize("normalization", ["batch", "channel"])
def test_tiled_equals_untiled(trained, normalization, device):
    """Mean difference of the probabilities below 0.01, and 99 % of the labels the same.

    Not exact: zero padding reaches as far as the receptive field into each tile. Without
    overlap it is several times worse, which is what the overlap is for.
    """
    image, truth = blobs((13, 52, 60))
    volume = Volume(image)
    whole, p, _, events = run(
        trained[normalization], volume, device=str(device), tile_shape=(16, 52, 60)
    )
    assert n_tiles(events) == 1
    tiled, q, _, events = run(
        trained[normalization], volume, device=str(device), tile_shape=(16, 32, 32)
    )
    assert n_tiles(events) >= 4
    assert np.abs(p - q).mean() < 0.01
    assert (whole == tiled).mean() > 0.99
    assert (whole == truth).mean() > 0.8, "the network has learned too little to compare"

    _, seams, _, _ = run(
        trained[normalization], volume, device=str(device), tile_shape=(16, 32, 32), overlap=0.0
    )
    assert np.abs(p - seams).mean() > 1.5 * np.abs(p - q).mean()


def test_borders_of_tiles_and_blocks_are_not_seen(trained):
    """Across a border, probabilities change by no more than elsewhere."""
    shape, tile = (32, 96, 96), (16, 48, 48)
    volume, network = Volume(blobs(shape)[0]), trained["channel"].network

    def jump(overlap: float, memory: int | None = None) -> float:
        _, p, _, _ = run(
            trained["channel"], volume, tile_shape=tile, overlap=overlap, memory=memory
        )
        least = int(np.prod(output_shape(network, tile)))
        rules = TileRules(network, shape, overlap)
        whole = Box((0, 0, 0), shape)
        layout = rules.plan((1, 1, 1), 0, least, tile) if memory else None
        blocks = layout.blocks if layout else [whole]
        borders = {c.start[1] for b in blocks for c in rules.tiles(b, tile).cores} - {0}
        assert borders
        jumps = np.abs(np.diff(p, axis=2)).mean((0, 1, 3))
        at = [y - 1 for y in borders]
        return jumps[at].mean() / np.delete(jumps, at).mean()

    assert jump(0.25) < 1.4
    assert jump(0.25, memory=100_000) < 1.4
    assert jump(0.0) > 2, "without an overlap they are seen"


@pytest.mark.parametrize("normalization", ["batch", "channel"])
@pytest.mark.parametrize("size", [12, 20])
def test_unpadded_tiles_are_exact(normalization, size):
    """An unpadded output depends on nothing that a tile cuts off: only rounding differs.

    Tiles must start at multiples of the stride for that, whatever their output's size.
    """
    config = PAPER_LIKE.model_copy(update={"normalization": normalization})
    bundle = random_bundle(config)
    rng = np.random.default_rng(0)
    volume = Volume(rng.normal(size=(3, 30, 33)).astype(np.float32))
    lost = shrink(config)
    whole_tile, small_tile = (
        next_fitting(config, tuple(n + m for n, m in zip(shape, lost, strict=True)))
        for shape in (volume.shape, (2, size, size))
    )
    whole, p, _, events = run(bundle, volume, tile_shape=whole_tile)
    assert n_tiles(events) == 1
    assert any(
        n % s for n, s in zip(output_shape(config, small_tile), total_stride(config), strict=True)
    )
    tiled, q, _, events = run(bundle, volume, tile_shape=small_tile)
    assert n_tiles(events) > 4
    np.testing.assert_allclose(p, q, atol=1e-4)
    assert (whole == tiled).mean() > 0.999


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "prediction failed: CUDA out of memory"),
        (MemoryError(), "prediction failed: out of memory"),
    ],
    ids=["GPU", "main memory"],
)
def test_a_model_that_does_not_fit_is_a_failure_in_words(monkeypatch, error, text):
    """Another program may have taken the GPU's memory: not even the weights fit."""

    def full(self, *args, **kwargs):
        raise error

    monkeypatch.setattr(Mixture, "to", full)
    volume = Volume(blobs()[0])
    with pytest.raises(RunFailedError, match=text):
        list(predict(random_bundle(SAME), volume, np.zeros(volume.shape, np.uint8)))


def test_tile_statistics_depend_on_the_tiling():
    """Why 'tile' and 'instance' promise less: the same network says something else."""
    bundle = random_bundle(SAME.model_copy(update={"normalization": "tile"}))
    image = blobs()[0]
    image[:, :10] += 200
    _, p, _, _ = run(bundle, Volume(image), tile_shape=(16, 40, 48))
    _, q, _, _ = run(bundle, Volume(image), tile_shape=(12, 24, 24))
    assert np.abs(p - q).mean() > 0.02


@pytest.mark.parametrize(
    ("config", "tile"),
    [(SAME, None), (SAME, (4, 12, 16)), (VALID, None), (VALID, (28, 60, 60))],
    ids=["same", "same-given", "valid", "valid-given"],
)
@pytest.mark.parametrize("shape", [(2, 3, 5), (3, 40, 41), (31, 7, 9), (17, 33, 29)], ids=str)
def test_any_size(config, tile, shape, device):
    """Odd, and thinner than a tile: all voxels get probabilities."""
    rng = np.random.default_rng(0)
    volume = Volume(rng.normal(size=shape).astype(np.float32))
    tile = None if tile is None else next_fitting(config, tile)
    out, p, u, _ = run(random_bundle(config), volume, device=str(device), tile_shape=tile)
    assert out.shape == shape
    assert set(np.unique(out)) <= {0, 2}
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-5)
    assert u.min() >= 0
    assert u.max() <= 1


def test_channels(device):
    config = SAME.model_copy(update={"in_channels": 2})
    bundle = random_bundle(config)
    image = np.stack([blobs(seed=s)[0] for s in (0, 1)])
    out, p, _, _ = run(bundle, Volume(image, "CZYX"), device=str(device))
    assert out.shape == image.shape[1:]
    _, swapped, _, _ = run(bundle, Volume(image[::-1].copy(), "CZYX"), device=str(device))
    assert np.abs(p - swapped).max() > 0.01


@pytest.mark.parametrize("axes", ["TZYX", "TCZYX"])
def test_time_points_are_predicted_one_by_one(axes):
    """All are normalized alike, so a series with one time point more may differ a little."""
    bundle = random_bundle(SAME)
    frames = np.stack([blobs((6, 20, 22), seed=s)[0] for s in range(3)])
    volume = Volume(frames if axes == "TZYX" else frames[:, None], axes)
    out, p, _, events = run(bundle, volume)
    assert out.shape == frames.shape
    assert p.shape == (3, 2, 6, 20, 22)
    assert n_tiles(events) == 3
    assert not np.array_equal(p[0], p[1])

    some, q, u, _ = run(bundle, volume, times=[2])
    np.testing.assert_array_equal(some[2], out[2])
    np.testing.assert_array_equal(q[2], p[2])
    assert not some[:2].any()
    assert np.isnan(q[:2]).all()
    assert np.isnan(u[:2]).all()


def test_a_time_point_that_is_named_twice_is_predicted_once():
    volume = Volume(np.stack([blobs((6, 20, 22), seed=s)[0] for s in range(3)]), "TZYX")
    _, _, _, events = run(random_bundle(SAME), volume, times=[2, 0, 2])
    assert [e.done for e in events] == [1, 2]
    assert {e.total for e in events} == {2}


def test_an_output_that_is_none_is_not_made():
    volume = Volume(blobs((4, 16, 16))[0])
    out = np.zeros(volume.shape, np.uint8)
    steps = predict(random_bundle(SAME), volume, out, probabilities=None, uncertainty=None)
    assert len(list(steps)) == 1
    with pytest.raises(BadInputError, match="give an array for the labels"):
        predict(random_bundle(SAME), volume, None)
    with pytest.raises(BadInputError, match="'objects' is not an output"):
        predict(random_bundle(SAME), volume, out, objects=None)


def test_other_time_points_are_left_alone():
    bundle = random_bundle(SAME)
    volume = Volume(np.stack([blobs((6, 20, 22), seed=s)[0] for s in range(3)]), "TZYX")
    out = np.full(volume.data.shape, 99, np.uint16)
    list(predict(bundle, volume, out, times=[0, 2], config=PredictionConfig(device="cpu")))
    assert (out[1] == 99).all()
    assert not (out[[0, 2]] == 99).any()


@pytest.mark.parametrize("kind", ["zarr", "memmap", "dask"])
def test_images_that_are_not_in_memory(kind, tmp_path):
    image = blobs()[0]
    if kind == "zarr":
        data = zarr.array(image, chunks=(4, 16, 16))
    elif kind == "memmap":
        data = np.memmap(tmp_path / "image", np.float32, "w+", shape=image.shape)
        data[:] = image
    else:
        data = pytest.importorskip("dask.array").from_array(image, chunks=(5, 16, 16))
    bundle = random_bundle(SAME)
    expected, p, _, _ = run(bundle, Volume(image), tile_shape=(12, 24, 24))
    labels, q, _, _ = run(bundle, Volume(data), tile_shape=(12, 24, 24))
    np.testing.assert_allclose(p, q, atol=1e-5)
    assert (expected == labels).mean() > 0.999


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "int64"])
@pytest.mark.parametrize("kind", ["zarr", "memmap"])
def test_outputs_that_are_not_in_memory(kind, dtype, tmp_path):
    image = blobs((6, 20, 22))[0]
    bundle = random_bundle(SAME)
    expected, *_ = run(bundle, Volume(image))
    if kind == "zarr":
        out = zarr.create_array(
            tmp_path / "out.zarr", shape=image.shape, chunks=(4, 8, 8), dtype=dtype
        )
    else:
        out = np.memmap(tmp_path / "out", dtype, "w+", shape=image.shape)
    config = PredictionConfig(device="cpu", precision="fp32")
    list(predict(bundle, Volume(image), out, config=config))
    np.testing.assert_array_equal(out[...], expected)


def test_integer_and_float_images_give_the_same():
    image = blobs()[0].clip(0).round()
    bundle = random_bundle(SAME)
    _a, p, _, _ = run(bundle, Volume(image))
    _b, q, _, _ = run(bundle, Volume(image.astype(np.uint16)))
    np.testing.assert_allclose(p, q, atol=1e-5)


def test_closing_the_generator_cancels_and_frees():
    volume = Volume(blobs()[0])
    out = np.zeros(volume.shape, np.uint8)
    threads = set(threading.enumerate())
    others = {id(o) for o in gc.get_objects() if type(o) is UNet3D}
    steps = predict(
        random_bundle(SAME),
        volume,
        out,
        config=PredictionConfig(device="cpu", tile_shape=(8, 16, 16)),
    )
    first = next(steps)
    assert first.done < first.total
    networks = [
        weakref.ref(o) for o in gc.get_objects() if type(o) is UNet3D and id(o) not in others
    ]
    assert len(networks) == 1
    steps.close()
    gc.collect()
    assert networks[0]() is None
    assert set(threading.enumerate()) == threads
    assert not out.any(), "a block that is not done was written"


def test_runtime_errors_do_not_leave_as_such(monkeypatch):
    """superqt's workers swallow RuntimeErrors: the user would wait for ever."""

    def broken(self, x):
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(UNet3D, "forward", broken)
    with pytest.raises(RunFailedError, match="could not create a primitive"):
        run(random_bundle(SAME), Volume(blobs()[0]))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"out": np.zeros((4, 16, 15), np.uint8)}, r"4, 16, 15.*4, 16, 16"),
        ({"out": np.zeros((4, 16, 16), np.float32)}, r"float32.*integer"),
        ({"out": np.zeros((4, 16, 16), bool)}, r"bool.*integer"),
        ({"out": np.zeros((4, 16, 16), np.int8)}, r"int8.*holds 200"),
        ({"probabilities": np.zeros((3, 4, 16, 16), np.float32)}, r"probabilities"),
        ({"probabilities": np.zeros((2, 4, 16, 16), np.uint8)}, r"probabilities.*uint8"),
        ({"uncertainty": np.zeros((16, 16), np.float32)}, r"uncertainty"),
        ({"uncertainty": np.zeros((4, 16, 16), np.uint8)}, r"uncertainty.*uint8"),
        ({"times": [1]}, r"time point 1"),
        ({"times": [-1]}, r"time point -1"),
        ({"config": PredictionConfig(tile_shape=(8, 16, 15))}, r"15.*leave the tile shape empty"),
        ({"config": PredictionConfig(tile_shape=(8, 0, 16))}, r"too small"),
        ({"config": PredictionConfig(device="cuda:7")}, r"cuda:7.*(auto|cpu)"),
        ({"config": PredictionConfig(device="cpu", precision="fp16")}, r"fp16"),
        ({"volume": Volume(np.zeros((16, 16)))}, r"2D"),
        ({"volume": Volume(np.zeros((4, 16, 16)))}, r"same value"),
        ({"volume": Volume(blobs((2, 4, 16, 16))[0], "CZYX")}, r"2 channel.*1"),
        ({"volume": Volume(blobs((4, 16, 16))[0], voxel_size=(0, 1, 1))}, r"voxel size"),
    ],
)  # fmt: skip
def test_bad_input_says_what_and_how(change, text):
    image = blobs((4, 16, 16))[0]
    given = {"volume": Volume(image), "out": np.full(image.shape, 9, np.uint8)} | change
    bundle = random_bundle(SAME, values=(200,))
    with pytest.raises(BadInputError, match=text):
        next(predict(bundle, given.pop("volume"), given.pop("out"), **given))


def test_where_integers_would_change_the_result_fp32_is_used(monkeypatch):
    monkeypatch.setattr(quantizing, "_LEAST_AGREEMENT", 1.01)
    image, _ = blobs()
    bundle, found, notes = random_bundle(SAME), {}, []
    for precision in ("fp32", "int8"):
        found[precision] = np.zeros(image.shape, np.uint8)
        config = PredictionConfig(device="cpu", precision=precision)
        steps = predict(bundle, Volume(image), found[precision], config=config)
        drain(steps, lambda event: notes.append(getattr(event, "text", "")))
    assert np.array_equal(found["int8"], found["fp32"])
    (note,) = [n for n in notes if "int8" in n]
    assert note.startswith("int8 does not apply: its classes would have a mean IoU of only")
    assert note.endswith("The segmentation is computed in fp32.")


@pytest.mark.parametrize("kind", ["tif", "zarr"])
def test_a_file_that_is_damaged_while_it_is_read_is_named(tmp_path, kind):
    image = np.arange(24 * 40 * 44, dtype=np.uint16).reshape(24, 40, 44)
    path = tmp_path / f"stack.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, image)
    else:
        zarr.create_array(str(path), data=image, chunks=(8, 40, 44), zarr_format=2)
    volume = read_volume(path)
    out = np.zeros(image.shape, np.uint8)
    steps = predict(random_bundle(SAME), volume, out, config=PredictionConfig(memory=2**17))
    assert isinstance(next(steps), PredictionProgress | Notice)
    if kind == "tif":
        os.truncate(path, 20_000)
    else:
        for chunk in path.glob("?.0.0"):
            chunk.write_bytes(b"abc")
    with pytest.raises(RunFailedError, match=rf"stack\.{kind}' can"):
        list(steps)
