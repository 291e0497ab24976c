"""Stacks of several domains train one network in turns; a new one leaves the others alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toy_stack import IMAGE, TRAINED, TRUTH, annotate, make_trainer, run

from napari_unet3d.config import PredictionConfig, TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.sampling.patches import PatchSampler
from napari_unet3d.training.domains import DomainStack
from napari_unet3d.training.trainer import Trainer


def dark_and_bright() -> tuple[np.ndarray, np.ndarray]:
    """Two channels, and three classes: the bar, its upper half, and what is around them."""
    truth = TRUTH.copy()
    truth[:, 8:16][truth[:, 8:16] == 2] = 3
    image = np.stack([300 - IMAGE, IMAGE + 40 * (truth == 3)])
    return image.astype(np.float32), truth


def stack(name: str) -> DomainStack:
    if name == "bars":
        return DomainStack(name, Volume(IMAGE), SparseAnnotation.from_labels(annotate(*TRAINED)))
    image, truth = dark_and_bright()
    labels = annotate(*TRAINED, truth=truth)
    return DomainStack(name, Volume(image, axes="CZYX"), SparseAnnotation.from_labels(labels))


def config(**changes: Any) -> TrainingConfig:
    given = {"device": "cpu", "precision": "fp32", "iterations": 4, "patch_shape": (8, 32, 32)}
    return TrainingConfig(**(given | changes))


def train(*names: str, start_from: ModelBundle | None = None, **changes: Any) -> ModelBundle:
    stacks = [stack(name) for name in names]
    trainer = Trainer.of_domains(stacks, config(**changes), start_from=start_from)
    bundle = drain(trainer.run())
    assert bundle is not None
    return bundle


def segmented(bundle: ModelBundle, name: str, truth_of: str | None = None) -> np.ndarray:
    of = stack(truth_of or name)
    result = np.zeros(of.volume.shape, np.uint8)
    probabilities = np.zeros((len(bundle.of_domain(name).classes) + 1, *of.volume.shape), "f4")
    settings = PredictionConfig(device="cpu", precision="fp32")
    drain(predict(bundle.of_domain(name), of.volume, result, probabilities=probabilities,
                  config=settings))  # fmt: skip
    return probabilities


def test_domains_take_turns(monkeypatch):
    drawn = []
    batch = PatchSampler.batch

    def spy(self, number, *rest):
        drawn.append((number, self.source.volume.n_channels))
        return batch(self, number, *rest)

    monkeypatch.setattr(PatchSampler, "batch", spy)
    bundle = train("bars", "halves")
    assert drawn == [(0, 1), (1, 2), (2, 1), (3, 2)]
    assert bundle.domains == ("bars", "halves")
    assert bundle.calibration.pixels == 0
    assert not bundle.pixels


def test_a_model_of_domains_is_saved_and_segments_the_stacks_of_each(tmp_path):
    saved = train("bars", "halves").save(tmp_path / "m.unet3d")
    bundle = ModelBundle.load(saved)
    assert [len(bundle.of_domain(n).classes) for n in bundle.domains] == [1, 2]
    assert segmented(bundle, "bars").shape[0] == 2
    assert segmented(bundle, "halves").shape[0] == 3
    again = bundle.of_domain("halves").of_domain("bars")
    assert again.network == bundle.network
    assert again.active_domain() == bundle.active_domain()
    assert again.other_domains == bundle.other_domains
    with pytest.raises(BadInputError, match=r"no domain 'mitochondria'.*'bars', 'halves'"):
        bundle.of_domain("mitochondria")


def test_domains_learn():
    bundle = train("bars", "halves", iterations=120, learning_rate=1e-2)
    for name, truth in (("bars", TRUTH), ("halves", dark_and_bright()[1])):
        found = segmented(bundle, name).argmax(0)
        values = np.array([0, *(c.value for c in bundle.of_domain(name).classes)])
        agree = values[found] == truth
        assert agree[4:7].mean() > (0.8 if name == "halves" else 0.85), name


def test_a_new_domain_leaves_the_others_as_they_are_to_the_last_bit():
    old = train("bars")
    grown = train("halves", start_from=old, iterations=6)
    assert grown.domains == ("bars", "halves")
    assert grown.network.active == 1
    assert np.array_equal(segmented(grown, "bars"), segmented(old, "bars"))
    shared = [n for n in old.weights if ".d0." not in n]
    assert shared
    assert all((grown.weights[n] == old.weights[n]).all() for n in old.weights)
    own = [n for n in grown.weights if n not in old.weights]
    assert all(".d1." in n for n in own)
    fresh = train("halves", start_from=old, iterations=1, learning_rate=1e-9)
    assert any((grown.weights[n] != fresh.weights[n]).any() for n in own), "it has learned"


def test_a_new_domain_may_have_fewer_channels_and_is_clipped_anew():
    old = train("halves")
    grown = train("bars", start_from=old, iterations=1)
    assert (old.network.in_channels, grown.network.in_channels) == (2, 1)
    assert grown.intensity.n_channels == 1


def test_a_domain_can_be_trained_further():
    old = train("bars", "halves")
    further = make_trainer(start=old.of_domain("bars"), iterations=2, patch_shape=(8, 32, 32))
    _, bundle = run(further)
    assert bundle.domains == ("bars", "halves")
    assert bundle.other_domains == old.other_domains


@pytest.mark.parametrize(
    ("names", "reason"), [(("bars", "bars"), "a name of its own"), ((), "There is no stack")]
)
def test_domains_need_names_of_their_own(names, reason):
    with pytest.raises(BadInputError, match=reason):
        Trainer.of_domains([stack(n) for n in names], config())


def test_what_cannot_get_a_new_domain():
    old = train("bars")
    with pytest.raises(BadInputError, match="another name than 'bars'"):
        train("bars", start_from=old)
    with pytest.raises(BadInputError, match="2 stacks were given"):
        train("bars", "halves", start_from=old)
    _, other = run(make_trainer(iterations=1))
    with pytest.raises(BadInputError, match="kind 'unet', which knows no domains"):
        train("halves", start_from=other)
