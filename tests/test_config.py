"""Settings: bounded, described, and the same after a trip through JSON."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from napari_unet3d.config import (
    BACKGROUND,
    FIRST_CLASS,
    PALETTE,
    UNLABELLED,
    AugmentationConfig,
    ClassInfo,
    PredictionConfig,
    TrainingConfig,
    default_class,
)
from napari_unet3d.networks.unet import PAPER_NETWORK, UNetConfig

MODELS = (ClassInfo, UNetConfig, AugmentationConfig, TrainingConfig, PredictionConfig)
every_model = pytest.mark.parametrize("model", MODELS)


def example(model):
    return default_class(2) if model is ClassInfo else model()


def test_label_values_are_those_of_the_documentation():
    assert (UNLABELLED, BACKGROUND, FIRST_CLASS) == (0, 1, 2)


@every_model
def test_every_setting_is_described(model):
    """The form, the help and the documentation show these texts."""
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name}"
        assert field.description.endswith((".", ")")), f"{model.__name__}.{name}"


@every_model
def test_nothing_is_lost_in_json(model):
    config = example(model)
    assert model.model_validate_json(config.model_dump_json()) == config


@every_model
def test_settings_cannot_be_changed_and_know_no_strangers(model):
    config = example(model)
    name = next(iter(model.model_fields))
    with pytest.raises(ValidationError):
        setattr(config, name, getattr(config, name))
    with pytest.raises(ValidationError):
        model.model_validate(config.model_dump() | {"typo": 1})


@every_model
def test_settings_can_be_compared_and_hashed(model):
    assert len({example(model), example(model)}) == 1


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (ClassInfo, {"value": 1, "name": "a", "color": "#000000"}),
        (ClassInfo, {"value": 256, "name": "a", "color": "#000000"}),
        (ClassInfo, {"value": 2, "name": "", "color": "#000000"}),
        (ClassInfo, {"value": 2, "name": "a", "color": "red"}),
        (UNetConfig, {"widths": ()}),
        (UNetConfig, {"widths": (64, 128)}),
        (UNetConfig, {"kernels": ((3, 3, 3),) * 3}),
        (UNetConfig, {"kernels": ((3, 3, 3),) * 3 + ((3, 2, 3),)}),
        (UNetConfig, {"strides": ((2, 2, 0),) * 3}),
        (UNetConfig, {"n_classes": 1}),
        (UNetConfig, {"in_channels": 0}),
        (UNetConfig, {"normalization": "group"}),
        (AugmentationConfig, {"rotation": 181}),
        (AugmentationConfig, {"scaling": 1.0}),
        (AugmentationConfig, {"noise": -0.1}),
        (AugmentationConfig, {"spatial_share": 1.1}),
        (TrainingConfig, {"seconds": 0}),
        (TrainingConfig, {"seconds": None}),
        (TrainingConfig, {"seconds": float("nan")}),
        (TrainingConfig, {"iterations": 0}),
        (TrainingConfig, {"seed": -1}),
        (TrainingConfig, {"device": "gpu"}),
        (TrainingConfig, {"precision": "fp8"}),
        (TrainingConfig, {"preset": "best"}),
        (TrainingConfig, {"patch_shape": (8, 8)}),
        (TrainingConfig, {"batch_size": 0}),
        (TrainingConfig, {"learning_rate": 0}),
        (TrainingConfig, {"weight_averaging": 1.0}),
        (TrainingConfig, {"dice_share": 1.5}),
        (PredictionConfig, {"overlap": 0.8}),
        (PredictionConfig, {"overlap": -0.1}),
        (PredictionConfig, {"memory": 0}),
        (PredictionConfig, {"device": "cuda:"}),
    ],
)
def test_what_makes_no_sense_is_refused(model, given):
    base = example(model).model_dump()
    model.model_validate(base)  # precondition
    with pytest.raises(ValidationError):
        model.model_validate(base | given)


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:12"])
def test_devices(device):
    assert TrainingConfig(device=device).device == device
    assert PredictionConfig(device=device).device == device


def test_iterations_take_the_place_of_seconds():
    assert TrainingConfig(iterations=5, seconds=None).seconds is None


def test_default_network_is_the_paper_s():
    assert UNetConfig(in_channels=3, n_classes=3) == PAPER_NETWORK
    assert PAPER_NETWORK.widths == (64, 128, 256, 512)
    assert PAPER_NETWORK.padding == "valid"


def test_default_classes_have_colors_that_differ():
    classes = [default_class(v) for v in range(2, 2 + len(PALETTE))]
    assert len({c.color for c in classes}) == len(PALETTE)
    assert len(PALETTE) >= 20
    assert default_class(2 + len(PALETTE)).color == classes[0].color
    assert default_class(3).name == "class 3"
    assert default_class(3, "lumen").name == "lumen"


@pytest.mark.parametrize("ends", [(99.9, 0.1), (50, 50), (-1, 99), (1, 101), (1, float("nan"))])
def test_clip_percentiles_rise(ends):
    assert TrainingConfig().clip_percentiles == (0.1, 99.9)
    assert TrainingConfig(clip_percentiles=(0, 100)).clip_percentiles == (0, 100)
    with pytest.raises(ValidationError, match=r"clip_percentiles must be two rising numbers"):
        TrainingConfig(clip_percentiles=ends)


def _as_seen(colors, vision):
    """CIELAB of colors #rrggbb, (n, 3), for a kind of color vision (Machado et al. 2009)."""
    import numpy as np
    from skimage.color import rgb2lab

    rgb = np.array([[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in colors])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.array(vision).T, 0, 1)
    return rgb2lab(
        np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    )


NORMAL = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
DEUTERANOPIA = (
    (0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413),
    (-0.011820, 0.042940, 0.968881),
)  # fmt: skip
PROTANOPIA = (
    (0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216),
    (-0.003882, -0.048116, 1.051998),
)  # fmt: skip


@pytest.mark.parametrize(
    ("vision", "n", "least"),
    [
        (NORMAL, len(PALETTE), 12),
        (DEUTERANOPIA, 8, 11),
        (PROTANOPIA, 8, 11),
        (DEUTERANOPIA, len(PALETTE), 8),
        (PROTANOPIA, len(PALETTE), 8),
    ],
)
def test_class_colors_can_be_told_apart(vision, n, least):
    from itertools import combinations

    from skimage.color import deltaE_ciede2000

    lab = _as_seen(PALETTE[:n], vision)
    assert min(deltaE_ciede2000(a, b) for a, b in combinations(lab, 2)) > least


def test_the_first_colors_are_those_of_the_pictures():
    assert PALETTE[:3] == ("#e69f00", "#56b4e9", "#009e73")
