"""Slices that the network does not see at first, and what they tell of its weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from toy_stack import IMAGE, TRUTH, annotate, make_trainer, run, same_tensors, stop_after

from napari_unet3d.data.slices import SliceRef
from napari_unet3d.events import RoundFinished
from napari_unet3d.sampling.patches import PatchSampler
from napari_unet3d.training import support as support_module
from napari_unet3d.training import unseen
from napari_unet3d.training.control import TrainingControl
from napari_unet3d.training.trainer import Trainer

SLICES = tuple(SliceRef(0, z) for z in (2, 5, 9))


@pytest.fixture(autouse=True)
def _short_trainings_hide_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unseen, "_FEWEST_ITERATIONS", 1)
    monkeypatch.setattr(unseen, "_FEWEST_VOXELS", 1)


def toy(*refs: SliceRef, truth: np.ndarray = TRUTH, **changes: Any) -> Trainer:
    return make_trainer(
        annotate(*refs, truth=truth), **({"start": None, "iterations": 8} | changes)
    )


def hidden_by_iteration(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:
    """The painted slices z that a batch cannot show, in each iteration."""
    found: list[set[int]] = []
    batch = PatchSampler.batch

    def spy(self: PatchSampler, *given: Any) -> Any:
        whole = self.annotation.training_crop(0, (0, 0, 0), self.source.volume.shape)
        shown = {int(z) for z in np.flatnonzero(whole.any(axis=(1, 2)))}
        assert shown == {s.ref.index for s in self.slices}
        found.append({r.index for r in SLICES} - shown)
        return batch(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(PatchSampler, "batch", spy)
        run(trainer)
    return found


def test_the_middle_slice_is_hidden_for_half_of_the_time(monkeypatch):
    assert hidden_by_iteration(toy(*SLICES), monkeypatch) == [{5}] * 4 + [set()] * 4


def test_the_hidden_slice_is_judged_before_it_is_shown(monkeypatch):
    """Beside a classifier that has not seen it either."""
    judged, fitted = [], []
    weight_on_unseen, fit = support_module.weight_on_unseen, support_module.fit_pixels
    monkeypatch.setattr(
        support_module,
        "fit_pixels",
        lambda samples, *rest, **how: (
            fitted.append({s.ref.index for s in samples}) or fit(samples, *rest, **how)
        ),
    )

    def spy(network, pixels, target, slices):
        judged.append(len(target))
        assert len(network) == len(pixels) == len(target)
        return weight_on_unseen(network, pixels, target, slices)

    monkeypatch.setattr(support_module, "weight_on_unseen", spy)
    _, bundle = run(toy(*SLICES))
    assert judged == [TRUTH[5].size]
    assert fitted == [{2, 5, 9}, {2, 9}]
    assert 0 <= bundle.record.unseen_weight <= 1
    assert "unseen/hidden" not in bundle.state


def test_what_unseen_slices_say_decides_the_weight(monkeypatch):
    weights = []
    for best in (0.0, 1.0):
        monkeypatch.setattr(support_module, "weight_on_unseen", lambda *_, best=best: best)
        _, bundle = run(toy(*SLICES))
        calibration = bundle.calibration
        weights.append(calibration.network / (calibration.network + calibration.pixels))
    assert weights[0] == 0 < 0.2 < weights[1]


def without_bar(*hidden: int) -> np.ndarray:
    truth = TRUTH.copy()
    truth[list(hidden)] = 0
    return truth


@pytest.mark.parametrize(
    ("given", "hidden"),
    [
        ({"truth": without_bar(5)}, {2}),  # nothing there tells how well bars are found
        ({"truth": without_bar(2, 9)}, set()),  # the network would learn from no bar
        ({"pixel_classifier": False}, set()),
    ],
)
def test_slices_that_cannot_be_spared_are_shown(monkeypatch, given, hidden):
    assert hidden_by_iteration(toy(*SLICES, **given), monkeypatch) == [hidden] * 4 + [set()] * 4


def test_two_slices_are_too_few(monkeypatch):
    found = hidden_by_iteration(toy(*SLICES[:2]), monkeypatch)
    assert found == [{9}] * 8  # which is not painted


def test_a_short_training_needs_all_slices(monkeypatch):
    monkeypatch.setattr(unseen, "_FEWEST_ITERATIONS", 9)
    assert hidden_by_iteration(toy(*SLICES), monkeypatch) == [set()] * 8


def test_a_small_slice_tells_too_little(monkeypatch):
    monkeypatch.setattr(unseen, "_FEWEST_VOXELS", TRUTH[5].size + 1)
    assert hidden_by_iteration(toy(*SLICES), monkeypatch) == [set()] * 8


def test_a_model_that_is_trained_further_keeps_what_is_known_of_its_stack(monkeypatch):
    """It may have seen all slices, so none is hidden."""
    _, model = run(toy(*SLICES))
    assert hidden_by_iteration(toy(*SLICES, start=model), monkeypatch) == [set()] * 8
    known = model.record.model_copy(update={"unseen_weight": 0.9})
    model = model.model_copy(update={"record": known})
    _, further = run(toy(*SLICES, start=model, iterations=2))
    assert further.record.unseen_weight == 0.9
    _, elsewhere = run(make_trainer(annotate(*SLICES), 300 - IMAGE, start=model, iterations=2))
    assert elsewhere.record.unseen_weight is None


def test_in_rounds_the_network_sees_all_slices(monkeypatch):
    """A round must show soon what was painted."""
    trainer = toy(*SLICES)
    hidden: list[set[int]] = []
    batch = PatchSampler.batch

    def spy(self: PatchSampler, *given: Any) -> Any:
        hidden.append({r.index for r in SLICES} - {s.ref.index for s in self.slices})
        return batch(self, *given)

    monkeypatch.setattr(PatchSampler, "batch", spy)
    for event in trainer.run_rounds(first_round=1.0):
        if isinstance(event, RoundFinished):
            break
    assert hidden and not set().union(*hidden)


def test_stopped_while_the_slice_is_judged_it_is_judged_when_resumed(monkeypatch):
    control = TrainingControl()
    _, straight = run(toy(*SLICES))

    def stop(*given: Any) -> Any:
        control.stop()
        return fit(*given, crosses=False)

    fit = support_module.fit_pixels
    monkeypatch.setattr(
        support_module,
        "fit_pixels",
        lambda *given, crosses=True: fit(*given) if crosses else stop(*given),
    )
    _, begun = run(toy(*SLICES), control)
    assert begun.record.iterations == 4 and begun.record.unseen_weight is None
    monkeypatch.setattr(support_module, "fit_pixels", fit)
    _, resumed = run(toy(*SLICES, start=begun, resume=True))
    assert same_tensors(resumed.weights, straight.weights)
    assert resumed.record.unseen_weight == straight.record.unseen_weight


def test_hidden_slices_of_a_resumed_training_are_shown_where_the_others_are_gone():
    _, begun = run(toy(*SLICES), *stop_after(2, "stop"))
    others = toy(SLICES[1], start=begun, resume=True)
    _, resumed = run(others)
    assert resumed.record.iterations == 8
    damaged = begun.model_copy(update={"state": begun.state | {"unseen/hidden": torch.zeros(2)}})
    assert run(toy(*SLICES, start=damaged, resume=True))[1].record.iterations == 8


@pytest.mark.parametrize("at", [2, 6])
def test_stopped_and_resumed_is_as_if_never_stopped(at):
    _, straight = run(toy(*SLICES))
    _, begun = run(toy(*SLICES), *stop_after(at, "stop"))
    assert ("unseen/hidden" in begun.state) == (at == 2)
    assert (begun.record.unseen_weight is None) == (at == 2)
    _, resumed = run(toy(*SLICES, start=begun, resume=True))
    assert same_tensors(resumed.weights, straight.weights)
    assert same_tensors(resumed.state, straight.state)
    assert resumed.calibration == straight.calibration
    assert resumed.record.unseen_weight == straight.record.unseen_weight
