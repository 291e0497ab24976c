"""The union of networks: told apart by kind, open for another one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ValidationError

import napari_unet3d
from napari_unet3d import networks
from napari_unet3d.config import TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.volume import Volume
from napari_unet3d.errors import BadInputError
from napari_unet3d.events import drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.networks import NETWORKS, AnyNetwork, kind_of, network_of_kind
from napari_unet3d.networks.architecture import Architecture
from napari_unet3d.networks.geometry import next_fitting
from napari_unet3d.networks.planning import normalizable
from napari_unet3d.networks.unet import UNet3D, UNetConfig
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.training.trainer import Trainer
from own_networks import OWN
from toy_networks import Branches, Plain


class Holder(BaseModel):
    network: AnyNetwork


@pytest.fixture
def with_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a line in `networks/__init__.py` does."""
    monkeypatch.setattr(networks, "NETWORKS", (*NETWORKS, Plain, Branches))


def test_every_network_has_its_own_kind_and_describes_its_settings():
    kinds = [kind_of(network) for network in NETWORKS]
    assert len(set(kinds)) == len(kinds)
    assert TrainingConfig().network in kinds
    for network in NETWORKS:
        assert network_of_kind(kind_of(network)) is network
        assert all(field.description for field in network.model_fields.values())


def depends_on_classes(network: type[Architecture]) -> set[str]:
    """Parameters and buffers whose shapes depend on the number of classes."""
    with torch.device("meta"):
        two, three = (network().for_classes(n).build().state_dict() for n in (2, 3))
    return {n for n in two.keys() | three.keys() if n not in two or n not in three
            or two[n].shape != three[n].shape}  # fmt: skip


class _Misnamed(Branches):
    head = "head."


@pytest.mark.parametrize("network", [*OWN, Plain, Branches])
def test_only_the_head_depends_on_the_number_of_classes(network):
    names = depends_on_classes(network)
    assert names, f"nothing of {network.__name__} depends on the number of classes"
    others = sorted(n for n in names if not n.startswith(network().head_prefixes))
    assert not others, f"name these '{network.head}…', or set `head` of {network.__name__}"


def test_a_head_with_another_name_is_found():
    assert not any(n.startswith(_Misnamed.head) for n in depends_on_classes(_Misnamed))


@pytest.mark.parametrize("network", [*OWN, Plain, Branches])
def test_a_sample_does_not_depend_on_the_others_of_its_batch(network):
    torch.manual_seed(0)
    # The paper's preset is left out: it normalizes by the statistics of the batch.
    config = network.plan(
        "balanced", (1, 1, 1), (32, 32, 32), in_channels=1, n_classes=3, accelerator=False
    )
    module = config.build().eval()
    tile = normalizable(config, next_fitting(config, (1, 1, 1)))
    batch = torch.randn(2, config.in_channels, *tile)
    with torch.inference_mode():
        together, alone = module(batch)[:1], module(batch[:1])
    assert torch.allclose(together, alone, atol=1e-4), "a batch must not change a prediction"


def test_an_unknown_kind_is_refused_with_the_kinds_there_are(with_toys):
    with pytest.raises(BadInputError, match=r"'resnet'.*'unet', .*'plain', 'branches'"):
        network_of_kind("resnet")
    with pytest.raises(ValidationError, match=r"'resnet'.*'unet', .*'plain', 'branches'"):
        Holder.model_validate({"network": {"kind": "resnet"}})


@pytest.mark.parametrize("kind", [None, 3, ["unet"], {}])
def test_a_kind_that_is_no_word_is_refused(kind):
    with pytest.raises(ValidationError, match=r"Choose one of 'unet'"):
        Holder.model_validate({"network": {"kind": kind}})


@pytest.mark.parametrize("value", [None, "unet", 5, []])
def test_what_describes_no_network_is_refused(value):
    with pytest.raises(ValidationError, match="must be a JSON object"):
        Holder.model_validate({"network": value})


@pytest.mark.parametrize(
    "network", [UNetConfig(n_classes=3), Plain(width=6, padded=False), Branches(in_channels=2)]
)
def test_a_network_comes_back_from_json_whole(network, with_toys):
    holder = Holder(network=network)
    assert holder.network is network
    assert Holder.model_validate_json(holder.model_dump_json()) == holder
    assert Holder.model_validate(holder.model_dump()) == holder


def test_a_description_without_a_kind_is_refused():
    """Files of the time when the U-Net was the only network get their kind as they are opened."""
    description = UNetConfig(widths=(4, 8), strides=((1, 2, 2),), kernels=((1, 3, 3),) * 2)
    with pytest.raises(ValidationError, match="with a 'kind'"):
        Holder.model_validate({"network": description.model_dump(exclude={"kind"})})


def test_what_is_wrong_with_a_network_is_named_with_its_place():
    with pytest.raises(ValidationError) as error:
        Holder.model_validate({"network": {"kind": "unet", "widths": [1]}})
    assert error.value.errors()[0]["loc"] == ("network", "widths", 0)


def test_a_network_knows_its_configuration():
    config = UNetConfig(widths=(4, 8), strides=((1, 2, 2),), kernels=((1, 3, 3),) * 2)
    network = config.build()
    assert isinstance(network, UNet3D)
    assert network.config is config
    assert any(name.startswith(config.head) for name in network.state_dict())


