"""`info` describes a model, an image or the machine."""

from __future__ import annotations

import json


def test_info(run, work):
    model = run("info", work / "model.unet3d")
    assert model.code == 0
    described = json.loads(model.out)
    assert described["record"]["iterations"] == 25
    assert "weights" not in described
    image = run("info", work / "image.tif")
    assert image.code == 0
    assert "ZYX (10, 32, 36) uint16" in image.out
    assert "0.5 × 0.2 × 0.15 µm" in image.out
    machine = run("info")
    assert machine.code == 0
    assert "torch" in machine.out
