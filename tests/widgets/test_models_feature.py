"""A folder of models in the window: the card, segmenting, training further; gates as layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog

from bundles import random_bundle
from napari_unet3d.config import default_class
from napari_unet3d.data.slices import SliceRef
from napari_unet3d.model.domains import DomainFacts
from napari_unet3d.networks.attention import AttentionUNetConfig
from napari_unet3d.networks.unet import UNetConfig
from napari_unet3d.networks.universal import Domain, UniversalUNetConfig
from napari_unet3d.session.session import NamedModel
from napari_unet3d.widgets.viewer.layers import role_of

LEVELS = {"n_classes": 2, "widths": (4, 8, 8), "kernels": ((1, 3, 3), (3, 3, 3), (3, 3, 3))}
LEVELS |= {"strides": ((1, 2, 2), (1, 2, 2)), "normalization": "batch"}
SMALL = UNetConfig(**LEVELS, padding="same")


def feature(dock: Any, name: str) -> Any:
    return next(f for f in dock.features if type(f).__name__ == name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random_bundle(SMALL).save(tmp_path / "cells.unet3d")
    random_bundle(SMALL, seed=1).save(tmp_path / "others.unet3d")
    (tmp_path / "broken.unet3d").write_bytes(b"no model")
    (tmp_path / "notes.txt").write_text("no model either")
    return tmp_path


def pick(qtbot: Any, models: Any, name: str) -> None:
    (item,) = models.list.findItems(name, Qt.MatchFlag.MatchExactly)
    models.list.setCurrentItem(item)
    qtbot.waitUntil(lambda: not models.status.text().startswith("Reading"), timeout=10_000)


@pytest.mark.needs_window
def test_pick_read_and_segment(
    dock: Any, qtbot: Any, folder: Path, stack: np.ndarray, monkeypatch: Any
) -> None:
    models = feature(dock, "Models")
    models.bench.viewer.add_image(stack, name="bar")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(folder))
    models.folder_button.click()
    names = [models.list.item(i).text() for i in range(models.list.count())]
    assert names == ["broken.unet3d", "cells.unet3d", "others.unet3d"]
    pick(qtbot, models, "broken.unet3d")
    assert "broken.unet3d" in models.status.text()
    assert not models.apply_button.isEnabled()
    pick(qtbot, models, "cells.unet3d")
    assert "Voxels of 1 × 1 × 1" in models.card.toPlainText()
    qtbot.waitUntil(models.apply_button.isEnabled, timeout=3000)
    assert models.bench.annotator.shown() is not None
    qtbot.waitUntil(lambda: not models.trial.isHidden(), timeout=20_000)
    assert str(models.bench.annotator.shown()) in models.trial_caption.text()
    width, height = models.trial.pixmap().width(), models.trial.pixmap().height()
    assert width <= 300 and height <= 150
    models.apply_button.click()
    qtbot.waitUntil(lambda: not models.bench.runner.is_running(), timeout=60_000)
    roles = [role_of(layer) for layer in models.bench.viewer.layers]
    assert "prediction" in roles
    assert models.bench.session.value().model.name == "cells.unet3d"
    pick(qtbot, models, "others.unet3d")
    models.further_button.click()
    assert models.bench.form.start_from.currentData() == "last"
    assert models.bench.session.value().model.name == "others.unet3d"
    vars(models).pop("bench", None)


@pytest.mark.needs_window
def test_a_model_of_several_domains_lets_choose_the_kind_of_stack(dock: Any) -> None:
    kind = feature(dock, "KindOfStack")
    kind.bench.session.update(model=NamedModel(random_bundle(SMALL), "plain"))
    assert kind.widget.isHidden()
    network = UniversalUNetConfig(
        n_classes=2,
        domains=(Domain(name="cells"), Domain(name="vessels", n_classes=3)),
        **{name: LEVELS[name] for name in ("widths", "kernels", "strides")},
    )
    vessels = DomainFacts(
        name="vessels",
        classes=(default_class(2, "vein"), default_class(3, "artery")),
        intensity=random_bundle(SMALL).intensity,
        voxel_size=(2.0, 1.0, 1.0),
        unit="µm",
    )
    bundle = random_bundle(network, weights=network.build().state_dict(), other_domains=(vessels,))
    kind.bench.session.update(model=NamedModel(bundle, "both"))
    assert not kind.widget.isHidden()
    assert [kind.box.itemText(i) for i in range(kind.box.count())] == ["cells", "vessels"]
    kind.box.setCurrentIndex(1)
    kind.box.activated.emit(1)
    now = kind.bench.session.value().model
    assert [c.name for c in now.bundle.classes] == ["vein", "artery"]
    assert now.name == "both"
    assert "artery" in dock.results.text.text()
    kind.box.activated.emit(0)
    assert kind.bench.session.value().model.bundle is bundle  # nothing of it is lost
    vars(kind).pop("bench", None)


@pytest.mark.needs_window
def test_gates_are_layers(dock: Any, qtbot: Any, stack: np.ndarray, painted: np.ndarray) -> None:
    gates = feature(dock, "Gates")
    viewer = gates.bench.viewer
    viewer.add_image(stack, name="bar")
    qtbot.waitUntil(lambda: gates.bench.annotator.layer() is not None, timeout=5000)
    gates.bench.session.update(model=NamedModel(random_bundle(SMALL), "plain"))
    assert gates.widget.isHidden()
    network = AttentionUNetConfig(**LEVELS)
    bundle = random_bundle(network, weights=network.build().state_dict())
    gates.bench.session.update(model=NamedModel(bundle, "attentive"))
    assert not gates.widget.isHidden()
    gates.bench.annotator.jump(SliceRef(0, 4))
    gates.check_box.setChecked(True)
    qtbot.waitUntil(lambda: len(gates.layers) == 1, timeout=20_000)
    (layer,) = gates.layers
    assert layer.name == "bar gate 1 in view"
    values = np.asarray(layer.data[4])
    assert values.shape == stack.shape[1:]
    assert 0 < values.min() <= values.max() < 1
    gates.check_box.setChecked(False)
    assert not gates.layers
    assert layer not in viewer.layers
    vars(gates).pop("bench", None)
