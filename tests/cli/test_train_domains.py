"""`train-domains`: one model of several kinds of stacks, and `predict --domain`."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from blobs import IMAGE, LABELS, SHAPE, TRUTH, write
from napari_unet3d.exchange.card import model_card
from napari_unet3d.model.bundle import ModelBundle

TINY = ["--device", "cpu", "--iterations", "4", "--set", "patch_shape=[8,32,32]"]
TINY += ["--set", "network.widths=[4,8]", "--set", "network.strides=[[1,2,2]]"]
TINY += ["--set", "network.kernels=[[1,3,3],[3,3,3]]", "--set", "network.stem=[1,1,1]"]


@pytest.fixture
def negative(tmp_path):
    """The stack with inverted contrast, and another class."""
    write(tmp_path / "negative.tif", 4000 - IMAGE)
    write(tmp_path / "other.tif", np.where(LABELS == 2, 3, LABELS))
    return tmp_path / "negative.tif", tmp_path / "other.tif"


def test_a_model_of_two_domains_segments_each_and_gets_a_third(run, work, negative, tmp_path):
    dark, light = ",".join(map(str, negative)), f"{work / 'image.tif'},{work / 'labels.tif'}"
    model = tmp_path / "both.unet3d"
    outcome = run("train-domains", f"light={light}", f"dark={dark}", "-o", model, *TINY)
    assert outcome.code == 0, outcome.err
    assert ModelBundle.load(model).domains == ("light", "dark")
    for domain, value, image in (("light", 2, work / "image.tif"), ("dark", 3, negative[0])):
        out = tmp_path / f"{domain}.tif"
        outcome = run("predict", model, image, "-o", out, "--domain", domain, "--device", "cpu")
        assert outcome.code == 0, outcome.err
        found = tifffile.imread(out)
        assert found.shape == SHAPE == TRUTH.shape
        assert set(np.unique(found)) <= {0, value}
    card = model_card(ModelBundle.load(model).of_domain("dark"), "both")
    assert "of each of these kinds: light, dark" in card
    assert "this card is about 'dark'" in card
    package = tmp_path / "dark.zip"
    outcome = run("export", model, "-o", package, "--sample", negative[0], "--domain", "none")
    assert outcome.code == 2
    assert "no domain 'none'" in outcome.err
    more = tmp_path / "three.unet3d"
    outcome = run("train-domains", f"third={light}", "-o", more, "--from", model, *TINY[:6])
    assert outcome.code == 0, outcome.err
    old, grown = ModelBundle.load(model), ModelBundle.load(more)
    assert grown.domains == ("light", "dark", "third")
    assert all((grown.weights[n] == w).all() for n, w in old.weights.items())


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        ("cells", "write NAME=IMAGE,ANNOTATION"),
        ("cells=a.tif", "write NAME=IMAGE,ANNOTATION"),
        ("cells=a.tif,b.tif", "a.tif"),
    ],
)
def test_stacks_that_cannot_be_read(run, tmp_path, stack, words):
    outcome = run("train-domains", stack, "-o", tmp_path / "m.unet3d", *TINY)
    assert outcome.code == 2
    assert words in outcome.err
    assert not list(tmp_path.iterdir())


def test_a_domain_that_a_model_has_not(run, work, tmp_path):
    model, image = work / "model.unet3d", work / "image.tif"
    outcome = run("predict", model, image, "-o", tmp_path / "s.tif", "--domain", "light")
    assert outcome.code == 2
    assert "no domain 'light'. Its domains: none" in outcome.err
