"""A stack is cut into blocks at the borders of chunks, and each block is written once."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
import zarr

from bundles import random_bundle
from napari_unet3d.config import PredictionConfig, default_class
from napari_unet3d.data.boxes import Box
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import RunFailedError
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.prediction.stack import ResultArrays
from predictions import SAME, blobs, n_tiles, run
from toy_predictions import SecondClass


def test_block_by_block_equals_at_once(trained):
    """With little memory the stack is predicted block by block; the tiles are as large."""
    volume = Volume(blobs((30, 38, 20))[0])
    tile = (12, 24, 24)
    at_once, p, u, _ = run(trained["channel"], volume, tile_shape=tile, overlap=0.25)
    in_blocks, q, v, _ = run(
        trained["channel"], volume, tile_shape=tile, memory=100_000, overlap=0.25
    )
    assert 0 < np.abs(p - q).max() < 0.2, "it was one block, or seams are seen"
    assert np.abs(p - q).mean() < 0.005
    assert np.abs(u - v).mean() < 0.01
    assert (at_once == in_blocks).mean() > 0.99


@pytest.mark.parametrize("depth", (37, 41, 44, 46, 47, 49))
def test_every_voxel_is_predicted_whatever_the_blocks(depth):
    """Probabilities that add up to 0 betray a voxel that no tile reached."""
    rng = np.random.default_rng(0)
    volume = Volume(rng.normal(size=(depth, 17, 19)).astype(np.float32))
    _, p, _, events = run(random_bundle(SAME), volume, tile_shape=(16, 16, 16), memory=40_000)
    assert n_tiles(events) > 6
    np.testing.assert_allclose(p.sum(0), 1, atol=1e-5)


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


IN_CHUNKS = {"tile_shape": (8, 16, 16), "overlap": 0.5, "device": "cpu", "precision": "fp32"}


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
    # Tiles lie elsewhere in smaller blocks, and this network is random: it sees their borders well.
    assert np.abs(p - more.data).mean() < 0.03 < np.abs(p - np.roll(p, 8, -1)).mean() / 2


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


def test_progress_counts_every_tile_once():
    volume = Volume(np.stack([blobs(seed=s)[0] for s in range(2)]), "TZYX")
    _, _, _, events = run(random_bundle(SAME), volume, tile_shape=(12, 24, 24))
    assert [e.done for e in events] == list(range(1, events[-1].total + 1))
    assert {e.total for e in events} == {len(events)}
    assert events[-1].remaining == pytest.approx(0)
    assert all(a.elapsed <= b.elapsed for a, b in itertools.pairwise(events))


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


def test_writing_that_fails_is_a_clear_failure():
    class FullDisk(np.ndarray):
        def __setitem__(self, key, value):
            raise OSError(28, "No space left on device")

    volume = Volume(blobs((4, 16, 16))[0])
    out = np.zeros(volume.shape, np.uint8).view(FullDisk)
    with pytest.raises(RunFailedError, match="No space left"):
        list(predict(random_bundle(SAME), volume, out, config=PredictionConfig(device="cpu")))


class _Broadcast(SecondClass):
    """It names two channels, and gives one, which numpy would write into both."""

    def channel_names(self, classes):
        return ("first", "second")

    def block(self, probabilities, classes):
        return super().block(probabilities, classes)[None]


def test_an_output_of_another_shape_than_it_promises_is_refused():
    array = np.full((2, 3, 4, 5), 7, np.uint8)
    box = Box((0, 0, 0), (3, 4, 5))
    probabilities = torch.full((2, 3, 4, 5), 0.5)
    arrays = ResultArrays({_Broadcast(): array}, (default_class(2),), series=False)
    with pytest.raises(TypeError, match=r"'second_class' gives the shape \(1, 3, 4, 5\).*\(2, 3,"):
        arrays.write(0, box, probabilities)
    assert (array == 7).all(), "nothing is written"
