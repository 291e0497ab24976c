"""Settings as a user writes them."""

from __future__ import annotations

import pytest

from napari_unet3d.config import TrainingConfig, written
from napari_unet3d.data.written import read_settings, read_value
from napari_unet3d.errors import BadInputError


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("[1, 2]", [1, 2]), ("true", True), ("mean", "mean"), ("[" * 9999, "[" * 9999)],
)
def test_a_value_is_json_or_a_text(text, value):
    assert read_value(text) == value


def test_settings_are_read_as_they_are_written():
    settings = {"widths": [16, 32], "deep_supervision": True, "orientation": "mean"}
    assert read_settings(written(settings)) == settings
    assert read_settings("orientation=mean ;widths=[16,32];  deep_supervision = true;") == settings
    assert read_settings("  ") == {}
    assert TrainingConfig(network_settings=settings).network_settings == written(settings)


@pytest.mark.parametrize("text", ["pruned", "=3", "pruned=", "a b=3", "pruned=1; 7"])
def test_what_is_no_setting_is_named(text):
    with pytest.raises(BadInputError, match=r"is no setting\. Write name=value"):
        read_settings(text)
