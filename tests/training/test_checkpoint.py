"""From a bundle into a network and its optimizer, and back."""

from __future__ import annotations

import pytest
import torch
from toy_stack import SMALL, TRAINED, annotate, make_plan, make_trainer, run, same_tensors

from bundles import random_bundle
from napari_unet3d.errors import BadInputError, RunFailedError
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks.unet import UNet3D
from napari_unet3d.training.checkpoint import (
    load_training_state,
    load_weights,
    stored_scale,
    training_state,
)


@pytest.mark.parametrize("damage", ["missing", "shape", "weights", "negative", "step", "scale"])
def test_resuming_needs_the_whole_optimizer(damage):
    _, bundle = run(make_trainer(iterations=1))
    state = dict(bundle.state)
    if damage == "weights":
        del state["weights/head.weight"]
    elif damage == "missing":
        del state["optimizer/head.weight/exp_avg"]
    elif damage == "negative":
        state["optimizer/head.weight/exp_avg_sq"] = -state["optimizer/head.weight/exp_avg_sq"]
    elif damage == "scale":
        state["scaler/scale"] = torch.tensor(0.0)
    elif damage == "step":
        state["optimizer/head.weight/step"] = torch.tensor(-5.0)
    else:
        state["optimizer/head.weight/exp_avg"] = torch.zeros(3)
    broken = bundle.model_copy(update={"state": state})
    with pytest.raises(BadInputError, match=r"(head.weight|scaler/scale).*Fine-tune"):
        make_plan(start=broken, resume=True)
    make_plan(start=bundle, resume=True)


def test_resuming_needs_the_statistics_of_the_state():
    _, bundle = run(make_trainer(iterations=1))
    name = next(n for n in bundle.state if n.endswith("running_mean"))
    state = {n: t for n, t in bundle.state.items() if n != name}
    with pytest.raises(BadInputError, match=r"running_mean.*Fine-tune"):
        make_plan(start=bundle.model_copy(update={"state": state}), resume=True)


def test_resuming_needs_the_optimizer_and_the_same_classes():
    _, bundle = run(make_trainer(iterations=1))
    with pytest.raises(BadInputError, match="fine-tune"):
        make_plan(start=bundle.without_state(), resume=True)
    labels = annotate(*TRAINED)
    labels[labels == 2] = 9
    with pytest.raises(BadInputError, match=r"\[2\].*\[9\]"):
        make_plan(labels, start=bundle, resume=True)


def test_a_step_that_was_not_finite_does_not_spoil_the_saved_state():
    network = UNet3D(SMALL)
    network(torch.full((1, 1, 8, 16, 16), torch.nan))
    assert any(not t.isfinite().all() for t in network.state_dict().values())
    state = training_state(network, torch.optim.AdamW(network.parameters()))
    assert all(t.isfinite().all() for t in state.values())


def stepped(**options) -> tuple[UNet3D, torch.optim.AdamW]:
    """A network after one step of its optimizer."""
    network = UNet3D(SMALL)
    optimizer = torch.optim.AdamW(network.parameters(), **options)
    network(torch.rand(1, 1, 8, 16, 16)).sum().backward()
    optimizer.step()
    return network, optimizer


@pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
def test_a_loaded_optimizer_goes_on_as_the_saved_one(fused):
    """Also the fused AdamW, which counts its steps on the device of the parameters."""
    torch.manual_seed(0)
    network, optimizer = stepped(fused=fused)
    state = training_state(network, optimizer)
    other, loaded = stepped(fused=fused)
    load_training_state(other, loaded, state)
    assert same_tensors(training_state(other, loaded), state)
    steps = {t["step"].device.type for t in loaded.state.values()}
    assert steps == {"cpu"}
    for net, adam in ((network, optimizer), (other, loaded)):
        adam.zero_grad()
        net(torch.ones(1, 1, 8, 16, 16)).sum().backward()
        adam.step()
    assert same_tensors(training_state(other, loaded), training_state(network, optimizer))


def test_the_scale_of_fp16_gradients_is_kept(tmp_path):
    """In a file, too; that of another precision has none."""
    network, optimizer = stepped()
    assert stored_scale(training_state(network, optimizer, 512.0)) == 512.0
    assert stored_scale(training_state(network, optimizer)) is None  # as in older models
    state = training_state(network, optimizer, 512.0)
    path = random_bundle(SMALL, state=state).save(tmp_path / "m.unet3d")
    assert stored_scale(ModelBundle.load(path).state) == 512.0


def test_weights_outside_the_head_that_depend_on_the_classes_are_named():
    network, other = (UNet3D(SMALL.model_copy(update={"n_classes": n})) for n in (2, 3))
    weights = network.state_dict()
    other.add_module("last", other.head)
    misnamed = weights | {"last.weight": weights["head.weight"]}
    with pytest.raises(RunFailedError, match=r"'last.weight' of the network 'unet'.*'head\.'"):
        load_weights(other, misnamed, head=False)
