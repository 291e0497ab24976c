"""The benchmark of expected IoUs: its case, and the share of intervals that it tells."""

from __future__ import annotations

from typing import Any

import pytest

from benchmark_scripts import imported
from napari_unet3d.data.samples import tubules
from napari_unet3d.pixels import fit


@pytest.fixture(scope="module")
def script() -> Any:
    with imported(("protocol", "variants", "expected")) as scripts:
        yield scripts.expected


def test_a_case_and_its_table(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr(fit, "SCHEDULE", fit.Schedule(30, 0.1))
    sample = tubules((8, 40, 40))
    record = script.run_case(sample.image, sample.truth, 2)
    assert len(record["slices"]) == 2
    assert record["unseen"][0][2] < record["stack"][0][2]
    assert 0 <= record["ece"] <= 1 and 0 <= record["forest_ece"] <= 1
    *_, last = script.table({"tubules, 2": record}).splitlines()
    held = sum(r.holds for r in script.rows({"tubules, 2": record}))
    assert last.startswith(f"| all | {held} of {len(sample.classes)} ")


def test_an_interval_holds_what_lies_in_it(script: Any) -> None:
    expected = script.ExpectedIoU(0.8, 0.7, 0.9, 3)
    assert script.Row("a", 3, expected, 0.72).holds
    assert not script.Row("a", 3, expected, 0.95).holds
