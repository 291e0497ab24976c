"""Paint in compressed chunks is the paint that was folded in, and a zarr array on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from napari_unet3d.data.io.paint_chunks import PaintChunks
from napari_unet3d.data.ledger import find_painted_slices
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.errors import BadInputError

SHAPES = [(5, 600, 530), (3, 20, 30), (2, 4, 700, 40)]


def painted(shape: tuple[int, ...], seed: int = 0) -> tuple[PaintChunks, np.ndarray]:
    """Chunks and a plain array with the same random boxes."""
    rng = np.random.default_rng(seed)
    chunks, labels = PaintChunks(shape), np.zeros(shape, np.uint8)
    for _ in range(40):
        starts = [int(rng.integers(n)) for n in shape]
        box = tuple((a, int(rng.integers(a, n)) + 1) for a, n in zip(starts, shape, strict=True))
        value = rng.integers(0, 4, [b - a for a, b in box], np.uint8) * int(rng.integers(2))
        labels[tuple(slice(a, b) for a, b in box)] = value
        chunks.fold(box, value)
    return chunks, labels


def write(chunks: PaintChunks, folder: Path) -> None:
    """Write the files of an array."""
    folder.mkdir()
    (folder / ".zarray").write_bytes(chunks.metadata())
    for chunk in chunks.painted:
        path = folder / chunks.name(chunk)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chunks.content(chunk) or b"")


@pytest.mark.parametrize("shape", SHAPES)
def test_boxes_are_read_as_they_were_folded(shape: tuple[int, ...]) -> None:
    chunks, labels = painted(shape)
    np.testing.assert_array_equal(chunks.to_array(), labels)
    np.testing.assert_array_equal(chunks[...], labels)
    np.testing.assert_array_equal(chunks[..., 1::3, 2], labels[..., 1::3, 2])
    np.testing.assert_array_equal(chunks[-1], labels[-1])
    np.testing.assert_array_equal(chunks.to_sparse_labels()[...], labels)
    assert find_painted_slices(chunks) == find_painted_slices(labels)


@pytest.mark.parametrize("shape", SHAPES)
def test_zarr_reads_the_files(shape: tuple[int, ...], tmp_path: Path) -> None:
    chunks, labels = painted(shape)
    write(chunks, tmp_path / "0")
    np.testing.assert_array_equal(zarr.open(tmp_path / "0", mode="r")[...], labels)
    again = PaintChunks.open(tmp_path / "0", shape)
    assert again.painted == chunks.painted
    np.testing.assert_array_equal(again.to_array(), labels)


def test_only_chunks_that_change_are_told() -> None:
    chunks = PaintChunks((4, 1200, 600))
    stroke = np.full((1, 10, 10), 2, np.uint8)
    assert chunks.fold(((1, 2), (505, 515), (5, 15)), stroke) == {(1, 0, 0), (1, 1, 0)}
    assert chunks.fold(((1, 2), (505, 515), (5, 15)), stroke) == set()
    assert chunks.fold(((2, 3), (0, 10), (0, 10)), np.zeros((1, 10, 10), np.uint8)) == set()


def test_paint_that_is_erased_leaves_no_chunk() -> None:
    chunks = PaintChunks((4, 60, 60))
    box = ((1, 2), (5, 15), (5, 15))
    chunks.fold(box, np.full((1, 10, 10), 2, np.uint8))
    assert chunks.fold(box, np.zeros((1, 10, 10), np.uint8)) == {(1, 0, 0)}
    assert chunks.painted == frozenset()
    assert chunks.content((1, 0, 0)) is None


@pytest.mark.parametrize("shape", SHAPES)
def test_a_whole_annotation_takes_the_place_of_another(shape: tuple[int, ...]) -> None:
    chunks, before = painted(shape)
    other = np.zeros(shape, np.uint8)
    other[..., 0, 1:3, 1:3] = 3
    changed = chunks.replace_by(other)
    np.testing.assert_array_equal(chunks.to_array(), other)
    assert changed
    assert chunks.replace_by(other) == set()
    sparse = SparseLabels.create(shape)
    sparse[..., 1, 2, 3] = 2
    chunks.replace_by(sparse)
    np.testing.assert_array_equal(chunks.to_array(), sparse[...])
    chunks.replace_by(before)
    np.testing.assert_array_equal(chunks.to_array(), before)


def test_a_damaged_chunk_is_named_with_its_place(tmp_path: Path) -> None:
    chunks, _ = painted((5, 600, 530))
    write(chunks, tmp_path / "0")
    chunk = max(chunks.painted)
    path = tmp_path / "0" / chunks.name(chunk)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # a flipped bit would be other paint
    path.write_bytes(bytes(data))
    again = PaintChunks.open(tmp_path / "0", (5, 600, 530))
    with pytest.raises(BadInputError, match=rf"{chunks.name(chunk)}.*z={chunk[0]}.*backup"):
        again.to_array()
    path.write_bytes(b"")
    with pytest.raises(BadInputError, match="damaged"):
        PaintChunks.open(tmp_path / "0", (5, 600, 530)).to_array()
