"""What the outputs hold; and that one more takes a class and a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from bundles import random_bundle
from napari_unet3d.config import PredictionConfig
from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import drain
from napari_unet3d.prediction import output, outputs
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.prediction.scores import label_table
from napari_unet3d.session.job import make_outputs, run_job
from napari_unet3d.session.session import NamedModel, RunSettings, Session
from predictions import SAME, blobs, run
from toy_predictions import SecondClass, second_class


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


def test_every_output_describes_itself():
    classes = random_bundle(SAME).classes
    volume = Volume(np.zeros((2, 3, 4, 5), np.float32), "TZYX")
    for kind in outputs.OUTPUTS:
        assert kind.name.isidentifier()
        assert kind.help
        assert kind.title
        assert kind.tooltip
        shape, axes = kind.shape(volume, classes), kind.axes(volume, classes)
        assert len(shape) == len(axes)
        assert shape[0] == 2
        assert shape[-3:] == (3, 4, 5)
        block = kind.block(torch.full((2, 3, 4, 5), 0.5), classes)
        assert block.shape == shape[1:]
        assert block.dtype == kind.dtype
        assert all(options.suffix for options in kind.layers(classes))
        kind.check(np.zeros(shape, kind.dtype), volume, classes)


def test_what_an_output_takes_in_memory():
    classes = random_bundle(SAME, values=(2, 3, 4)).classes
    taken = {kind.name: kind.bytes_per_voxel(classes) for kind in outputs.OUTPUTS}
    assert taken == {"labels": 1, "probabilities": 16, "uncertainty": 4}


def test_an_output_that_does_not_exist_is_named_with_those_that_do():
    volume = Volume(blobs((4, 16, 16))[0])
    with pytest.raises(BadInputError, match=r"'objects'.*probabilities, uncertainty"):
        predict(random_bundle(SAME), volume, np.zeros(volume.shape, np.uint8), objects=volume.data)


def test_large_blocks_are_converted_in_parts_with_the_same_result():
    torch.manual_seed(0)
    probabilities = torch.rand((200, 7, 110, 120)).softmax(0)
    assert probabilities.numel() > output._VALUES_AT_ONCE, "it is one part"
    index = output.by_voxel(probabilities, "uint8", lambda part: part.argmax(0))
    np.testing.assert_array_equal(index, probabilities.argmax(0))


# --- one more output, in one class and one line -----------------------------------------------


@pytest.fixture
def with_toy(monkeypatch):
    monkeypatch.setattr(outputs, "OUTPUTS", (*outputs.OUTPUTS, SecondClass()))


def test_predict_takes_one_more_output(with_toy):
    bundle = random_bundle(SAME, values=(2, 3, 7))
    volume = Volume(blobs((40, 24, 24))[0])
    plain, p, _, _ = run(bundle, volume)
    labels, second = np.zeros(volume.shape, np.uint8), np.zeros(volume.shape, np.uint8)
    config = PredictionConfig(device="cpu", precision="fp32")
    list(predict(bundle, volume, labels, second_class=second, config=config))
    np.testing.assert_array_equal(labels, plain)
    np.testing.assert_array_equal(second, second_class(p, bundle.classes))
    assert not (second == labels).any()
    with pytest.raises(BadInputError, match="second_class has shape"):
        predict(bundle, volume, labels, second_class=second[1:], config=config)
    with pytest.raises(BadInputError, match="second_class has dtype float32"):
        predict(bundle, volume, labels, second_class=second.astype(np.float32), config=config)


def test_a_job_makes_the_array_of_one_more_output(with_toy):
    bundle = random_bundle(SAME, values=(2, 3, 7))
    volume = Volume(np.stack([blobs((8, 24, 24), seed=s)[0] for s in range(2)]), "TZYX")
    arrays = make_outputs(volume, bundle.classes, ["second_class", "probabilities"])
    assert list(arrays) == ["labels", "probabilities", "second_class"]
    config = PredictionConfig(device="cpu", precision="fp32")
    session = Session(
        volume=volume, model=NamedModel(bundle, "toy"), settings=RunSettings(prediction=config)
    )
    drain(run_job(session, outputs=arrays, train=False))
    for time in range(2):
        expected = second_class(arrays["probabilities"][time], bundle.classes)
        np.testing.assert_array_equal(arrays["second_class"][time], expected)


PROGRAM = """
import sys
from napari_unet3d.prediction import output, outputs
from toy_predictions import SecondClass
outputs.OUTPUTS = (*outputs.OUTPUTS, SecondClass())
from napari_unet3d import cli
assert cli.run(["predict", "--help"], print) == 0
sys.exit(cli.run(sys.argv[1:], print))
"""


def test_the_command_line_has_an_option_for_one_more_output(tmp_path):
    bundle = random_bundle(SAME, values=(2, 3, 7))
    bundle.save(tmp_path / "model.unet3d")
    tifffile.imwrite(tmp_path / "image.tif", blobs((16, 24, 24))[0])
    path = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])

    arguments = [
        "predict", "model.unet3d", "image.tif", "-o", "labels.tif",
        "--second-class", "second.ome.zarr", "--probabilities", "p.tif",
        "--device", "cpu", "--precision", "fp32", "--json",
    ]  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    help_text, _, said = result.stdout.rpartition("{")
    assert "--second-class" in help_text
    assert SecondClass.help in help_text
    assert json.loads("{" + said)["second_class"] == "second.ome.zarr"
    expected = second_class(tifffile.imread(tmp_path / "p.tif"), bundle.classes)
    written = read_labels(tmp_path / "second.ome.zarr")
    np.testing.assert_array_equal(written.data[...], expected)
