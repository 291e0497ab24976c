"""All stacks of a folder, one after the other: names, failures, cancelling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blobs import IMAGE, SHAPE, VOXEL, plain, write
from bundles import random_bundle
from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import drain
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.session.segmenting import (
    StackDone,
    StackProgress,
    StackStarted,
    plan_files,
    segment_stacks,
    stacks_in,
    summary,
)
from napari_unet3d.session.session import NamedModel, RunSettings

SMALL = UNetConfig(
    n_classes=2,
    widths=(4, 8),
    strides=((1, 2, 2),),
    kernels=((3, 3, 3),) * 2,
    padding="same",
    normalization="instance",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two stacks, a picture of two dimensions, and what is no stack."""
    write(tmp_path / "a.ome.tif", IMAGE)
    write(tmp_path / "c.ome.zarr", IMAGE)
    plain(tmp_path / "b.tif", IMAGE[0])
    (tmp_path / "notes.txt").write_text("no stack")
    (tmp_path / ".hidden.tif").write_text("")
    (tmp_path / "segmented").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def model() -> NamedModel:
    return NamedModel(random_bundle(SMALL), "test")


def segment(model: NamedModel, folder: Path, **more):
    stacks = stacks_in(folder)
    settings = RunSettings(prediction={"device": "cpu"}, **more.pop("settings", {}))
    return segment_stacks(model, stacks, plan_files(stacks, folder / "segmented"), settings, **more)


def test_the_stacks_of_a_folder(folder, tmp_path) -> None:
    assert [p.name for p in stacks_in(folder)] == ["a.ome.tif", "b.tif", "c.ome.zarr"]
    with pytest.raises(BadInputError, match="holds no stack"):
        stacks_in(folder / "segmented")
    with pytest.raises(BadInputError, match="is no folder"):
        stacks_in(folder / "a.ome.tif")


def test_names_differ_and_keep_the_kind() -> None:
    stacks = [Path("a.tif"), Path("A.ome.tif"), Path("b.tiff"), Path("in/b.tif")]
    names = [p.name for p in plan_files(stacks, Path("out"))]
    assert names == [
        "a segmented.ome.tif",
        "A segmented 2.ome.tif",
        "b segmented.ome.tif",
        "b segmented 2.ome.tif",
    ]
    assert plan_files(stacks, Path("out"), as_zarr=True)[0].name == "a segmented.ome.zarr"


def test_one_that_fails_does_not_stop_the_rest(folder, model) -> None:
    events: list = []
    results = drain(segment(model, folder), events.append)
    assert [bool(r.problem) for r in results] == [False, True, False]
    assert "two-dimensional" in results[1].problem or "2D" in results[1].problem
    assert summary(results, 3) == "2 of 3 stacks segmented, 1 failed"
    for result in (results[0], results[2]):
        labels = read_labels(result.written[0])
        assert labels.shape == SHAPE
        assert labels.voxel_size == VOXEL
    starts = [e for e in events if isinstance(e, StackStarted)]
    assert [(e.number, e.total) for e in starts] == [(1, 3), (2, 3), (3, 3)]
    assert any(isinstance(e, StackProgress) for e in events)
    assert [e for e in events if isinstance(e, StackDone)] == results


def test_results_are_not_replaced_unless_asked(folder, model) -> None:
    drain(segment(model, folder))
    target = folder / "segmented" / "a segmented.ome.tif"
    before = target.stat().st_mtime_ns
    again = drain(segment(model, folder))
    assert all(result.problem for result in again)
    assert target.stat().st_mtime_ns == before
    assert not drain(segment(model, folder, overwrite=True))[0].problem


def test_more_outputs_lie_beside_the_labels(folder, model) -> None:
    results = drain(segment(model, folder, settings={"outputs": ("uncertainty",)}))
    names = [p.name for p in results[0].written]
    assert names == ["a segmented.ome.tif", "a segmented-uncertainty.ome.tif"]


def test_cancelling_keeps_what_is_complete(folder, model) -> None:
    work = segment(model, folder)
    for event in work:
        if isinstance(event, StackProgress) and (folder / "segmented" / "a segmented.ome.tif"
                                                 ).exists():  # fmt: skip
            break
    work.close()
    left = [p.name for p in (folder / "segmented").iterdir()]
    assert left == ["a segmented.ome.tif"]
    np.testing.assert_equal(read_labels(folder / "segmented" / left[0]).shape, SHAPE)
