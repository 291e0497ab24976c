"""Prediction: any array in, any array out, tiled as if it were not."""

from __future__ import annotations

import gc
import itertools
import math
import os
import threading
import weakref
from collections import Counter

import numpy as np
import pytest
import tifffile
import torch
import zarr
from scipy.ndimage import gaussian_filter

from bundles import random_bundle
from napari_unet3d.config import PredictionConfig, TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.boxes import Box, slice_box
from napari_unet3d.data.intensity import IntensityNormalization
from napari_unet3d.data.io.reading import read_volume
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import Notice, PredictionProgress
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.mixture import Calibration
from napari_unet3d.networks.geometry import (
    largest_map,
    next_fitting,
    output_shape,
    shrink,
    total_stride,
)
from napari_unet3d.networks.unet import UNet3D, UNetConfig
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.prediction import predictor as predictor_module
from napari_unet3d.prediction.predictor import NotFiniteError, Predictor, label_table, predict
from napari_unet3d.training.trainer import Trainer

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


pytestmark = pytest.mark.usefixtures("quick_garbage_collection")


@pytest.fixture(scope="module")
def trained() -> dict[str, ModelBundle]:
    """A briefly trained model for each normalization that promises the same in every tiling."""
    image, truth = blobs()
    labels = np.zeros_like(truth)
    for z in (2, 7):
        labels[z] = np.maximum(truth[z], 1)
    found = {}
    config = TrainingConfig(
        iterations=25,
        device="cpu",
        patch_shape=(8, 32, 32),
        precision="fp32",
        learning_rate=5e-3,
        pixel_classifier=False,
    )
    for normalization in ("batch", "channel"):
        # From a small network, to be quick.
        small = random_bundle(SAME.model_copy(update={"normalization": normalization}))
        annotation = SparseAnnotation.from_labels(labels)
        steps = Trainer(Volume(image), annotation, config, start_from=small).run()
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found[normalization] = end.value
                break
    return found


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


# --- tiled and untiled ----------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["batch", "channel"])
def test_tiled_equals_untiled(trained, normalization):
    """Mean difference of the probabilities below 0.01, and 99 % of the labels the same.

    Not exact: zero padding reaches as far as the receptive field into each tile. Without
    overlap it is several times worse, which is what the overlap is for.
    """
    image, truth = blobs((13, 52, 60))
    volume = Volume(image)
    whole, p, _, events = run(trained[normalization], volume, tile_shape=(16, 52, 60))
    assert n_tiles(events) == 1
    tiled, q, _, events = run(trained[normalization], volume, tile_shape=(16, 32, 32))
    assert n_tiles(events) >= 4
    assert np.abs(p - q).mean() < 0.01
    assert (whole == tiled).mean() > 0.99
    assert (whole == truth).mean() > 0.8, "the network has learned too little to compare"

    _, seams, _, _ = run(trained[normalization], volume, tile_shape=(16, 32, 32), overlap=0.0)
    assert np.abs(p - seams).mean() > 1.5 * np.abs(p - q).mean()


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


def test_block_by_block_equals_at_once(trained):
    """With little memory the stack is predicted block by block; the tiles are the same."""
    volume = Volume(blobs((30, 38, 20))[0])
    tile = (12, 24, 24)
    at_once, p, u, _ = run(trained["channel"], volume, tile_shape=tile)
    in_blocks, q, v, events = run(trained["channel"], volume, tile_shape=tile, memory=100_000)
    _, _, _, plain = run(trained["channel"], volume, tile_shape=tile)
    assert n_tiles(events) > n_tiles(plain), "it was one block"
    assert np.abs(p - q).max() < 0.2
    assert np.abs(p - q).mean() < 0.005
    assert np.abs(u - v).mean() < 0.01
    assert (at_once == in_blocks).mean() > 0.99


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

    monkeypatch.setattr(UNet3D, "to", full)
    volume = Volume(blobs()[0])
    with pytest.raises(RunFailedError, match=text):
        list(predict(random_bundle(SAME), volume, np.zeros(volume.shape, np.uint8)))


