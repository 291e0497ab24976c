"""What `predict` writes, and what it leaves alone."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from bundles import random_bundle
from napari_unet3d import cli
from napari_unet3d.cli.tasks import inputs
from napari_unet3d.config import ClassInfo
from napari_unet3d.data.io.outputs import OutputArray, create_output
from napari_unet3d.data.io.reading import read_labels, read_volume
from napari_unet3d.networks.unet import UNetConfig

NETWORK = UNetConfig(
    widths=(4, 8),
    strides=((2, 2, 2),),
    kernels=((3, 3, 3), (3, 3, 3)),
    padding="same",
    normalization="batch",
)
NUCLEUS = ClassInfo(value=2, name="nucleus", color="#56b4e9")
IMAGE = np.random.default_rng(0).integers(0, 200, (2, 8, 20, 24)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """A model, an OME-Zarr series with a group for labels, and a TIFF stack."""
    random_bundle(NETWORK, (2,), classes=(NUCLEUS,)).save(tmp_path / "model.unet3d")
    for name, data, axes in (("raw.ome.zarr", IMAGE, "TZYX"), ("raw.tif", IMAGE[0], "ZYX")):
        with create_output(tmp_path / name, data.shape, data.dtype, axes) as out:
            out[:] = data
    (tmp_path / "raw.ome.zarr" / "labels").mkdir()
    return tmp_path


@pytest.fixture
def predict(folder, capsys):
    """`predict` in that folder: its exit code and what was written to the screen."""

    def call(image, *more) -> tuple[int, str]:
        arguments = ["predict", folder / "model.unet3d", folder / image, "--device", "cpu", *more]
        code = cli.run([str(a) for a in arguments], lambda **_: None)
        captured = capsys.readouterr()
        return code, " ".join((captured.out + captured.err).split())

    return call


def tree(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
@pytest.mark.parametrize("output", ["raw.ome.zarr", "raw.ome.zarr/0", "raw.ome.zarr/a.zarr"])
def test_the_image_is_never_replaced(predict, folder, output, more):
    before = tree(folder)
    for image in ("raw.ome.zarr", "raw.ome.zarr/0"):
        code, text = predict(image, "-o", folder / output, *more)
        assert code == 2, text
        assert any(words in text for words in ("is an input", "the input", "which is read"))
    code, text = predict("raw.tif", "-o", folder / "a.tif", "--uncertainty", folder / "raw.tif")
    assert code == 2, text
    assert tree(folder) == before


def test_labels_go_into_the_image_s_group_for_labels(predict, folder):
    before = tree(folder)
    code, text = predict("raw.ome.zarr", "-o", folder / "raw.ome.zarr" / "labels" / "cells.zarr")
    assert code == 0, text
    after = tree(folder)
    assert before.items() < after.items(), "the image was touched"
    assert all(n.startswith("raw.ome.zarr/labels/cells.zarr/") for n in after.keys() - before)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.zarr"])
def test_an_older_result_is_replaced_only_when_told(predict, folder, name):
    with create_output(folder / name, (2, 2, 2), "uint8") as out:
        out[:] = 9
    before = tree(folder)
    for options in (["-o", name], ["-o", "b.tif", "--probabilities", name]):
        code, text = predict("raw.tif", *(folder / o if "." in o else o for o in options))
        assert code == 2
        assert "--overwrite" in text
        assert tree(folder) == before
    code, text = predict("raw.tif", "-o", folder / name, "--overwrite")
    assert code == 0, text
    assert read_labels(folder / name).shape == IMAGE.shape[1:]


def test_one_output_that_fails_does_not_lose_the_others(predict, folder, monkeypatch):
    finish = OutputArray.finish

    def meanwhile(array):
        (folder / "u.tif").write_text("precious")
        finish(array)

    monkeypatch.setattr(OutputArray, "finish", meanwhile)
    code, text = predict(
        "raw.tif", "-o", folder / "a.tif", "--uncertainty", folder / "u.tif",
        "--probabilities", folder / "p.ome.zarr",
    )  # fmt: skip
    assert code == 1
    assert str(folder / "u-1.tif") in text
    assert (folder / "u.tif").read_text() == "precious"
    for name in ("a.tif", "u-1.tif", "p.ome.zarr"):
        assert read_volume(folder / name).shape == IMAGE.shape[1:]
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]


def test_results_lie_where_the_image_lies(predict, folder, monkeypatch):
    """Position, time step and classes are those of image and model."""

    def read(path, **options):
        moved = {"voxel_size": (2.0, 0.5, 0.5), "unit": "µm", "translation": (10.0, 20.0, 30.0)}
        return replace(read_volume(path), **moved, time_step=90.0)

    monkeypatch.setattr(inputs, "read_volume", read)
    code, text = predict(
        "raw.ome.zarr", "-o", folder / "a.ome.tif", "--probabilities", folder / "p.ome.zarr",
        "--uncertainty", folder / "u.ome.tif",
    )  # fmt: skip
    assert code == 0, text
    for name, channel in (("a.ome.tif", None), ("u.ome.tif", "uncertainty")):
        with tifffile.TiffFile(folder / name) as tif:
            pixels = ElementTree.fromstring(tif.ome_metadata).find(".//{*}Pixels")
        assert pixels.get("TimeIncrement") == "90.0"
        plane = pixels.find("{*}Plane")
        assert [plane.get(f"Position{a}") for a in "ZYX"] == ["10.0", "20.0", "30.0"]
        assert pixels.find("{*}Channel").get("Name") == channel
    attributes = json.loads((folder / "p.ome.zarr" / ".zattrs").read_text())
    transforms = attributes["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert transforms[0]["scale"] == [90.0, 1.0, 2.0, 0.5, 0.5]
    assert transforms[1]["translation"] == [0.0, 0.0, 10.0, 20.0, 30.0]
    labels = [c["label"] for c in attributes["omero"]["channels"]]
    assert labels == ["background", "nucleus"]


def test_long_names_and_links(predict, folder):
    name = "ö" * 125 + ".tif"
    assert len(os.fsencode(name)) == 254
    (folder / "link.tif").symlink_to(folder / name)
    code, text = predict("raw.tif", "-o", folder / "link.tif")
    assert code == 0, text
    assert (folder / "link.tif").is_symlink()
    assert read_labels(folder / name).shape == IMAGE.shape[1:]
