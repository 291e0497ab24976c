"""The benchmark of the two learners: their IoU alone and together, for either layout."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from benchmark_scripts import imported
from napari_unet3d.data.samples import tubules


@pytest.fixture(scope="module")
def script() -> Any:
    with imported(("protocol", "parts")) as scripts:
        yield scripts.parts


@pytest.mark.parametrize("full_grid", [False, True])
def test_the_ends_of_the_row_are_the_learners_alone(
    script: Any, monkeypatch: pytest.MonkeyPatch, full_grid: bool
) -> None:
    sample = tubules((8, 40, 40))
    monkeypatch.setattr(script, "load_stack", lambda *_: (sample.image, sample.truth))
    options = argparse.Namespace(data=None, precision="fp32", full_grid=full_grid)
    found = script.run(options, "tubules", 2, 2.0, 0)
    assert found["iterations"] >= 1
    assert 0 <= found["weight"] <= 0.5
    ious = [found[f"IoU {w:g}"] for w in script.WEIGHTS]
    assert all(0 <= iou <= 1 for iou in ious)
    assert min(ious) <= found["IoU"] <= max(ious) + 0.02


def test_a_full_grid_has_the_widths_of_a_cpu(script: Any) -> None:
    sample = tubules((16, 64, 64))
    annotation = script.SparseAnnotation.from_labels(script.annotate(sample.truth, 1))
    config = script.TrainingConfig(device="cpu", precision="fp32")
    plan = script.Trainer(sample.image, annotation, config).plan
    full = script.on_full_grid(plan)
    assert plan.network.stem != full.network.stem == (1, 1, 1)
    assert full.network.widths[0] == plan.network.widths[0]
    assert full.patches.keys() == plan.patches.keys()