@pytest.mark.parametrize("depth", (37, 41, 44, 46, 47, 49))
def test_every_voxel_is_predicted_whatever_the_blocks(depth):
    """Probabilities that add up to 0 betray a voxel that no tile reached."""
    rng = np.random.default_rng(0)
    volume = Volume(rng.normal(size=(depth, 17, 19)).astype(np.float32))
    _, p, _, events = run(random_bundle(SAME), volume, tile_shape=(16, 16, 16), memory=40_000)
    assert n_tiles(events) > 6
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-5)


def test_tile_statistics_depend_on_the_tiling():
    """Why 'tile' and 'instance' promise less: the same network says something else."""
    bundle = random_bundle(SAME.model_copy(update={"normalization": "tile"}))
    image = blobs()[0]
    image[:, :10] += 200
    _, p, _, _ = run(bundle, Volume(image), tile_shape=(16, 40, 48))
    _, q, _, _ = run(bundle, Volume(image), tile_shape=(12, 24, 24))
    assert np.abs(p - q).mean() > 0.02


# --- chunks ---------------------------------------------------------------------------------


class ChunkedArray:
    """An output in chunks; notes which of them each assignment touches."""

    def __init__(self, shape, chunks, dtype=np.uint8, **more):
        self.data = np.zeros(shape, dtype)
        self.shape, self.dtype, self.chunks = shape, np.dtype(dtype), chunks
        self.touched: list[set[tuple[int, ...]]] = []
        vars(self).update(more)

    def __setitem__(self, key, value):
        self.data[key] = value
        where = [
            range(*k.indices(n)) if isinstance(k, slice) else range(k, k + 1)
            for k, n in zip(key, self.shape, strict=True)
        ]
        unit = getattr(self, "shards", None) or self.chunks
        places = [range(r.start // c, -(-r.stop // c)) for r, c in zip(where, unit, strict=True)]
        self.touched.append(set(itertools.product(*places)))

    def writes(self) -> dict[tuple[int, ...], int]:
        """How often each chunk was written."""
        return Counter(itertools.chain.from_iterable(self.touched))


IN_CHUNKS = {"tile_shape": (8, 16, 16), "overlap": 0.0, "device": "cpu", "precision": "fp32"}


def predict_in_chunks(volume, memory, out, **more):
    config = PredictionConfig(memory=memory, **IN_CHUNKS)
    list(predict(random_bundle(SAME), volume, out, config=config, **more))


def noting(shape) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """An output in the memory, and where the writing to it began each time."""
    starts = []

    class Noting(np.ndarray):
        def __setitem__(self, key, value):
            starts.append(tuple(k.start for k in key))
            super().__setitem__(key, value)

    return np.zeros(shape, np.uint8).view(Noting), starts


def test_without_chunks_blocks_are_cut_elsewhere():
    """What the next tests rely on."""
    volume = Volume(blobs((21, 50, 45))[0])
    out, starts = noting(volume.shape)
    predict_in_chunks(volume, 1_000_000, out)
    assert any(z % 8 or y % 24 or x % 24 for z, y, x in starts)


def test_no_chunk_is_written_twice():
    volume = Volume(blobs((21, 50, 45))[0])
    _, p, _, _ = run(random_bundle(SAME), volume, **IN_CHUNKS)
    out = ChunkedArray(volume.shape, (8, 24, 24))
    more = ChunkedArray((2, *volume.shape), (1, 8, 24, 24), np.float32)
    predict_in_chunks(volume, 1_000_000, out, probabilities=more)
    for array in (out, more):
        assert len(array.touched) > 4, "it was one block"
        every = [range(-(-n // c)) for n, c in zip(array.shape, array.chunks, strict=True)]
        assert array.writes() == dict.fromkeys(itertools.product(*every), 1)
    np.testing.assert_allclose(more.data.sum(0), 1, atol=1e-5)
    assert np.abs(p - more.data).mean() < 0.01


def test_shards_count_as_what_is_written_at_once():
    volume = Volume(blobs((21, 50, 45))[0])
    out = ChunkedArray(volume.shape, (4, 8, 8), shards=(8, 24, 24))
    predict_in_chunks(volume, 1_000_000, out)
    assert len(out.touched) > 1
    assert set(out.writes().values()) == {1}


def test_chunks_that_do_not_fit_are_finished_one_after_the_other():
    volume = Volume(blobs((20, 40, 32))[0])
    out = ChunkedArray(volume.shape, (10, 40, 32))
    predict_in_chunks(volume, 1_000_000, out)
    assert min(out.writes().values()) > 1, "a chunk fitted"
    assert {len(touched) for touched in out.touched} == {1}, "one write touched two chunks"
    order = [chunk for touched in out.touched for chunk in touched]
    assert [chunk for chunk, _ in itertools.groupby(order)] == [(0, 0, 0), (1, 0, 0)]


def test_blocks_follow_the_image_s_chunks_where_the_output_has_none():
    image = blobs((21, 50, 45))[0]
    chunked = zarr.array(image, chunks=(8, 24, 24))
    memory = 600_000
    assert image.nbytes > memory // 4, "it would be read into the memory"
    out, starts = noting(image.shape)
    predict_in_chunks(Volume(chunked), memory, out)
    assert len(starts) > 4
    assert all(z % 8 == y % 24 == x % 24 == 0 for z, y, x in starts)


# --- probabilities that are no numbers --------------------------------------------------------


def scaled(bundle: ModelBundle, factor: float) -> ModelBundle:
    weights = {n: t * factor if t.is_floating_point() else t for n, t in bundle.weights.items()}
    return bundle.model_copy(update={"weights": weights})


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
    found, q, _, events = run(bundle, volume, precision="bf16")
    (notice,) = [e for e in events if isinstance(e, Notice)]
    assert "bf16" in notice.text
    assert "fp32" in notice.text
    np.testing.assert_array_equal(q, p)
    np.testing.assert_array_equal(found, expected)


# --- sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "tile"),
    [(SAME, None), (SAME, (4, 12, 16)), (VALID, None), (VALID, (28, 60, 60))],
    ids=["same", "same-given", "valid", "valid-given"],
)
@pytest.mark.parametrize("shape", [(2, 3, 5), (3, 40, 41), (31, 7, 9), (17, 33, 29)], ids=str)
def test_any_size(config, tile, shape):
    """Odd, and thinner than a tile: all voxels get probabilities."""
    rng = np.random.default_rng(0)
    volume = Volume(rng.normal(size=shape).astype(np.float32))
    tile = None if tile is None else next_fitting(config, tile)
    out, p, u, _ = run(random_bundle(config), volume, tile_shape=tile)
    assert out.shape == shape
    assert set(np.unique(out)) <= {0, 2}
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-5)
    assert u.min() >= 0
    assert u.max() <= 1


def test_uncertainty_is_0_where_sure_and_1_where_undecided():
    bundle = random_bundle(SAME)
    weights = dict(bundle.weights)
    weights["head.weight"] = torch.zeros_like(weights["head.weight"])
    volume = Volume(blobs((4, 16, 16))[0])
    for bias, expected in ((0.0, 1.0), (30.0, 0.0)):
        weights["head.bias"] = torch.tensor([bias, 0.0])
        _, _, u, _ = run(bundle.model_copy(update={"weights": weights}), volume)
        np.testing.assert_allclose(u, expected, atol=1e-5)


def test_labels_are_the_most_probable_class_by_its_own_number():
    config = SAME.model_copy(update={"n_classes": 4})
    bundle = random_bundle(config, values=(7, 2, 200))
    volume = Volume(blobs((6, 20, 20))[0])
    out, p, _, _ = run(bundle, volume)
    assert label_table(bundle.classes).tolist() == [0, 7, 2, 200]
    np.testing.assert_array_equal(out, np.array([0, 7, 2, 200])[p.argmax(0)])
    assert len(np.unique(out)) > 1


def test_a_class_may_have_another_number_in_the_segmentation():
    config = SAME.model_copy(update={"n_classes": 3})
    bundle = random_bundle(config, values=(2, 3))
    volume = Volume(blobs((6, 20, 20))[0])
    plain, p, _, _ = run(bundle, volume)
    assert {2, 3} & set(np.unique(plain))
    classes = [
        c.model_copy(update={"output": n}) for c, n in zip(bundle.classes, (1, 200), strict=True)
    ]
    dense = bundle.model_copy(update={"classes": tuple(classes)})
    out, _, _, _ = run(dense, volume)
    np.testing.assert_array_equal(out, np.array([0, 1, 200])[p.argmax(0)])
    assert label_table(classes).tolist() == [0, 2, 3], "scores of a training use the annotation's"
    with pytest.raises(BadInputError, match="holds 200"):
        predict(dense, volume, np.zeros(volume.shape, np.int8))


# --- arrays in and out ----------------------------------------------------------------------


def test_channels():
    config = SAME.model_copy(update={"in_channels": 2})
    bundle = random_bundle(config)
    image = np.stack([blobs(seed=s)[0] for s in (0, 1)])
    out, p, _, _ = run(bundle, Volume(image, "CZYX"))
    assert out.shape == image.shape[1:]
    _, swapped, _, _ = run(bundle, Volume(image[::-1].copy(), "CZYX"))
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
    found, q, _, _ = run(bundle, Volume(data), tile_shape=(12, 24, 24))
    np.testing.assert_allclose(p, q, atol=1e-5)
    assert (expected == found).mean() > 0.999


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


# --- events ---------------------------------------------------------------------------------


def test_progress_counts_every_tile_once():
    volume = Volume(np.stack([blobs(seed=s)[0] for s in range(2)]), "TZYX")
    _, _, _, events = run(random_bundle(SAME), volume, tile_shape=(12, 24, 24))
    assert [e.done for e in events] == list(range(1, events[-1].total + 1))
    assert {e.total for e in events} == {len(events)}
    assert events[-1].remaining == pytest.approx(0)
    assert all(a.elapsed <= b.elapsed for a, b in itertools.pairwise(events))


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
    found = [weakref.ref(o) for o in gc.get_objects() if type(o) is UNet3D and id(o) not in others]
    assert len(found) == 1
    steps.close()
    gc.collect()
    assert found[0]() is None
    assert set(threading.enumerate()) == threads
    assert not out.any(), "a block that is not done was written"


def test_one_slice_equals_the_slice_of_the_whole(trained):
    image = blobs()[0]
    bundle = trained["channel"]
    _, p, _, _ = run(bundle, Volume(image), tile_shape=(16, 40, 48))
    predictor = Predictor(
        bundle.build(), IntensityNormalization.estimate(Volume(image)), CPU, "fp32", (16, 40, 48)
    )
    for axis, index in ((0, 0), (0, 7), (1, 37), (2, 20)):
        box = slice_box(image.shape, SliceRef(axis, index))
        plane = predictor.predict(Volume(image), 0, box).squeeze(axis + 1)
        np.testing.assert_allclose(plane, p.take(index, axis + 1), atol=1e-5)


# --- memory ---------------------------------------------------------------------------------


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
    found, q, _, events = run(bundle, volume, tile_shape=(16, 40, 48))
    notices = [e for e in events if isinstance(e, Notice)]
    assert notices
    assert "16 × 40 × 48" in notices[0].text
    assert "halved" in notices[0].text
    assert max(np.prod(s) for s in seen) <= 9_000
    progress = [e for e in events if isinstance(e, PredictionProgress)]
    assert progress[-1].done == progress[-1].total > 1
    assert np.abs(p - q).mean() < 0.02
    assert (expected == found).mean() > 0.98


def test_out_of_memory_in_a_later_block_keeps_the_count_right(monkeypatch):
    """Memory that another program takes in the middle of a prediction."""
    volume = Volume(blobs((40, 30, 30))[0])
    calls = []
    forward = UNet3D.forward

    def limited(self, x):
        calls.append(x[0, 0].numel())
        if len(calls) > 12 and calls[-1] > 3_000:
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
    found, _, _, events = run(bundle, volume)
    assert seen == [131_072, 65_536, 65_536]
    assert not any(isinstance(e, Notice) for e in events), "the tile is as it was"
    assert np.array_equal(found, expected)


def test_a_shortage_that_passes_does_not_leave_small_tiles(monkeypatch):
    """Another program takes the memory for a moment; the next block has the planned tile."""
    volume = Volume(blobs((70, 24, 24))[0])
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
    found, q, _, events = run(random_bundle(SAME), volume, **settings)
    assert sum(isinstance(e, Notice) for e in events) == 1
    smaller = [n for n, shape in enumerate(seen) if shape != tile]
    assert smaller, "no tile was halved"
    assert len(seen) - smaller[-1] > 3, "it was the last block"
    last = [e for e in events if isinstance(e, PredictionProgress)][-1]
    assert n_tiles(plain) < last.done == last.total
    np.testing.assert_array_equal(q[:, 40:], p[:, 40:])
    assert (found == expected).mean() > 0.95


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
    found, q, _, events = run(bundle, volume, tile_shape=(16, 40, 48))
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
    assert (expected == found).mean() > 0.99


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
    predictor = Predictor(
        trained["channel"].build(),
        IntensityNormalization.estimate(Volume(image)),
        CPU,
        "fp32",
        (16, 40, 48),
    )
    box = slice_box(image.shape, SliceRef(0, 7))
    expected = predictor.predict(Volume(image), 0, box)
    short_of_zeros(monkeypatch, 2 * 40 * 24)
    np.testing.assert_allclose(predictor.predict(Volume(image), 0, box), expected, atol=1e-5)


def gpu_without_room_for_the_sum(trained, monkeypatch) -> tuple[Predictor, Volume]:
    """A predictor whose sum is to lie on a GPU; that GPU has never room for it."""
    volume = Volume(blobs((16, 40, 48))[0])
    predictor = Predictor(
        trained["channel"].build(),
        IntensityNormalization.estimate(volume),
        CPU,
        "fp32",
        (16, 40, 48),
    )
    predictor._sum_device = torch.device("cuda")
    short_of_zeros(monkeypatch, 0, "cuda")
    return predictor, volume


def test_the_sum_of_a_full_gpu_is_kept_in_the_main_memory(trained, monkeypatch):
    predictor, volume = gpu_without_room_for_the_sum(trained, monkeypatch)
    whole = slice_box(volume.shape, SliceRef(0, 7))
    steps = predictor.probabilities(volume, 0, whole)
    first = next(steps)
    assert isinstance(first, Notice)
    assert "main memory" in first.text
    assert next(steps) == 1
    with pytest.raises(StopIteration) as end:
        next(steps)
    probabilities = end.value.value
    assert probabilities.device == CPU
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)
    assert predictor.tile_shape == (16, 40, 48)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_a_real_gpu_that_is_full_gives_the_same(trained, monkeypatch):
    volume = Volume(blobs((30, 40, 48))[0])
    settings = {"device": "cuda", "tile_shape": (16, 40, 48)}
    expected, p, _, _ = run(trained["channel"], volume, **settings)
    short_of_zeros(monkeypatch, 0, "cuda")
    found, q, _, events = run(trained["channel"], volume, **settings)
    assert any("main memory" in e.text for e in events if isinstance(e, Notice))
    np.testing.assert_allclose(p, q, atol=1e-5)
    assert (found == expected).mean() > 0.999


def test_a_pixel_classifier_that_never_fits_is_not_blamed_on_the_tile(monkeypatch):
    bundle = with_pixels(random_bundle(SAME))

    def short(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PixelClassifier, "log_probabilities", short)
    with pytest.raises(RunFailedError, match="out of memory: the features of the pixel") as caught:
        run(bundle, Volume(blobs((16, 32, 32))[0]))
    assert "tile" not in str(caught.value)


def test_out_of_memory_while_writing_writes_less_at_once():
    class Small(np.ndarray):
        def __setitem__(self, key, value):
            if value.size > 1000:
                raise MemoryError("Unable to allocate")
            super().__setitem__(key, value)

    volume = Volume(blobs((8, 20, 22))[0])
    bundle = random_bundle(SAME)
    expected, *_ = run(bundle, volume)
    out = np.full(volume.shape, 99, np.uint8).view(Small)
    list(predict(bundle, volume, out, config=PredictionConfig(device="cpu", precision="fp32")))
    np.testing.assert_array_equal(out, expected)


def test_no_map_has_more_values_than_the_libraries_can_count():
    network = UNet3D(SAME).eval()
    zeros, ones = (0.0,), (1.0,)
    intensity = IntensityNormalization(low=zeros, high=ones, mean=zeros, std=ones)
    gpu = torch.device("cuda")  # nothing is computed: there need not be one
    shape = (4096, 4096, 4096)
    tile = Predictor(network, intensity, gpu, "fp32", memory=1 << 50).plan(shape)
    assert 2**29 < largest_map(SAME, tile) <= 2**31 - 1
    with pytest.raises(BadInputError, match=r"1024.*too large.*leave the tile shape empty"):
        run(random_bundle(SAME), Volume(blobs()[0]), tile_shape=(1024, 1024, 1024))


def test_memory_that_never_suffices_is_a_clear_failure(monkeypatch):
    short_of_memory(monkeypatch, 0)
    with pytest.raises(RunFailedError, match=r"out of memory.*(close|smaller)"):
        run(random_bundle(SAME), Volume(blobs((4, 12, 12))[0]))


def test_runtime_errors_do_not_leave_as_such(monkeypatch):
    """superqt's workers swallow RuntimeErrors: the user would wait for ever."""

    def broken(self, x):
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(UNet3D, "forward", broken)
    with pytest.raises(RunFailedError, match="could not create a primitive"):
        run(random_bundle(SAME), Volume(blobs()[0]))


def test_little_memory_plans_small_tiles():
    network = UNet3D(SAME).eval()
    intensity = IntensityNormalization.estimate(Volume(blobs()[0]))
    plans = [
        Predictor(network, intensity, CPU, "fp32", memory=m).plan((64, 128, 128))
        for m in (2**30, 2**24, 2**20)
    ]
    sizes = [np.prod(plan) for plan in plans]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[0] <= predictor_module.CPU_TILE


def test_writing_that_fails_is_a_clear_failure():
    class FullDisk(np.ndarray):
        def __setitem__(self, key, value):
            raise OSError(28, "No space left on device")

    volume = Volume(blobs((4, 16, 16))[0])
    out = np.zeros(volume.shape, np.uint8).view(FullDisk)
    with pytest.raises(RunFailedError, match="No space left"):
        list(predict(random_bundle(SAME), volume, out, config=PredictionConfig(device="cpu")))


# --- bad input ------------------------------------------------------------------------------


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


def test_a_stack_is_clipped_at_the_percentiles_of_the_model():
    image, _ = blobs()
    narrow = random_bundle(SAME)
    ends = {"percentiles": ((20.0, 80.0),)}
    wide = narrow.model_copy(update={"intensity": narrow.intensity.model_copy(update=ends)})
    results = []
    for bundle in (narrow, wide):
        assert bundle.intensity.clip == (((20, 80),) if bundle is wide else ((0.1, 99.9),))
        found = np.zeros((2, *image.shape), np.float32)
        labels, exact = np.zeros(image.shape, np.uint8), PredictionConfig(precision="fp32")
        list(predict(bundle, Volume(image), labels, probabilities=found, config=exact))
        clipped = IntensityNormalization.estimate(Volume(image), bundle.intensity.clip)
        given = Predictor(bundle.build(), clipped, CPU, "fp32").predict(
            Volume(image), 0, Box((0, 0, 0), image.shape)
        )
        np.testing.assert_allclose(found, given, atol=1e-4)
        results.append(found)
    assert abs(results[0] - results[1]).max() > 0.05


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
