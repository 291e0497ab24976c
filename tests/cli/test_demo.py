"""`demo`: the whole path on the built-in stack."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet3d.cli.tasks import demonstrating
from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.data.samples import tubules


@pytest.fixture
def small(monkeypatch):
    """The sample of the demo, but smaller."""
    monkeypatch.setattr(demonstrating, "tubules", lambda: tubules((16, 48, 48)))


def test_demo_writes_its_three_files(run, tmp_path, small):
    outcome = run("demo", "-o", tmp_path / "a" / "b", "--seconds", "0.2", "--device", "cpu",
                  "--no-window")  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert not outcome.opened
    names = {"segmentation.ome.tif", "model.unet3d", "overlay.png"}
    assert {p.name for p in (tmp_path / "a" / "b").iterdir()} == names
    assert all(name in outcome.out for name in names)
    assert "IoU" in outcome.out
    found = read_labels(tmp_path / "a" / "b" / "segmentation.ome.tif")
    assert found.voxel_size == pytest.approx((1.0, 0.5, 0.5))
    assert set(np.unique(found.data[...])) <= {0, 2, 3}


def test_demo_replaces_its_own_files_only(run, tmp_path, small):
    demo = ["demo", "--seconds", "0.2", "--device", "cpu", "--no-window", "-o"]
    for name in ("model.unet3d", "overlay.png"):
        mine = tmp_path / f"of mine {name}" / name
        mine.parent.mkdir()
        mine.write_text("precious")
        outcome = run(*demo, mine.parent)
        assert outcome.code == 2
        assert name in outcome.err
        assert mine.read_text() == "precious"
    for _ in range(2):
        assert run(*demo, tmp_path / "demo").code == 0


def test_demo_into_a_file(run, tmp_path):
    (tmp_path / "file").write_text("")
    outcome = run("demo", "-o", tmp_path / "file" / "demo", "--seconds", "1")
    assert outcome.code == 2
    assert "demo" in outcome.err