def test_public_names():
    assert napari_unet3d.UNetConfig is UNetConfig
    assert napari_unet3d.UNet3D is UNet3D
    assert napari_unet3d.NetworkConfig is networks.NetworkConfig


# --- a network that the product has never heard of ------------------------------------------


def bright_cube(classes: int = 1) -> tuple[Volume, SparseAnnotation]:
    """A bright cube in noise, one slice of it painted; the last column is another class."""
    truth = np.zeros((8, 24, 24), np.uint8)
    truth[2:6, 8:18, 6:16] = 2
    if classes == 2:
        truth[:, :, -1] = 3
    image = np.random.default_rng(0).normal(100, 5, truth.shape) + 40.0 * truth
    labels = np.zeros_like(truth)
    labels[4] = np.maximum(truth[4], 1)
    return Volume.from_array(image.astype(np.float32)), SparseAnnotation.from_labels(labels)


def train(
    network: str, classes: int = 1, settings: dict[str, Any] | None = None, **more: Any
) -> ModelBundle:
    config = TrainingConfig(
        network=network,
        network_settings=settings or {},
        iterations=3,
        device="cpu",
        pixel_classifier=False,
    )
    return drain(Trainer(*bright_cube(classes), config, **more).run())


def test_settings_of_the_network_take_the_place_of_the_planned_ones():
    bundle = train("unet_plus_plus", settings={"deep_supervision": False, "normalization": "none"})
    assert bundle.network.normalization == "none"
    assert not bundle.network.deep_supervision
    fine_tuned = train("unet", start_from=bundle)
    assert fine_tuned.network == bundle.network
    assert 'normalization="none"' in fine_tuned.record.training_config.network_settings


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"depth": 3}, r"'unet' has no setting 'depth'. It has: widths, strides, "),
        ({"widths": [8] * 7}, r"Settings of the network 'unet': 7 widths need 6 strides"),
        ({"normalization": "group"}, r"'normalization' cannot be 'group': use one of 'batch', "),
        ({"deep_supervision": 3}, r"'deep_supervision' cannot be 3: it must be true or false"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings, reason):
    with pytest.raises(BadInputError, match=reason):
        train("unet", settings=settings)


@pytest.mark.parametrize(
    ("network", "settings", "reason"),
    [
        ("attention_unet", {"gate": 1}, "leave the setting 'gate' out|has gates"),
        ("universal_unet", {"active": 0}, "no setting 'active'"),
        ("universal_unet", {"domains": []}, "no setting 'domains'"),
    ],
)
def test_settings_that_nobody_chooses(network, settings, reason):
    with pytest.raises(BadInputError, match=reason):
        train(network, settings=settings)


def test_an_unknown_network_is_refused_before_the_training():
    with pytest.raises(BadInputError, match=r"'resnet'. Choose one of 'unet'"):
        train("resnet")


@pytest.mark.parametrize("kind", [*map(kind_of, OWN), "plain", "branches"])
def test_another_network_trains_is_saved_and_segments(kind, with_toys, tmp_path):
    path = train(kind).save(tmp_path / "m.unet3d")
    bundle = ModelBundle.load(path)
    assert bundle.network.kind == kind == bundle.record.training_config.network
    volume, _ = bright_cube()
    labels = np.full(volume.shape, 7, np.uint8)
    for _ in predict(bundle, volume, labels):
        pass
    assert set(np.unique(labels)) <= {0, 2}


def test_another_network_can_be_fine_tuned_for_other_classes(with_toys):
    first = train("branches")
    second = train("unet", classes=2, start_from=first)
    assert second.network == first.network.model_copy(update={"n_classes": 3})
    assert second.record.training_config.network == "branches", "it stays what it was"
    assert second.weights["out.weight"].shape[0] == 3


def test_another_network_can_be_resumed(with_toys):
    first = train("plain")
    config = TrainingConfig(iterations=5, device="cpu", pixel_classifier=False)
    trainer = Trainer(*bright_cube(), config, start_from=first, resume=True)
    assert trainer.plan.first_iteration == 3


def test_a_stack_of_four_channels_and_classes_trains_and_segments():
    """As in BraTS: four kinds of MRI, three kinds of tumor, and a network with multiple skips."""
    rng = np.random.default_rng(0)
    truth = np.zeros((16, 32, 32), np.uint8)
    truth[4:12, 6:26, 6:26], truth[6:10, 10:22, 10:22], truth[7:9, 13:19, 13:19] = 2, 3, 4
    image = np.stack([rng.normal(100, 5, truth.shape) + 30 * (truth == c) for c in (1, 2, 3, 4)])
    labels = np.zeros_like(truth)
    labels[8] = np.maximum(truth[8], 1)
    volume = Volume.from_array(image.astype(np.float32), axes="CZYX")
    config = TrainingConfig(
        network="multi_skip_unet",
        iterations=30,
        device="cpu",
        precision="fp32",
        pixel_classifier=False,
        learning_rate=0.01,
    )
    bundle = drain(Trainer(volume, SparseAnnotation.from_labels(labels), config).run())
    assert (bundle.network.in_channels, bundle.network.n_classes) == (4, 4)
    found = np.zeros(truth.shape, np.uint8)
    drain(predict(bundle, volume, found))
    ious = [
        ((found == c) & (truth == c)).sum() / ((found == c) | (truth == c)).sum() for c in (2, 3, 4)
    ]
    assert min(ious) > 0.1, ious
