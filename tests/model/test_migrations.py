"""Headers of older format versions."""

from __future__ import annotations

from typing import Any

import pytest

from napari_unet3d.model.migrations import FORMAT_VERSION, MIGRATIONS, migrate


def test_each_older_version_has_a_migration() -> None:
    assert len(MIGRATIONS) == FORMAT_VERSION - 1


def test_the_current_header_stays() -> None:
    header = {"calibration": {"pixels": 0.5}, "unit": "µm"}
    assert migrate(header, FORMAT_VERSION) == header


@pytest.mark.parametrize(("version", "kept"), [(1, False), (2, False), (3, True), (4, True)])
def test_a_calibration_before_version_3_is_dropped(version: int, kept: bool) -> None:
    header = {"calibration": {"pixels": 0.5}, "unit": "µm"}
    migrated = migrate(header, version)
    assert ("calibration" in migrated) == kept
    assert migrated["unit"] == "µm"
    assert "calibration" in header, "the given header is left as it is"


def test_networks_before_version_5_are_u_nets() -> None:
    header = {"network": {"widths": [4, 8]}}
    assert migrate(header, 4)["network"] == {"kind": "unet", "widths": [4, 8]}
    assert header == {"network": {"widths": [4, 8]}}
    assert migrate(header, 5) == header


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
@pytest.mark.parametrize("header", [{}, {"network": None, "calibration": []}])
def test_a_damaged_header_is_left_to_the_checks_that_follow(
    version: int, header: dict[str, Any]
) -> None:
    migrate(header, version)
