"""`info` describes a model, an image or the machine."""

from __future__ import annotations

import json

from napari_unet3d.networks import available_networks, kind_of


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


def test_info_lists_the_networks_for_a_stack(run, work):
    told = run("info", "--networks")
    assert told.code == 0, told.err
    for network in available_networks():
        assert f"\n{kind_of(network)}: " in told.out
    assert "deep_supervision: " in told.out
    found = json.loads(run("info", "--networks", work / "image.tif", "--json").out)
    assert found["shape"] == [10, 32, 36]
    *kinds, of_paper = found["networks"]
    assert [n["kind"] for n in kinds] == [kind_of(n) for n in available_networks()]
    assert (of_paper["kind"], of_paper["preset"]) == ("unet", "paper")
    assert of_paper["parameters"] == 19_068_162
    assert "\nunet, preset 'paper': " in told.out
    assert all(n["parameters"] > 1000 for n in found["networks"])
