"""Models for other programs: the whole decision, compared voxel by voxel."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from bundles import random_bundle
from napari_unet3d.config import ClassInfo, PredictionConfig
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.events import drain
from napari_unet3d.exchange.bioimageio import _dependence, _scale, read_package
from napari_unet3d.exchange.card import model_card
from napari_unet3d.exchange.onnx import write_onnx
from napari_unet3d.exchange.sample import (
    ExportSample,
    build_portable,
    check_exportable,
    depends_on_block,
    portable_arguments,
    surroundings,
)
from napari_unet3d.exchange.source import ENTRY, portable_source
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.mixture import Calibration
from napari_unet3d.model.portable import PortableModel
from napari_unet3d.networks.cascade import CascadeConfig
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.pixels.classifier import PixelClassifier
from napari_unet3d.pixels.trees import ObliviousTrees
from napari_unet3d.prediction.predictor import predict

SMALL = UNetConfig(
    widths=(4, 8),
    strides=((1, 2, 2),),
    kernels=((1, 3, 3), (3, 3, 3)),
    padding="same",
    normalization="batch",
    n_classes=3,
)
VALID = SMALL.model_copy(update={"padding": "valid", "normalization": "none"})
IMAGE = np.random.default_rng(0).normal(500, 80, (13, 45, 38)).clip(0).astype(np.uint16)


def bundle(network: UNetConfig = SMALL, *, pixels: bool = True) -> ModelBundle:
    made = random_bundle(network, values=(2, 5), voxel_size=(2.0, 1.0, 1.0), unit="µm")
    if not pixels:
        return made
    torch.manual_seed(1)
    trees = ObliviousTrees(3)
    trees.feature.random_(26)
    trees.threshold.normal_()
    trees.leaf.normal_(std=0.3)
    classifier = PixelClassifier(1, 3, trees=trees)
    calibration = Calibration(network=0.4, pixels=0.5, shift=(0.0, 0.25, -0.25))
    return made.model_copy(update={"pixels": classifier.state_dict(), "calibration": calibration})


def sample() -> ExportSample:
    return ExportSample.of(Volume(IMAGE), "noise", ((0.1, 99.9),))


@pytest.mark.parametrize("network", [SMALL, VALID], ids=["padded", "unpadded"])
@pytest.mark.parametrize("pixels", [True, False])
def test_the_portable_model_decides_as_a_prediction(network, pixels):
    """On normalized voxels, whatever the shape: both mirror what the network lacks."""
    made = bundle(network, pixels=pixels)
    volume = Volume(IMAGE, voxel_size=made.voxel_size)
    labels = np.zeros(volume.shape, np.uint8)
    probabilities = np.zeros((3, *volume.shape), np.float32)
    settings = PredictionConfig(device="cpu", precision="fp32")
    drain(predict(made, volume, labels, probabilities=probabilities, config=settings))
    intensity = type(made.intensity).estimate(volume, made.intensity.clip)
    image = torch.from_numpy(intensity.apply(IMAGE[None]))[None]
    arguments = portable_arguments(made, sample()) | {"gain": [1.0], "offset": [0.0]}
    model = PortableModel(**arguments)
    model.load_state_dict(build_portable(made, sample()).state_dict())
    found, numbers = model.eval()(image)
    assert np.abs(found[0].numpy() - probabilities).max() < 1e-4
    assert (numbers[0, 0].numpy() == labels).mean() > 0.9999
    assert set(np.unique(labels)) > {0}


def test_other_statistics_are_made_up_for():
    """Other programs normalize by the statistics of the unclipped stack."""
    image = IMAGE.copy()
    image[6, 20:23, 20:23] = 40_000  # hot pixels
    hot = ExportSample.of(Volume(image), "hot", ((0.1, 99.0),))
    elsewhere = hot.normalized((0.1, 99.0)).numpy()[0]
    ours = type(bundle().intensity).estimate(Volume(image), (0.1, 99.0)).apply(image[None])
    assert np.abs(elsewhere - ours).max() > 1, "not the same by itself"
    assert np.abs(hot.gain[0] * elsewhere + hot.offset[0] - ours).max() < 0.01


ALONE = """
import importlib.util, json, sys
import numpy as np, torch

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "napari_unet3d" or name.startswith("napari_unet3d."):
            raise ImportError("the package must not be needed")

