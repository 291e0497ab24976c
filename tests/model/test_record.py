"""What a model remembers of its training."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from napari_unet3d.config import TrainingConfig
from napari_unet3d.model.record import TrainingRecord


def _record(**changes: Any) -> TrainingRecord:
    given = {
        "config": TrainingConfig(seconds=60),
        "iterations": 7,
        "seconds": 1.5,
        "device": "cpu",
        "precision": "bf16",
        "patch_shape": (8, 32, 32),
    }
    return TrainingRecord(**(given | changes))


@pytest.mark.parametrize(
    ("changes", "starved"),
    [
        ({"iterations": 99}, True),
        ({"iterations": 100}, False),
        ({"iterations": 5, "iterations_before": 200}, False),
        ({"iterations": 0, "completed": False}, True),
        ({"iterations": 7, "config": TrainingConfig(iterations=7)}, False),  # as asked for
        ({"iterations": 7, "config": TrainingConfig(iterations=900), "completed": False}, True),
    ],
)
def test_a_network_of_few_iterations_is_starved(changes: dict[str, Any], starved: bool) -> None:
    assert _record(**changes).starved == starved


def test_settings_are_kept_as_they_were_stored() -> None:
    stored = {"iterations": 5, "seed": 3, "of the future": [1, {"a": None}]}
    record = _record(config=stored)
    assert record.config == stored
    again = TrainingRecord.model_validate_json(record.model_dump_json())
    assert again == record
    assert again.training_config == TrainingConfig(iterations=5, seed=3)
    (note,) = again.config_notes
    assert "of the future" in note


def test_settings_of_this_version_come_back_as_they_were() -> None:
    config = TrainingConfig(iterations=5, patch_shape=(4, 16, 16), learning_rate=1e-3)
    record = _record(config=config)
    assert record.training_config == config
    assert record.config_notes == ()


@pytest.mark.parametrize("config", [None, [], "balanced"])
def test_settings_must_have_names(config: Any) -> None:
    with pytest.raises(ValidationError, match="config"):
        _record(config=config)
