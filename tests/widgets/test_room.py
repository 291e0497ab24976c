"""What does not fit into the memory is said before anything starts."""

from __future__ import annotations

from pathlib import Path

import dask.array
import numpy as np
import pytest
import zarr

from napari_unet3d.config import default_class
from napari_unet3d.data.sparse_labels import SparseLabels
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.viewer.room import check_result, empty_labels, result_problem, snapshot

HUGE = (2000, 20_000, 20_000)


def test_an_annotation_of_any_size_lies_in_memory() -> None:
    assert isinstance(empty_labels((4, 5, 6)), np.ndarray)
    labels = empty_labels(HUGE)
    assert isinstance(labels, SparseLabels) and labels.path is None
    labels[7, 100, 100] = 2
    assert labels[7, 100, 100] == 2 and len(labels.painted) == 1


def test_a_result_that_does_not_fit_is_refused_with_the_cure() -> None:
    volume = Volume(dask.array.zeros(HUGE, chunks=(1, 2000, 2000), dtype=np.uint8), name="huge")
    with pytest.raises(BadInputError, match=r"'huge' \(2000 × 20000 × 20000\).*command line"):
        check_result(volume, (default_class(2),))
    assert result_problem((4, 5, 6), "small", 21) == ""


def test_a_snapshot_does_not_change(tmp_path: Path) -> None:
    stored = zarr.create_array(tmp_path / "a.zarr", shape=(4, 5, 6), dtype="u1")
    sparse = SparseLabels.create((4, 5, 6))
    for labels in (np.zeros((4, 5, 6), np.uint8), stored, sparse):
        copy, note = snapshot(labels)
        assert note == ""
        labels[1, 2, 3] = 2
        assert not np.asarray(copy[...]).any()


def test_labels_on_disk_that_do_not_fit_are_handed_over(tmp_path: Path) -> None:
    stored = zarr.create_array(tmp_path / "a.zarr", shape=HUGE, dtype="u1", chunks=(1, 500, 500))
    copy, note = snapshot(stored)
    assert copy is stored
    assert "while the training runs" in note
