"""The arithmetic of `benchmarks/speed.py`; no time is asserted here."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from bundles import random_bundle
from napari_unet3d.networks.geometry import walk
from napari_unet3d.networks.unet import UNetConfig

SOURCE = Path(__file__).resolve().parents[1] / "benchmarks" / "speed.py"
NETWORK = UNetConfig(
    widths=(4, 8, 8),
    strides=((1, 2, 2), (2, 2, 2)),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    padding="same",
    normalization="batch",
    widen_before_pool=False,
    keep_up_channels=False,
)
PATCH = (6, 12, 8)


@pytest.fixture(scope="module")
def speed() -> Iterator[ModuleType]:
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(SOURCE.parent))  # it takes some pieces from its neighbors
    spec = importlib.util.spec_from_file_location("speed_benchmark", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    yield module
    for name in ("protocol", "report"):
        sys.modules.pop(name, None)
    patch.undo()


def test_layers_are_those_of_the_network_with_their_shapes(speed):
    layers = speed.list_layers(NETWORK, PATCH)
    convolutions = [layer.convolution for layer in layers]
    assert convolutions == [layer for layer in walk(NETWORK, PATCH)[0] if layer.is_convolution]
    found = {layer.name: (layer.in_shape, layer.shape) for layer in convolutions}
    assert found["encoder.0.0"] == (PATCH, PATCH)
    assert found["encoder.2.3"] == ((3, 3, 2), (3, 3, 2))
    assert found["ups.1.0"] == ((3, 3, 2), (6, 6, 4))
    assert found["decoder.1.0"] == ((6, 6, 4), (6, 6, 4))
    assert found["ups.0.0"] == ((6, 6, 4), PATCH)
    assert found["head"] == (PATCH, PATCH)


def test_only_the_first_layer_has_no_input_gradient(speed):
    layers = speed.list_layers(NETWORK, PATCH)
    assert [layer.first for layer in layers] == [True] + [False] * (len(layers) - 1)
    # 1 channel to 4, 9 taps, a multiply-add is two operations.
    assert layers[0].forward_flop == 2 * 4 * 9 * prod(PATCH)
    assert layers[0].training_flop == 2 * layers[0].forward_flop
    assert layers[1].training_flop == 3 * layers[1].forward_flop


def test_an_unpadded_network_is_refused(speed):
    with pytest.raises(ValueError, match="padded"):
        speed.list_layers(UNetConfig(), (132, 132, 116))


def test_every_layer_can_be_timed(speed):
    for layer in speed.list_layers(NETWORK, PATCH):
        timer = speed.LayerTimer(layer, torch.float32, 2)
        # The gradient has the shape of the output, or this would raise.
        assert timer.forward() > 0
        assert timer.training() > 0


def test_share_is_the_time_of_the_convolutions_over_that_of_the_step(speed):
    layers = speed.list_layers(NETWORK, PATCH)[:2]
    forward = [[1.0, 2.0], [3.0, 2.0], [2.0, 9.0]]  # medians 2 and 2
    training = [[4.0, 6.0], [4.0, 6.0], [9.0, 1.0]]  # medians 4 and 6
    figures = speed.training_figures(layers, forward, training, [25.0, 20.0, 99.0], 2)
    assert figures["convolutions_forward_s"] == 2 + 2
    assert figures["convolutions_training_s"] == 4 + 6
    assert figures["share"] == pytest.approx(10 / 25)
    work = 2 * sum(layer.training_flop for layer in layers) / 1e9
    assert figures["peak_training_gflops"] == pytest.approx(work / 10)
    assert figures["step_gflops"] == pytest.approx(work / 25)
    share = figures["step_gflops"] / figures["peak_training_gflops"]
    assert share == pytest.approx(figures["share"])


def test_predictions_are_compared_round_by_round(speed):
    def runs(*seconds: float) -> list[dict]:
        return [{"seconds": s, "tile": [8, 8, 8], "peak": 10, "above_start": 4} for s in seconds]

    # The machine was slow in the second round: the ratio does not see it.
    figures = speed.prediction_figures(
        {"ours": runs(1.0, 5.0, 1.0), "monai, our tile": runs(2.0, 10.0, 2.0)}, 100
    )
    assert figures["ours"]["time_over_ours"] == 1
    assert figures["monai, our tile"]["time_over_ours"] == 2
    assert figures["monai, our tile"]["voxels_per_s"] == 50
    table = speed.prediction_table(
        {line: figure | {"equal_labels": 1.0} for line, figure in figures.items()}, (2, 5, 10)
    )
    assert "| monai, our tile | 8 × 8 × 8 | 2.00 | 2.00–10.00 |" in table


def test_table_is_markdown(speed):
    text = speed.markdown(["a", "b"], [["x", 1], ["y", 2]])
    assert text.splitlines() == ["| a | b |", "| --- | ---: |", "| x | 1 |", "| y | 2 |"]


def test_a_prediction_in_a_process_of_its_own_gives_labels_and_memory(speed, tmp_path):
    image = np.random.default_rng(0).normal(size=(8, 16, 16)).astype(np.float32)
    bundle = random_bundle(NETWORK)
    job = {
        "method": "ours",
        "tile": None,
        "model": str(bundle.save(tmp_path / "model.unet3d")),
        "image": str(tmp_path / "image.npy"),
        "labels": str(tmp_path / "labels.npy"),
        "voxel_size": [1.0, 1.0, 1.0],
        "precision": "fp32",
    }
    np.save(job["image"], image)
    result = speed.run_alone(job)
    assert tuple(result["tile"]) == (8, 16, 16)
    assert result["seconds"] > 0 and result["peak"] > 0
    labels = np.load(job["labels"])
    assert labels.shape == image.shape and set(np.unique(labels)) <= {0, 2}


def test_machine_is_described(speed):
    found = speed.machine("fp32")
    assert found["torch"] == torch.__version__ and found["threads"] == torch.get_num_threads()
