"""Models that older programs wrote still open, and predict what they did.

`version_4.unet3d` was made by the program of format version 4: 80 iterations on the slices z=1 and
z=4 of the stack in `stack.npz`, from a network of 4 and 8 channels. Those of versions 2 and 3 were
made alike by the programs of their time, and saved without the state for resuming. The predictions
are those of the program of version 4, in fp32 on a CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from napari_unet3d.config import AugmentationConfig, PredictionConfig, TrainingConfig
from napari_unet3d.data.annotation import SparseAnnotation
from napari_unet3d.data.volume import Volume
from napari_unet3d.events import drain
from napari_unet3d.model.bundle import ModelBundle
from napari_unet3d.model.mixture import Calibration
from napari_unet3d.model.settings import read_settings
from napari_unet3d.prediction.predictor import predict
from napari_unet3d.training.trainer import Trainer

DATA = Path(__file__).parent / "data"
VERSIONS = [2, 3, 4]


@pytest.fixture(scope="module")
def stack() -> tuple[Volume, np.ndarray]:
    """The stack and its labels."""
    with np.load(DATA / "stack.npz") as arrays:
        return Volume(arrays["image"], voxel_size=(2.0, 1.0, 1.0), unit="µm"), arrays["labels"]


def _load(version: int) -> ModelBundle:
    return ModelBundle.load(DATA / f"version_{version}.unet3d")


@pytest.mark.parametrize("version", VERSIONS)
def test_it_opens(version: int) -> None:
    bundle = _load(version)
    assert [(c.value, c.name, c.output) for c in bundle.classes] == [
        (2, "blob", None),
        (3, "rim", None),
    ]
    assert bundle.network.widths == (4, 8)
    assert bundle.unit == "µm"
    assert bundle.record.iterations == 80
    assert bundle.record.training_config.seed == 3
    assert bundle.record.config_notes == ()
    assert bool(bundle.state) == (version == 4)


def test_a_pixel_classifier_that_saw_other_features_is_left_out() -> None:
    bundle = _load(2)
    assert bundle.build_pixels() is None
    assert bundle.calibration == Calibration()
    assert _load(3).build_pixels() is not None


@pytest.mark.parametrize("version", VERSIONS)
def test_it_predicts_what_it_did(version: int, stack: tuple[Volume, np.ndarray]) -> None:
    bundle, (volume, _) = _load(version), stack
    labels = np.zeros(volume.shape, np.uint8)
    probabilities = np.zeros((3, *volume.shape), np.float32)
    config = PredictionConfig(device="cpu", precision="fp32")
    list(predict(bundle, volume, labels, probabilities=probabilities, config=config))
    with np.load(DATA / f"version_{version}_prediction.npz") as expected:
        np.testing.assert_allclose(probabilities, expected["probabilities"], atol=2e-3)
        second, first = np.sort(probabilities, 0)[1:]
        clear = first - second > 4e-3  # rounding may decide the others on another processor
        assert clear.mean() > 0.98
        np.testing.assert_array_equal(labels[clear], expected["labels"][clear])


def test_it_is_resumed(stack: tuple[Volume, np.ndarray]) -> None:
    bundle, (volume, labels) = _load(4), stack
    config = TrainingConfig(
        iterations=83, device="cpu", precision="fp32", patch_shape=(4, 16, 16), batch_size=2, seed=3
    )
    annotation = SparseAnnotation(labels, bundle.classes)
    resumed = drain(Trainer(volume, annotation, config, start_from=bundle, resume=True).run())
    assert resumed is not None
    assert resumed.record.iterations == 83
    assert resumed.record.voxels_seen > bundle.record.voxels_seen
    step = "optimizer/head.bias/step"
    assert resumed.state[step] == bundle.state[step] + 3
    assert any((t != bundle.weights[n]).any() for n, t in resumed.weights.items())


class _AugmentationOfTomorrow(AugmentationConfig):
    bleaching: float = Field(0.1, ge=0, le=1)
    noise: float = Field(0.05, ge=0, le=0.08)


def _config_of_tomorrow() -> type[BaseModel]:
    """One setting was added, one renamed, one bounded more tightly, one lost a choice."""
    fields: dict[str, Any] = {n: (f.annotation, f) for n, f in TrainingConfig.model_fields.items()}
    del fields["learning_rate"]
    fields["warm_up"] = int, Field(5, ge=0)
    fields["peak_rate"] = (
        float | None,
        Field(None, gt=0, le=10, json_schema_extra={"formerly": ["learning_rate"]}),
    )
    fields["iterations"] = int | None, Field(None, ge=1, le=50)
    fields["schedule"] = Literal["linear", "polynomial"], "linear"
    fields["augmentation"] = _AugmentationOfTomorrow, _AugmentationOfTomorrow()
    return create_model("ConfigOfTomorrow", __config__=ConfigDict(extra="forbid"), **fields)


def test_its_settings_are_read_after_the_settings_have_changed() -> None:
    stored = _load(4).record.config
    assert stored["learning_rate"] == 0.01
    tomorrow = _config_of_tomorrow()
    with pytest.raises(ValidationError, match="4 validation errors"):
        tomorrow.model_validate(stored)
    read, notes = read_settings(tomorrow, stored)
    settings = read.model_dump()
    changed_in_group = {"bleaching": 0.1, "noise": 0.08}
    augmentation = stored["augmentation"]
    assert isinstance(augmentation, dict)
    assert settings.pop("augmentation") == augmentation | changed_in_group
    expected = {"warm_up": 5, "peak_rate": 0.01, "iterations": 50, "schedule": "linear"}
    assert {name: settings.pop(name) for name in expected} == expected
    today = TrainingConfig.model_validate(stored).model_dump(include=set(settings))
    assert settings == today, "all other settings are as they were stored"
    changed = [note.split('"')[1] for note in notes]
    assert changed == ["augmentation.noise", "iterations", "schedule"]


def test_a_model_opens_and_is_saved_with_settings_of_another_version(tmp_path: Path) -> None:
    bundle = _load(4)
    config = bundle.record.config | {"of the future": 1, "dice_share": 7}
    record = bundle.record.model_copy(update={"config": config})
    saved = bundle.model_copy(update={"record": record}).save(tmp_path / "m.unet3d")
    found = ModelBundle.load(saved)
    assert found.record.config == config
    assert found.record.training_config.dice_share == 1
    assert len(found.record.config_notes) == 2
