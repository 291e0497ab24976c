""" "Apply to folder…" in the true window: results, failures, cancelling."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from bundles import random_bundle
from napari_unet3d.data.io.outputs import create_output
from napari_unet3d.data.io.reading import read_labels
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.session import segmenting
from napari_unet3d.session.session import NamedModel

pytestmark = pytest.mark.needs_window
SHAPE = (8, 24, 26)
SMALL = UNetConfig(
    n_classes=2,
    widths=(4, 8),
    strides=((1, 2, 2),),
    kernels=((3, 3, 3),) * 2,
    padding="same",
    normalization="instance",
)


@pytest.fixture
def stacks(tmp_path: Path) -> Path:
    for i, name in enumerate(("a.tif", "b.tif", "c.tif")):
        image = np.random.default_rng(i).random(SHAPE).astype(np.float32)
        if name == "b.tif":
            image[:] = 1  # constant: refused
        with create_output(tmp_path / name, SHAPE, np.float32, "ZYX", (2, 1, 1), "µm") as out:
            out[...] = image
    return tmp_path


@pytest.fixture
def feature(dock: Any, qtbot: Any) -> Any:
    feature = next(f for f in dock.features if type(f).__name__ == "FolderFeature")
    assert not feature.folder_button.isEnabled()
    model = NamedModel(random_bundle(SMALL), "test")
    feature.bench.session.update(model=model)
    dock.results_section.setExpanded(True)
    for other in (dock.annotate_section, dock.train_section):
        other.setExpanded(False)
    qtbot.wait(200)
    yield feature
    vars(feature).pop("bench", None)  # pytest keeps it until the end: let go of the viewer


def click(qtbot: Any, button: Any) -> None:
    assert button.isVisible() and button.isEnabled(), button.text()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def test_every_stack_of_a_folder(
    feature: Any, dock: Any, qtbot: Any, stacks: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(stacks))
    click(qtbot, feature.folder_button)
    assert not feature.folder_button.isEnabled()
    qtbot.waitUntil(lambda: feature.folder_button.isEnabled(), timeout=60_000)
    first, second, third = feature.stacks.states()
    assert second == "failed"
    assert first.endswith(" s") and third.endswith(" s")
    assert "have the same value" in feature.stacks.item(1, 1).toolTip()
    assert feature.text.text().startswith("2 of 3 stacks segmented, 1 failed.")
    assert dock.run_bar.status.text() == "2 of 3 stacks segmented, 1 failed."
    labels = read_labels(stacks / "segmented" / "a segmented.ome.tif")
    assert labels.shape == SHAPE
    assert labels.voxel_size == (2, 1, 1)

    # Once more: a new folder, nothing is replaced.
    files = [str(stacks / "c.tif")]
    monkeypatch.setattr(QFileDialog, "getOpenFileNames", lambda *_: (files, ""))
    click(qtbot, feature.files_button)
    qtbot.waitUntil(lambda: feature.files_button.isEnabled(), timeout=60_000)
    assert [p.name for p in (stacks / "segmented 2").iterdir()] == ["c segmented.ome.tif"]


def test_cancel_and_an_empty_folder(
    feature: Any, dock: Any, qtbot: Any, stacks: Path, monkeypatch: Any
) -> None:
    gate = threading.Event()
    read_volume = segmenting.read_volume

    def slowly(path: Path) -> Any:
        gate.wait(10)
        return read_volume(path)

    monkeypatch.setattr(segmenting, "read_volume", slowly)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(stacks))
    click(qtbot, feature.folder_button)
    click(qtbot, feature.run.cancel_button)
    gate.set()
    qtbot.waitUntil(lambda: feature.folder_button.isEnabled(), timeout=60_000)
    assert feature.text.text().startswith("Cancelled")
    assert feature.stacks.states()[-1] == "—"
    empty = stacks / "empty"
    empty.mkdir()
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(empty))
    click(qtbot, feature.folder_button)
    assert "holds no stack" in dock.run_bar.message.text()