sys.meta_path.insert(0, Blocker())
folder, entry = sys.argv[1:]
spec = importlib.util.spec_from_file_location("model_source", folder + "/source.py")
module = importlib.util.module_from_spec(spec)
sys.modules["model_source"] = module
spec.loader.exec_module(module)
model = getattr(module, entry)(**json.load(open(folder + "/arguments.json"))).eval()
model.load_state_dict(torch.load(folder + "/weights.pt", weights_only=True))
probabilities, labels = model(torch.load(folder + "/image.pt", weights_only=True))
np.save(folder + "/found.npy", probabilities.numpy())
"""


def test_the_source_alone_gives_the_same_in_a_process_without_the_package(tmp_path):
    made = bundle()
    image = sample().normalized((0.1, 99.9))
    model = build_portable(made, sample())
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    torch.save(image, tmp_path / "image.pt")
    (tmp_path / "source.py").write_text(portable_source("0"), encoding="utf-8")
    (tmp_path / "arguments.json").write_text(json.dumps(portable_arguments(made, sample())))
    run = subprocess.run(
        [sys.executable, "-c", ALONE, tmp_path, ENTRY], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert np.array_equal(np.load(tmp_path / "found.npy"), model(image)[0].numpy())


def test_a_card_of_a_stranger_points_nowhere():
    classes = (ClassInfo(value=2, name="![](file:///etc/hostname)", color="#ff0000"),
               ClassInfo(value=5, name="<img src='file:///x'>", color="#00ff00"))  # fmt: skip
    card = model_card(bundle().model_copy(update={"classes": classes}), "a [b](c)")
    assert "![](" not in card
    assert "<img" not in card.replace("\\<img", "")
    assert "# a \\[b\\]\\(c\\)" in card


def test_channels_that_are_clipped_differently_are_refused(tmp_path):
    made = bundle()
    intensity = made.intensity.model_copy(update={"percentiles": ((0.1, 99.9), (0.0, 100.0))})
    with pytest.raises(BadInputError, match="clipped at different percentiles"):
        check_exportable(made.model_copy(update={"intensity": intensity}))


def test_a_card_says_what_a_reviewer_asks(tmp_path):
    card = model_card(bundle(), "cells")
    for words in ("# cells", "2 × 1 × 1 µm", "## Validation", "No slice was held out", "## Limits",
                  "44 % of the weight", "5 class 5"):  # fmt: skip
        assert words in card, words


def test_a_package_says_how_much_around_a_block_counts():
    """Norms of the block have no border beyond which nothing counts."""
    network = SMALL.model_copy(update={"normalization": "tile"})
    assert depends_on_block(network)
    assert not depends_on_block(SMALL)
    assert "give the whole stack" in _dependence(random_bundle(network, values=(2, 5)))
    around = surroundings(bundle())
    assert f"depends on {around[0]}, {around[1]} and {around[2]} voxels" in _dependence(bundle())


@pytest.mark.parametrize("size", [0.8, 0.1625, 1 / 3, 1.75])
def test_no_number_of_voxels_is_rounded_by_the_voxel_size(size):
    scale = _scale(size)
    assert scale == pytest.approx(size, rel=1e-7)
    assert all(n * scale / scale == n for n in range(1, 5000))
    assert 96 * 0.8 / 0.8 != 96, "why it matters"


# --- with the libraries of others -----------------------------------------------------------


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A package, which the command line wrote in a process of its own."""
    pytest.importorskip("bioimageio.core", reason="bioimageio.core is not installed")
    folder = tmp_path_factory.mktemp("package")
    bundle().save(folder / "cells.unet3d")
    tifffile.imwrite(folder / "image.tif", IMAGE, imagej=True, metadata={"axes": "ZYX"})
    arguments = ["export", "cells.unet3d", "-o", "c.2.zip", "--sample", "image.tif"]
    command = [sys.executable, "-m", "napari_unet3d", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert run.returncode == 0, run.stderr
    assert "tested it: passed" in run.stdout
    return folder / "c.2.zip"


def test_a_package_opens_again(package):
    made, again = bundle(), read_package(package)
    with zipfile.ZipFile(package) as opened:
        names = opened.namelist()
        description = opened.read("rdf.yaml").decode()
    assert {"unet3d_model.py", "weights.pt", "model.unet3d", "README.md"} <= set(names)
    assert "license:" not in description, "that is the user's to give"
    assert again.calibration == made.calibration
    assert all((again.weights[n] == w).all() for n, w in made.weights.items())


CORE = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name == "napari_unet3d" or name.startswith("napari_unet3d."):
            raise ImportError("the package must not be needed")

sys.meta_path.insert(0, Blocker())
import numpy as np
from bioimageio.core import Tensor, create_prediction_pipeline, load_model_description
from bioimageio.core.digest_spec import create_sample_for_model

package, image, out = sys.argv[1:]
model = load_model_description(package)
pipeline = create_prediction_pipeline(model)
sample = create_sample_for_model(model, inputs={"image": np.load(image)[None, None].astype("f4")})
found = pipeline.predict_sample_without_blocking(sample)
np.save(out, np.asarray(found.members["labels"].data))
"""


def test_bioimageio_core_alone_gives_our_labels(package, tmp_path):
    np.save(tmp_path / "image.npy", IMAGE)
    arguments = [package, tmp_path / "image.npy", tmp_path / "labels.npy"]
    run = subprocess.run(
        [sys.executable, "-c", CORE, *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    labels = np.zeros(IMAGE.shape, np.uint8)
    settings = PredictionConfig(device="cpu", precision="fp32")
    volume = Volume(IMAGE, voxel_size=bundle().voxel_size)
    drain(predict(bundle(), volume, labels, config=settings))
    assert (np.load(tmp_path / "labels.npy")[0, 0] == labels).mean() > 0.999


def test_onnx_gives_the_same_in_onnxruntime(tmp_path):
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    # Few voxels: each further chunk of the trees makes the graph longer.
    tiny = ExportSample.of(Volume(IMAGE[:6, :18, :18]), "noise", ((0.1, 99.9),))
    text = write_onnx(bundle(), tiny, tmp_path / "cells.onnx")
    assert "labels are equal" in text
    assert (tmp_path / "cells.onnx").stat().st_size > 10_000


def test_a_network_that_onnx_cannot_hold_names_the_cure(tmp_path):
    for name in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    config = CascadeConfig.plan(
        "fast", (1, 1, 1), IMAGE.shape, in_channels=1, n_classes=3, accelerator=False
    )
    made = bundle(pixels=False).model_copy(
        update={"network": config, "weights": config.build().state_dict()}
    )
    with pytest.raises(RunFailedError, match=r"'cascade' as ONNX: export a bioimage\.io package"):
        write_onnx(made, sample(), tmp_path / "c.onnx")
    assert not list(tmp_path.iterdir())


# --- bad input ------------------------------------------------------------------------------


def test_packages_of_others_are_refused(tmp_path):
    path = tmp_path / "other.zip"
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("rdf.yaml", "type: model")
    with pytest.raises(BadInputError, match=r"another program: it holds no model\.unet3d"):
        read_package(path)
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("model.unet3d", b"x" * 5000)
    damaged = bytearray(path.read_bytes())
    damaged[60:90] = b"?" * 30
    path.write_bytes(bytes(damaged))
    with pytest.raises(BadInputError):
        read_package(path)
    Path(path).write_bytes(b"PK no zip")
    with pytest.raises(BadInputError, match=r"is no bioimage\.io package"):
        read_package(path)
