"""The form is one TrainingConfig; no viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from napari_unet3d.config import AugmentationConfig, PredictionConfig, TrainingConfig
from napari_unet3d.errors import BadInputError
from napari_unet3d.widgets.parts.devices import DeviceChoice
from napari_unet3d.widgets.parts.duration import DurationBox, read_duration
from napari_unet3d.widgets.parts.training_form import TrainingForm


@pytest.fixture
def form(qtbot: Any) -> TrainingForm:
    form = TrainingForm()
    qtbot.addWidget(form)
    return form


def test_the_defaults_are_the_models(form: TrainingForm) -> None:
    assert form.value() == TrainingConfig()


def test_any_settings_come_back_as_they_were_set(form: TrainingForm) -> None:
    config = TrainingConfig(
        preset="paper",
        seconds=7200,
        device="cpu",
        iterations=500,
        seed=7,
        precision="fp32",
        normalization="instance",
        patch_shape=(16, 64, 64),
        batch_size=2,
        learning_rate=0.003,
        schedule="polynomial",
        class_weights="balanced",
        weight_averaging=0.5,
        augmentation=AugmentationConfig(flips=False, rotation=90, gamma=0),
    )
    form.setValue(config)
    assert form.value() == config


def test_every_advanced_field_has_its_description_and_bounds(form: TrainingForm) -> None:
    editors = form.advanced.editors
    elsewhere = {"preset", "seconds", "device"}
    assert set(editors) == set(TrainingConfig.model_fields) - elsewhere
    for name, editor in editors.items():
        assert editor.toolTip() == TrainingConfig.model_fields[name].description
    assert editors["batch_size"].box.maximum() == 64  # type: ignore[attr-defined]
    assert editors["dice_share"].box.maximum() == 1  # type: ignore[attr-defined]


def test_how_a_model_is_applied_is_kept_beside_how_it_is_trained(form: TrainingForm) -> None:
    assert form.prediction_config() == PredictionConfig()
    form.advanced.editors["precision"].setValue("fp32")
    assert form.prediction_config().precision == "fp32"  # that of the training
    form.prediction.editors["precision"].setValue("int8")
    form.prediction.editors["mirrors"].setValue(True)
    config, prediction = form.value(), form.prediction_config()
    assert (prediction.precision, prediction.mirrors) == ("int8", True)
    form.setValue(TrainingConfig())
    assert form.prediction_config() == PredictionConfig()
    form.setValue(config, prediction)
    assert (form.value(), form.prediction_config()) == (config, prediction)


def test_what_cannot_be_used_is_named(form: TrainingForm) -> None:
    form.advanced.editors["patch_shape"].setValue((8, "many", 8))
    with pytest.raises(BadInputError, match="patch shape"):
        form.value()


def test_percentiles_beyond_the_scale_are_named_in_our_words(form: TrainingForm) -> None:
    form.advanced.editors["clip_percentiles"].setValue((1, 101))
    with pytest.raises(BadInputError, match=r"clip_percentiles .* within 0…100, got 1, 101"):
        form.value()


def test_iterations_take_the_place_of_the_budget(form: TrainingForm) -> None:
    form.advanced.editors["iterations"].setValue(10)
    assert not form.budget.isEnabled()
    assert "10" in form.budget.text()
    form.advanced.editors["iterations"].setValue(None)
    assert form.budget.isEnabled()


def test_continuing_needs_a_last_run(form: TrainingForm) -> None:
    index = form.start_from.findData("last")
    item = form.start_from.model().item(index)  # type: ignore[union-attr]
    assert not item.isEnabled()
    form.set_last_run(True)
    assert item.isEnabled()
    form.start_from.setCurrentIndex(index)
    assert form.starting_point() == "last"
    form.set_starting_file(Path("/tmp/kidney.unet3d"))
    assert form.starting_point() == Path("/tmp/kidney.unet3d")
    assert "kidney.unet3d" in form.start_from.currentText()
    form.set_starting_file(None)
    assert form.starting_point() == "nothing"


def test_an_unused_gpu_is_told(form: TrainingForm) -> None:
    form.set_devices([DeviceChoice("auto", "Automatic: CPU")], "A GPU is here, but …")
    assert not form.device_note.isHidden()
    assert form.value().device == "auto"
    form.set_devices([DeviceChoice("auto", "a"), DeviceChoice("cuda:0", "b")], None)
    assert form.device_note.isHidden()
    assert form.device.findData("cuda:0") == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90 s", 90), ("1.5 min", 90), ("1:30 min", 90), ("2 h", 7200), ("2:30 h", 9000),
     ("1:30", 90), ("5m", 300), ("", None), ("soon", None), ("3 days", None)],
)  # fmt: skip
def test_durations_as_people_type_them(text: str, seconds: float | None) -> None:
    assert read_duration(text) == seconds


def test_the_budget_steps_through_sensible_times(qtbot: Any) -> None:
    box = DurationBox()
    qtbot.addWidget(box)
    box.setValue(15)
    seen = []
    for _ in range(12):
        box.stepBy(1)
        seen.append(box.text())
    assert seen[:4] == ["30 s", "1 min", "2 min", "5 min"]
    assert seen[-1] == "8 h"
    box.stepBy(-1)
    assert box.value() == 4 * 3600


def test_the_form_has_a_value_whenever_it_tells_of_a_change(qtbot: Any) -> None:
    form = TrainingForm()
    qtbot.addWidget(form)
    devices: list[str] = []
    form.valueChanged.connect(lambda: devices.append(form.value().device))
    form.set_devices([DeviceChoice("auto", "Automatic: CPU"), DeviceChoice("cpu", "CPU")], None)
    assert devices == ["auto"]
    assert form.summary() == "Balanced · 1 min"
